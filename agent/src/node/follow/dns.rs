//! Where the mesh's names are answered on this node. Another server may have the
//! port: the agent then runs on without names there, and takes the port once it
//! is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    control::finding::{Finding, Severity, code},
    dns::{Dns, DnsServer, FORWARDED_PORT, OtherServer, PORT, Surroundings},
    host::{Host, Presence, holder::Kind},
    listen::{ListenError, Sources},
    node::shared::{addresses::Addresses, handles::Handles},
    tunnel::BackendChoice,
};

/// How soon an address that couldn't be had is tried again; each time later, up
/// to the second.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(16);
/// For how long a port must be free before it is taken: a server that is
/// restarted finds it free still.
const SETTLE: Duration = Duration::from_secs(5);

/// Where names are answered, and why not elsewhere.
#[derive(Default)]
pub(crate) struct Listening(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order in which `status` shows them.
    wanted: Vec<SocketAddr>,
    /// By the address that was wanted; with port 0 it is another.
    servers: BTreeMap<SocketAddr, DnsServer>,
    trouble: BTreeMap<SocketAddr, ListenError>,
    /// LANs that may ask and this host has no address in.
    absent: Vec<IpNet>,
    /// What else is wanted, and for whom.
    beside: BTreeMap<Beside, BTreeSet<SocketAddr>>,
    has_ended: bool,
}

/// Who asks at other addresses than the mesh's resolver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Beside {
    Lans,
    Secondaries,
}

impl State {
    /// Whether the agent listens at `at`, there alone or at all addresses.
    fn covers(&self, at: &SocketAddr) -> bool {
        self.servers.keys().any(|server| {
            let is_all = server.ip().is_unspecified() && server.is_ipv4() == at.is_ipv4();
            server == at || is_all && server.port() == at.port()
        })
    }

    /// Whether somebody wants it to listen there.
    fn wants(&self, at: &SocketAddr) -> bool {
        self.wanted.contains(at) || self.beside.values().any(|all| all.contains(at))
    }
}

impl Listening {
    /// Whether names are answered at an address.
    pub fn covers(&self, at: SocketAddr) -> bool {
        self.lock().covers(&at)
    }

    /// Where names are answered.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let state = self.lock();
        let others = state.servers.keys();
        let others = others.filter(|at| !state.wanted.contains(at));
        let all = state.wanted.iter().chain(others);
        let servers = all.filter_map(|at| state.servers.get(at));
        servers.flat_map(DnsServer::addresses).copied().collect()
    }

    /// Where they should be answered and aren't, for members of `domain`.
    pub fn findings(&self, domain: &str) -> Vec<Finding> {
        let state = self.lock();
        let forwarded = state.servers.keys().find(|at| at.port() == FORWARDED_PORT);
        // One server that has the port at all addresses is one finding.
        let first = state.trouble.iter().next();
        first
            .map(|(at, error)| finding(*at, error, forwarded.copied(), domain))
            .into_iter()
            .chain(state.absent.iter().map(absent))
            .collect()
    }

    /// Answers nowhere any more.
    pub fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        state.servers.clear();
    }

    fn missing(&self) -> Vec<SocketAddr> {
        let state = self.lock();
        let missing = state.wanted.iter();
        missing
            .filter(|at| !state.has_ended && !state.servers.contains_key(at))
            .copied()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finding(
    at: SocketAddr,
    error: &ListenError,
    forwarded: Option<SocketAddr>,
    domain: &str,
) -> Finding {
    let ListenError::InUse {
        transport, holder, ..
    } = error
    else {
        return Finding::new(
            code::DNS_NOT_ANSWERED,
            Severity::Error,
            format!("the mesh's names are not answered everywhere: {error}"),
            "It is tried again every few seconds",
        );
    };
    let other = OtherServer::of(holder.as_ref());
    let who = holder
        .as_ref()
        .map_or_else(|| "another program".to_owned(), ToString::to_string);
    let taken = format!(
        "the mesh's names are not answered on {at}: {transport} port {} is taken by {who}",
        at.port()
    );
    let (text, remedy) = match forwarded {
        Some(forwarded) => (
            format!(
                "{taken}. Until it is free they are answered on port {} only",
                forwarded.port()
            ),
            format!(
                "{}. Or stop that server: the agent takes the port once it is free",
                other.forwarding(domain, forwarded)
            ),
        ),
        None => (
            taken,
            "Stop that server, or set `listen` of [dns] in the configuration".to_owned(),
        ),
    };
    Finding::new(code::DNS_PORT_TAKEN, Severity::Error, text, remedy)
}

fn absent(net: &IpNet) -> Finding {
    Finding::warning(
        code::DNS_NO_LAN,
        format!("hosts in {net} can't ask for names: this host has no address there"),
        "Give this host one, or change `lan` of [dns] in the configuration",
    )
}

/// Where others ask, beside what [`DnsKeeper`] listens at.
pub(crate) struct BesideListeners {
    dns: Arc<Dns>,
    around: Surroundings,
    who: Beside,
    listening: Arc<Listening>,
}

impl BesideListeners {
    /// Listens at these, and for these who ask at no others any more; whether it
    /// listens at all of them. What can't be had is tried each time.
    pub async fn listen(&mut self, wanted: BTreeSet<SocketAddr>) -> bool {
        let ended: Vec<DnsServer> = {
            let mut state = self.listening.lock();
            let before = state.beside.insert(self.who, wanted.clone());
            let gone = before.unwrap_or_default();
            let gone: Vec<SocketAddr> = gone.difference(&wanted).copied().collect();
            // Others may want it to listen there.
            let gone = gone.iter().filter(|at| !state.wants(at));
            let gone: Vec<SocketAddr> = gone.copied().collect();
            for at in &gone {
                state.trouble.remove(at);
            }
            gone.iter()
                .filter_map(|at| state.servers.remove(at))
                .collect()
        };
        for server in ended {
            server.end().await;
        }
        for at in &wanted {
            self.try_at(*at);
        }
        let state = self.listening.lock();
        wanted.iter().all(|at| state.covers(at))
    }

    /// Tells in which LANs this host has no address, of those that may ask.
    pub fn set_absent(&self, absent: Vec<IpNet>) {
        self.listening.lock().absent = absent;
    }

    fn try_at(&self, at: SocketAddr) {
        let has =
            |state: &State| state.has_ended || state.covers(&at) || state.wanted.contains(&at);
        if has(&self.listening.lock()) {
            return;
        }
        let started = DnsServer::start(self.dns.clone(), &self.around, &[at], Presence::Present);
        let mut state = self.listening.lock();
        match started {
            Ok(_) if state.has_ended => {}
            Ok(server) => {
                state.trouble.remove(&at);
                tracing::info!(%at, who = ?self.who, "names are answered there too");
                state.servers.insert(at, server);
            }
            Err(error) => {
                if !state.trouble.contains_key(&at) {
                    tracing::warn!(%at, who = ?self.who, %error, "names are not answered there");
                }
                state.trouble.insert(at, error);
            }
        }
    }
}

/// Listens where names are to be answered: where the configuration says, else
/// on the resolver's addresses.
pub(crate) struct DnsKeeper {
    host: Host,
    dns: Arc<Dns>,
    around: Surroundings,
    /// Whether the configuration chose the addresses.
    is_chosen: bool,
    listening: Arc<Listening>,
}

impl DnsKeeper {
    pub fn new(node: &Handles, dns: Arc<Dns>, addresses: &Addresses) -> Self {
        let chosen = &node.config.dns_listen;
        let wanted = if !chosen.is_empty() {
            chosen.clone()
        } else if node.config.backend == BackendChoice::None {
            Vec::new()
        } else {
            let ports = [PORT, FORWARDED_PORT].into_iter();
            let at = |port| addresses.resolvers().map(|ip| SocketAddr::new(ip, port));
            ports.flat_map(at).collect()
        };
        Self {
            host: node.host.clone(),
            around: Surroundings::of(&node.host, addresses.sources()),
            dns,
            is_chosen: !chosen.is_empty(),
            listening: Arc::new(Listening(Mutex::new(State {
                wanted,
                ..State::default()
            }))),
        }
    }

    pub fn listening(&self) -> Arc<Listening> {
        self.listening.clone()
    }

    /// What servers of encrypted DNS need: connections to all have the same places.
    pub fn around(&self) -> Surroundings {
        Surroundings {
            room: self.around.room.clone(),
            ..Surroundings::of(&self.host, self.around.sources.clone())
        }
    }

    /// What listens on LANs as well.
    pub fn on_lans(&self, sources: Arc<dyn Sources>) -> BesideListeners {
        self.beside(Beside::Lans, sources)
    }

    /// What listens where secondaries ask as well.
    pub fn for_secondaries(&self, sources: Arc<dyn Sources>) -> BesideListeners {
        self.beside(Beside::Secondaries, sources)
    }

    fn beside(&self, who: Beside, sources: Arc<dyn Sources>) -> BesideListeners {
        BesideListeners {
            dns: self.dns.clone(),
            around: Surroundings {
                room: self.around.room.clone(),
                ..Surroundings::of(&self.host, sources)
            },
            who,
            listening: self.listening.clone(),
        }
    }

    /// Listens before the addresses are there, as another server would take them
    /// when they come.
    pub fn listen_early(&self) {
        if !self.is_chosen {
            self.try_at(&self.listening.missing());
        }
    }

    /// Listens wherever it doesn't yet, and sees to it that it will: that another
    /// server has the port is no reason for the agent not to run.
    pub fn start(self) {
        self.try_at(&self.listening.missing());
        for (at, error) in &self.listening.lock().trouble {
            tracing::warn!(%at, %error, "names are not answered");
        }
        let tasks = self.host.tasks.clone();
        tasks.spawn(self.run());
    }

    async fn run(self) {
        let mut pause = AGAIN;
        loop {
            let missing = self.listening.missing();
            if missing.is_empty() {
                return;
            }
            self.host.clock.sleep(pause).await;
            let free = self.free_of(missing);
            if !free.is_empty() {
                self.host.clock.sleep(SETTLE).await;
                self.try_at(&self.free_of(free));
            }
            pause = (pause * 2).min(AGAIN_AT_MOST);
        }
    }

    /// Those whose port nobody is seen to have; who has the others may have changed.
    fn free_of(&self, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let net = &self.host.net;
        let is_free = |at: &SocketAddr| {
            let mut kinds = [Kind::Udp, Kind::Tcp].into_iter();
            let held = kinds.find_map(|kind| Some((kind, net.holder(kind, *at)?)));
            let Some((kind, now)) = held else { return true };
            if let Some(ListenError::InUse {
                transport, holder, ..
            }) = self.listening.lock().trouble.get_mut(at)
            {
                (*transport, *holder) = (kind, Some(now));
            }
            false
        };
        addresses.into_iter().filter(is_free).collect()
    }

    fn try_at(&self, addresses: &[SocketAddr]) {
        let presence = if self.is_chosen {
            Presence::Present
        } else {
            Presence::Awaited
        };
        for at in addresses {
            let started = DnsServer::start(self.dns.clone(), &self.around, &[*at], presence);
            let mut state = self.listening.lock();
            match started {
                Ok(_) if state.has_ended => {}
                Ok(server) => {
                    if state.trouble.remove(at).is_some() {
                        tracing::info!(%at, "names are answered");
                    }
                    state.servers.insert(*at, server);
                }
                Err(error) if !self.is_chosen && !is_missed(*at, &error) => {
                    tracing::debug!(%at, %error, "names are not answered");
                }
                Err(error) => {
                    state.trouble.insert(*at, error);
                }
            }
        }
    }
}

/// Whether somebody misses answers at one of the resolver's addresses: a host may
/// have no IPv6, and without [`PORT`]'s trouble nobody asks at the other port.
fn is_missed(at: SocketAddr, error: &ListenError) -> bool {
    let is_taken = matches!(error, ListenError::InUse { .. });
    at.port() == PORT && (at.is_ipv4() || is_taken)
}
