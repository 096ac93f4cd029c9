//! All of a node's links together: what is heard goes in, what is to be done comes out.

mod choose;
mod heads;
mod packets;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    Key, Order, SETTLE, STANDSTILL, TICK,
    dials::Dials,
    digest::TableDigest,
    key,
    live::Live,
    publish::Publisher,
    rings::Rings,
    state::{Link, Loss},
    wire::{Beat, Flags, NamedLinks, Place},
};
use crate::{
    crypto::Hash,
    id::{MeshId, NodeId},
    moments::until_next,
};

/// Who a node is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub me: NodeId,
    pub mesh: MeshId,
    /// Rises at each start: attempts at links begin above those of the run before.
    pub generation: u64,
    /// Whether nobody can dial this node.
    pub behind_nat: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect with the member; the answer is [`Links::handle_connected`] or
    /// [`Links::handle_dial_failed`].
    Dial(NodeId),
    /// Send the packet, at once or not at all.
    Send(NodeId, Beat),
    /// Sign a head that names these links; the answer is [`Links::handle_own_head`].
    Publish(NamedLinks),
    /// Compare buckets with the peer, and take the heads that differ.
    Repair(NodeId),
    /// The connection isn't needed for a link any more.
    Release(NodeId),
}

/// What this node knows of a peer beside the link itself.
#[derive(Clone, Copy, Debug, Default)]
struct Tables {
    /// How many packets in a row showed another digest at the same position.
    differ: u32,
    repaired: Option<Duration>,
    /// Repairs in a row that brought nothing.
    fruitless: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Links {
    me: NodeId,
    behind_nat: bool,
    rings: Rings,
    live: Live,
    digest: TableDigest,
    /// Where the newest head of each stands.
    orders: BTreeMap<NodeId, Order>,
    by_key: BTreeMap<Key, NodeId>,
    behind_nats: BTreeSet<NodeId>,
    links: BTreeMap<NodeId, Link>,
    tables: BTreeMap<NodeId, Tables>,
    dials: Dials,
    connected: BTreeSet<NodeId>,
    publisher: Publisher,
    own: Order,
    position: Place,
    clock_ms: u64,
    attempts: u32,
    head_at: Option<Duration>,
    /// Whether it is known what others know, so that absence means something.
    is_settled: bool,
    settles: Duration,
    now: Duration,
    /// When [`Links::poll`] was to be called.
    due: Duration,
    chosen: Option<Duration>,
    effects: VecDeque<Effect>,
    pauses: u64,
    is_leaving: bool,
}

impl Links {
    pub fn new(settings: Settings, now: Duration) -> Self {
        let run = u32::try_from(settings.generation % 0x7fff).unwrap_or_default();
        Self {
            me: settings.me,
            behind_nat: settings.behind_nat,
            rings: Rings::new(settings.mesh),
            live: Live::new(key(&settings.me), now + SETTLE),
            digest: TableDigest::new(settings.mesh),
            orders: BTreeMap::new(),
            by_key: BTreeMap::new(),
            behind_nats: BTreeSet::new(),
            links: BTreeMap::new(),
            tables: BTreeMap::new(),
            dials: Dials::default(),
            connected: BTreeSet::new(),
            publisher: Publisher::default(),
            own: (0, 0),
            position: Place::default(),
            clock_ms: 0,
            attempts: run << 16,
            head_at: None,
            is_settled: false,
            settles: now + SETTLE,
            now,
            due: now + TICK,
            chosen: None,
            effects: VecDeque::new(),
            pauses: 0,
            is_leaving: false,
        }
    }

    /// A member by the ledger held here, and the hash of the header of the batch after the
    /// one that admitted it, once there is one.
    pub fn handle_member(&mut self, now: Duration, node: NodeId, salt: Option<&Hash>) {
        self.begin(now);
        self.rings.insert(node, salt);
        self.by_key.insert(key(&node), node);
        self.chosen = None;
    }

    /// Who is no member any more: nothing of it is kept.
    pub fn handle_member_gone(&mut self, now: Duration, node: &NodeId) {
        let now = self.begin(now);
        let before = self.orders.remove(node);
        self.digest.replace(node, before, None);
        self.rings.remove(node);
        self.by_key.remove(&key(node));
        self.behind_nats.remove(node);
        self.tables.remove(node);
        self.dials.forget(node);
        self.connected.remove(node);
        self.live.forget(key(node), now);
        if self.links.remove(node).is_some() {
            self.effects.push_back(Effect::Release(*node));
        }
        self.chosen = None;
    }

    /// A node's newest head, verified: older ones than the one that is known, and those of
    /// nodes that are no members, change nothing.
    pub fn handle_head(&mut self, now: Duration, node: NodeId, order: Order) {
        let now = self.begin(now);
        if node != self.me && self.rings.contains(&node) && self.note_head(node, order) {
            self.head_at = Some(now);
            if !self.connected.contains(&node) {
                let spread = packets::spread(&self.me, &node);
                self.dials.speaks(&node, spread, now);
            }
        }
    }

    /// What the body of a head names, once it is in force; `leaving` when the head says
    /// goodbye. Of the same node as for [`Links::handle_head`].
    pub fn handle_named(
        &mut self,
        now: Duration,
        node: NodeId,
        order: Order,
        leaving: bool,
        named: &NamedLinks,
    ) {
        let now = self.begin(now);
        if node != self.me
            && self.rings.contains(&node)
            && self.take_named(node, order, leaving, named, now)
        {
            self.answer_drop(node, now);
        }
    }

    /// The own head as it was signed.
    pub fn handle_own_head(&mut self, now: Duration, order: Order, named: &NamedLinks) {
        let now = self.begin(now);
        let me = self.me;
        if self.note_head(me, order) && self.take_named(me, order, false, named, now) {
            self.own = order;
            self.publisher.published(named.links.clone(), now);
            self.publisher.set(&self.named(), now);
        }
    }

    /// How far this node follows the ledger, and its wall clock.
    pub fn handle_position(&mut self, now: Duration, position: Place, clock_ms: u64) {
        self.begin(now);
        self.position = position;
        self.clock_ms = clock_ms;
    }

    pub fn handle_connected(&mut self, now: Duration, peer: NodeId) {
        let now = self.begin(now);
        if self.rings.contains(&peer) && !self.connected.contains(&peer) {
            self.dials.connected(peer, now);
        }
        if self.rings.contains(&peer) && self.connected.insert(peer) {
            if let Some(link) = self.links.get_mut(&peer) {
                link.connected(now);
            }
            self.chosen = None;
        }
    }

    /// The connection is gone. Its link isn't, until the peer has been silent for long
    /// enough: another connection may take its place.
    pub fn handle_disconnected(&mut self, now: Duration, peer: &NodeId) {
        let now = self.begin(now);
        if self.connected.remove(peer) {
            let spread = packets::spread(&self.me, peer);
            self.dials.lost(*peer, spread, now);
        }
        self.chosen = None;
    }

    pub fn handle_dial_failed(&mut self, now: Duration, peer: NodeId) {
        let now = self.begin(now);
        self.dials
            .failed(peer, packets::spread(&self.me, &peer), now);
        self.chosen = None;
    }

    /// A packet of a connected peer. `is_reached`: the ledger held here has the batch
    /// that the packet's position names.
    pub fn handle_packet(&mut self, now: Duration, from: NodeId, beat: &Beat, is_reached: bool) {
        let now = self.begin(now);
        if from == self.me || self.is_leaving || !self.rings.contains(&from) {
            return;
        }
        let has_room = self.has_room(&from);
        let known = self.live.graph().order(key(&from));
        let link = self.link(from, now);
        let heard = link.hear(beat, (is_reached, has_room), known, now);
        let (is_up, is_wanted) = (link.is_up(), link.is_wanted());
        if heard.went_down {
            self.live.set_up(key(&from), false, now);
        }
        if is_up {
            self.live.set_up(key(&from), true, now);
            self.compare_tables(from, beat, now);
        }
        if beat.flags.has(Flags::LEAVING) {
            self.dials
                .failed(from, packets::spread(&self.me, &from), now);
        }
        if heard.came_up || heard.went_down {
            self.chosen = None;
        }
        if heard.named || heard.went_down {
            self.publisher.set(&self.named(), now);
        }
        if heard.answer {
            let full = Flags::default().with(Flags::FULL, !has_room && !is_wanted);
            self.send(from, full, now);
        }
    }

    /// A peer's transport has acknowledged a beat with [`Flags::ACKS`] that was sent then.
    pub fn handle_acknowledged(&mut self, now: Duration, peer: &NodeId, sent: Duration) {
        self.begin(now);
        if let Some(link) = self.links.get_mut(peer) {
            link.acknowledged(sent);
        }
    }

    /// A repair with a peer has ended: what it knows is known here. `has_news`: heads
    /// came that were new.
    pub fn handle_repaired(&mut self, now: Duration, peer: &NodeId, has_news: bool) {
        let now = self.begin(now);
        if let Some(tables) = self.tables.get_mut(peer) {
            tables.fruitless = if has_news { 0 } else { tables.fruitless + 1 };
        }
        self.settle(now);
    }

    /// Does what is due; to be called by [`Links::next_due`] at the latest.
    pub fn poll(&mut self, now: Duration) {
        let now = self.begin(now);
        self.due = now + until_next(TICK, now);
        if self.is_leaving {
            return;
        }
        if now >= self.settles {
            self.settle(now);
        }
        self.live.poll(now);
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for peer in peers {
            self.poll_link(peer, now);
        }
        if self.chosen.is_none_or(|chosen| now >= chosen + TICK) {
            self.choose(now);
        }
        if self.publisher.due().is_some_and(|due| now >= due) {
            let links = NamedLinks {
                behind_nat: self.behind_nat,
                links: self.named(),
            };
            self.publisher.published(links.links.clone(), now);
            self.effects.push_back(Effect::Publish(links));
        }
        self.due = self.next_due();
    }

    /// What is to be done next, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Links::poll`] is to be called at the latest.
    pub fn next_due(&self) -> Duration {
        if self.is_leaving {
            return self.now + until_next(TICK, self.now);
        }
        let connected = self.links.iter();
        let links = connected.filter_map(|(peer, link)| {
            let can_send = link.is_up() || self.connected.contains(peer);
            link.next_due().filter(|_| can_send)
        });
        let chosen = self.chosen.is_none().then_some(self.now);
        let all = links
            .chain(self.live.next_due())
            .chain(self.publisher.due())
            .chain(self.dials.next_due(self.now))
            .chain(chosen);
        let tick = self.now + until_next(TICK, self.now);
        all.min().unwrap_or(tick).min(tick)
    }

    /// Whether a member is live; this node is, to itself.
    pub fn is_live(&self, node: &NodeId) -> bool {
        self.rings.contains(node) && self.live.is_live(key(node))
    }

    /// In which run (generation) a member is live, as far as it was heard.
    pub fn live_in(&self, node: &NodeId) -> Option<u64> {
        if !self.is_live(node) {
            return None;
        }
        let link = self.links.get(node).filter(|link| link.is_up());
        let order = match link {
            Some(link) => Some(link.peer_head()),
            None => self.live.graph().order(key(node)),
        };
        order.map(|(generation, _)| generation)
    }

    /// Who became live or dead since the last time.
    pub fn take_changes(&mut self) -> BTreeMap<NodeId, bool> {
        let changes = self.live.take_changes().into_iter();
        changes
            .filter_map(|(node, is_live)| Some((*self.by_key.get(&node)?, is_live)))
            .collect()
    }

    /// Whether this node has heard what others know since its start.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// With whom a node has links that count.
    pub fn counted(&self, node: &NodeId) -> Vec<NodeId> {
        let counted = self.live.graph().counted(key(node));
        counted
            .filter_map(|peer| self.by_key.get(&peer).copied())
            .collect()
    }

    /// Whether a connection with the node serves a link: one that there is, forms, or may
    /// come back.
    pub fn keeps(&self, node: &NodeId) -> bool {
        self.links.contains_key(node)
    }

    /// With whom links are up.
    pub fn up(&self) -> impl Iterator<Item = &NodeId> {
        let links = self.links.iter();
        links.filter(|(_, link)| link.is_up()).map(|(peer, _)| peer)
    }

    /// Whether a link is up with it and nothing has come by that for a while.
    pub fn is_silent(&self, node: &NodeId, now: Duration) -> bool {
        let link = self.links.get(node);
        link.is_some_and(|link| link.is_up() && link.is_silent(now))
    }

    /// Whose links wait, as they failed again and again, while they are heard.
    pub fn waiting(&self, now: Duration) -> impl Iterator<Item = &NodeId> {
        let links = self.links.iter();
        let waiting = links.filter(move |(_, link)| link.waits(now));
        waiting.map(|(peer, _)| peer)
    }

    /// The links that this node names.
    pub fn named(&self) -> BTreeMap<Key, Order> {
        let links = self.links.iter();
        links
            .filter_map(|(peer, link)| Some((key(peer), link.epoch()?)))
            .collect()
    }

    /// Whether others take this node for live: at least half of the links that it names
    /// count, and one does.
    pub fn is_linked(&self) -> bool {
        let own = self.live.graph().tally(key(&self.me));
        own.counts > 0 && own.counts >= own.dropped
    }

    /// The newest head of a node, as it stands among its heads.
    pub fn order(&self, node: &NodeId) -> Option<Order> {
        self.orders.get(node).copied()
    }

    /// The newest heads in these buckets: bit `n` for bucket `n`.
    pub fn heads_in(&self, buckets: u64) -> impl Iterator<Item = (NodeId, Order)> {
        let heads = self.orders.iter().map(|(node, order)| (*node, *order));
        heads.filter(move |(node, _)| buckets >> self.digest.bucket_of(node) & 1 == 1)
    }

    /// The graph that heads make.
    pub fn live(&self) -> &Live {
        &self.live
    }

    pub fn digest(&self) -> &TableDigest {
        &self.digest
    }

    /// How often this node stood still.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }

    /// Says goodbye to all with whom links are up, and takes up no more.
    pub fn leave(&mut self, now: Duration) {
        let now = self.begin(now);
        self.is_leaving = true;
        let up: Vec<NodeId> = self.up().copied().collect();
        for peer in up {
            self.end(peer, Flags::LEAVING, now);
        }
    }

    /// The time: it never goes back here. Where this call comes long after it was due,
    /// this node stood still, and asks before it believes in silence.
    fn begin(&mut self, now: Duration) -> Duration {
        let now = now.max(self.now);
        if now > self.due + STANDSTILL {
            self.pauses += 1;
            let pause = now - self.due;
            self.live.excuse(pause, now);
            for link in self.links.values_mut() {
                link.excuse(pause, now);
            }
            self.due = now;
        }
        self.now = now;
        now
    }

    fn settle(&mut self, now: Duration) {
        if !self.is_settled {
            self.is_settled = true;
            self.live.settle(now);
            self.chosen = None;
        }
    }

    fn link(&mut self, peer: NodeId, now: Duration) -> &mut Link {
        let (is_first, phase) = (self.me < peer, packets::phase(&self.me, &peer));
        let attempts = &mut self.attempts;
        self.links.entry(peer).or_insert_with(|| {
            *attempts = attempts.wrapping_add(1);
            Link::new(is_first, phase, *attempts, now)
        })
    }

    fn lose(&mut self, peer: NodeId, loss: Loss, now: Duration) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.lose(loss, now);
        }
        self.lost(peer, now);
    }

    fn lost(&mut self, peer: NodeId, now: Duration) {
        self.live.set_up(key(&peer), false, now);
        self.publisher.set(&self.named(), now);
        self.chosen = None;
    }

    /// Gives a link up and says so.
    fn end(&mut self, peer: NodeId, why: Flags, now: Duration) {
        self.lose(peer, Loss::Agreed, now);
        self.send(peer, why, now);
    }

    fn poll_link(&mut self, peer: NodeId, now: Duration) {
        self.answer_drop(peer, now);
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let due = link.poll(now);
        let is_spent = link.is_spent(now);
        if due.went_down {
            self.lost(peer, now);
        }
        if due.release {
            self.end(peer, Flags::RELEASE, now);
            self.effects.push_back(Effect::Release(peer));
        } else if let Some(flags) = due.send {
            self.send(peer, flags, now);
        }
        if is_spent {
            self.links.remove(&peer);
            self.tables.remove(&peer);
        }
    }
}
