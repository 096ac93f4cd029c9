//! Voters on a clock and a network of their own, all by a seed. After each
//! step what must hold is checked: one leader a term, and one history.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use innermesh_proto::{codec, crypto::Hash, ledger::Position};

use super::{
    super::{
        Base, Body, Change, Conf, DiskLog, Engine, Entry, Hard, Message, Payload, Rejected, Saved,
    },
    disk::MemDisk,
};

/// A tick, in milliseconds.
const TICK: u64 = 100;

pub struct Cluster {
    pub now: u64,
    pub random: Random,
    pub nodes: BTreeMap<u64, Node>,
    /// Links that carry nothing, by their ends: one way each.
    pub cut: BTreeSet<(u64, u64)>,
    /// Of a thousand messages.
    pub lost: u64,
    pub doubled: u64,
    /// Longest time on the way, in milliseconds.
    pub latency: u64,
    /// Of a thousand writes, how many stop in the middle.
    pub torn: u64,
    /// Of a hundred rounds of work, after how many a log is compacted.
    pub compacted: u64,
    /// What the voters agreed on.
    pub history: Vec<Vec<u8>>,
    /// Who led in each term.
    pub leaders: BTreeMap<u64, u64>,
    /// Who may be heard: the ledger's list.
    pub members: BTreeSet<u64>,
    pub crashes: u64,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    trace: Hash,
}

enum Event {
    Tick(u64),
    Deliver(Message),
    Restart(u64),
}

#[derive(Default)]
pub struct Node {
    pub disk: MemDisk,
    pub live: Option<Live>,
    /// Its ledger: what it applied, proved and on disk at once.
    pub ledger: Vec<Vec<u8>>,
}

pub struct Live {
    pub engine: Engine,
    log: DiskLog,
    /// How much of the ledger the entries that were applied come to.
    applied: usize,
}

impl Cluster {
    /// Voters 1 to `voters` at the same start.
    pub fn new(seed: u64, voters: u64) -> Self {
        let conf = Conf {
            voters: (1..=voters).collect(),
            ..Conf::default()
        };
        let mut cluster = Self {
            now: 0,
            random: Random(seed),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost: 0,
            doubled: 0,
            latency: 40,
            torn: 0,
            compacted: 1,
            history: Vec::new(),
            leaders: BTreeMap::new(),
            members: BTreeSet::new(),
            crashes: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            trace: Hash([0; 32]),
        };
        for id in 1..=voters {
            cluster.add(id, 1, conf.clone());
        }
        cluster
    }

    /// A node without a log, which the leader is to send a snapshot.
    pub fn add_empty(&mut self, id: u64) {
        self.add(id, 0, Conf::default());
    }

    fn add(&mut self, id: u64, start: u64, conf: Conf) {
        let saved = Saved {
            base: Base {
                index: start,
                term: start,
                conf,
                position: position(0),
            },
            hard: Hard {
                term: start,
                vote: 0,
                commit: start,
            },
            entries: Vec::new(),
        };
        let node = Node::default();
        let created = DiskLog::create(&node.disk, id, &saved).now_or_never();
        created.expect("at once").expect("a new file");
        self.nodes.insert(id, node);
        self.members.insert(id);
        self.at(id, Event::Restart(id));
        self.at(TICK + id * 7, Event::Tick(id));
    }

    pub fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((now, _), event) = entry.remove_entry();
            self.now = now;
            self.handle(event);
        }
        self.now = end;
    }

    /// Runs until it is so; panics after `limit`.
    pub fn run_until(&mut self, limit: u64, what: &str, so: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !so(self) {
            assert!(self.now < start + limit, "{what}: not within {limit} ms");
            self.run(10);
        }
        self.now - start
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(id) => {
                self.at(TICK, Event::Tick(id));
                let Some(live) = self.live(id) else { return };
                live.engine.lead_alone();
                live.engine.tick();
                self.work(id);
            }
            Event::Deliver(message) => self.deliver(message),
            Event::Restart(id) => self.restart(id),
        }
    }

    fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        if self.cut.contains(&(from, to)) || !self.members.contains(&from) {
            return;
        }
        self.note(&message);
        let history = self.history.clone();
        let skip = self.random.below(2) == 0;
        let Some(node) = self.nodes.get_mut(&to) else {
            return;
        };
        let Some(live) = &mut node.live else { return };
        if let Body::Snapshot(base) = &message.body {
            let reach = base.position.index as usize;
            if node.ledger.len() < reach {
                if skip {
                    return;
                }
                node.ledger = history[..reach].to_vec();
            }
        }
        let bytes = message.encode();
        let message = Message::decode(&bytes).expect("it was just encoded");
        match live.engine.step(message.clone()) {
            // A hand-over that came late.
            Ok(()) | Err(Rejected::NotLeader) => {}
            Err(error) => panic!("{to} rejects {message:?}: {error}"),
        }
        self.work(to);
    }

    fn restart(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.live.is_some() {
            return;
        }
        let opened = DiskLog::open(&node.disk).now_or_never().expect("at once");
        let (log, owner, saved) = opened.expect("whole").expect("a log");
        assert_eq!(owner, id);
        let applied = saved.base.position.index as usize;
        assert!(applied <= node.ledger.len());
        let engine = Engine::new(id, saved).expect("what it wrote");
        node.live = Some(Live {
            engine,
            log,
            applied,
        });
        self.work(id);
    }

    pub fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.live = None;
        node.disk.crash();
        self.crashes += 1;
    }

    pub fn start(&mut self, id: u64) {
        self.at(0, Event::Restart(id));
        self.run(1);
    }

    /// Does what the engine wants done, until nothing is left.
    fn work(&mut self, id: u64) {
        loop {
            if self.torn > 0 && self.random.below(1000) < self.torn {
                let done = self.random.below(60) as usize;
                let writes = 1 + self.random.below(3);
                self.nodes[&id].disk.stop_after(writes, done);
            }
            let Some(live) = self.live(id) else { return };
            let Some(work) = live.engine.ready() else {
                break;
            };
            self.send(work.send);
            let disk = self.nodes[&id].disk.clone();
            let Some(live) = self.live(id) else { return };
            let written = match (work.base, work.write) {
                (Some(base), Some((hard, entries))) => {
                    let saved = Saved {
                        base,
                        hard,
                        entries,
                    };
                    live.log.rewrite(&disk, &saved).now_or_never()
                }
                (_, Some((hard, entries))) => live.log.write(hard, entries).now_or_never(),
                _ => Some(Ok(())),
            };
            let Some(written) = written else {
                self.crash(id);
                let pause = 10 + self.random.below(3000);
                return self.at(pause, Event::Restart(id));
            };
            written.expect("the disk works");
            let done = live.engine.written();
            if let Some(base) = done.restored {
                live.applied = base.position.index as usize;
            }
            self.send(done.send);
            for entry in done.committed {
                self.apply(id, entry);
            }
            self.check_leader(id);
        }
        self.check_leader(id);
        if self.random.below(100) < self.compacted {
            self.compact(id);
        }
    }

    fn apply(&mut self, id: u64, entry: Entry) {
        self.trace = Hash::of(&codec::encode(&(self.trace, id, &entry)));
        let node = self.nodes.get_mut(&id).expect("a node");
        let live = node.live.as_mut().expect("it runs");
        let fact = match &entry.payload {
            Payload::Empty => None,
            Payload::Data(data) => Some(data.clone()),
            Payload::Roster { changes, context } => {
                live.engine.apply_roster(changes);
                (!context.is_empty()).then(|| context.clone())
            }
        };
        let at = live.applied;
        live.applied += usize::from(fact.is_some());
        let position = position(live.applied as u64);
        live.engine.applied(entry.index, position);
        let Some(fact) = fact else { return };
        match self.history.get(at) {
            Some(agreed) => assert_eq!(*agreed, fact, "{id} has another history at {at}"),
            None => self.history.push(fact.clone()),
        }
        match node.ledger.get(at) {
            Some(held) => assert_eq!(*held, fact, "{id} applied something else at {at}"),
            None => node.ledger.push(fact),
        }
    }

    fn compact(&mut self, id: u64) {
        let disk = self.nodes[&id].disk.clone();
        let Some(live) = self.live(id) else { return };
        let Some(saved) = live.engine.compact(live.applied as u64) else {
            return;
        };
        match live.log.rewrite(&disk, &saved).now_or_never() {
            Some(done) => done.expect("the disk works"),
            None => {
                self.crash(id);
                self.at(500, Event::Restart(id));
            }
        }
    }

    fn check_leader(&mut self, id: u64) {
        let Some(live) = self.live(id) else { return };
        let standing = live.engine.standing();
        if standing.leads {
            let first = *self.leaders.entry(standing.term).or_insert(id);
            assert_eq!(first, id, "two leaders in term {}", standing.term);
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let copies = 1 + u64::from(self.random.below(1000) < self.doubled);
            for _ in 0..copies {
                if self.random.below(1000) >= self.lost {
                    let delay = 1 + self.random.below(self.latency);
                    self.at(delay, Event::Deliver(message.clone()));
                }
            }
        }
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        let key = (self.now + delay, self.sequence);
        self.queue.insert(key, event);
    }

    fn note(&mut self, message: &Message) {
        self.trace = Hash::of(&codec::encode(&(self.trace, self.now, message)));
    }

    pub fn trace(&self) -> Hash {
        self.trace
    }

    pub fn live(&mut self, id: u64) -> Option<&mut Live> {
        self.nodes.get_mut(&id)?.live.as_mut()
    }

    /// Who leads, in the newest term that has a leader.
    pub fn leader(&self) -> Option<u64> {
        let live = self
            .nodes
            .iter()
            .filter_map(|(id, node)| Some((*id, node.live.as_ref()?.engine.standing())));
        let leads = live.filter(|(_, standing)| standing.established);
        leads.max_by_key(|(_, standing)| standing.term).map(|l| l.0)
    }

    /// Proposes to whoever leads; `false` when nobody does.
    pub fn propose(&mut self, fact: &str) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let live = self.live(leader).expect("it leads");
        let done = live.engine.propose(fact.as_bytes().to_vec()).is_ok();
        self.work(leader);
        done
    }

    /// Proposes until it is agreed on.
    pub fn settle(&mut self, fact: &str, limit: u64) {
        let start = self.now;
        while !self.knows(fact) {
            assert!(self.now < start + limit, "{fact} not within {limit} ms");
            self.propose(fact);
            self.run(300);
        }
    }

    pub fn knows(&self, fact: &str) -> bool {
        self.history.iter().any(|held| held == fact.as_bytes())
    }

    /// Proposes a change until it is seen.
    pub fn change(&mut self, changes: &[Change], context: &str, so: impl Fn(&Conf) -> bool) {
        let start = self.now;
        loop {
            assert!(self.now < start + 30_000, "{changes:?} not in 30 s");
            if let Some(leader) = self.leader() {
                let live = self.live(leader).expect("it leads");
                let conf = live.engine.conf();
                if so(&conf) && !conf.is_joint() {
                    return;
                }
                if !so(&conf) {
                    let context = context.as_bytes().to_vec();
                    let _ = live.engine.propose_roster(changes, context);
                    self.work(leader);
                }
            }
            self.run(200);
        }
    }

    pub fn transfer(&mut self, to: u64) {
        if let Some(leader) = self.leader() {
            let live = self.live(leader).expect("it leads");
            live.engine.transfer_leader(to);
            self.work(leader);
        }
    }

    /// All that run hold the same.
    pub fn agree(&self) -> bool {
        let live = self
            .nodes
            .iter()
            .filter(|(id, node)| self.members.contains(id) && node.live.is_some());
        live.into_iter()
            .all(|(_, node)| node.ledger.len() == self.history.len())
    }
}

pub fn position(index: u64) -> Position {
    Position {
        index,
        hash: Hash([7; 32]),
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
