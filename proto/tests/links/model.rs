//! Nodes, and a network between them that delays, loses and cuts: the links of a whole
//! mesh in simulated time. The same seed gives the same run.

mod events;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    rc::Rc,
    time::Duration,
};

use innermesh_proto::{
    crypto::Hash,
    id::{MeshId, NodeId},
    links::{Beat, Links, NamedLinks, Order, Place, Settings, key, publish::PushBudget},
};

/// IP, UDP, QUIC's header and tag, and a DATAGRAM frame.
const PACKET_OVERHEAD: u64 = 28 + 27 + 3;
/// A signed head without its body, in a PUSH on a stream.
const HEAD_BYTES: u64 = 240;
/// What else a body says.
const BODY_BYTES: u64 = 150;
/// Heads that a receiver passes on to.
const FAN_OUT: usize = 3;
const DIAL_TIMEOUT: u64 = 2_000_000;
/// After so long QUIC gives a silent connection up.
const IDLE: u64 = 15_000_000;

pub type Index = usize;

#[derive(Clone, Debug)]
pub struct Head {
    pub owner: Index,
    pub order: Order,
    pub named: Rc<NamedLinks>,
}

enum Event {
    Poll(Index),
    Packet {
        from: Index,
        to: Index,
        beat: Beat,
    },
    Push {
        from: Index,
        to: Index,
        head: Head,
    },
    /// `from` and `to` have each other's tables.
    Repair {
        from: Index,
        to: Index,
    },
    Dialed {
        from: Index,
        to: Index,
    },
    Idle {
        one: Index,
        other: Index,
    },
    Member {
        at: Index,
        member: Index,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Runs,
    /// It stands still; what arrives waits for it, up to [`INBOX`].
    Still,
    Dead,
}

/// A socket's buffer.
const INBOX: usize = 500;

pub struct Node {
    pub id: NodeId,
    pub links: Links,
    pub state: State,
    pub own: Order,
    pub behind_nat: bool,
    /// How far it follows the ledger.
    pub position: u64,
    pub heads: BTreeMap<Index, Head>,
    /// Who leaves out what it knows of, and names whomever it likes.
    pub names_instead: Option<NamedLinks>,
    budget: PushBudget,
    inbox: Vec<Event>,
    wakes: u64,
    /// Which part of a split network it is in.
    pub side: u8,
    pub sent: u64,
    pub published: u64,
    /// An offset of its monotonic clock: none is another's.
    skew: u64,
}

/// One node's view of another changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub at: u64,
    pub by: Index,
    pub of: Index,
    pub is_live: bool,
}

pub struct World {
    pub now: u64,
    pub nodes: Vec<Node>,
    pub loss: f64,
    pub changes: Vec<Change>,
    pub events: u64,
    by_id: BTreeMap<NodeId, Index>,
    queue: BinaryHeap<Reverse<(u64, u64, Slot)>>,
    slots: BTreeMap<u64, Event>,
    connections: BTreeSet<(Index, Index)>,
    serial: u64,
    random: u64,
}

type Slot = u64;

pub fn id(n: usize) -> NodeId {
    let hash = Hash::of(&(n as u64).to_le_bytes()).0;
    NodeId(hash[..16].try_into().unwrap())
}

pub fn salt(n: usize) -> Hash {
    Hash::of(&[&b"salt"[..], &(n as u64).to_le_bytes()].concat())
}

impl World {
    /// `count` nodes that know each other by the ledger and by heads of an earlier run.
    pub fn new(count: usize, behind_nat: impl Fn(usize) -> bool, seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            nodes: Vec::new(),
            loss: 0.0,
            changes: Vec::new(),
            events: 0,
            by_id: BTreeMap::new(),
            queue: BinaryHeap::new(),
            slots: BTreeMap::new(),
            connections: BTreeSet::new(),
            serial: 0,
            random: seed,
        };
        for n in 0..count {
            world.add(n, behind_nat(n));
        }
        for at in 0..count {
            for member in 0..count {
                world.meet(at, member);
            }
            let start = world.below(500_000);
            world.put(start, Event::Poll(at));
        }
        world
    }

    fn add(&mut self, n: usize, behind_nat: bool) {
        let skew = self.below(1 << 40);
        let settings = Settings {
            me: id(n),
            mesh: MeshId([1; 32]),
            generation: 1,
            behind_nat,
        };
        let now = Duration::from_micros(self.now + skew);
        let mut links = Links::new(settings, now);
        let position = place(7);
        links.handle_position(now, position, 0);
        self.by_id.insert(id(n), n);
        self.nodes.push(Node {
            id: id(n),
            links,
            state: State::Runs,
            own: (1, 0),
            behind_nat,
            position: 7,
            heads: BTreeMap::new(),
            names_instead: None,
            budget: PushBudget::default(),
            inbox: Vec::new(),
            wakes: 0,
            side: 0,
            sent: 0,
            published: 0,
            skew,
        });
    }

    /// One more member, of whom the others hear by the ledger.
    pub fn join(&mut self, behind_nat: bool) -> Index {
        let n = self.nodes.len();
        self.add(n, behind_nat);
        for at in 0..n {
            self.meet(n, at);
            let delay = 20_000 + self.below(80_000);
            self.put(delay, Event::Member { at, member: n });
        }
        self.meet(n, n);
        self.put(0, Event::Poll(n));
        n
    }

    fn meet(&mut self, at: Index, member: Index) {
        let now = self.time(at);
        let node = &mut self.nodes[at];
        node.links
            .handle_member(now, id(member), Some(&salt(member)));
    }

    pub fn time(&self, at: Index) -> Duration {
        Duration::from_micros(self.now + self.nodes[at].skew)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random() % bound.max(1)
    }

    fn is_lost(&mut self) -> bool {
        let at = (self.random() >> 11) as f64 / (1u64 << 53) as f64;
        at < self.loss
    }

    fn put(&mut self, delay: u64, event: Event) {
        self.serial += 1;
        self.slots.insert(self.serial, event);
        self.queue
            .push(Reverse((self.now + delay, self.serial, self.serial)));
    }

    fn delay(&mut self) -> u64 {
        5_000 + self.below(25_000)
    }

    /// How long a stream takes for a message, with what is lost sent again.
    fn stream_delay(&mut self) -> u64 {
        let mut delay = self.delay();
        let mut again = 100_000;
        while self.is_lost() {
            delay += again;
            again = (again * 2).min(1_000_000);
        }
        delay
    }

    pub fn reaches(&self, from: Index, to: Index) -> bool {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        from.side == to.side && from.state != State::Dead && to.state != State::Dead
    }

    pub fn kill(&mut self, node: Index) {
        self.nodes[node].state = State::Dead;
        let peers: Vec<Index> = (0..self.nodes.len())
            .filter(|peer| self.connections.contains(&pair(node, *peer)))
            .collect();
        for other in peers {
            self.put(IDLE, Event::Idle { one: node, other });
        }
    }

    /// A node stands still until [`World::wake`].
    pub fn stop(&mut self, node: Index) {
        self.nodes[node].state = State::Still;
    }

    pub fn wake(&mut self, node: Index) {
        self.nodes[node].state = State::Runs;
        self.put(0, Event::Poll(node));
        for event in std::mem::take(&mut self.nodes[node].inbox) {
            self.put(1, event);
        }
    }

    pub fn split(&mut self, side: impl Fn(Index) -> u8) {
        for n in 0..self.nodes.len() {
            self.nodes[n].side = side(n);
        }
        let cut: Vec<(Index, Index)> = self.connections.iter().copied().collect();
        for (one, other) in cut {
            if !self.reaches(one, other) {
                self.put(IDLE, Event::Idle { one, other });
                let (one, other) = (other, one);
                self.put(IDLE, Event::Idle { one, other });
            }
        }
    }

    /// Runs for so long, in microseconds.
    pub fn run(&mut self, time: u64) {
        let until = self.now + time;
        while let Some(Reverse((at, _, _))) = self.queue.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, slot))) = self.queue.pop() else {
                break;
            };
            self.now = at;
            if let Some(event) = self.slots.remove(&slot) {
                self.events += 1;
                self.happen(event);
            }
        }
        self.now = until;
    }

    /// Whether `by` takes `of` for live.
    pub fn sees(&self, by: Index, of: Index) -> bool {
        self.nodes[by].links.is_live(&self.nodes[of].id)
    }

    pub fn alive(&self) -> Vec<Index> {
        let all = 0..self.nodes.len();
        all.filter(|n| self.nodes[*n].state == State::Runs)
            .collect()
    }

    /// Pairs of nodes that run where one doesn't take the other for live.
    pub fn unseen(&self) -> usize {
        let alive = self.alive();
        let pairs = alive
            .iter()
            .flat_map(|by| alive.iter().map(move |of| (by, of)));
        pairs.filter(|(by, of)| !self.sees(**by, **of)).count()
    }

    /// How many links of a node are up.
    pub fn up(&self, at: Index) -> usize {
        self.nodes[at].links.up().count()
    }
}

fn pair(one: Index, other: Index) -> (Index, Index) {
    (one.min(other), one.max(other))
}

pub fn place(index: u64) -> Place {
    Place {
        index,
        hash: [0; 16],
    }
}

/// What `node` is named by.
pub fn named(nodes: &[Index], epoch: Order) -> NamedLinks {
    NamedLinks {
        behind_nat: false,
        links: nodes.iter().map(|n| (key(&id(*n)), epoch)).collect(),
    }
}
