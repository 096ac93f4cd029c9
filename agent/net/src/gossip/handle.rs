//! Gossip as the rest of the agent uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_proto::{
    crypto::{Hash, Sign},
    head::{Announcement, Head, HeadTable, Known},
    id::NodeId,
    links::Settings,
    message::{BucketsAnswer, BucketsQuery, PushedHead},
    view::Standing,
};
use tokio::sync::{Notify, Semaphore, watch};

use super::{
    Counters, Ledger,
    ahead::TWIN,
    generation, known,
    links::{LiveBy, Neighbours},
    member_index::MemberIndex,
    messages,
    own::own_body,
    passing::Passing,
    push, repair,
    state::{Inner, Own, Shared, nanos},
    version_exchange::VersionExchange,
};
use crate::{host::Host, quic::Transport};

/// How long a node's own word that it runs twice is believed.
const CLONED_FOR: Duration = Duration::from_secs(600);

/// A handle on this node's gossip.
#[derive(Clone)]
pub struct Gossip {
    inner: Arc<Inner>,
}

impl Gossip {
    /// Starts gossip: with what was known of peers at the last stop, and a
    /// generation that no earlier start had.
    pub async fn start(
        host: &Host,
        key: Arc<dyn Sign>,
        ledger: Arc<dyn Ledger>,
        transport: Transport,
        announcement: Announcement,
    ) -> std::io::Result<Self> {
        let generation = generation::next(&*host.disk).await?;
        let state = ledger.state();
        let table = known::load(host, &state).await;
        let me = key.public().node_id();
        let exchange =
            VersionExchange::start(host, &state.mesh, me, generation, transport.clone()).await?;
        let now = host.clock.now();
        let body = own_body(Arc::new(announcement), None, Some(now));
        let links = Neighbours::new(
            Settings {
                me,
                mesh: state.mesh,
                generation,
                behind_nat: false,
            },
            now,
        );
        links.set_members(&state, &table, now);
        let inner = Arc::new(Inner {
            host: host.clone(),
            me,
            key,
            ledger,
            transport,
            exchange,
            generation: AtomicU64::new(generation),
            overtaken: Notify::new(),
            rolled_back: AtomicBool::new(false),
            beat: AtomicU64::new(nanos(host.clock.now())),
            shared: Mutex::new(Shared {
                table,
                own: Own {
                    body,
                    head: None,
                    renewed: Duration::ZERO,
                    seen_generation: 0,
                    position_before_rollback: None,
                },
                fetching: BTreeSet::new(),
                budgets: BTreeMap::new(),
                runs: BTreeMap::new(),
                conflicts: BTreeSet::new(),
                say_cloned: BTreeMap::new(),
                passing: Passing::default(),
                has_compared: false,
                index: Arc::new(MemberIndex::new(&state)),
                ask_heads_after: None,
            }),
            links,
            dials: Mutex::default(),
            dial_wanted: Notify::new(),
            greetings: Semaphore::new(push::GREETINGS),
            repairs: Semaphore::new(repair::REPAIRS),
            repairing: Mutex::default(),
            changes: watch::Sender::new(0),
            announced: Notify::new(),
            passing: Notify::new(),
            unsaved: Notify::new(),
            keeper: tokio::sync::Mutex::default(),
            counters: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        inner.exchange.set_heads(Box::new(messages::Table(weak)));
        inner.clone().renew().await;
        host.tasks.spawn(inner.clone().beat());
        host.tasks.spawn(inner.clone().publish_changes());
        host.tasks.spawn(inner.clone().keep_links());
        host.tasks.spawn(inner.clone().publish_links());
        host.tasks.spawn(inner.clone().pass_on_gathered());
        host.tasks.spawn(inner.clone().keep());
        host.tasks.spawn(inner.clone().keep_ahead());
        Ok(Self { inner })
    }

    /// Where this node says that it can be dialed.
    pub fn own_endpoints(&self) -> Vec<SocketAddr> {
        self.inner.shared().own.body.announcement.quic.clone()
    }

    /// Announces something else from now on; it goes out within 50 ms.
    pub fn announce(&self, announcement: Announcement) {
        self.inner.announce(announcement);
    }

    /// What this node announces now.
    pub fn own(&self) -> Arc<Announcement> {
        self.inner.shared().own.body.announcement.clone()
    }

    /// When it began to announce that.
    pub fn own_since(&self) -> Option<Duration> {
        self.inner.shared().own.body.since
    }

    /// The newest head of this node, once there is one.
    pub fn own_head(&self) -> Option<Head> {
        let shared = self.inner.shared();
        shared.own.head.as_ref().map(|(head, _)| head.clone())
    }

    /// The time by which liveness is judged: the host's, but when this node has
    /// stood still it isn't the others' silence that passed, and their beats
    /// are looked at first (S6).
    pub fn now(&self) -> Duration {
        self.inner.now()
    }

    /// Reads the table as it is now. Gossip stands still meanwhile.
    pub fn read<T>(&self, f: impl FnOnce(&HeadTable) -> T) -> T {
        f(&self.inner.shared().table)
    }

    /// How a node stands of whom this is known: by its links with its neighbours once
    /// they had it live, else by its lease.
    pub fn standing(&self, node: &NodeId, known: &Known) -> Standing {
        let now = (self.inner.host.clock.now(), self.inner.now());
        self.inner.links.judge(node, known, now)
    }

    /// Why a node is live of whom this is known; `None` where it isn't.
    pub fn live_by(&self, node: &NodeId, known: &Known) -> Option<LiveBy> {
        let live = self.standing(node, known).live;
        live.then(|| self.inner.links.live_by(node))
    }

    /// Since when a node isn't live that was.
    pub fn gone_since(&self, node: &NodeId) -> Option<Duration> {
        self.inner.links.gone_since(node)
    }

    /// Counts up with each change that a view is made from.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Nodes whose key is in use on two machines, as this node saw or as they
    /// say themselves.
    pub fn conflicts(&self) -> BTreeSet<NodeId> {
        let now = self.inner.host.clock.now();
        let shared = self.inner.shared();
        let say_so = shared.say_cloned.iter();
        let say_so = say_so.filter(|(_, then)| now.saturating_sub(**then) < CLONED_FOR);
        let say_so = say_so.map(|(node, _)| *node);
        shared.conflicts.iter().copied().chain(say_so).collect()
    }

    /// Whether this node's state was older at its start than what it had
    /// announced before, as after a restored snapshot of the machine.
    pub fn was_rolled_back(&self) -> bool {
        self.inner.rolled_back.load(Ordering::Relaxed)
    }

    /// Another agent with this node's own key was met at `remote` (S10).
    pub fn meet_twin(&self, remote: SocketAddr) {
        if self.inner.note_twin() {
            tracing::error!(%remote, "{TWIN}");
        }
    }

    /// What was dropped so far.
    pub fn counters(&self) -> Counters {
        self.inner
            .counters
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    /// How far a node follows the ledger, as it said last: by its newest packet, or its
    /// head.
    pub fn position_of(&self, node: &NodeId, known: &Known) -> u64 {
        let by_packet = self.inner.links.heard(node).map(|heard| heard.index);
        by_packet.map_or(known.head.position.index, |index| {
            index.max(known.head.position.index)
        })
    }

    /// When a node was heard last: its newest packet, or a new head.
    pub fn heard_at(&self, node: &NodeId, known: &Known) -> Option<Duration> {
        let by_packet = self.inner.links.heard(node).map(|heard| heard.at);
        by_packet.max(known.heard)
    }

    /// What live peers' clocks say, in milliseconds since 1970: by what is newer of each,
    /// its packet or its head.
    pub fn peer_clocks(&self) -> Vec<u64> {
        let inner = &self.inner;
        let now = inner.host.clock.now();
        let shared = inner.shared();
        let known = shared.table.iter();
        known
            .filter(|(node, known)| self.standing(node, known).live)
            .filter_map(|(node, known)| {
                let by_head = known.heard.map(|heard| (heard, known.head.clock_ms));
                let by_packet = inner.links.heard(node);
                let by_packet = by_packet.map(|heard| (heard.at, heard.clock_ms));
                let (heard, clock_ms) = by_packet.max(by_head)?;
                let age = now.saturating_sub(heard);
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                Some(clock_ms.saturating_add(age_ms))
            })
            .collect()
    }

    /// Takes pushed heads from a peer and passes on what is new.
    pub fn take_push(&self, from: NodeId, heads: Vec<PushedHead>) {
        self.inner.take_heads(from, heads);
    }

    /// Takes a datagram of a peer's. Returns at once.
    pub fn take_datagram(&self, from: NodeId, datagram: &[u8]) {
        self.inner.take_datagram(from, datagram);
    }

    /// With whom links need a connection, since this was asked last. For each it is to be
    /// told when that comes to nothing.
    pub fn take_dials(&self) -> BTreeSet<NodeId> {
        let mut dials = self.inner.dials.lock().unwrap_or_else(|e| e.into_inner());
        std::mem::take(&mut *dials)
    }

    /// Waits until links need a connection.
    pub async fn dial_wanted(&self) {
        self.inner.dial_wanted.notified().await;
    }

    /// Whether all members are to be connected with: some of them may not go by links.
    pub fn connects_all(&self) -> bool {
        self.inner.keeps_leases()
    }

    /// Whether a connection with the node serves a link.
    pub fn keeps_link(&self, node: &NodeId) -> bool {
        self.inner.links.keeps(node)
    }

    /// Whether this node has a link with it that is up.
    pub fn is_linked(&self, node: &NodeId) -> bool {
        self.inner.links.is_up(node)
    }

    /// Members that have links with a node.
    pub fn neighbours_of(&self, node: &NodeId) -> Vec<NodeId> {
        self.inner.links.neighbours_of(node)
    }

    /// A member couldn't be connected with.
    pub fn note_dial_failed(&self, node: NodeId) {
        let now = self.inner.host.clock.now();
        self.inner.links.dial_failed(node, now);
    }

    /// Takes a gossip message from a peer.
    pub fn take_message(&self, from: NodeId, message: &[u8]) {
        self.inner.take_message(from, message);
    }

    /// The heads held here, own one included, as many as one frame takes.
    pub fn heads(&self) -> Vec<PushedHead> {
        self.inner.heads()
    }

    /// Which heads are held here where a peer's table differs; `None` where what it says
    /// of that isn't whole.
    pub fn compare_buckets(&self, query: &BucketsQuery) -> Option<BucketsAnswer> {
        self.inner.compare_buckets(query)
    }

    /// The heads of these nodes that are held here, as many as one frame takes.
    pub fn heads_of(&self, nodes: &[NodeId]) -> Vec<PushedHead> {
        self.inner.heads_of(nodes)
    }

    /// The body with this hash, if it is in force here.
    pub fn body(&self, hash: &Hash) -> Option<Vec<u8>> {
        let shared = self.inner.shared();
        if shared.own.body.hash == *hash {
            return Some(shared.own.body.bytes.clone());
        }
        shared
            .table
            .iter()
            .filter_map(|(_, known)| known.body.as_ref())
            .find(|body| body.hash == *hash)
            .map(|body| body.bytes.clone())
    }

    /// Exchanges heads with a peer that has just connected.
    pub async fn greet(&self, peer: NodeId) {
        self.inner.clone().greet(peer).await;
    }

    /// Compares peers' ledger positions again, after the ledger went on, and
    /// forgets who is no member any more.
    pub fn compare(&self) {
        self.inner.forget_others();
        let mut shared = self.inner.shared();
        if shared.own.position_before_rollback.is_some() {
            self.inner.overtaken.notify_one();
        }
        if self.inner.compare(&mut shared) {
            drop(shared);
            self.inner.changed();
        }
    }

    /// Says goodbye, and keeps what is known for the next start.
    pub async fn stop(&self) {
        self.inner.say_goodbye().await;
        self.inner.save().await;
    }
}
