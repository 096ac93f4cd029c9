//! How heads and bodies come in and go on: pushes between connected peers,
//! the exchange when two meet, the fetching of bodies, and what the gate lets
//! through of chitchat's messages.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Hash, Sealed},
    gate::{self, GateError, GossipId, HeadFilter, Incoming, Short, compact::Unpacked},
    head::{Head, Known, Offer},
    id::NodeId,
    ledger::State,
    limits,
    message::{BodyQuery, HeadsQuery, Push, PushedHead},
    rpc::method,
};

use super::{Inner, budget::Budget, version_exchange::HeadSource};

/// To how many peers a receiver passes on what was new to it, and with how many
/// a round is held.
pub(super) const FAN_OUT: usize = 3;
/// How long a peer may take to hand over a body or its heads.
const FETCH: Duration = Duration::from_secs(5);
/// Peers that are asked for all their heads at a time.
pub(super) const GREETINGS: usize = 2;
/// A node that lacks more than one of so many members asks peers that connect.
const UNHEARD: usize = 8;
/// How long a node asks no more after a peer knew nothing that was new to it.
const NO_NEWS: Duration = Duration::from_secs(5);
/// What a fetch costs an author of whom nothing came, in bytes.
const UNANSWERED: usize = 1024;
/// Peers that are asked for a body at most.
const SOURCES: usize = 5;

impl Inner {
    /// Sends one head to every connected peer.
    pub(super) fn push_to_all(&self, head: PushedHead) {
        let push = codec::encode(&Push { heads: vec![head] });
        for peer in self.transport.peers() {
            self.transport.notify(peer, method::PUSH, push.clone());
        }
    }

    /// Takes pushed heads; passes on those that say something new. Returns
    /// whether any was newer than what was held.
    pub(super) fn take_heads(self: &Arc<Self>, from: NodeId, heads: Vec<PushedHead>) -> bool {
        let mut news = false;
        for pushed in heads.into_iter().take(limits::MEMBERS) {
            let Some((head, offer)) = self.take_head(pushed.head.clone()) else {
                continue;
            };
            news |= matches!(offer, Offer::Renewed | Offer::Changed);
            self.settle_body(from, &head, pushed.body.clone());
            if offer == Offer::Changed {
                self.pass_on(from, &head, pushed);
            }
            if offer == Offer::Old && head.node == from {
                self.remind(&head);
            }
        }
        news
    }

    /// Tells a peer whose own head is of an earlier generation than the one
    /// held here what it has forgotten: its disk was rolled back (S2), and
    /// nobody would hear it.
    fn remind(&self, head: &Head) {
        let held = {
            let shared = self.shared();
            let known = shared.table.get(&head.node);
            known
                .filter(|known| known.head.generation > head.generation)
                .map(|known| super::pushed(&known.sealed, None))
        };
        if let Some(held) = held {
            let push = codec::encode(&Push { heads: vec![held] });
            self.transport.notify(head.node, method::PUSH, push);
        }
    }

    /// Has the body that a head names put in force: from `body`, or fetched.
    fn settle_body(self: &Arc<Self>, from: NodeId, head: &Head, body: Option<Vec<u8>>) {
        let mut shared = self.shared();
        let missing = shared
            .table
            .get(&head.node)
            .and_then(|known| known.missing_body());
        if missing.is_none() {
            return;
        }
        if let Some(bytes) = body
            && shared.table.put_body(&head.node, bytes)
        {
            drop(shared);
            self.unsaved.notify_one();
            return self.changed();
        }
        if shared.fetching.insert(head.node) {
            drop(shared);
            let fetching = self.clone().fetch_bodies(from, head.node);
            self.host.tasks.spawn(fetching);
        }
    }

    /// Fetches an author's newest body until it is there, one at a time and
    /// within the author's budget: those in between are never asked for.
    async fn fetch_bodies(self: Arc<Self>, from: NodeId, owner: NodeId) {
        loop {
            let now = self.host.clock.now();
            let (hash, wait) = {
                let mut shared = self.shared();
                let missing = shared.table.get(&owner).and_then(Known::missing_body);
                let Some(hash) = missing else {
                    shared.fetching.remove(&owner);
                    shared.budgets.retain(|_, budget| !budget.is_full(now));
                    return;
                };
                let budget = shared.budgets.entry(owner);
                (
                    hash,
                    budget.or_insert_with(|| Budget::of_bodies(now)).wait(now),
                )
            };
            if !wait.is_zero() {
                self.host.clock.sleep(wait).await;
                continue;
            }
            let (bytes, is_had) = self.fetch_body(from, owner, hash).await;
            let now = self.host.clock.now();
            let mut shared = self.shared();
            if let Some(budget) = shared.budgets.get_mut(&owner) {
                budget.spend(bytes.max(UNANSWERED), now);
            }
            // Nobody has it, or there is a newer one, which its head asks for.
            if !is_had && shared.table.get(&owner).and_then(Known::missing_body) == Some(hash) {
                shared.fetching.remove(&owner);
                return;
            }
        }
    }

    /// Asks for a body: the one who sent the head, its owner, then others.
    /// Gives how much came, and whether it was the right one.
    async fn fetch_body(&self, from: NodeId, owner: NodeId, hash: Hash) -> (usize, bool) {
        let mut received = 0;
        let connected: BTreeSet<NodeId> = self.transport.peers().into_iter().collect();
        let others = connected
            .iter()
            .copied()
            .filter(|node| *node != from && *node != owner);
        let sources: Vec<NodeId> = [from, owner]
            .into_iter()
            .chain(others)
            .take(SOURCES)
            .collect();
        let query = codec::encode(&BodyQuery { hash });
        for source in sources
            .into_iter()
            .filter(|source| connected.contains(source))
        {
            let answer = self
                .transport
                .call(source, method::BODY, query.clone(), FETCH)
                .await;
            let Ok(bytes) = answer else { continue };
            received += bytes.len();
            if bytes.len() > limits::BODY_BYTES || Hash::of(&bytes) != hash {
                self.count(|counters| counters.refused += 1);
                continue;
            }
            if self.shared().table.put_body(&owner, bytes) {
                self.unsaved.notify_one();
                self.changed();
            }
            return (received, true);
        }
        (received, false)
    }

    /// Passes a change on to a few peers that may not have it yet.
    fn pass_on(&self, from: NodeId, head: &Head, pushed: PushedHead) {
        let now = self.host.clock.now();
        if !self.shared().passing.begin(head.node, now) {
            return;
        }
        let push = codec::encode(&Push {
            heads: vec![pushed],
        });
        for peer in self.some_peers(FAN_OUT, |node| *node != from && *node != head.node) {
            self.transport.notify(peer, method::PUSH, push.clone());
        }
    }

    /// A few of the connected peers that are `wanted`, by chance.
    pub(super) fn some_peers(&self, count: usize, wanted: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
        let mut peers = self.transport.peers();
        peers.retain(wanted);
        (0..count.min(peers.len()))
            .map(|_| peers.swap_remove(self.random_below(peers.len())))
            .collect()
    }

    fn random_below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.host.keys.random(&mut bytes);
        (u64::from_le_bytes(bytes) % bound.max(1) as u64) as usize
    }

    /// Tells a peer that has just connected what this node announces, as it
    /// does the same, and takes what it knows of others while this node knows
    /// little: after a start, or a split.
    pub(super) async fn greet(self: Arc<Self>, peer: NodeId) {
        self.tell_own(peer);
        // All peers of a large mesh connect within a moment; a few of them know
        // what the others know.
        let _turn = self.greetings.acquire().await;
        if !self.is_behind() {
            return;
        }
        let position = self.ledger.durable();
        let query = codec::encode(&HeadsQuery { position });
        let answer = self.transport.call(peer, method::HEADS, query, FETCH).await;
        match answer.map(|bytes| codec::decode::<Push>(&bytes, limits::RPC_BYTES)) {
            Ok(Ok(push)) => {
                let news = self.take_heads(peer, push.heads);
                self.shared().ask_heads_after = (!news).then(|| self.host.clock.now() + NO_NEWS);
            }
            Ok(Err(error)) => tracing::debug!(?peer, %error, "a peer's heads can't be read"),
            Err(error) => tracing::debug!(?peer, %error, "a peer didn't say what heads it has"),
        }
    }

    /// Whether some members aren't heard of, and a peer that has just connected
    /// may know more.
    fn is_behind(&self) -> bool {
        let now = self.now();
        let members = self.ledger.state().members.len();
        let shared = self.shared();
        let live = shared.table.iter().filter(|(_, known)| known.is_live(now));
        // With this node itself.
        let unheard = members.saturating_sub(live.count() + 1);
        let may_ask = shared
            .ask_heads_after
            .is_none_or(|after| self.host.clock.now() >= after);
        unheard > members / UNHEARD && may_ask
    }

    /// What this node announced while it wasn't connected to a peer.
    fn tell_own(&self, peer: NodeId) {
        if let Some(own) = self.shared().own.pushed() {
            let push = codec::encode(&Push { heads: vec![own] });
            self.transport.notify(peer, method::PUSH, push);
        }
    }

    /// The index of this state's members, made anew when they may have changed.
    fn member_index(&self, state: &Arc<State>) -> Arc<MemberIndex> {
        let mut shared = self.shared();
        if !Arc::ptr_eq(&shared.index.of, state) {
            shared.index = Arc::new(MemberIndex::new(state));
        }
        shared.index.clone()
    }

    /// Takes one gossip message: its heads into the table, and what passes the
    /// gate to chitchat.
    pub(super) fn take_message(self: &Arc<Self>, from: NodeId, message: &[u8]) {
        let filtered = self.read_message(message).map(|incoming| {
            let offered = incoming.heads();
            let taken = offered.filter(|(id, head)| self.take_offered(from, id, head));
            let taken = taken.map(|(id, _)| *id).collect();
            incoming.filter(&TakenHeads { inner: self, taken })
        });
        match filtered {
            Ok(filtered) => {
                let drops = filtered.drops;
                let dropped = drops.unknown + drops.refused;
                self.count(|counters| counters.dropped += dropped as u64);
                self.exchange.receive(from, &filtered.bytes);
            }
            Err(error) => {
                tracing::debug!(?from, %error, "a gossip message was refused");
                self.count(|counters| counters.gated += 1);
            }
        }
    }

    fn read_message(&self, message: &[u8]) -> Result<Incoming, GateError> {
        let state = self.ledger.state();
        let index = self.member_index(&state);
        let (me, cluster) = (self.exchange.id(), self.exchange.cluster());
        match gate::compact::unpack(message, &state.mesh, |short| index.find(short))? {
            Unpacked::Plain(message) => gate::read(&message, &cluster, &me),
            Unpacked::Compact(message) => gate::read_compact(message, &cluster, &me),
        }
    }

    /// Takes a head that a gossip message says is of `id`. Whether it is the one
    /// that is held now.
    fn take_offered(self: &Arc<Self>, from: NodeId, id: &GossipId, head: &gate::Value) -> bool {
        let Some(sealed) = innermesh_proto::head::from_text(&head.text) else {
            return false;
        };
        let Ok(claimed) = sealed.peek::<Head>(limits::HEAD_BYTES) else {
            return false;
        };
        let stated = gate::gossip_id(&claimed.node, claimed.generation) == *id;
        if !stated || claimed.seq != head.version {
            return false;
        }
        // What is held already was verified then; most of gossip is that.
        let held = {
            let shared = self.shared();
            shared
                .table
                .get(&claimed.node)
                .is_some_and(|known| known.sealed == sealed)
        };
        if held {
            return true;
        }
        match self.take_head(sealed) {
            Some((_, Offer::Old | Offer::Conflict)) | None => false,
            Some((head, Offer::Renewed | Offer::Changed)) => {
                self.settle_body(from, &head, None);
                true
            }
        }
    }
}

/// The members' gossip ids, found by their short names: each entry of each
/// digest is.
pub(super) struct MemberIndex {
    of: Arc<State>,
    /// By the short name as a number; generations are 0.
    ids: Vec<(u64, GossipId)>,
}

impl MemberIndex {
    pub(super) fn new(state: &Arc<State>) -> Self {
        let id = |node: &NodeId| {
            let number = u64::from_be_bytes(gate::short(node));
            (number, gate::gossip_id(node, 0))
        };
        // Members are sorted by their ids, and so by the first bytes of them.
        let mut ids: Vec<_> = state.members.keys().map(id).collect();
        ids.dedup_by_key(|(number, _)| *number);
        Self {
            of: state.clone(),
            ids,
        }
    }

    fn find(&self, short: &Short) -> Option<GossipId> {
        let number = u64::from_be_bytes(*short);
        let place = self
            .ids
            .binary_search_by_key(&number, |(number, _)| *number);
        Some(self.ids[place.ok()?].1)
    }
}

/// Where the nodes with this short name begin, in the order of ids.
fn first_with(short: &Short) -> NodeId {
    let mut first = [0; 16];
    first[..short.len()].copy_from_slice(short);
    NodeId(first)
}

impl Inner {
    /// Something of the head that is held of exactly this id.
    fn held<T>(&self, id: &GossipId, of: impl FnOnce(&Head, &Sealed) -> T) -> Option<T> {
        let shared = self.shared();
        let short = id.node.short()?;
        let (head, sealed) = if gate::short(&self.me) == short {
            shared
                .own
                .head
                .as_ref()
                .map(|(head, sealed)| (head, sealed))?
        } else {
            let known = shared.table.first_from(&first_with(&short))?;
            (&known.head, &known.sealed)
        };
        let same = gate::short(&head.node) == short
            && gate::gossip_address(&head.node) == id.address
            && head.generation == id.generation;
        same.then(|| of(head, sealed))
    }
}

/// Lets the exchange have the heads.
pub(super) struct Table(pub(super) Weak<Inner>);

impl HeadSource for Table {
    fn sealed(&self, id: &GossipId) -> Option<(u64, Vec<u8>)> {
        let inner = self.0.upgrade()?;
        inner.held(id, |head, sealed| (head.seq, codec::encode(sealed)))
    }
}

/// What the gate may let through of a message: what was taken of it, and what is
/// held.
struct TakenHeads<'a> {
    inner: &'a Inner,
    taken: BTreeSet<GossipId>,
}

impl HeadFilter for TakenHeads<'_> {
    fn verified(&self, id: &GossipId) -> Option<u64> {
        self.inner.held(id, |head, _| head.seq)
    }

    fn is_genuine(&self, id: &GossipId, _: &gate::Value) -> bool {
        self.taken.contains(id)
    }
}
