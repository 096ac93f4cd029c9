//! The scenarios: each makes a schedule from a seed, and says which faults it
//! promises. How often what happens is drawn anew for each seed (swarm
//! testing: Groce et al., ISSTA 2012).

mod certificates;
mod hostile;
mod roster;
mod usual;
mod versions;

use innermesh_proto::ledger::RULES;

use crate::{
    random::Random,
    schedule::{Act, FORMAT, Profile, Schedule, Step},
};

/// One scenario.
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
    make: fn(&mut Draft),
}

/// All of them, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    usual::ALL
        .iter()
        .chain(roster::ALL)
        .chain(certificates::ALL)
        .chain(hostile::ALL)
        .chain(versions::ALL)
}

/// The scenario with this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
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
struct Draft {
    random: Random,
    nodes: usize,
    length_ms: u64,
    /// How many of them decide the ledger.
    ca: usize,
    /// The rules that the mesh begins with.
    rules: u32,
    steps: Vec<Step>,
    /// The number of the next service.
    service: u32,
}

impl Draft {
    fn at(&mut self, at_ms: u64, act: Act) {
        self.steps.push(Step { at_ms, act });
    }

    fn moment(&mut self) -> u64 {
        self.random.below(self.length_ms)
    }

    fn node(&mut self) -> usize {
        self.random.below(self.nodes as u64) as usize
    }

    /// Any but the first, unless there is no other.
    fn other(&mut self) -> usize {
        match self.nodes {
            0 | 1 => 0,
            nodes => 1 + self.random.below(nodes as u64 - 1) as usize,
        }
    }

    /// The number of a service that there wasn't before.
    fn service(&mut self) -> u32 {
        self.service += 1;
        self.service - 1
    }

    /// So many services are added, and every second one removed again.
    fn services(&mut self, count: u32) {
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
    fn absence(&mut self, node: usize, at_ms: u64, for_ms: u64) {
        let act = if self.random.chance(0.5) {
            Act::Crash(node)
        } else {
            Act::Stop(node)
        };
        self.at(at_ms, act);
        self.at(at_ms + for_ms, Act::Start(node));
    }

    /// All machines in two groups, neither of them empty where there are two.
    fn halves(&mut self) -> (Vec<usize>, Vec<usize>) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_makes_one_schedule_and_names_are_unlike() {
        for scenario in all() {
            let schedule = scenario.schedule(5, 1, 60_000);
            assert_eq!(schedule, scenario.schedule(5, 1, 60_000));
            assert_ne!(schedule.steps, scenario.schedule(5, 2, 60_000).steps);
            assert_eq!(Schedule::read(&schedule.to_text()).unwrap(), schedule);
        }
        let names: BTreeSet<_> = all().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
