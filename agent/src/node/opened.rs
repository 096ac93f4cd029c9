//! Opens what a member's state folder holds: keys, ledger, tunnel, transport,
//! services, gossip and DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use innermesh_proto::{
    head::Announcement,
    id::NodeId,
    ledger::{State, state::Member},
    path::Places,
    rpc::method,
    view::MeshView,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::{
    build_error::BuildError,
    config::{AgentConfig, LOCK, VERSION},
    loading::{self, Loading},
};
use crate::{
    dns::{Dns, FallThrough, UpstreamTrust},
    gossip::Gossip,
    host::{Host, key_files as keys, keys::NodeKey, port_map::Mappings, state_folder},
    ledger::{
        Ledger,
        client::Client,
        follow::{self as ledger_follow, Gossiped, Nudge},
    },
    node::{
        follow::{self, program_certs::ProgramCerts, tunnel_keys, view},
        peer::membership::LedgerMembership,
        preflight,
        shared::{
            announce,
            device_holds::DeviceHolds,
            handles::{FolderLock, Handles},
            hold_set::HoldSet,
            invites::Invites,
            own_key::OwnKey,
            pair_secrets::PairSecrets,
            secondaries::Secondaries,
            zone::zone_of,
            zone_serial::ZoneSerial,
        },
    },
    quic::{Settings, Transport},
    services::{DockerWatch, Registry},
    tls::{MeshTls, TlsError},
    tunnel::{Tunnel, TunnelError, TunnelSettings, relayed::Relayed},
};

/// What is opened before anything follows the view.
pub(super) struct Opened {
    pub node: Handles,
    pub lock: FolderLock,
    pub nudge: Nudge,
    pub services: Registry,
    pub docker: Option<DockerWatch>,
    pub dns: Arc<Dns>,
    pub tunnel: Arc<dyn Tunnel>,
    pub tunnel_key: Arc<OwnKey>,
    pub pairs: Arc<PairSecrets>,
    /// What of the tunnel goes by relays.
    pub relayed: Relayed,
    pub holds: Arc<HoldSet>,
    pub device_holds: Arc<DeviceHolds>,
    pub invites: Arc<Invites>,
    pub certs: ProgramCerts,
    pub serial: ZoneSerial,
    pub secondaries: Arc<Secondaries>,
    /// The newest ledger stamp, for TLS.
    pub stamp_ms: Arc<AtomicU64>,
}

pub(super) async fn open(
    mut config: AgentConfig,
    host: Host,
    loading: &watch::Sender<Option<Loading>>,
) -> Result<Opened, BuildError> {
    let lock = claim(&host).await?;
    let key = keys::require_identity(&host).await?;
    let me = key.public().node_id();
    let ledger = loading::open(&host, &config, &key, loading).await?;
    let state = ledger.state();
    config.check_mesh(&state)?;
    let Some(member) = state.members.get(&me) else {
        return Err(BuildError::NotMember(
            state_folder::make_room(&*host.disk).await,
        ));
    };
    let stamp_ms = Arc::new(AtomicU64::new(state.stamp_ms));
    let tls = follow::membership::tls(&state, &key, &stamp_ms, &host).await?;
    let relayed = Relayed::default();
    let (tunnel, tunnel_key) = open_tunnel(&host, &mut config, &state, me, &relayed).await?;
    let pairs = Arc::new(PairSecrets::load(&host, tunnel_key.clone()).await?);
    let holds = Arc::new(HoldSet::load(&*host.disk).await);
    let device_holds = Arc::new(DeviceHolds::load(&*host.disk).await);
    let invites = Arc::new(Invites::load(&*host.disk).await);
    let certs = ProgramCerts::load(&*host.disk).await;
    let certs = certs.map_err(|error| BuildError::Io(folder(&host), error))?;
    let membership = Arc::new(LedgerMembership {
        ledger: ledger.clone(),
        held: holds.held(),
        keys: host.keys.clone(),
    });
    let transport = open_transport(&host, &config, me, &tls, &membership)?;
    ledger.set_term(config.ca_term);
    ledger.set_known_rules(config.known_rules);
    ledger.connect(Arc::new(transport.clone()));
    let services = open_services(&host, &config, member).await?;
    let docker = open_docker(&host, &config, &services).await;
    let nudge = Nudge::default();
    let announcement = Announcement {
        version: VERSION.into(),
        quic: announce::endpoints(&config, &host, &transport, &Mappings::default()).await,
        wireguard: announce::wireguard(&config, tunnel_key.get()),
        services: services.instances(),
        holds: holds.own(),
        rules: config.known_rules,
        cloned: false,
        unchecked: services.unchecked(),
        devices: BTreeMap::new(),
        endpoint: announce::endpoint(&config),
        device_holds: device_holds.own(),
        exit: None,
        zone_serial: None,
        name_server: BTreeSet::new(),
        types: services.types(),
        links: None,
        places: first_places(&config, &host, &*tunnel).await,
        lane: None,
    };
    let gossip = open_gossip(&host, &key, &ledger, &nudge, &transport, announcement).await?;
    ledger_follow::start(&host, me, ledger.clone(), transport.clone(), nudge.clone());
    let client = Client::new(
        &host,
        key.clone(),
        ledger.clone(),
        transport.clone(),
        gossip.clone(),
        nudge.clone(),
    );
    let view = Arc::new(view::first_view(me, &ledger, &gossip));
    holds.note(&view.held);
    let serial = ZoneSerial::load(&host).await;
    let dns = open_dns(&host, &config, &ledger, (&view, serial.next()));
    let secondaries = Secondaries::load(&host, dns.transfers().clone()).await;
    let node = Handles {
        config: Arc::new(config),
        host,
        me,
        key,
        ledger,
        client,
        transport,
        gossip,
        view: watch::Sender::new(view),
    };
    Ok(Opened {
        node,
        lock,
        nudge,
        services,
        docker,
        dns,
        tunnel,
        tunnel_key,
        pairs,
        relayed,
        holds,
        device_holds,
        invites,
        certs,
        serial,
        secondaries,
        stamp_ms,
    })
}

fn folder(host: &Host) -> String {
    host.disk.root().display().to_string()
}

/// Has the folder for this agent alone.
async fn claim(host: &Host) -> Result<FolderLock, BuildError> {
    let lock = host.disk.lock(Path::new(LOCK));
    let lock = lock.map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => BuildError::Locked(folder(host)),
        _ => BuildError::Io(folder(host), error),
    })?;
    let said = state_folder::left(&*host.disk).await;
    match said.map_err(|error| BuildError::Io(folder(host), error))? {
        Some(said) => Err(BuildError::Left {
            said,
            room: state_folder::make_room(&*host.disk).await,
        }),
        None => Ok(lock.into()),
    }
}

/// Where the tunnel may be found, in the first head already: another one for it would go
/// to all.
async fn first_places(config: &AgentConfig, host: &Host, tunnel: &dyn Tunnel) -> Places {
    let backend = tunnel.observe().await.map(|state| state.backend);
    if !backend.is_ok_and(|backend| backend != "none") {
        return Places::default();
    }
    announce::places(config, host, (&Mappings::default(), &[]), None).await
}

/// Opens the tunnel at its port, or, where another program has that and the
/// configuration doesn't insist on it, at the next free one, which is kept.
async fn open_tunnel(
    host: &Host,
    config: &mut AgentConfig,
    state: &State,
    me: NodeId,
    relayed: &Relayed,
) -> Result<(Arc<dyn Tunnel>, Arc<OwnKey>), BuildError> {
    let (private_key, earlier_key) = tunnel_keys::at_start(host, state, me).await?;
    if !config.tunnel_port_is_fixed
        && let Some(kept) = state_folder::wireguard_port(&*host.disk).await
    {
        config.tunnel_port = kept;
    }
    let open = |listen_port| {
        host.tunnels.open(TunnelSettings {
            interface: config.interface.clone(),
            private_key,
            earlier_key,
            listen_port,
            mtu: config.mtu,
            backend: config.backend,
            offloads: config.offloads,
            relayed: relayed.clone(),
        })
    };
    let mut opened = open(config.tunnel_port).await;
    if let Err(TunnelError::PortInUse { port, .. }) = &opened
        && !config.tunnel_port_is_fixed
    {
        let mut next = preflight::next_ports(*port, config);
        if let Some(free) = next.find(|port| host.net.try_udp_port(*port).is_ok()) {
            let taken = opened.err().map(|error| error.to_string());
            tracing::warn!(
                taken,
                port = free,
                "WireGuard takes another port, and keeps it"
            );
            opened = open(free).await;
            if opened.is_ok() {
                let kept = state_folder::store_wireguard_port(&*host.disk, free).await;
                kept.map_err(|error| BuildError::Io(folder(host), error))?;
                config.tunnel_port = free;
            }
        }
    }
    Ok((opened?, Arc::new(OwnKey::new(private_key))))
}

/// Opens the endpoint on the first address that can be had; the first one's
/// error is the one that tells.
fn open_transport(
    host: &Host,
    config: &AgentConfig,
    me: NodeId,
    tls: &MeshTls,
    membership: &Arc<LedgerMembership>,
) -> Result<Transport, BuildError> {
    let settings = |listen: SocketAddr| -> Result<Settings, TlsError> {
        Ok(Settings {
            me,
            listen,
            server: Some(tls.server()?),
            client: tls.client()?,
            membership: membership.clone(),
            open_to_strangers: [method::JOIN, method::RENEW].into(),
        })
    };
    let mut first = None;
    for listen in &config.listen {
        match Transport::open(host, settings(*listen)?) {
            Ok(transport) => return Ok(transport),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.map_or(BuildError::NoListen, BuildError::Transport))
}

async fn open_services(
    host: &Host,
    config: &AgentConfig,
    member: &Member,
) -> Result<Registry, BuildError> {
    let services = Registry::load(host.clone(), config.services.clone()).await?;
    services.set_local_addresses(vec![IpAddr::V4(member.ipv4), IpAddr::V6(member.ipv6)]);
    Ok(services)
}

/// Before anything is announced, so that what ran before goes on.
async fn open_docker(
    host: &Host,
    config: &AgentConfig,
    services: &Registry,
) -> Option<DockerWatch> {
    let socket = config.docker_socket.clone()?;
    let mut docker = DockerWatch::new(host, socket, services.clone());
    docker.look_first().await;
    Some(docker)
}

async fn open_gossip(
    host: &Host,
    key: &Arc<dyn NodeKey>,
    ledger: &Ledger,
    nudge: &Nudge,
    transport: &Transport,
    announcement: Announcement,
) -> Result<Gossip, BuildError> {
    let gossiped = Arc::new(Gossiped {
        ledger: ledger.clone(),
        nudge: nudge.clone(),
    });
    let started = Gossip::start(host, key.clone(), gossiped, transport.clone(), announcement);
    let started = started.await;
    started.map_err(|error| BuildError::Io(folder(host), error))
}

/// Name servers elsewhere are vouched for by this host's roots and by the mesh's, which
/// can do so for its own names and addresses only. A clock that stands in 1970 after a
/// start must not keep the names from it that set it.
fn upstream_trust(host: &Host, ledger: &Ledger) -> UpstreamTrust {
    let (outside, root) = (host.outside.clone(), ledger.state().root.der().to_vec());
    let (clock, ledger) = (host.clock.clone(), ledger.clone());
    UpstreamTrust {
        roots: Arc::new(move || {
            let mut roots = outside.roots();
            roots.push(CertificateDer::from(root.clone()));
            roots
        }),
        wall_ms: Arc::new(move || clock.wall_ms().max(ledger.state().stamp_ms)),
    }
}

fn open_dns(
    host: &Host,
    config: &AgentConfig,
    ledger: &Ledger,
    (first, serial): (&Arc<MeshView>, u32),
) -> Arc<Dns> {
    let state = ledger.state();
    let first = first.clone();
    let dns = Arc::new(Dns::new(
        host.clock.clone(),
        host.tasks.clone(),
        move || zone_of(&first, serial),
        state.ipv4,
        state.mesh.ula(),
    ));
    dns.answers(config.dns_answer);
    dns.trusts(upstream_trust(host, ledger));
    dns.answers_cookies(&*host.keys);
    if let Ok(apex) = state.domain.as_str().parse() {
        let rules = config.dns_fall_through.clone();
        dns.falls_through(FallThrough::new(apex, rules));
    }
    dns.set_forwards(config.dns_forward.clone());
    let followed = ledger.clone();
    dns.unsure_while(move || followed.behind().is_some());
    dns
}
