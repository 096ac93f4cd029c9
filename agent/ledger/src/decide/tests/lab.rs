//! Cores that hear each other at once, over disks that are values.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Hash, Sealed},
    id::NodeId,
    ledger::{
        Batch, Content, Outcome,
        request::{Promote, RosterChange},
    },
    rpc::method,
};
use innermesh_testing::{
    ca::Issuer,
    host::keys::Keys,
    mesh::{KEYS, Mesh, NOW, id, key, label},
};

use super::super::{
    core::{Asked, Core, Step},
    outbox::{Answer, Ticket, Transmit},
    time::Now,
    voting::{LogFollows, Part},
};
use crate::{
    index::{BatchIndex, Held},
    raft::{Base, Conf, Hard, Message, Saved},
};

/// A core, and what is on its disk.
pub struct Node {
    pub core: Core,
    pub index: Arc<BatchIndex>,
    pub batches: Vec<Batch>,
    pub answers: BTreeMap<Ticket, Answer>,
    /// Whether nothing that it is to write gets done.
    pub is_stuck: bool,
    id: NodeId,
}

pub struct Lab {
    pub mesh: Mesh,
    pub now: Now,
    pub nodes: Vec<Node>,
    /// Nodes that nobody hears, and who hear nobody.
    pub cut_off: BTreeSet<usize>,
    /// A node that is cut off as soon as it holds so many batches.
    pub falls_silent: Option<(usize, u64)>,
    tickets: u64,
}

impl Lab {
    /// So many voters, each with an issuer of its own, whose log begins behind
    /// the ledger that they hold.
    pub fn new(voters: u8) -> Self {
        Self::of(Mesh::new(), voters)
    }

    /// As [`Lab::new`], of a mesh that its founder decides for alone.
    pub fn of(mut mesh: Mesh, voters: u8) -> Self {
        let mut issuers = vec![mesh.issuer.clone()];
        for number in 1..voters {
            mesh.admit(&*key(number), &format!("n{number}"));
            let secret = KEYS.generate_p256();
            let der = mesh.root.issuer(&secret.spki(), NOW, &KEYS);
            let der = der.expect("an issuer");
            issuers.push(Issuer::new(secret, der.clone()).expect("its key fits"));
            let promote = Promote {
                node: id(&*key(number)),
                issuers: vec![der],
            };
            let done = mesh.ask(&*key(0), Content::Promote(promote));
            assert!(matches!(done, Outcome::Done(_)), "{done:?}");
        }
        if voters > 1 {
            let voters = (0..voters).map(|number| id(&*key(number))).collect();
            let change = Content::Roster(RosterChange { voters });
            let done = mesh.ask(&*key(0), change);
            assert!(matches!(done, Outcome::Done(_)), "{done:?}");
        }
        let now = Now {
            mono: Duration::from_secs(1000),
            wall_ms: mesh.now_ms,
        };
        let nodes = (0..voters).zip(issuers);
        let nodes = nodes.map(|(number, issuer)| Node::new(&mesh, number, issuer, now));
        Self {
            now,
            nodes: nodes.collect(),
            mesh,
            cut_off: BTreeSet::new(),
            falls_silent: None,
            tickets: 0,
        }
    }

    /// A lab with a leader, and which one that is.
    pub fn led(voters: u8) -> (Self, usize) {
        let mut lab = Self::new(voters);
        lab.run(Duration::from_secs(10));
        let leader = lab.leader().expect("a leader");
        (lab, leader)
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| node.core.status().leads;
        let mut all = self.nodes.iter().enumerate();
        all.find(|(number, node)| leads(node) && !self.cut_off.contains(number))
            .map(|(number, _)| number)
    }

    /// A claim of a name by the founder.
    pub fn claim(&mut self, name: &str) -> Sealed {
        self.request(0, &Content::Claim(label(name)))
    }

    /// A request by a member, made now.
    pub fn request(&mut self, by: u8, content: &Content) -> Sealed {
        self.mesh.now_ms = self.now.wall_ms;
        self.mesh.request(&*key(by), content)
    }

    /// A machine's request to join, by a token of the founder's.
    pub fn join(&mut self, machine: u8) -> Sealed {
        self.mesh.now_ms = self.now.wall_ms;
        let token = self.mesh.token(100 + machine, |_| {});
        let name = format!("n{machine}");
        self.mesh.join_request(&token, &*key(machine), &name)
    }

    /// Has a node asked, and nothing follow from it yet.
    pub fn ask(&mut self, node: usize, request: Sealed) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let asked = Asked {
            request,
            by: None,
            is_recorded: false,
            ticket,
        };
        self.nodes[node].core.handle_request(asked, self.now);
        ticket
    }

    /// Lets time pass, in tenths of a second.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.now.mono < end {
            self.now.mono += Duration::from_millis(100);
            self.now.wall_ms += 100;
            for node in &mut self.nodes {
                node.core.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    /// Has all hear each other until nobody has anything more to say.
    pub fn settle(&mut self) {
        loop {
            let mut said = Vec::new();
            for (number, node) in self.nodes.iter_mut().enumerate() {
                let messages = node.drive(self.now);
                let silent = |(who, at)| who == number && node.newest().0 >= at;
                if self.falls_silent.is_some_and(silent) {
                    self.cut_off.insert(number);
                }
                for message in messages {
                    if !self.cut_off.contains(&number) {
                        said.push((node.id, message));
                    }
                }
            }
            if said.is_empty() {
                return;
            }
            for (from, message) in said {
                let to = self.nodes.iter().position(|node| node.id == message.to);
                if let Some(to) = to.filter(|to| !self.cut_off.contains(to)) {
                    self.nodes[to].hear(from, message.method, &message.body, self.now);
                }
            }
        }
    }
}

impl Node {
    fn new(mesh: &Mesh, number: u8, issuer: Issuer, now: Now) -> Self {
        let state = mesh.state();
        let me = id(&*key(number));
        let index = Arc::new(BatchIndex::new(mesh.genesis.position()));
        index.list(
            mesh.batches
                .iter()
                .map(|batch| Held::new(batch, 0..1))
                .collect(),
        );
        let core = Core::new(
            key(number),
            Arc::new(KEYS),
            index.clone(),
            u64::MAX,
            Arc::new(state.clone()),
            now,
        );
        let mut node = Self {
            core,
            index,
            batches: mesh.batches.clone(),
            answers: BTreeMap::new(),
            is_stuck: false,
            id: me,
        };
        let listed = node.core.poll_issuers().expect("never looked at");
        node.core.set_issuers(listed, vec![issuer]);
        let voter = state.voters[&me];
        assert_eq!(node.core.follow_roster(), LogFollows::Open(voter));
        let voters = state.roster.iter().map(|node| state.voters[node]);
        let saved = Saved {
            base: Base {
                index: 1,
                term: 1,
                conf: Conf {
                    voters: voters.collect(),
                    ..Conf::default()
                },
                position: state.position,
            },
            hard: Hard {
                term: 1,
                vote: 0,
                commit: 1,
            },
            entries: Vec::new(),
        };
        node.core.handle_log_opened(voter, Part::Votes(saved), now);
        node.core.tell_may_lead(now);
        node
    }

    /// Does what the pump does, until there is nothing more to do; gives what
    /// is to be sent.
    fn drive(&mut self, now: Now) -> Vec<Transmit> {
        let mut said = Vec::new();
        if self.is_stuck {
            return said;
        }
        loop {
            while let Some(step) = self.core.poll_step() {
                said.extend(self.core.poll_transmit());
                self.carry_out(step, now);
            }
            self.core.settle();
            if !self.core.poll_decision(now, |_| true) {
                break;
            }
        }
        said.extend(self.core.poll_transmit());
        self.answers.extend(self.core.poll_answers());
        said
    }

    /// Writes what is to be written.
    pub fn carry_out(&mut self, step: Step, now: Now) {
        match step {
            Step::AppendLog(..) | Step::RewriteLog(_) => self.core.handle_log_written(),
            Step::Store(proved) => {
                let state = proved.last().expect("never empty").after.clone();
                for proved in proved {
                    self.index.list(vec![Held::new(&proved.batch, 0..1)]);
                    self.batches.push(proved.batch);
                }
                self.core.handle_stored(state, now);
                self.core.follow_roster();
                self.core.tell_may_lead(now);
            }
        }
    }

    fn hear(&mut self, from: NodeId, method: u16, body: &[u8], now: Now) {
        match method {
            method::RAFT => {
                let message = Message::decode(body).expect("a voter's message");
                self.core.handle_raft(from, message, now);
            }
            method::ENDORSE => {
                let endorse = codec::decode(body, 1024).expect("a signature");
                // What it wants of the disk isn't given.
                let _ = self.core.handle_endorsement(from, &endorse);
            }
            other => panic!("method {other}"),
        }
    }

    /// The hash of the newest batch on disk.
    pub fn newest(&self) -> (u64, Hash) {
        let position = self.index.position();
        (position.index, position.hash)
    }
}
