//! From facts to views: each change of ledger, gossip or paths makes a new view.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_proto::{
    head::{HeadTable, Known},
    hold::Suspensions,
    id::NodeId,
    ledger::State,
    view::{MeshView, NodeView},
};
use tokio::sync::{
    broadcast::error::{RecvError, TryRecvError},
    watch,
};

use crate::{
    gossip::Gossip,
    host::{Host, Mono},
    ledger::Ledger,
    node::shared::{
        announce::Announcer,
        handles::{FolderLock, Handles},
        hold_set::HoldSet,
        zone::ZonePublisher,
    },
    quic::Transport,
    services::Registry,
};

/// How long after its start a node may take what it doesn't know for something
/// that it hasn't heard yet.
const LOADING: Duration = Duration::from_secs(5);
/// How many peers that don't decide must be no further than this node for it to
/// count as having loaded.
const LOADED: usize = 3;
/// How long after a new view what follows is gathered for the next, for each
/// [`GATHER_MEMBERS`] members: what a view costs grows with the mesh, and so
/// does how often there is news.
const GATHER: Duration = Duration::from_millis(5);
const GATHER_MEMBERS: u32 = 20;
/// How long a member that left may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(3);

/// The view at the start, from what is on disk.
pub(crate) fn first_view(me: NodeId, own_ledger: &Ledger, gossip: &Gossip) -> MeshView {
    let ledger = own_ledger.state();
    let own = (gossip.own(), gossip.own_since());
    let standing = |node: &NodeId, known: &Known| gossip.standing(node, known);
    let nodes =
        gossip.read(|table| MeshView::nodes(me, &ledger, table, own, &BTreeMap::new(), standing));
    MeshView {
        version: 1,
        me,
        loading: ledger.members.len() > 1 || own_ledger.was_damaged(),
        held: held(own_ledger, &ledger, &nodes),
        ledger,
        nodes,
    }
}

/// Who is cut off: by an admin's hold, or by a roster that was lost before all
/// had heard of it.
fn held(ledger: &Ledger, state: &State, nodes: &BTreeMap<NodeId, NodeView>) -> Suspensions {
    let mut held = MeshView::held(state, nodes);
    for node in ledger.kept_out() {
        held.entry(node).or_default();
    }
    held
}

/// Makes the views, and has DNS follow them.
pub(crate) struct ViewKeeper {
    host: Host,
    me: NodeId,
    ledger: Ledger,
    transport: Transport,
    gossip: Gossip,
    view: watch::Sender<Arc<MeshView>>,
    services: Registry,
    holds: Arc<HoldSet>,
    announcer: Announcer,
    zone: ZonePublisher,
    started: Mono,
    /// The newest ledger stamp, for TLS.
    stamp_ms: Arc<AtomicU64>,
    /// The state folder is this agent's for as long as this runs.
    _lock: FolderLock,
}

impl ViewKeeper {
    pub fn new(
        node: &Handles,
        announcer: Announcer,
        zone: ZonePublisher,
        (started, stamp_ms): (Mono, Arc<AtomicU64>),
        lock: FolderLock,
    ) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            transport: node.transport.clone(),
            gossip: node.gossip.clone(),
            view: node.view.clone(),
            services: announcer.services.clone(),
            holds: announcer.holds.clone(),
            announcer,
            zone,
            started,
            stamp_ms,
            _lock: lock,
        }
    }

    /// Makes a new view for each change, for as long as the agent runs.
    pub async fn run(self) {
        let mut ledger = self.ledger.subscribe();
        let mut durable = self.ledger.durable();
        let mut gossip = self.gossip.changes();
        let mut services = self.services.subscribe();
        let mut peers = self.transport.events();
        let clock = self.host.clock.clone();
        let mut before = self.ledger.state();
        loop {
            let loading = self.view.borrow().loading;
            tokio::select! {
                changed = ledger.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = ledger.borrow_and_update().clone();
                    self.stamp_ms.store(state.stamp_ms, Ordering::Relaxed);
                    self.review(&before, &state);
                    before = state;
                }
                changed = durable.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // It tells gossip itself when that changes a view.
                    self.gossip.compare();
                    continue;
                }
                changed = gossip.changed() => if changed.is_err() { return },
                changed = services.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.announcer.announce();
                }
                event = peers.recv() => if let Err(RecvError::Closed) = event { return },
                () = clock.sleep(LOADING), if loading => {}
            }
            // What comes in bursts (a service and its grant, forty peers that
            // connect) is taken together: the first at once, the rest a moment on.
            while !matches!(
                peers.try_recv(),
                Err(TryRecvError::Empty | TryRecvError::Closed)
            ) {}
            gossip.mark_unchanged();
            self.renew_view();
            clock.sleep(gather(self.ledger.state().members.len())).await;
        }
    }

    /// Parts from those that are no members any more. Who left by itself is still
    /// to hear that it has, and says goodbye; it may ask for nothing meanwhile.
    fn review(&self, before: &State, state: &State) {
        let gone = |node: &NodeId| !state.members.contains_key(node);
        let left = state.members.len() < before.members.len()
            && state.evicted.len() == before.evicted.len()
            && before.members.keys().any(gone);
        if !left {
            return self.transport.review();
        }
        let (clock, transport) = (self.host.clock.clone(), self.transport.clone());
        self.host.tasks.spawn(async move {
            clock.sleep(FAREWELL).await;
            transport.review();
        });
    }

    fn renew_view(&self) {
        let now = self.gossip.now();
        let ledger = self.ledger.state();
        let before = self.view.borrow().clone();
        let connected = self.transport.paths();
        let mut paths = self.transport.reached();
        let own = (self.gossip.own(), self.gossip.own_since());
        let standing = |node: &NodeId, known: &Known| self.gossip.standing(node, known);
        let nodes = self.gossip.read(|table| {
            paths.retain(|node, at| connected.contains_key(node) || is_announced(table, node, at));
            MeshView::nodes(self.me, &ledger, table, own, &paths, standing)
        });
        let loaded = is_loaded(self.me, &ledger, &nodes) || now >= self.started + LOADING;
        let loading = before.loading && !loaded;
        let same = Arc::ptr_eq(&ledger, &before.ledger);
        if same && loading == before.loading && nodes == before.nodes {
            return;
        }
        for (node, live) in changed_peers(self.me, &before.nodes, &nodes) {
            // Who left or was evicted has its name in the ledger before.
            let known = if ledger.members.contains_key(&node) {
                &ledger
            } else {
                &before.ledger
            };
            let name = known.name_of(node);
            if live {
                tracing::info!(peer = %name, "a peer is here");
            } else {
                tracing::info!(peer = %name, "a peer is gone");
            }
        }
        let held = held(&self.ledger, &ledger, &nodes);
        if self.holds.note(&held) {
            self.transport.review();
        }
        self.view.send_replace(Arc::new(MeshView {
            version: before.version + 1,
            me: self.me,
            held,
            ledger,
            nodes,
            loading,
        }));
        self.zone.publish();
    }
}

/// Whether a node says that it can be reached there: that may have changed since it was.
fn is_announced(table: &HeadTable, node: &NodeId, at: &SocketAddr) -> bool {
    let body = table.get(node).and_then(|known| known.body.as_ref());
    body.is_some_and(|body| body.announcement.quic.contains(at))
}

/// Who came, and who went.
fn changed_peers(
    me: NodeId,
    before: &BTreeMap<NodeId, NodeView>,
    now: &BTreeMap<NodeId, NodeView>,
) -> Vec<(NodeId, bool)> {
    let is_live = |nodes: &BTreeMap<NodeId, NodeView>, node| {
        nodes.get(node).is_some_and(|of: &NodeView| of.live)
    };
    let all: BTreeSet<&NodeId> = before.keys().chain(now.keys()).collect();
    all.into_iter()
        .filter(|node| **node != me)
        .filter_map(|node| {
            let live = is_live(now, node);
            (live != is_live(before, node)).then_some((*node, live))
        })
        .collect()
}

fn gather(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    GATHER * members.div_ceil(GATHER_MEMBERS).max(1)
}

/// Whether enough peers say that nothing is newer than what this node holds: one
/// of those who decide, or several others. A single member that claims this
/// node's own place in the ledger ends nothing.
fn is_loaded(me: NodeId, ledger: &State, nodes: &BTreeMap<NodeId, NodeView>) -> bool {
    let compared = nodes
        .iter()
        .filter(|(node, view)| **node != me && view.ledger_caught_up);
    let decides_alone = ledger.roster.len() == 1 && ledger.roster.contains(&me);
    let (mut others, mut voters) = (0, 0);
    for (node, _) in compared {
        if ledger.roster.contains(node) {
            voters += 1;
        } else {
            others += 1;
        }
    }
    voters > 0 || others >= LOADED || decides_alone && others > 0
}
