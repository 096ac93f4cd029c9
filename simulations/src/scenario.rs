//! The scenarios: each makes a schedule from a seed, and says which faults it
//! promises. How often what happens is drawn anew for each seed (swarm
//! testing: Groce et al., ISSTA 2012).

use crate::{
    net::link::Link,
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
    make: fn(&mut Draft),
}

/// All of them, in the order in which they are listed.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "calm",
        about: "services come and go on a good network",
        promises: &["add", "remove"],
        nobody_dies: true,
        make: |draft| draft.services(4),
    },
    Scenario {
        name: "burst",
        about: "a hundred service changes within seconds",
        promises: &["add", "remove"],
        nobody_dies: true,
        make: burst,
    },
    Scenario {
        name: "lossy",
        about: "one datagram in ten is lost, others come twice or late",
        promises: &["lost", "duplicated", "reordered", "add"],
        nobody_dies: true,
        make: lossy,
    },
    Scenario {
        name: "churn",
        about: "agents are stopped, crash, and are started again",
        promises: &["stop", "crash", "start"],
        nobody_dies: false,
        make: churn,
    },
    Scenario {
        name: "crash-loop",
        about: "one machine's power fails again and again",
        promises: &["crash", "start"],
        nobody_dies: false,
        make: crash_loop,
    },
    Scenario {
        name: "partition-heal",
        about: "the mesh falls into two halves, and heals",
        promises: &["cut", "heal"],
        nobody_dies: false,
        make: partition,
    },
    Scenario {
        name: "asymmetric",
        about: "links fail in one direction only, and not for all",
        promises: &["cut", "heal"],
        nobody_dies: false,
        make: asymmetric,
    },
    Scenario {
        name: "mass-restart",
        about: "the power of all machines fails at once",
        promises: &["crash", "start"],
        nobody_dies: false,
        make: mass_restart,
    },
    Scenario {
        name: "seeds-dead",
        about: "all but the first restart while the seed and CA node is away",
        promises: &["crash", "start", "stop"],
        nobody_dies: false,
        make: seeds_dead,
    },
    Scenario {
        name: "clock-chaos",
        about: "wall clocks jump by minutes and years, either way",
        promises: &["clock step"],
        nobody_dies: true,
        make: clocks,
    },
    Scenario {
        name: "disk-faults",
        about: "disks are full or don't sync; machines crash on them",
        promises: &["disk full", "disk doesn't sync", "crash"],
        nobody_dies: false,
        make: disks,
    },
    Scenario {
        name: "mix",
        about: "all of it, by weights that the seed draws",
        promises: &["add"],
        nobody_dies: false,
        make: mix,
    },
];

/// The scenario with this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// What is done to `nodes` machines in `length_ms`.
    pub fn schedule(&self, nodes: usize, seed: u64, length_ms: u64) -> Schedule {
        let mut draft = Draft {
            random: Random::named(seed, self.name),
            nodes,
            length_ms,
            steps: Vec::new(),
            services: Vec::new(),
        };
        (self.make)(&mut draft);
        draft.steps.sort_by_key(|step| step.at_ms);
        Schedule {
            format: FORMAT,
            scenario: self.name.into(),
            nodes,
            profile: Profile::default(),
            seed,
            length_ms,
            steps: draft.steps,
        }
    }
}

/// A schedule that is being made.
struct Draft {
    random: Random,
    nodes: usize,
    length_ms: u64,
    steps: Vec<Step>,
    services: Vec<(usize, u32)>,
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

    /// So many services are added, and every second one removed again.
    fn services(&mut self, count: u32) {
        let first = self.services.len() as u32;
        for number in first..first + count {
            let (node, added) = (self.node(), self.random.below(self.length_ms / 2));
            self.services.push((node, number));
            self.at(added, Act::Add(node, number));
            if number % 2 == 1 {
                let later = added + self.random.range(1000, self.length_ms / 2);
                self.at(later, Act::Remove(node, number));
            }
        }
    }

    /// A machine goes away, one way or the other, and comes back.
    fn absence(&mut self, node: usize, at_ms: u64, for_ms: u64) {
        let act = match self.random.chance(0.5) {
            true => Act::Crash(node),
            false => Act::Stop(node),
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
            match halves.1.is_empty() || self.random.chance(0.5) {
                true => halves.1.push(node),
                false => halves.0.push(node),
            }
        }
        halves
    }
}

fn burst(draft: &mut Draft) {
    let begin = draft.length_ms / 4;
    for number in 0..50 {
        let node = draft.node();
        let at = begin + draft.random.below(5000);
        draft.at(at, Act::Add(node, number));
        if number >= 25 {
            let later = at + draft.random.range(500, 5000);
            draft.at(later, Act::Remove(node, number));
        }
    }
}

fn lossy(draft: &mut Draft) {
    let link = Link {
        latency_ms: draft.random.range(1, 60),
        jitter_ms: draft.random.range(0, 60),
        loss: 0.1,
        duplicate: 0.02,
        reorder: 0.02,
        ..Link::default()
    };
    draft.at(0, Act::Links(link));
    draft.services(4);
}

fn churn(draft: &mut Draft) {
    draft.services(4);
    let every = draft.random.range(2000, 8000);
    let mut at = 500;
    // Each kind at least once, whatever is drawn.
    let (first, second) = (draft.node(), draft.node());
    draft.at(at, Act::Crash(first));
    draft.at(at + 3000, Act::Start(first));
    draft.at(at + 6000, Act::Stop(second));
    draft.at(at + 7000, Act::Start(second));
    while at < draft.length_ms {
        let (node, long) = (draft.node(), draft.random.range(200, 10_000));
        draft.absence(node, at, long);
        at += every;
    }
}

fn crash_loop(draft: &mut Draft) {
    draft.services(4);
    let node = draft.node();
    let mut at = 1000;
    while at < draft.length_ms {
        draft.at(at, Act::Crash(node));
        let down = draft.random.range(1, 2000);
        draft.at(at + down, Act::Start(node));
        at += down + draft.random.range(50, 6000);
    }
}

fn partition(draft: &mut Draft) {
    draft.services(4);
    let mut at = 1000;
    while at < draft.length_ms {
        let (one, other) = draft.halves();
        draft.at(at, Act::Cut(one.clone(), other.clone()));
        draft.at(at, Act::Cut(other, one));
        let long = draft.random.range(1000, 30_000);
        draft.at(at + long, Act::Heal);
        at += long + draft.random.range(1000, 10_000);
    }
}

fn asymmetric(draft: &mut Draft) {
    draft.services(4);
    let mut at = 1000;
    while at < draft.length_ms {
        for _ in 0..draft.random.range(1, draft.nodes as u64) {
            let (from, to) = (draft.node(), draft.node());
            draft.at(at, Act::Cut(vec![from], vec![to]));
        }
        let long = draft.random.range(1000, 20_000);
        draft.at(at + long, Act::Heal);
        at += long + draft.random.range(500, 5000);
    }
}

fn mass_restart(draft: &mut Draft) {
    draft.services(4);
    let at = draft.length_ms / 2;
    for node in 0..draft.nodes {
        draft.at(at, Act::Crash(node));
        let back = at + draft.random.range(100, 5000);
        draft.at(back, Act::Start(node));
    }
}

fn seeds_dead(draft: &mut Draft) {
    draft.services(4);
    let at = draft.length_ms * 2 / 3;
    draft.at(at, Act::Stop(0));
    for node in 1..draft.nodes {
        draft.at(at + 2000, Act::Crash(node));
        let back = at + draft.random.range(2500, 6000);
        draft.at(back, Act::Start(node));
    }
}

fn clocks(draft: &mut Draft) {
    draft.services(2);
    const MINUTE: i64 = 60_000;
    const YEAR: i64 = 365 * 24 * 60 * MINUTE;
    for _ in 0..draft.random.range(3, 12) {
        let (node, at) = (draft.other(), draft.moment());
        let by = draft
            .random
            .pick(&[-YEAR, -5 * MINUTE, -1000, 1000, 5 * MINUTE, YEAR]);
        let by = *by.expect("there are some");
        draft.at(at, Act::ClockStep(node, by));
    }
}

fn disks(draft: &mut Draft) {
    draft.services(4);
    for act in [Act::DiskFull, Act::DiskSync, Act::DiskFull, Act::DiskSync] {
        let (node, at) = (draft.other(), draft.moment());
        let long = draft.random.range(1000, 10_000);
        draft.at(at, act(node));
        draft.at(at + long, Act::Crash(node));
        draft.at(at + long + 100, Act::DiskWorks(node));
        draft.at(at + long + 1000, Act::Start(node));
    }
}

fn mix(draft: &mut Draft) {
    draft.services(6);
    let parts: [fn(&mut Draft); 5] = [churn, partition, asymmetric, lossy, clocks];
    for part in parts {
        if draft.random.chance(0.5) {
            part(draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_makes_one_schedule_and_names_are_unlike() {
        for scenario in ALL {
            let schedule = scenario.schedule(5, 1, 60_000);
            assert_eq!(schedule, scenario.schedule(5, 1, 60_000));
            assert_ne!(schedule.steps, scenario.schedule(5, 2, 60_000).steps);
            assert_eq!(Schedule::read(&schedule.to_text()).unwrap(), schedule);
        }
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
