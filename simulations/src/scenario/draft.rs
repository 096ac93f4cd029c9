//! One scenario, and the schedule that it makes.

#![allow(missing_docs, reason = "the names say it")]

use innermesh_proto::ledger::RULES;

use crate::{
    profile::Profile,
    random::Random,
    schedule::{Act, FORMAT, Schedule, Step},
};

pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Kinds of act or datagram's fate that each run must have.
    pub promises: &'static [&'static str],
    /// Whether no running node may ever be taken for dead (S6).
    pub nobody_dies: bool,
    /// Whether it needs what the message profile doesn't have: datagrams, or two
    /// connections of one pair.
    pub needs_datagrams: bool,
    /// Whether the tunnels carry packets.
    pub carries: bool,
    pub(super) make: fn(&mut Draft),
}

impl Scenario {
    /// Whether it can be run when agents talk as `profile` says.
    pub fn is_for(&self, profile: Profile) -> bool {
        profile == Profile::Wire || !self.needs_datagrams
    }

    /// What is done to `nodes` machines in `length_ms`, talking over the wire.
    pub fn schedule(&self, nodes: usize, seed: u64, length_ms: u64) -> Schedule {
        let mut draft = Draft {
            random: Random::named(seed, self.name),
            nodes,
            length_ms,
            ca: 1,
            rules: RULES,
            steps: Vec::new(),
            service: 0,
        };
        (self.make)(&mut draft);
        draft.steps.sort_by_key(|step| step.at_ms);
        Schedule {
            format: FORMAT,
            scenario: self.name.into(),
            nodes: draft.nodes,
            ca: draft.ca,
            profile: Profile::default(),
            rules: draft.rules,
            seed,
            length_ms: draft.length_ms,
            steps: draft.steps,
        }
    }
}

/// A schedule that is being made.
pub(super) struct Draft {
    pub(super) random: Random,
    pub(super) nodes: usize,
    pub(super) length_ms: u64,
    /// How many of them decide the ledger.
    pub(super) ca: usize,
    /// The rules that the mesh begins with.
    pub(super) rules: u32,
    pub(super) steps: Vec<Step>,
    /// The number of the next service.
    pub(super) service: u32,
}

impl Draft {
    pub(super) fn at(&mut self, at_ms: u64, act: Act) {
        self.steps.push(Step { at_ms, act });
    }

    pub(super) fn moment(&mut self) -> u64 {
        self.random.below(self.length_ms)
    }

    pub(super) fn node(&mut self) -> usize {
        self.random.below(self.nodes as u64) as usize
    }

    /// Any but the first, unless there is no other.
    pub(super) fn other(&mut self) -> usize {
        match self.nodes {
            0 | 1 => 0,
            nodes => 1 + self.random.below(nodes as u64 - 1) as usize,
        }
    }

    /// The number of a service that there wasn't before.
    pub(super) fn service(&mut self) -> u32 {
        self.service += 1;
        self.service - 1
    }

    /// So many services are added, and every second one removed again.
    pub(super) fn services(&mut self, count: u32) {
        for _ in 0..count {
            let number = self.service();
            let (node, added) = (self.node(), self.random.below(self.length_ms / 2));
            self.at(added, Act::Add(node, number));
            if number % 2 == 1 {
                let later = added + self.random.range(1000, self.length_ms / 2);
                self.at(later, Act::Remove(node, number));
            }
        }
    }

    /// A machine goes away, one way or the other, and comes back.
    pub(super) fn absence(&mut self, node: usize, at_ms: u64, for_ms: u64) {
        let act = if self.random.chance(0.5) {
            Act::Crash(node)
        } else {
            Act::Stop(node)
        };
        self.at(at_ms, act);
        self.at(at_ms + for_ms, Act::Start(node));
    }

    /// All machines in two groups, neither of them empty where there are two.
    pub(super) fn halves(&mut self) -> (Vec<usize>, Vec<usize>) {
        let lone = self.node();
        let mut halves = (vec![lone], Vec::new());
        let others: Vec<usize> = (0..self.nodes).filter(|node| *node != lone).collect();
        for node in others {
            if halves.1.is_empty() || self.random.chance(0.5) {
                halves.1.push(node)
            } else {
                halves.0.push(node)
            }
        }
        halves
    }
}
