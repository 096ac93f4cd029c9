//! The agent itself: opens what a member's state folder holds, starts gossip,
//! ledger and transport, makes one view of what they say, and has DNS, tunnel
//! and certificates follow it. Everything outside comes in as a [`Host`].

mod commands;
mod follow;
mod loading;
mod peer;
mod refusals;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_proto::{
    crypto::Sealed,
    head::{Announcement, Head, HeadTable, Known, WireGuard},
    id::{NodeId, resolver_v4},
    ledger::{Batch, Content, Outcome},
    rpc::method,
    view::MeshView,
    zone::Zone,
};
use ipnet::IpNet;
use tokio::sync::{broadcast, watch};

use self::{
    commands::admit,
    follow::{
        acme, crl, dialer, holds, membership, names, overlay, page, program_certs, tunnel,
        tunnel_keys, view,
    },
    peer::{answers, handler, requests},
};
pub use self::{
    commands::recovery::{Offline, OfflineError},
    follow::holds::parse as parse_holds,
    loading::Loading,
};

use crate::{
    acme::Acme,
    control::{Control, ControlError},
    dns::{Dns, DnsServer, ListenError},
    gossip::Gossip,
    host::key_files::{self as keys, KeyFileError},
    host::{Host, Mono, keys::NodeKey, state_folder},
    ledger::{
        Council, Ledger, LedgerError,
        budget::Deliveries,
        client::{Client, SubmitError},
        follow::{Gossiped, Nudge, start as follow_ledger},
    },
    listen::{Class, Sources},
    quic::{Settings, Transport, TransportError},
    services::{Registry, ServiceError, Spec},
    tls::TlsError,
    tunnel::{BackendChoice, Tunnel, TunnelError, TunnelSettings, public_key},
};

/// What an agent is told besides what its state folder holds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The QUIC endpoint's address: the first of these that can be had.
    pub listen: Vec<SocketAddr>,
    /// Endpoints to announce before those of the host's own interfaces.
    pub advertise: Vec<SocketAddr>,
    /// The tunnel interface's name.
    pub interface: String,
    /// WireGuard's UDP port.
    pub tunnel_port: u16,
    /// Largest packet through the tunnel, in bytes.
    pub mtu: u32,
    /// What carries the tunnel's packets.
    pub backend: BackendChoice,
    /// Where DNS is answered; the resolver addresses when empty.
    pub dns_listen: Vec<SocketAddr>,
    /// Name servers for other names; the host's own when empty.
    pub dns_upstream: Vec<SocketAddr>,
    /// Where the install page is served; this node's overlay addresses and
    /// loopback when empty.
    pub page_listen: Vec<SocketAddr>,
    /// Its port there.
    pub page_port: u16,
    /// How long one CA node leads, of ledger time.
    pub ca_term: Duration,
    /// The newest rules of the ledger that it goes along with.
    pub known_rules: u32,
    /// The port that ACME is served on.
    pub acme_port: u16,
    /// Where ACME is served; the resolver's addresses when empty.
    pub acme_listen: Vec<SocketAddr>,
    /// Networks of this host that count as the host itself.
    pub local_sources: Vec<IpNet>,
    /// Whether this host's containers reach other nodes, as this node.
    pub containers_reach_mesh: bool,
    /// Services from the configuration.
    pub services: Vec<Spec>,
}

/// The version that this agent announces.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The lock that two agents on one folder can't both hold.
const LOCK: &str = "lock";

/// Why an agent can't start. The state folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Another agent holds the folder.
    #[error("another agent runs on {0}; stop it first, or use another --dir")]
    Locked(String),
    /// The disk.
    #[error("{0} can't be used: {1}")]
    Io(String, std::io::Error),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger had to be fetched again.
    #[error("the ledger can't be fetched again: {0}")]
    Refetch(#[from] crate::enroll::refetch::Unfetched),
    /// It has left.
    #[error("{said}; to have it in a mesh again, move {folder} away and `agent join`")]
    Left {
        /// What its folder says.
        said: String,
        /// The folder.
        folder: String,
    },
    /// This machine isn't a member by its own ledger.
    #[error(
        "this machine is not a member of the mesh any more: move {0} away and `agent join` with a new invite"
    )]
    NotMember(String),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The QUIC endpoint.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No address for the QUIC endpoint.
    #[error("no address to listen on; set `listen` in the configuration")]
    NoListen,
    /// The tunnel.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// DNS.
    #[error(transparent)]
    Dns(#[from] ListenError),
    /// A service of the configuration.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// A running agent. Clones are the same agent.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: Config,
    pub host: Host,
    pub me: NodeId,
    pub key: Arc<dyn NodeKey>,
    pub ledger: Ledger,
    pub client: Client,
    pub transport: Transport,
    pub gossip: Gossip,
    pub nudge: Nudge,
    pub answers: answers::Answers,
    pub services: Registry,
    pub dns: Arc<Dns>,
    pub tunnel: Arc<dyn Tunnel>,
    pub view: watch::Sender<Arc<MeshView>>,
    pub names: names::Names,
    /// Whether this machine has left the mesh.
    pub left: watch::Sender<bool>,
    pub holds: holds::Holds,
    /// Certificates of this machine's programs.
    pub renewals: program_certs::Renewals,
    /// Machines that ask this node to be let in.
    pub requests: requests::Requests,
    /// What members deliver for the ledger.
    pub deliveries: Mutex<Deliveries>,
    /// Requests at any node that this one has answered.
    pub admissions: admit::Admissions,
    pub tunnel_key: tunnel_keys::OwnKey,
    /// How far the tunnel is as planned.
    pub progress: watch::Sender<tunnel::Progress>,
    pub started: Mono,
    /// The newest ledger stamp, for TLS.
    pub stamp_ms: Arc<AtomicU64>,
    pub membership: membership::Membership,
    /// The ACME server, once it is open.
    pub acme: OnceLock<Arc<Acme>>,
    /// Why ACME isn't served.
    pub acme_trouble: watch::Sender<Option<String>>,
    /// The issuers' revocation lists.
    pub lists: crl::Lists,
    pub page: page::Page,
    pub enforced: overlay::Enforced,
    server: Mutex<Option<DnsServer>>,
    own_addresses: Mutex<BTreeSet<IpAddr>>,
    _lock: Box<dyn Send + Sync>,
}

impl Agent {
    /// Opens the state folder and starts the agent in the background.
    ///
    /// # Errors
    /// [`BuildError`]; what was started before the error has ended.
    pub async fn build(config: Config, host: Host) -> Result<Self, BuildError> {
        Self::build_telling(config, host, &watch::Sender::default()).await
    }

    /// As [`Agent::build`]; `loading` is set if the ledger has to be fetched
    /// again first, which takes until another node is reached.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build_telling(
        config: Config,
        host: Host,
        loading: &watch::Sender<Option<Loading>>,
    ) -> Result<Self, BuildError> {
        let folder = host.disk.root().display().to_string();
        let lock = host
            .disk
            .lock(Path::new(LOCK))
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::WouldBlock => BuildError::Locked(folder.clone()),
                _ => BuildError::Io(folder.clone(), error),
            })?;
        let said = state_folder::left(&*host.disk).await;
        if let Some(said) = said.map_err(|error| BuildError::Io(folder.clone(), error))? {
            return Err(BuildError::Left { said, folder });
        }
        let key = keys::require_identity(&host).await?;
        let me = key.public().node_id();
        let ledger = loading::open(&host, &config, &key, loading).await?;
        let state = ledger.state();
        let member = state
            .members
            .get(&me)
            .ok_or_else(|| BuildError::NotMember(folder.clone()))?
            .clone();
        let stamp_ms = Arc::new(AtomicU64::new(state.stamp_ms));
        let tls = membership::tls(&state, &key, &stamp_ms, &host)?;

        let (private_key, earlier_key) = tunnel_keys::at_start(&host, &state, me).await?;
        let tunnel = host
            .tunnels
            .open(TunnelSettings {
                interface: config.interface.clone(),
                private_key,
                earlier_key,
                listen_port: config.tunnel_port,
                mtu: config.mtu,
                backend: config.backend,
            })
            .await?;
        let holds = holds::Holds::load(&*host.disk).await;
        let renewals = program_certs::Renewals::load(&*host.disk).await;
        let renewals = renewals.map_err(|error| BuildError::Io(folder.clone(), error))?;
        let membership = Arc::new(handler::LedgerMembership {
            ledger: ledger.clone(),
            held: holds.held(),
            keys: host.keys.clone(),
        });
        let transport = open_transport(&host, &config, |listen| {
            Ok(Settings {
                me,
                listen,
                server: Some(tls.server()?),
                client: tls.client()?,
                membership: membership.clone(),
                open_to_strangers: [method::JOIN, method::RENEW].into(),
            })
        })?;
        ledger.set_term(config.ca_term);
        ledger.set_known_rules(config.known_rules);
        ledger.connect(Arc::new(transport.clone()));
        let services = Registry::load(host.clone(), config.services.clone()).await?;
        services.set_local_addresses(vec![IpAddr::V4(member.ipv4), IpAddr::V6(member.ipv6)]);
        let tunnel_key = public_key(&private_key);
        let announcement = Announcement {
            version: VERSION.into(),
            quic: endpoints(&config, &host, &transport).await,
            wireguard: announced(&config, tunnel_key),
            services: services.instances(),
            holds: holds.own(),
            rules: config.known_rules,
        };
        let nudge = Nudge::default();
        let gossip = Gossip::start(
            &host,
            key.clone(),
            Arc::new(Gossiped {
                ledger: ledger.clone(),
                nudge: nudge.clone(),
            }),
            transport.clone(),
            announcement,
        )
        .await
        .map_err(|error| BuildError::Io(folder, error))?;
        follow_ledger(&host, me, ledger.clone(), transport.clone(), nudge.clone());
        let client = Client::new(
            &host,
            key.clone(),
            ledger.clone(),
            transport.clone(),
            nudge.clone(),
        );
        let started = host.clock.now();
        let view = Arc::new(view::first_view(me, &ledger, &gossip, started));
        holds.note(&view.held);
        let first = view.clone();
        let dns = Arc::new(Dns::new(
            host.clock.clone(),
            host.tasks.clone(),
            move || Zone::build(&first.zone_input()),
            state.ipv4,
            state.mesh.ula(),
        ));
        let followed = ledger.clone();
        dns.unsure_while(move || followed.behind().is_some());
        let inner = Arc::new(Inner {
            membership: membership::Membership::default(),
            lists: crl::Lists::default(),
            page: page::Page::default(),
            enforced: overlay::Enforced::default(),
            config,
            host,
            me,
            key,
            ledger,
            client,
            transport,
            gossip,
            nudge,
            answers: answers::Answers::default(),
            services,
            dns,
            tunnel,
            view: watch::Sender::new(view),
            names: names::Names::default(),
            left: watch::Sender::new(false),
            holds,
            renewals,
            requests: requests::Requests::default(),
            deliveries: Mutex::default(),
            admissions: admit::Admissions::default(),
            tunnel_key: tunnel_keys::OwnKey::new(tunnel_key),
            progress: watch::Sender::default(),
            started,
            stamp_ms,
            acme: OnceLock::new(),
            acme_trouble: watch::Sender::new(None),
            server: Mutex::new(None),
            own_addresses: Mutex::default(),
            _lock: lock,
        });
        let agent = Self { inner };
        agent.start().await?;
        Ok(agent)
    }

    /// Brings up what follows the view, then answers peers.
    async fn start(&self) -> Result<(), BuildError> {
        let inner = &self.inner;
        overlay::look(inner).await;
        overlay::enforce(inner, true).await;
        // The resolver's addresses exist once the interface has them.
        inner
            .tunnel
            .apply(&inner.view.borrow().tunnel_plan())
            .await?;
        overlay::enforce(inner, true).await;
        inner.look_at_addresses().await;
        view::publish_zone(inner);
        if inner.host.net.has_sockets() {
            let server = view::serve_dns(inner)?;
            *inner.server.lock().unwrap_or_else(|e| e.into_inner()) = Some(server);
            crl::load(inner).await;
            page::start(inner);
            inner.host.tasks.spawn(crl::run(inner.clone()));
        }
        inner
            .transport
            .serve(Arc::new(handler::PeerHandler(inner.clone())));
        let tasks = &inner.host.tasks;
        tasks.spawn(view::follow_changes(inner.clone()));
        tasks.spawn(tunnel::follow(inner.clone()));
        tasks.spawn(tunnel_keys::run(inner.clone()));
        tasks.spawn(view::follow_host(inner.clone()));
        tasks.spawn(dialer::run(inner.clone()));
        tasks.spawn(names::run(inner.clone()));
        tasks.spawn(holds::run(inner.clone()));
        tasks.spawn(membership::run(inner.clone()));
        acme::start(inner)
            .await
            .map_err(|error| BuildError::Io(inner.host.disk.root().display().to_string(), error))?;
        tasks.spawn(program_certs::run(inner.clone()));
        let services = inner.services.clone();
        tasks.spawn(async move { services.run().await });
        Ok(())
    }

    /// What this agent concludes now, and each time after.
    pub fn view(&self) -> watch::Receiver<Arc<MeshView>> {
        self.inner.view.subscribe()
    }

    /// The newest head held here of each other member, as it was signed.
    pub fn heads(&self) -> Vec<(Head, Sealed)> {
        let signed = |known: &Known| (known.head.clone(), known.sealed.clone());
        let heads = |table: &HeadTable| table.iter().map(|(_, known)| signed(known)).collect();
        self.inner.gossip.read(heads)
    }

    /// Reads the heads held here as they are now; gossip stands still meanwhile.
    pub fn read_heads<T>(&self, f: impl FnOnce(&HeadTable) -> T) -> T {
        self.inner.gossip.read(f)
    }

    /// Batches of the ledger as they become durable here, from now on.
    pub fn batches(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.inner.ledger.batches()
    }

    /// Nodes whose key was seen in use twice (S10).
    pub fn conflicts(&self) -> BTreeSet<NodeId> {
        self.inner.gossip.conflicts()
    }

    /// The newest head of this node.
    pub fn own_head(&self) -> Option<Head> {
        self.inner.gossip.own_head()
    }

    /// The DNS service of this agent.
    pub fn dns(&self) -> Arc<Dns> {
        self.inner.dns.clone()
    }

    /// This node's part in deciding the ledger, now and each time after.
    pub fn council(&self) -> watch::Receiver<Council> {
        self.inner.ledger.council()
    }

    /// Has the ledger decide what this node asks of it.
    ///
    /// # Errors
    /// [`SubmitError`] after `patience`.
    pub async fn ask(&self, content: &Content, patience: Duration) -> Result<Outcome, SubmitError> {
        let client = &self.inner.client;
        let request = client.request(content, self.inner.now_ms());
        client.submit(&request, patience).await
    }

    /// What a person or a script can ask and tell.
    pub fn control(&self) -> Arc<dyn Control> {
        Arc::new(commands::AgentControl(self.inner.clone()))
    }

    /// Takes the services of the configuration, all of them, in place of those that
    /// it had before.
    ///
    /// # Errors
    /// When one makes no sense, or can't be stored; all are as they were then.
    pub async fn configure_services(&self, services: Vec<Spec>) -> Result<(), ControlError> {
        commands::configure_services(&self.inner, services).await
    }

    /// Waits until this machine has left the mesh: there is nothing to run for
    /// any more.
    pub async fn left(&self) {
        let mut left = self.inner.left.subscribe();
        let _ = left.wait_for(|left| *left).await;
    }

    /// Says goodbye to peers and takes down what was brought up. A tunnel that
    /// the kernel carries stays, so that routes survive a restart, unless this
    /// machine has left.
    pub async fn stop(&self) {
        self.inner.gossip.stop().await;
        self.inner
            .server
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        self.inner.transport.close().await;
        let state = self.inner.tunnel.observe().await;
        let stays = |backend| backend == "kernel" && !*self.inner.left.borrow();
        if state.is_ok_and(|state| !stays(state.backend))
            && let Err(error) = self.inner.tunnel.down().await
        {
            tracing::warn!(%error, "the tunnel could not be taken down");
        }
        self.inner.host.tasks.end().await;
        // Last, as a task would put it back.
        if *self.inner.left.borrow() {
            overlay::give_up(&self.inner).await;
        }
    }
}

impl Inner {
    /// What this node holds for the ledger's time now, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.client.now_ms(&self.gossip.peer_clocks())
    }

    /// Where DNS is answered.
    pub fn dns_addresses(&self) -> Vec<SocketAddr> {
        let server = self.server.lock().unwrap_or_else(|e| e.into_inner());
        server
            .as_ref()
            .map(|server| server.addresses().to_vec())
            .unwrap_or_default()
    }

    /// The host's own addresses, as they were last looked at.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.own_addresses.lock().unwrap_or_else(|e| e.into_inner());
        own.clone()
    }

    /// The addresses at which each machine has the mesh's resolver.
    pub fn resolvers(&self) -> [IpAddr; 2] {
        let state = self.ledger.state();
        [
            IpAddr::V4(resolver_v4(state.ipv4)),
            IpAddr::V6(state.mesh.resolver_v6()),
        ]
    }

    /// Whether a source is this machine, or counts as it. Packets from an
    /// address of this machine's own come over loopback only.
    pub fn is_local(&self, source: IpAddr) -> bool {
        source.is_loopback()
            || self.resolvers().contains(&source)
            || self.own_addresses().contains(&source)
            || self
                .config
                .local_sources
                .iter()
                .any(|net| net.contains(&source))
    }

    /// What an address is to whatever listens here. Members are those of the
    /// zone that is being served.
    pub fn listen_sources(self: &Arc<Self>) -> Arc<dyn Sources> {
        let inner = Arc::downgrade(self);
        Arc::new(move |address: IpAddr| match inner.upgrade() {
            Some(inner) if inner.is_local(address) => Class::Local,
            Some(inner) if inner.dns.is_internal(address) => Class::Member,
            _ => Class::Other,
        })
    }

    /// Looks at the host's own addresses.
    pub async fn look_at_addresses(&self) {
        let own = self.host.net.local_addresses().await;
        *self.own_addresses.lock().unwrap_or_else(|e| e.into_inner()) =
            own.into_iter().map(|(_, ip)| ip).collect();
    }

    /// Has TLS judge by the newest stamp.
    pub fn note_stamp(&self) {
        self.stamp_ms
            .store(self.ledger.state().stamp_ms, Ordering::Relaxed);
    }
}

/// Opens the endpoint on the first address that can be had; the first one's
/// error is the one that tells.
fn open_transport(
    host: &Host,
    config: &Config,
    settings: impl Fn(SocketAddr) -> Result<Settings, TlsError>,
) -> Result<Transport, BuildError> {
    let mut first = None;
    for listen in &config.listen {
        match Transport::open(host, settings(*listen)?) {
            Ok(transport) => return Ok(transport),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.map_or(BuildError::NoListen, BuildError::Transport))
}

/// What peers are told of the tunnel; nothing where there is none.
fn announced(config: &Config, key: innermesh_proto::tunnel::TunnelKey) -> Option<WireGuard> {
    (config.backend != BackendChoice::None).then_some(WireGuard {
        key,
        port: config.tunnel_port,
    })
}

/// Where this node can be dialed: what the configuration says, then the
/// addresses of the host's other interfaces.
pub(crate) async fn endpoints(
    config: &Config,
    host: &Host,
    transport: &Transport,
) -> Vec<SocketAddr> {
    let bound = transport.local_addr().ok();
    let port = bound.map_or(0, |address| address.port());
    let bound = bound.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let local = host.net.local_addresses().await;
    let mut endpoints = config.advertise.clone();
    for (interface, ip) in local {
        let reachable = bound.is_unspecified() || bound == ip;
        if interface != config.interface && reachable {
            endpoints.push(SocketAddr::new(ip, port));
        }
    }
    if !bound.is_unspecified() && !endpoints.iter().any(|endpoint| endpoint.ip() == bound) {
        endpoints.push(SocketAddr::new(bound, port));
    }
    endpoints.truncate(innermesh_proto::limits::ENDPOINTS);
    endpoints
}
