//! The tunnel's datagrams on their way by relays: this node's own, and, where it is a
//! relay, those of others. Each next hop has a queue for each sender, which are served in
//! turns, so that nobody's datagrams hold up another's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use innermesh_proto::{
    id::NodeId,
    limits,
    path::{Frame, Halves, Part, pieces},
    tunnel::TunnelPlan,
    view::MeshView,
};

use crate::{
    host::{Clock, Mono, tasks::Tasks},
    node::shared::handles::Handles,
    quic::Transport,
    tunnel::relayed::{Burst, Relayed, relay_place},
};

/// How long a connection with a relay may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How often the own relay hears of this node while it sends by another one: what comes
/// back comes by the own, past a NAT that may have forgotten it.
const KEPT_OPEN: Duration = Duration::from_secs(1);
/// A datagram that says nothing.
const NOTHING: &[u8] = &[0];

/// See the module.
pub(crate) struct Relaying {
    me: NodeId,
    transport: Transport,
    tasks: Tasks,
    relayed: Relayed,
    known: ArcSwap<Known>,
    halves: Mutex<Halves>,
    numbers: AtomicU16,
    hops: Mutex<BTreeMap<NodeId, Hop>>,
    /// When the own relay was last sent something.
    kept_open: Mutex<Mono>,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

/// What is looked up for each datagram.
#[derive(Default)]
struct Known {
    /// Who a relay's place in the tunnel stands for, and by which relay that node is
    /// reached.
    by_place: HashMap<SocketAddr, (NodeId, Option<NodeId>)>,
    places: HashMap<NodeId, SocketAddr>,
    relays: BTreeSet<NodeId>,
    /// The one by which others reach this node.
    own: Option<NodeId>,
    /// Whether this node is one.
    is_relay: bool,
}

/// What waits for one next hop, by who sent it.
#[derive(Default)]
struct Hop {
    senders: BTreeMap<NodeId, VecDeque<Bytes>>,
    /// Who is served next.
    turns: VecDeque<NodeId>,
    bytes: BTreeMap<NodeId, usize>,
    total: usize,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

impl Hop {
    /// Whether there was room.
    fn push(&mut self, sender: NodeId, datagram: Bytes) -> bool {
        let bytes = self.bytes.entry(sender).or_default();
        let is_full = *bytes + datagram.len() > limits::RELAYED_BYTES_OF_ONE;
        if is_full || self.total + datagram.len() > limits::RELAYED_BYTES {
            return false;
        }
        *bytes += datagram.len();
        self.total += datagram.len();
        let waiting = self.senders.entry(sender).or_default();
        if waiting.is_empty() {
            self.turns.push_back(sender);
        }
        waiting.push_back(datagram);
        true
    }

    fn pop(&mut self) -> Option<Bytes> {
        let sender = self.turns.pop_front()?;
        let waiting = self.senders.get_mut(&sender)?;
        let datagram = waiting.pop_front()?;
        let is_empty = waiting.is_empty();
        self.total -= datagram.len();
        if is_empty {
            self.senders.remove(&sender);
            self.bytes.remove(&sender);
        } else {
            if let Some(bytes) = self.bytes.get_mut(&sender) {
                *bytes -= datagram.len();
            }
            self.turns.push_back(sender);
        }
        Some(datagram)
    }
}

impl Relaying {
    pub fn new(node: &Handles, relayed: Relayed) -> Self {
        Self {
            me: node.me,
            transport: node.transport.clone(),
            tasks: node.host.tasks.clone(),
            relayed,
            known: ArcSwap::default(),
            halves: Mutex::default(),
            numbers: AtomicU16::default(),
            hops: Mutex::default(),
            kept_open: Mutex::default(),
            clock: node.host.clock.clone(),
            counts: Counts::default(),
        }
    }

    /// Takes in who is reached how.
    pub fn know(&self, view: &MeshView, plan: &TunnelPlan) {
        let ways = plan
            .ways
            .iter()
            .filter(|(key, _)| plan.peers.contains_key(key));
        let ways: Vec<_> = ways
            .map(|(key, way)| (relay_place(key), way.node, way.relay))
            .collect();
        let members = view.ledger.members.keys().copied();
        let own = view.nodes.get(&self.me);
        let own = own.and_then(|own| own.announcement.places.relay);
        self.known.store(Arc::new(Known {
            places: ways
                .iter()
                .map(|(place, node, _)| (*node, *place))
                .collect(),
            by_place: ways
                .into_iter()
                .map(|(place, node, relay)| (place, (node, relay)))
                .collect(),
            own: own.filter(|own| *own != self.me),
            relays: members.filter(|node| view.is_relay(node)).collect(),
            is_relay: view.is_relay(&self.me),
        }));
    }

    /// Sends what the tunnel has for relays, for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        loop {
            let burst = self.relayed.outgoing().await;
            self.send(&burst);
        }
    }

    fn send(self: &Arc<Self>, burst: &Burst) {
        let datagrams = burst.bytes.chunks(burst.segment.max(1));
        let known = self.known.load();
        let way = known.by_place.get(&burst.to).copied();
        let Some((node, Some(relay))) = way else {
            self.count_dropped(datagrams.len());
            return;
        };
        // Where this node is that relay, it has the connection itself; where the peer
        // is, that is the only hop.
        let hop = if relay == self.me { node } else { relay };
        let (whose, to) = if relay == self.me {
            (self.me, false)
        } else {
            (node, true)
        };
        let room = self.transport.datagram_room(hop).unwrap_or(SMALLEST);
        for datagram in datagrams {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            for piece in pieces(whose, to, datagram, room, number) {
                self.queue(hop, self.me, piece);
            }
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
        }
        self.transport.note_used(hop);
        if let Some(own) = known.own.filter(|own| *own != hop) {
            self.keep_open(own);
        }
    }

    fn keep_open(&self, own: NodeId) {
        let now = self.clock.now();
        let mut kept = self
            .kept_open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if now >= *kept + KEPT_OPEN {
            *kept = now;
            // Where there is no connection another relay is being looked for.
            let _ = self
                .transport
                .send_datagram(own, Bytes::from_static(NOTHING));
        }
    }

    /// Takes a frame that a member sent.
    pub fn take(self: &Arc<Self>, caller: NodeId, datagram: &[u8]) {
        let Some(frame) = Frame::decode(datagram) else {
            self.count_dropped(1);
            return;
        };
        let known = self.known.load();
        if frame.to && frame.node != self.me {
            // It dials nobody for that: who is reached by it keeps the connection.
            let room = self.transport.datagram_room(frame.node);
            match room.filter(|_| known.is_relay) {
                Some(room) => self.forward(caller, &frame, room),
                None => self.count_dropped(1),
            }
            return;
        }
        // What a node says of its own datagrams is so, and what a relay says of another's
        // is for the tunnel to prove.
        let from = if frame.to { caller } else { frame.node };
        let is_told = frame.to || from == caller || known.relays.contains(&caller);
        let place = known.places.get(&from).filter(|_| is_told);
        let Some(place) = place.copied() else {
            self.count_dropped(1);
            return;
        };
        let whole = {
            let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
            halves.take(from, frame.part, frame.bytes)
        };
        if let Some(whole) = whole {
            self.counts.received.fetch_add(1, Ordering::Relaxed);
            self.relayed.deliver(place, Bytes::from(whole));
        }
    }

    fn forward(self: &Arc<Self>, sender: NodeId, frame: &Frame<'_>, room: usize) {
        let to = frame.node;
        let frame = Frame {
            node: sender,
            to: false,
            ..*frame
        };
        let datagram = frame.encode();
        self.counts.forwarded.fetch_add(1, Ordering::Relaxed);
        if datagram.len() <= room {
            self.queue(to, sender, datagram);
        } else if frame.part == Part::Whole {
            // The way on is narrower.
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            for piece in pieces(sender, false, frame.bytes, room, number) {
                self.queue(to, sender, piece);
            }
        } else {
            self.count_dropped(1);
        }
    }

    /// Sends a datagram at once where nothing waits and there is room.
    fn queue(self: &Arc<Self>, hop: NodeId, sender: NodeId, datagram: Vec<u8>) {
        let mut hops = self.hops();
        let is_new = !hops.contains_key(&hop);
        let mut datagram = Bytes::from(datagram);
        if is_new {
            match self.transport.try_relay(hop, datagram) {
                Ok(()) => return,
                Err(unsent) => datagram = unsent,
            }
        }
        if !hops.entry(hop).or_default().push(sender, datagram) {
            drop(hops);
            self.count_dropped(1);
            return;
        }
        drop(hops);
        if is_new {
            self.tasks.spawn(self.clone().drain(hop));
        }
    }

    /// Sends what waits for a next hop, until nothing does.
    async fn drain(self: Arc<Self>, hop: NodeId) {
        if !self.transport.connect(hop, CONNECT).await {
            let lost = self.hops().remove(&hop);
            let lost = lost.into_iter().flat_map(|hop| hop.senders.into_values());
            self.count_dropped(lost.map(|waiting| waiting.len()).sum());
            return;
        }
        self.transport.note_used(hop);
        loop {
            let next: Vec<Bytes> = {
                let mut hops = self.hops();
                let waiting = hops.get_mut(&hop).into_iter();
                let next = waiting.flat_map(|hop| std::iter::from_fn(|| hop.pop()).take(AT_ONCE));
                let next: Vec<Bytes> = next.collect();
                if next.is_empty() {
                    hops.remove(&hop);
                }
                next
            };
            if next.is_empty() {
                return;
            }
            let lost = self.transport.relay_datagrams(hop, next).await;
            self.count_dropped(lost);
        }
    }

    fn count_dropped(&self, count: usize) {
        self.counts
            .dropped
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    fn hops(&self) -> MutexGuard<'_, BTreeMap<NodeId, Hop>> {
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers that only rise, by name.
    pub fn counters(&self) -> [(&'static str, u64); 4] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("relay_datagrams_sent", read(&self.counts.sent)),
            ("relay_datagrams_received", read(&self.counts.received)),
            ("relay_datagrams_forwarded", read(&self.counts.forwarded)),
            (
                "relay_datagrams_dropped",
                read(&self.counts.dropped) + self.relayed.dropped(),
            ),
        ]
    }
}

/// Datagrams that are handed over together.
const AT_ONCE: usize = 32;
/// What fits into a datagram of any connection (RFC 9000 §14: 1,200 bytes), without
/// QUIC's own.
const SMALLEST: usize = 1100;

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: NodeId = NodeId([1; 16]);
    const QUIET: NodeId = NodeId([2; 16]);

    #[test]
    fn senders_are_served_in_turns_and_none_has_more_than_its_room() {
        let mut hop = Hop::default();
        let taken = (0..10_000)
            .filter(|_| hop.push(LOUD, vec![1; 1000].into()))
            .count();
        assert_eq!(taken, limits::RELAYED_BYTES_OF_ONE / 1000);
        for _ in 0..3 {
            assert!(hop.push(QUIET, vec![2; 100].into()));
        }
        let first: Vec<u8> = (0..6).map(|_| hop.pop().unwrap()[0]).collect();
        assert_eq!(first, [1, 2, 1, 2, 1, 2]);
        while hop.pop().is_some() {}
        assert_eq!((hop.total, hop.bytes.len(), hop.senders.len()), (0, 0, 0));
    }
}
