//! Gossip on this node: its own head, the table of the others', and what
//! brings heads in and out. Heads are judged in [`innermesh_proto::head`];
//! chitchat only compares versions (`version_exchange`); liveness is the heads' alone.

mod ahead;
mod budget;
pub mod generation;
pub mod known;
mod ledger;
mod pace;
mod passing;
mod push;
mod version_exchange;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Hash, Sealed, Sign},
    head::{self, Announcement, Body, Head, HeadTable, Known, Offer},
    id::NodeId,
    ledger::Position,
    limits,
    message::{Push, PushedHead},
    rpc::method,
};
use tokio::sync::{Notify, Semaphore, watch};

pub use self::ledger::Ledger;
use self::{ahead::TWIN, pace::Pace, passing::Passing, version_exchange::VersionExchange};
use crate::{host::Host, quic::Transport};

/// How long changes to one's own announcement are gathered before they go out
/// as one head: 20 a second at most, the last one wins.
const GATHER: Duration = Duration::from_millis(50);
/// A tick that comes this late says that this node stood still, not that the
/// others fell silent (S6).
const STANDSTILL: Duration = Duration::from_millis(750);
/// How often liveness and renewal are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two looks at how far apart rounds are to be.
const PACED: u64 = 4;

/// A handle on this node's gossip.
#[derive(Clone)]
pub struct Gossip {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    host: Host,
    me: NodeId,
    key: Arc<dyn Sign>,
    ledger: Arc<dyn Ledger>,
    transport: Transport,
    exchange: VersionExchange,
    generation: AtomicU64,
    /// A peer knows a newer head of this node than its own.
    overtaken: Notify,
    /// It did, and this node went on above that.
    rolled_back: AtomicBool,
    /// When liveness was last looked at, in nanoseconds of the host's clock.
    beat: AtomicU64,
    shared: Mutex<Shared>,
    /// Peers that are asked for all their heads.
    greetings: Semaphore,
    /// Counts changes that views are made from.
    changes: watch::Sender<u64>,
    announced: Notify,
    unsaved: Notify,
    keeper: tokio::sync::Mutex<known::Keeper>,
    counters: Mutex<Counters>,
}

struct Shared {
    table: HeadTable,
    own: Own,
    /// Whose bodies are being fetched, one at a time each.
    fetching: BTreeSet<NodeId>,
    /// What may be fetched of each author that has spent some of it.
    budgets: BTreeMap<NodeId, budget::Budget>,
    /// How many runs each author may begin that has begun some.
    runs: BTreeMap<NodeId, budget::Budget>,
    /// Nodes whose key was seen in use twice.
    conflicts: BTreeSet<NodeId>,
    passing: Passing,
    index: Arc<push::MemberIndex>,
    /// Until when no peer is asked for its heads: the last one knew no more.
    ask_heads_after: Option<Duration>,
}

impl Shared {
    /// Whether a head is of the run that is known, or its author may begin
    /// another: whoever begins one after the other would fill what gossip keeps
    /// of all. Its newest one counts as soon as it may.
    fn may_begin(&mut self, head: &Head, now: Duration) -> bool {
        let known = self.table.get(&head.node);
        if known.is_none_or(|known| head.generation <= known.head.generation) {
            return true;
        }
        self.runs
            .retain(|node, runs| *node == head.node || !runs.is_full(now));
        let runs = self.runs.entry(head.node);
        runs.or_insert_with(|| budget::Budget::of_runs(now))
            .begin_run(now)
    }
}

struct Own {
    body: Arc<Body>,
    head: Option<(Head, Sealed)>,
    renewed: Duration,
    /// The highest generation in which a peer knows this node.
    seen_generation: u64,
    /// The furthest position of the ledger that an earlier run of this node
    /// announced, where that is beyond what this run began with.
    position_before_rollback: Option<Position>,
}

impl Own {
    /// The newest head as it is pushed.
    fn pushed(&self) -> Option<PushedHead> {
        let (head, sealed) = self.head.as_ref()?;
        let body = Some(&self.body).filter(|body| body.hash == head.body);
        Some(pushed(sealed, body))
    }

    /// When the head is to be renewed in a mesh where that is done each
    /// `renewal`: the lease that was stated counts, as in a mesh that has grown
    /// since it is shorter than what others get now.
    fn due(&self, renewal: Duration) -> Duration {
        let stated = self.head.as_ref().map(|(head, _)| head.lease_ms);
        let stated = stated.map(|lease_ms| Duration::from_millis(lease_ms.into()) / 3);
        self.renewed + stated.map_or(renewal, |stated| renewal.min(stated))
    }
}

/// What was dropped, and why: for status and bug reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Heads and bodies that were not their nodes'.
    pub refused: u64,
    /// Gossip messages that the gate refused whole.
    pub gated: u64,
    /// Parts of gossip messages that the gate left out.
    pub dropped: u64,
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
        let body = own_body(announcement);
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
                passing: Passing::default(),
                index: Arc::new(push::MemberIndex::new(&state)),
                ask_heads_after: None,
            }),
            greetings: Semaphore::new(push::GREETINGS),
            changes: watch::Sender::new(0),
            announced: Notify::new(),
            unsaved: Notify::new(),
            keeper: tokio::sync::Mutex::default(),
            counters: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        inner.exchange.set_heads(Box::new(push::Table(weak)));
        inner.clone().renew().await;
        host.tasks.spawn(inner.clone().beat());
        host.tasks.spawn(inner.clone().publish_changes());
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
        let mut shared = self.inner.shared();
        if *shared.own.body.announcement == announcement {
            return;
        }
        shared.own.body = own_body(announcement);
        drop(shared);
        self.inner.changed();
        self.inner.announced.notify_one();
    }

    /// What this node announces now.
    pub fn own(&self) -> Arc<Announcement> {
        self.inner.shared().own.body.announcement.clone()
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

    /// Counts up with each change that a view is made from.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Nodes whose key was seen in use on two machines.
    pub fn conflicts(&self) -> BTreeSet<NodeId> {
        self.inner.shared().conflicts.clone()
    }

    /// Whether this node's state was older at its start than what it had
    /// announced before, as after a restored snapshot of the machine.
    pub fn was_rolled_back(&self) -> bool {
        self.inner.rolled_back.load(Ordering::Relaxed)
    }

    /// Another agent with this node's own key was met at `remote` (S10).
    pub fn meet_twin(&self, remote: SocketAddr) {
        let me = self.inner.me;
        if self.inner.shared().conflicts.insert(me) {
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

    /// What live peers' clocks say, in milliseconds since 1970.
    pub fn peer_clocks(&self) -> Vec<u64> {
        let now = self.inner.now();
        let shared = self.inner.shared();
        let live = shared.table.iter().filter(|(_, known)| known.is_live(now));
        live.filter_map(|(_, known)| {
            let age = now.saturating_sub(known.heard?);
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Some(known.head.clock_ms.saturating_add(age_ms))
        })
        .collect()
    }

    /// Takes pushed heads from a peer and passes on what is new.
    pub fn take_push(&self, from: NodeId, heads: Vec<PushedHead>) {
        self.inner.take_heads(from, heads);
    }

    /// Takes a gossip message from a peer.
    pub fn take_message(&self, from: NodeId, message: &[u8]) {
        self.inner.take_message(from, message);
    }

    /// The heads held here, own one included, as many as one frame takes.
    pub fn heads(&self) -> Vec<PushedHead> {
        self.inner.heads()
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
        if self.inner.compare(&mut shared.table) {
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

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn own_body(announcement: Announcement) -> Arc<Body> {
    let bytes = announcement.encode();
    Arc::new(Body {
        hash: Hash::of(&bytes),
        bytes,
        announcement: Arc::new(announcement),
    })
}

impl Inner {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now(&self) -> Duration {
        let beat = Duration::from_nanos(self.beat.load(Ordering::Relaxed));
        self.host.clock.now().min(beat + TICK + STANDSTILL)
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Signs a new head of this node under its next version.
    async fn sign_head(&self, lease_ms: u32) -> (Head, Sealed) {
        let state = self.ledger.state();
        let body = self.shared().own.body.clone();
        let mut signed = None;
        self.exchange
            .publish(|seq| {
                let head = Head {
                    node: self.me,
                    generation: self.generation.load(Ordering::Relaxed),
                    seq,
                    lease_ms,
                    body: body.hash,
                    body_len: u32::try_from(body.bytes.len()).unwrap_or(u32::MAX),
                    position: self.ledger.durable(),
                    clock_ms: self.host.clock.wall_ms(),
                };
                let sealed = head.seal(&*self.key, &state.mesh);
                signed = Some((head, sealed));
            })
            .await;
        let (head, sealed) = signed.expect("the exchange asks for a head");
        let mut shared = self.shared();
        shared.own.renewed = self.host.clock.now();
        shared.own.head = Some((head.clone(), sealed.clone()));
        (head, sealed)
    }

    async fn renew(self: Arc<Self>) {
        let nodes = self.ledger.state().members.len();
        self.sign_head(head::lease_ms(nodes)).await;
    }

    /// Renews the own head in time, and notices when others' run out.
    async fn beat(self: Arc<Self>) {
        let mut live = self.live();
        let mut last = self.host.clock.now();
        let mut pace = Pace::new(last);
        let mut tick: u64 = 0;
        loop {
            self.host.clock.sleep(TICK).await;
            let now = self.host.clock.now();
            let late = now.saturating_sub(last + TICK);
            if late > STANDSTILL {
                tracing::debug!(late_ms = late.as_millis() as u64, "this node stood still");
                self.shared().table.excuse(late, now);
            }
            last = now;
            self.beat.store(nanos(now), Ordering::Relaxed);
            let nodes = self.ledger.state().members.len();
            let renewal = head::renewal_interval(nodes);
            if tick.is_multiple_of(PACED) {
                let fit = pace.fit(renewal, || self.shortest_lease(), now);
                self.exchange.pace(fit);
            }
            tick += 1;
            if self.exchange.round_begins(now) {
                for peer in self.some_peers(push::FAN_OUT, |_| true) {
                    self.exchange.meet(peer);
                }
            }
            let due = self.shared().own.due(renewal);
            if now + TICK / 2 >= due {
                self.clone().renew().await;
            }
            if !self.are_live(&live) {
                live = self.live();
                self.changed();
            }
        }
    }

    /// The shortest lease in force, this node's own included.
    fn shortest_lease(&self) -> Duration {
        let now = self.now();
        let shared = self.shared();
        let own = shared.own.head.as_ref().map(|(head, _)| head.lease_ms);
        let live = shared.table.iter().filter(|(_, known)| known.is_live(now));
        let leases = live.map(|(_, known)| known.head.lease_ms);
        let shortest = leases.chain(own.filter(|own| *own > 0)).min();
        Duration::from_millis(shortest.unwrap_or(u32::MAX).into())
    }

    fn live(&self) -> BTreeSet<NodeId> {
        let now = self.now();
        let shared = self.shared();
        let live = shared.table.iter().filter(|(_, known)| known.is_live(now));
        live.map(|(node, _)| *node).collect()
    }

    /// Whether exactly these are live.
    fn are_live(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let now = self.now();
        let shared = self.shared();
        let live = shared.table.iter().filter(|(_, known)| known.is_live(now));
        live.map(|(node, _)| node).eq(nodes)
    }

    /// Pushes what [`Gossip::announce`] changed.
    async fn publish_changes(self: Arc<Self>) {
        loop {
            self.announced.notified().await;
            let nodes = self.ledger.state().members.len();
            let (_, sealed) = self.sign_head(head::lease_ms(nodes)).await;
            let body = self.shared().own.body.bytes.clone();
            self.push_to_all(PushedHead {
                head: sealed,
                body: (body.len() <= limits::INLINE_BODY_BYTES).then_some(body),
            });
            self.host.clock.sleep(GATHER).await;
        }
    }

    async fn say_goodbye(&self) {
        let (_, sealed) = self.sign_head(0).await;
        self.push_to_all(PushedHead {
            head: sealed,
            body: None,
        });
    }

    /// Saves what is known of peers soon after it changed.
    async fn keep(self: Arc<Self>) {
        loop {
            self.unsaved.notified().await;
            self.host.clock.sleep(known::SAVE_DELAY).await;
            self.save().await;
        }
    }

    async fn save(&self) {
        let mut keeper = self.keeper.lock().await;
        let (table, paths) = (self.shared().table.clone(), self.transport.paths());
        if let Err(error) = keeper.save(&*self.host.disk, &table, &paths).await {
            tracing::warn!(%error, "what is known of peers could not be saved");
        }
    }

    /// Takes one head that claims to be of a member; says what came of it.
    fn take_head(&self, sealed: Sealed) -> Option<(Head, Offer)> {
        let state = self.ledger.state();
        let claimed: Head = sealed.peek(limits::HEAD_BYTES).ok()?;
        let member = state.members.get(&claimed.node)?;
        // A change reaches a node from several peers: what isn't newer isn't
        // worth a verification, as long as it is what was verified before.
        let known = self
            .shared()
            .table
            .get(&claimed.node)
            .map(|known| (known.head.order() > claimed.order(), known.sealed == sealed));
        if let Some((true, _) | (_, true)) = known {
            return Some((claimed, Offer::Old));
        }
        let head = match head::open(&sealed, &member.key, &state.mesh, &*self.host.keys) {
            Ok(head) => head,
            Err(error) => {
                tracing::debug!(node = ?claimed.node, %error, "a head was refused");
                self.count(|counters| counters.refused += 1);
                return None;
            }
        };
        if head.node == self.me {
            self.meet_own(&head);
            return None;
        }
        let now = self.now();
        let mut shared = self.shared();
        if !shared.may_begin(&head, self.host.clock.now()) {
            drop(shared);
            self.count(|counters| counters.refused += 1);
            return None;
        }
        let before = shared
            .table
            .get(&head.node)
            .and_then(|known| put_back(known, &head));
        let offer = shared.table.offer(head.clone(), sealed, Some(now));
        if offer == Offer::Conflict {
            shared.conflicts.insert(head.node);
        }
        let compared = self.compare_one(&mut shared.table, &head.node);
        drop(shared);
        if let Some(before) = before {
            let heads = vec![PushedHead {
                head: before,
                body: None,
            }];
            let push = codec::encode(&Push { heads });
            self.transport.notify(head.node, method::PUSH, push);
        }
        if head.position.index > self.ledger.state().position.index {
            self.ledger.ahead(head.node, head.position.index);
        }
        let held = self.ledger.hash_at(head.position.index);
        if held.is_some_and(|held| held != head.position.hash) {
            self.ledger.differs(head.node);
        }
        if offer == Offer::Changed || compared {
            self.changed();
        }
        if offer == Offer::Changed {
            self.unsaved.notify_one();
        }
        Some((head, offer))
    }

    /// Forgets nodes that are no members: nothing of theirs is taken any more, and
    /// nothing that is held of them is said.
    fn forget_others(&self) {
        let state = self.ledger.state();
        let is_member = |node: &NodeId| state.members.contains_key(node);
        let mut shared = self.shared();
        shared.table.retain(is_member);
        shared.budgets.retain(|node, _| is_member(node));
        shared.runs.retain(|node, _| is_member(node));
        shared
            .conflicts
            .retain(|node| *node == self.me || is_member(node));
        drop(shared);
        self.exchange.retain(is_member);
    }

    /// Marks peers whose ledger position this node's ledger has reached.
    /// Returns whether any is new.
    fn compare(&self, table: &mut HeadTable) -> bool {
        table.compare(|position| self.reached(position))
    }

    /// As [`Self::compare`], for one peer.
    fn compare_one(&self, table: &mut HeadTable, node: &NodeId) -> bool {
        table.compare_one(node, |position| self.reached(position))
    }

    fn reached(&self, position: &Position) -> bool {
        self.ledger.hash_at(position.index) == Some(position.hash)
    }

    fn count(&self, f: impl FnOnce(&mut Counters)) {
        f(&mut self.counters.lock().unwrap_or_else(|e| e.into_inner()));
    }

    fn heads(&self) -> Vec<PushedHead> {
        let shared = self.shared();
        let others = shared
            .table
            .iter()
            .map(|(_, known)| pushed(&known.sealed, in_force(known)));
        let mut bytes = 0;
        shared
            .own
            .pushed()
            .into_iter()
            .chain(others)
            .take_while(|head| {
                bytes += head.head.bytes.len() + 80 + head.body.as_ref().map_or(0, Vec::len);
                bytes < limits::RPC_BYTES / 2
            })
            .collect()
    }
}

/// The newest head of a node's earlier run, where its new one follows the
/// ledger less far than that: its state was put back, and it doesn't know.
fn put_back(known: &Known, head: &Head) -> Option<Sealed> {
    let before = &known.head;
    let is_back =
        before.generation < head.generation && before.position.index > head.position.index;
    is_back.then(|| known.sealed.clone())
}

/// A head with its body, where that is small.
fn pushed(sealed: &Sealed, body: Option<&Arc<Body>>) -> PushedHead {
    let small = |body: &&Arc<Body>| body.bytes.len() <= limits::INLINE_BODY_BYTES;
    PushedHead {
        head: sealed.clone(),
        body: body.filter(small).map(|body| body.bytes.clone()),
    }
}

/// The body that a head names, when it is held.
fn in_force(known: &Known) -> Option<&Arc<Body>> {
    known
        .body
        .as_ref()
        .filter(|body| body.hash == known.head.body)
}
