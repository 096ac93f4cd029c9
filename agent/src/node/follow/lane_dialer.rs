//! Lanes to relays, where UDP goes nowhere: opened once this node is connected with nobody
//! outside of its own network, and closed once UDP reaches their relays again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    endpoint::{self, is_lane, is_plausible, is_public},
    id::NodeId,
    limits,
    view::MeshView,
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    gossip::Gossip,
    host::{
        Host, Mono,
        state_folder::{KnownLane, load_lanes, store_lanes},
        until_next, within,
    },
    node::shared::handles::Handles,
    quic::{DialError, LaneDialError, Lanes, Transport},
    tunnel::BackendChoice,
};

/// How long this node is connected with nobody before it tries lanes.
const ALONE: Duration = Duration::from_secs(5);
/// The same where it is connected with hosts of its own network alone, by UDP: a start has
/// those first.
const INSIDE: Duration = Duration::from_secs(20);
/// How often it looks while it is, or has lanes.
const LOOK: Duration = Duration::from_secs(1);
/// How often UDP is tried again while there are lanes.
const UDP: Duration = Duration::from_secs(60);
/// How long a lane stays when its relay is reached by UDP again: what is under way on it
/// ends first.
const LINGER: Duration = Duration::from_secs(5);
/// Lanes tried at once.
const PARALLEL: usize = 2;
/// The first pause after a lane that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long the host's resolver may take.
const RESOLVE: Duration = Duration::from_secs(3);
/// Addresses of one relay that are tried, by TCP or UDP.
const ADDRESSES: usize = 4;

/// See the module.
pub(crate) struct LaneDialer {
    host: Host,
    me: NodeId,
    lanes: Lanes,
    transport: Transport,
    gossip: Gossip,
    view: watch::Sender<Arc<MeshView>>,
    /// Relays that take lanes in, as they were when they were last heard.
    known: Vec<KnownLane>,
    attempts: BTreeMap<NodeId, Attempt>,
    open: BTreeMap<NodeId, Open>,
    alone_since: Option<Mono>,
    has_tunnel: bool,
    /// When UDP is tried next.
    udp: Mono,
    is_trying_udp: bool,
}

#[derive(Clone, Copy)]
struct Attempt {
    failures: u32,
    next: Mono,
}

/// A lane that is being opened, or is open.
struct Open {
    /// Ends it when dropped.
    _stop: oneshot::Sender<()>,
    is_up: bool,
    /// Since when its relay is reached by UDP.
    by_udp: Option<Mono>,
}

/// What a lane's task says.
enum News {
    /// Its relay answered over it, by way of this address.
    Up(NodeId, IpAddr),
    /// It ended; whether it was up before.
    Ended(NodeId, Result<(), LaneFailure>),
    /// UDP was tried.
    Udp,
}

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
enum LaneFailure {
    #[error("its name leads nowhere")]
    NoAddress,
    #[error(transparent)]
    Lane(#[from] LaneDialError),
    #[error(transparent)]
    Quic(#[from] DialError),
}

impl LaneDialer {
    /// `None` where the transport has no lanes.
    pub async fn new(node: &Handles) -> Option<Self> {
        let now = node.host.clock.now();
        Some(Self {
            lanes: node.transport.lanes()?.clone(),
            known: load_lanes(&*node.host.disk).await,
            host: node.host.clone(),
            me: node.me,
            transport: node.transport.clone(),
            gossip: node.gossip.clone(),
            view: node.view.clone(),
            attempts: BTreeMap::new(),
            open: BTreeMap::new(),
            alone_since: Some(now),
            has_tunnel: node.config.backend != BackendChoice::None,
            udp: now,
            is_trying_udp: false,
        })
    }

    /// Goes on for as long as the agent runs.
    pub async fn run(mut self) {
        let mut events = self.transport.events();
        let mut views = self.view.subscribe();
        let (news, mut told) = mpsc::channel(limits::LANES_DIALED * 4);
        let mut tasks = JoinSet::new();
        loop {
            let view = views.borrow_and_update().clone();
            self.learn(&view).await;
            let pause = self.look(&view, &news, &mut tasks);
            let clock = self.host.clock.clone();
            let look = async {
                match pause {
                    Some(pause) => clock.sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = look => {}
                Some(news) = told.recv() => self.note(news).await,
                Some(_) = tasks.join_next() => {}
                changed = views.changed() => if changed.is_err() { return },
                event = events.recv() => if matches!(event, Err(RecvError::Closed)) { return },
            }
        }
    }

    /// Keeps where relays take lanes in, also for a start without any connection.
    async fn learn(&mut self, view: &MeshView) {
        let mut known: Vec<KnownLane> = Vec::new();
        for (node, seen) in &view.nodes {
            let url = seen.announcement.lane.as_ref();
            let Some(url) = url.filter(|_| *node != self.me && view.is_relay(node)) else {
                continue;
            };
            let before = self.known.iter().find(|lane| lane.node == *node);
            let same = before.filter(|lane| lane.url == *url);
            known.push(KnownLane {
                node: *node,
                url: url.clone(),
                last: same.and_then(|lane| lane.last),
            });
        }
        // Until their heads come again, those of before stand.
        let before = self.known.iter();
        let silent = before.filter(|lane| {
            view.is_relay(&lane.node) && view.nodes.get(&lane.node).is_none_or(|it| it.loading)
        });
        for lane in silent {
            if !known.iter().any(|other| other.node == lane.node) {
                known.push(lane.clone());
            }
        }
        known.truncate(limits::LANES_KNOWN);
        if view.loading && known.is_empty() || known == self.known {
            return;
        }
        self.known = known;
        self.store().await;
    }

    async fn store(&self) {
        if let Err(error) = store_lanes(&*self.host.disk, &self.known).await {
            tracing::warn!(%error, "where relays take lanes in could not be saved");
        }
    }

    /// Does what is due. When to look again, where that is soon.
    fn look(
        &mut self,
        view: &MeshView,
        news: &mpsc::Sender<News>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Duration> {
        let now = self.host.clock.now();
        let paths = self.transport.paths();
        let by_udp = paths.iter().filter(|(_, at)| !is_lane(at));
        let patience = if by_udp.clone().next().is_some() {
            INSIDE
        } else {
            ALONE
        };
        // Hosts of a network that lets no UDP out reach each other all the same. Who has a
        // tunnel is connected with a relay where that can be.
        let mut by_udp =
            by_udp.map(|(node, at)| !self.has_tunnel || is_public(at.ip()) || view.is_relay(node));
        let has_udp = by_udp.any(|is_outside| is_outside);
        if has_udp || self.known.is_empty() {
            self.alone_since = None;
        } else if self.alone_since.is_none() {
            self.alone_since = Some(now);
        }
        for (node, open) in &mut self.open {
            let is_by_udp = paths.get(node).is_some_and(|at| !is_lane(at));
            match open.by_udp {
                None if is_by_udp => open.by_udp = Some(now),
                Some(_) if !is_by_udp => open.by_udp = None,
                _ => {}
            }
        }
        self.open
            .retain(|_, open| open.by_udp.is_none_or(|since| now < since + LINGER));
        if self
            .alone_since
            .is_some_and(|since| now >= since + patience)
        {
            self.open_lanes(view, now, news, tasks);
        }
        if self.open.values().any(|open| open.is_up) {
            // Where UDP reaches anybody the others are tried at once.
            if has_udp {
                self.udp = self.udp.min(now + LINGER);
            }
            if now >= self.udp && !self.is_trying_udp {
                self.udp = now + UDP;
                self.try_udp(view, news, tasks);
            }
        }
        let is_busy = self.alone_since.is_some() || !self.open.is_empty();
        is_busy.then(|| until_next(LOOK, now))
    }

    fn open_lanes(
        &mut self,
        view: &MeshView,
        now: Mono,
        news: &mpsc::Sender<News>,
        tasks: &mut JoinSet<()>,
    ) {
        let first = view.own_relay(|node| !self.known.iter().any(|lane| lane.node == *node));
        let mut lanes: Vec<&KnownLane> = self.known.iter().collect();
        lanes.sort_by_key(|lane| Some(lane.node) != first);
        for lane in lanes {
            let opening = self.open.values().filter(|open| !open.is_up).count();
            if opening >= PARALLEL || self.open.len() >= limits::LANES_DIALED {
                return;
            }
            let attempt = self.attempts.get(&lane.node);
            let is_due = attempt.is_none_or(|attempt| now >= attempt.next);
            if !is_due || self.open.contains_key(&lane.node) || !view.is_relay(&lane.node) {
                continue;
            }
            let (stop, stopped) = oneshot::channel();
            let open = Open {
                _stop: stop,
                is_up: false,
                by_udp: None,
            };
            self.open.insert(lane.node, open);
            let task = LaneTask {
                host: self.host.clone(),
                lanes: self.lanes.clone(),
                transport: self.transport.clone(),
                lane: lane.clone(),
                announced: announced(view, &lane.node),
                overlay: endpoint::overlay(&view.ledger),
                loopback: self
                    .gossip
                    .own_endpoints()
                    .iter()
                    .any(|at| at.ip().is_loopback()),
            };
            let news = news.clone();
            tasks.spawn(async move {
                let node = task.lane.node;
                let ended = tokio::select! {
                    ended = task.run(&news) => ended,
                    _ = stopped => return,
                };
                let _ = news.send(News::Ended(node, ended)).await;
            });
        }
    }

    async fn note(&mut self, news: News) {
        let now = self.host.clock.now();
        match news {
            News::Udp => self.is_trying_udp = false,
            News::Up(node, ip) => {
                tracing::info!(%node, "connected by a lane: UDP goes nowhere");
                self.attempts.remove(&node);
                self.udp = now + UDP;
                if let Some(open) = self.open.get_mut(&node) {
                    open.is_up = true;
                }
                let mut known = self.known.iter_mut();
                let lane = known.find(|lane| lane.node == node);
                if let Some(lane) = lane.filter(|lane| lane.last != Some(ip)) {
                    lane.last = Some(ip);
                    self.store().await;
                }
            }
            News::Ended(node, ended) => {
                self.open.remove(&node);
                let failures = self.attempts.get(&node).map_or(0, |it| it.failures);
                let failures = match ended {
                    Ok(()) => 0,
                    Err(error) => {
                        tracing::debug!(%node, %error, "no lane");
                        failures + 1
                    }
                };
                let pause = (PAUSE_MIN * 2u32.saturating_pow(failures.min(8))).min(PAUSE_MAX);
                let next = now + self.jittered(pause);
                self.attempts.insert(node, Attempt { failures, next });
            }
        }
    }

    /// Half to all of `pause`.
    fn jittered(&self, pause: Duration) -> Duration {
        let mut byte = [0; 1];
        self.host.keys.random(&mut byte);
        pause / 2 + pause / 2 * u32::from(byte[0]) / 256
    }

    /// Dials the relays of lanes by UDP. A connection that comes about takes the lane's
    /// place.
    fn try_udp(&mut self, view: &MeshView, news: &mpsc::Sender<News>, tasks: &mut JoinSet<()>) {
        self.is_trying_udp = true;
        let (transport, news) = (self.transport.clone(), news.clone());
        let overlay = endpoint::overlay(&view.ledger);
        let loopback = self
            .gossip
            .own_endpoints()
            .iter()
            .any(|at| at.ip().is_loopback());
        let reached = self.transport.reached();
        let relays = self.open.iter().filter(|(_, open)| open.by_udp.is_none());
        let relays: Vec<(NodeId, Vec<SocketAddr>)> = relays
            .map(|(node, _)| {
                let first = reached.get(node).copied().into_iter();
                let all = first.chain(announced(view, node));
                let mut seen = BTreeSet::new();
                let all = all.filter(|at| is_plausible(at, &overlay, loopback) && seen.insert(*at));
                (*node, all.take(ADDRESSES).collect())
            })
            .collect();
        tasks.spawn(async move {
            'relays: for (node, addresses) in relays {
                for at in addresses {
                    if transport.dial(at, Some(node)).await.is_ok() {
                        continue 'relays;
                    }
                }
            }
            let _ = news.send(News::Udp).await;
        });
    }
}

/// Where a node says that it answers QUIC.
fn announced(view: &MeshView, node: &NodeId) -> Vec<SocketAddr> {
    let seen = view.nodes.get(node);
    seen.map_or_else(Vec::new, |seen| seen.announcement.quic.clone())
}

/// One lane, from its name to its end.
struct LaneTask {
    host: Host,
    lanes: Lanes,
    transport: Transport,
    lane: KnownLane,
    /// Where its relay answers QUIC.
    announced: Vec<SocketAddr>,
    overlay: [ipnet::IpNet; 2],
    loopback: bool,
}

impl LaneTask {
    async fn run(&self, news: &mpsc::Sender<News>) -> Result<(), LaneFailure> {
        let KnownLane { node, url, .. } = &self.lane;
        let mut why = LaneFailure::NoAddress;
        for address in self.addresses().await {
            let opened = self.lanes.dial(&*self.host.net, url, address).await;
            let open = match opened {
                Ok(open) => open,
                Err(error) => {
                    why = error.into();
                    continue;
                }
            };
            let at = open.address();
            let carrying = open.carry();
            let dialing = self.transport.dial(at, Some(*node));
            tokio::pin!(carrying);
            let dialed = tokio::select! {
                () = &mut carrying => Err(DialError::Timeout),
                dialed = dialing => dialed,
            };
            match dialed {
                Ok(_) => {
                    let _ = news.send(News::Up(*node, address.ip())).await;
                    carrying.await;
                    return Ok(());
                }
                Err(error) => why = error.into(),
            }
        }
        Err(why)
    }

    /// Where the lane may begin: as the host's resolver says, as it was last, and at the
    /// relay's own addresses.
    async fn addresses(&self) -> Vec<SocketAddr> {
        let url = &self.lane.url;
        let (name, port) = url.host();
        let resolved = match url.address() {
            Some(address) => vec![address],
            None => {
                let asking = self.host.net.resolve(name, port);
                let answer = within(&*self.host.clock, RESOLVE, asking).await;
                answer.and_then(Result::ok).unwrap_or_default()
            }
        };
        let known = self.lane.last.into_iter();
        let known = known.chain(self.announced.iter().map(SocketAddr::ip));
        let known = known.map(|ip| SocketAddr::new(ip, port));
        let mut seen = BTreeSet::new();
        let all = resolved.into_iter().chain(known);
        all.filter(|at| is_plausible(at, &self.overlay, self.loopback) && seen.insert(*at))
            .take(ADDRESSES)
            .collect()
    }
}
