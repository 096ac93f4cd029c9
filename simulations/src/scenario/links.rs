//! Scenarios of meshes in which not all have links with all.

use super::draft::{Draft, Scenario};
use crate::{
    net::{link::Link, nat::Class},
    schedule::Act,
};

/// Above the size up to which all have links with all.
const LEAST: usize = 16;
/// Of the machines, those that never sleep: one of so many does.
const SLEEPS: usize = 3;

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "thin-links",
        about: "all but two machines are behind NATs, so that few can reach each other",
        promises: &["nat", "add"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: thin,
    },
    Scenario {
        name: "mass-suspend",
        about: "a third of the machines sleeps for ten seconds at once",
        promises: &["suspend", "add"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: suspend,
    },
    Scenario {
        name: "ring-churn",
        about: "a hundred times a minute a machine of a larger mesh goes or comes",
        promises: &["stop", "crash", "start", "add"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: churn,
    },
    Scenario {
        name: "far-apart",
        about: "machines a quarter of a second from each other start again",
        promises: &["links", "crash", "start", "add"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: far,
    },
    Scenario {
        name: "ways",
        about: "tunnels carry packets, past NATs of each class and by relays that fail",
        promises: &["nat", "relay", "rebind", "cut", "packet", "talk"],
        nobody_dies: false,
        needs_datagrams: true,
        carries: true,
        make: ways,
    },
];

fn thin(draft: &mut Draft) {
    draft.nodes = draft.nodes.max(LEAST);
    draft.services(4);
    for node in 2..draft.nodes {
        let class = Class::ALL[node % Class::ALL.len()];
        let at = draft.random.below(2000);
        draft.at(at, Act::Nat(node, class));
    }
    let (node, at) = (
        2 + draft.random.below(draft.nodes as u64 - 2) as usize,
        20_000,
    );
    draft.at(at, Act::Rebind(node));
}

fn suspend(draft: &mut Draft) {
    draft.nodes = draft.nodes.max(LEAST);
    draft.services(4);
    let first = draft.random.below(SLEEPS as u64) as usize;
    let mut at = 5000;
    while at + 20_000 <= draft.length_ms {
        for node in (first..draft.nodes).step_by(SLEEPS) {
            let begun = at + draft.random.below(200);
            draft.at(begun, Act::Suspend(node, 10_000));
        }
        at += 20_000;
    }
}

fn far(draft: &mut Draft) {
    /// Between two that start again.
    const BETWEEN_MS: u64 = 5000;
    draft.nodes = draft.nodes.max(LEAST);
    draft.services(4);
    let link = Link {
        latency_ms: 250,
        ..Link::default()
    };
    draft.at(0, Act::Links(link));
    let mut at = 3000;
    while at + BETWEEN_MS < draft.length_ms {
        let node = draft.other();
        draft.at(at, Act::Crash(node));
        draft.at(at + 300, Act::Start(node));
        at += BETWEEN_MS;
    }
}

/// The first two machines are relays, and all others behind NATs.
fn ways(draft: &mut Draft) {
    const LEAST: usize = 7;
    draft.nodes = draft.nodes.max(LEAST);
    draft.services(2);
    for relay in 0..2 {
        draft.at(100, Act::Relay(relay));
    }
    for node in 2..draft.nodes {
        let class = Class::ALL[(node - 2) % Class::ALL.len()];
        let at = draft.random.below(3000);
        draft.at(at, Act::Nat(node, class));
    }
    // By then each has found its relay, and the way past its NAT.
    let mut at = 30_000;
    while at + 16_000 < draft.length_ms {
        let one = 2 + draft.random.below(draft.nodes as u64 - 2) as usize;
        let next = if one + 1 < draft.nodes { one + 1 } else { 2 };
        match draft.random.below(4) {
            0 => {
                draft.at(at - 3000, Act::Talk(one, next));
                draft.at(at, Act::Rebind(one));
            }
            1 => {
                draft.at(at - 3000, Act::Talk(one, next));
                draft.at(at, Act::Cut(vec![one], vec![next]));
                draft.at(at + 8000, Act::Heal);
            }
            2 => {
                let relay = draft.random.below(2) as usize;
                draft.at(at - 3000, Act::Talk(one, next));
                draft.at(at, Act::Crash(relay));
                draft.at(at + 10_000, Act::Start(relay));
            }
            _ => {
                draft.at(at, Act::Crash(one));
                draft.at(at + 2000, Act::Start(one));
            }
        }
        at += draft.random.range(18_000, 24_000);
    }
    // Whatever chance left out.
    draft.at(at, Act::Talk(2, 3));
    draft.at(at + 1000, Act::Rebind(2));
    draft.at(at + 4000, Act::Cut(vec![2], vec![3]));
    draft.at(at + 13_000, Act::Heal);
}

fn churn(draft: &mut Draft) {
    /// Between two that go; each comes back.
    const BETWEEN_MS: u64 = 1200;
    draft.nodes = draft.nodes.max(LEAST);
    draft.services(4);
    let (first, second) = (draft.node(), draft.node());
    draft.at(500, Act::Crash(first));
    draft.at(1500, Act::Start(first));
    draft.at(2000, Act::Stop(second));
    draft.at(3000, Act::Start(second));
    // The links of those that stay all lead to new runs, for a moment.
    let half = draft.length_ms / 2;
    for node in (1..draft.nodes).filter(|node| node % 4 != 0) {
        draft.at(half, Act::Crash(node));
        draft.at(half + 500, Act::Start(node));
    }
    let mut at = 4000;
    while at < draft.length_ms {
        let (node, long) = (draft.other(), draft.random.range(200, 6000));
        draft.absence(node, at, long);
        at += BETWEEN_MS;
    }
}
