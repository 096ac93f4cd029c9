//! Scenarios of a mesh with one CA node: the network, machines, clocks and disks
//! that it meets.

use super::draft::{Draft, Scenario};
use crate::{
    byzantine::Lie,
    net::{link::Link, nat::Class},
    schedule::Act,
};

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "calm",
        about: "services come and go on a good network",
        promises: &["add", "remove"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: |draft| draft.services(4),
    },
    Scenario {
        name: "burst",
        about: "a hundred service changes within seconds",
        promises: &["add", "remove"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: burst,
    },
    Scenario {
        name: "spread",
        about: "one change after the other on links of 50 ms, to see how fast all know",
        promises: &["links", "add", "remove"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: |draft| spread(draft, 0.0),
    },
    Scenario {
        name: "spread-lossy",
        about: "as spread, and one packet of ten is lost",
        promises: &["links", "lost", "add", "remove"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: |draft| spread(draft, 0.1),
    },
    Scenario {
        name: "lossy",
        about: "one datagram in ten is lost, others come twice or late",
        promises: &["lost", "duplicated", "reordered", "add"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: lossy,
    },
    Scenario {
        name: "churn",
        about: "agents are stopped, crash, and are started again",
        promises: &["stop", "crash", "start"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: churn,
    },
    Scenario {
        name: "crash-loop",
        about: "one machine's power fails again and again",
        promises: &["crash", "start"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: crash_loop,
    },
    Scenario {
        name: "partition-heal",
        about: "the mesh falls into two halves, and heals",
        promises: &["cut", "heal"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: partition,
    },
    Scenario {
        name: "asymmetric",
        about: "links fail in one direction only, and not for all",
        promises: &["cut", "heal"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: asymmetric,
    },
    Scenario {
        name: "mass-restart",
        about: "the power of all machines fails at once",
        promises: &["crash", "start"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: mass_restart,
    },
    Scenario {
        name: "seeds-dead",
        about: "all but the first restart while the seed and CA node is away",
        promises: &["crash", "start", "stop"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: seeds_dead,
    },
    Scenario {
        name: "clock-chaos",
        about: "wall clocks drift and jump by minutes and years, either way",
        promises: &["clock step", "clock drift", "crash", "start"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: clocks,
    },
    Scenario {
        name: "disk-faults",
        about: "disks are full, don't sync, or stop in the middle of a write",
        promises: &[
            "disk full",
            "disk doesn't sync",
            "crash in a write",
            "start",
        ],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: disks,
    },
    Scenario {
        name: "bit-rot",
        about: "a disk loses a bit: its agent mends that or refuses to start",
        promises: &["bit flip"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: rot,
    },
    Scenario {
        name: "snapshot-rollback",
        about: "a machine is put back to an old copy of its disk",
        promises: &["snapshot", "rollback", "start"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: rollback,
    },
    Scenario {
        name: "slow-observer",
        about: "machines stand still for seconds, and must not take others for dead",
        promises: &["pause"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: pauses,
    },
    Scenario {
        name: "roaming",
        about: "laptops sleep, wake up elsewhere, and go on",
        promises: &["suspend", "roam", "add"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: roaming,
    },
    Scenario {
        name: "nat",
        about: "a third of the machines is behind NATs of each class, which forget",
        promises: &["nat", "rebind"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: nats,
    },
    Scenario {
        name: "mtu-black-hole",
        about: "large datagrams vanish without a word",
        promises: &["too large", "add"],
        nobody_dies: true,
        needs_datagrams: true,
        carries: false,
        make: black_hole,
    },
    Scenario {
        name: "ca-off",
        about: "the CA node is away all the time; the rest restarts and roams",
        promises: &["stop", "crash", "start", "roam"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: ca_off,
    },
    Scenario {
        name: "months-asleep",
        about: "200 days pass, and one machine sleeps through them",
        promises: &["days", "stop", "start"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: months,
    },
    Scenario {
        name: "token-replay",
        about: "machines race for one token for one use",
        promises: &["contest"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: |draft| {
            for _ in 0..3 {
                let (at, rivals) = (draft.moment(), draft.random.range(2, 5));
                draft.at(at, Act::Contest(rivals as usize));
            }
        },
    },
    Scenario {
        name: "byzantine",
        about: "a member lies in each way that is known",
        promises: &[
            "lie: forged author",
            "lie: highest version",
            "lie: flood of ids",
            "lie: bomb",
            "lie: equivocation",
            "lie: replay",
            "lie: far ahead",
            "lie: garbage",
        ],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: byzantine,
    },
    Scenario {
        name: "rolling-upgrade",
        about: "one machine after the other restarts; one speaks a later version",
        promises: &["newer version", "stop", "start"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: upgrade,
    },
    Scenario {
        name: "big-mesh",
        about: "three times as many machines, and services on them",
        promises: &["add", "remove"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: |draft| {
            draft.nodes *= 3;
            draft.services(6);
        },
    },
    Scenario {
        name: "mix",
        about: "all of it, by weights that the seed draws",
        promises: &["add"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: mix,
    },
];

fn burst(draft: &mut Draft) {
    let begin = draft.length_ms / 4;
    for _ in 0..50 {
        let (node, number) = (draft.node(), draft.service());
        let at = begin + draft.random.below(5000);
        draft.at(at, Act::Add(node, number));
        if number >= 25 {
            let later = at + draft.random.range(500, 5000);
            draft.at(later, Act::Remove(node, number));
        }
    }
}

fn spread(draft: &mut Draft, loss: f64) {
    const BETWEEN_MS: u64 = 4000;
    let link = Link {
        latency_ms: 50,
        loss,
        ..Link::default()
    };
    draft.at(0, Act::Links(link));
    let mut at = BETWEEN_MS;
    while at + 2 * BETWEEN_MS <= draft.length_ms {
        let (node, number) = (draft.node(), draft.service());
        draft.at(at, Act::Add(node, number));
        draft.at(at + BETWEEN_MS, Act::Remove(node, number));
        at += 2 * BETWEEN_MS;
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
        // News that the machine may have heard and not kept.
        let (owner, before) = (draft.node(), draft.random.range(10, 1000));
        let number = draft.service();
        draft.at(at.saturating_sub(before), Act::Add(owner, number));
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
    let ppm = draft.random.range(0, 1000) as i64 - 500;
    let node = draft.other();
    draft.at(0, Act::ClockDrift(node, ppm));
    // To 2106 and back.
    let (node, at) = (draft.other(), draft.moment());
    draft.at(at, Act::ClockStep(node, 79 * YEAR));
    draft.at(at + 5000, Act::ClockStep(node, -79 * YEAR));
    // A board without a battery starts in 1970.
    let (node, at) = (draft.other(), draft.moment());
    draft.at(at, Act::Crash(node));
    draft.at(at, Act::ClockStep(node, -57 * YEAR));
    draft.at(at + 1000, Act::Start(node));
    draft.at(at + 9000, Act::ClockStep(node, 57 * YEAR));
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
    for _ in 0..6 {
        // A service gives every disk something to write.
        let (node, at) = (draft.other(), draft.moment());
        let writes = draft.random.range(1, 6);
        draft.at(at, Act::DiskStops(node, writes));
        let (owner, number) = (draft.node(), draft.service());
        draft.at(at + 100, Act::Add(owner, number));
        draft.at(at + 3000, Act::Start(node));
    }
}

fn rot(draft: &mut Draft) {
    draft.services(4);
    for _ in 0..3 {
        let (node, at) = (draft.other(), draft.moment());
        draft.at(at, Act::BitFlip(node));
        draft.at(at + 1000, Act::Start(node));
    }
}

fn rollback(draft: &mut Draft) {
    draft.services(4);
    let node = draft.other();
    let part = draft.length_ms / 4;
    draft.at(0, Act::Snapshot(node));
    // It goes on: restarts, and news of its own.
    for _ in 0..draft.random.range(1, 4) {
        let at = 1000 + draft.random.below(part);
        draft.at(at, Act::Crash(node));
        draft.at(at + 1000, Act::Start(node));
        let number = draft.service();
        draft.at(at + 2000, Act::Add(node, number));
    }
    let at = 2 * part + draft.random.below(part);
    draft.at(at, Act::Rollback(node));
    draft.at(at + 1000, Act::Start(node));
}

fn pauses(draft: &mut Draft) {
    draft.services(2);
    let mut at = 1000;
    while at < draft.length_ms {
        let (node, long) = (draft.node(), draft.random.range(100, 15_000));
        draft.at(at, Act::Pause(node, long));
        at += long + draft.random.range(1000, 10_000);
    }
}

fn roaming(draft: &mut Draft) {
    draft.services(4);
    let mut at = 1000;
    while at < draft.length_ms {
        let (node, long) = (draft.other(), draft.random.range(1000, 30_000));
        draft.at(at, Act::Suspend(node, long));
        draft.at(at + long / 2, Act::Roam(node));
        at += draft.random.range(2000, 15_000);
    }
}

fn nats(draft: &mut Draft) {
    draft.services(4);
    let behind = (draft.nodes / 3).max(1).min(draft.nodes - 1);
    for number in 0..behind {
        let class = Class::ALL[number % Class::ALL.len()];
        let (node, at) = (1 + number, draft.random.below(5000));
        draft.at(at, Act::Nat(node, class));
        for _ in 0..2 {
            let later = at + draft.moment();
            draft.at(later, Act::Rebind(node));
        }
    }
}

fn black_hole(draft: &mut Draft) {
    draft.services(4);
    let mut at = 1000;
    while at < draft.length_ms {
        let link = Link {
            // QUIC needs 1200 bytes (RFC 9000, section 14).
            mtu: draft.random.range(1200, 1400) as usize,
            ..Link::default()
        };
        draft.at(at, Act::Links(link));
        let long = draft.random.range(5000, 20_000);
        // A new connection looks for the largest datagram that passes.
        let node = draft.other();
        draft.at(at + 1000, Act::Crash(node));
        draft.at(at + 2000, Act::Start(node));
        draft.at(at + long, Act::Heal);
        at += long + draft.random.range(1000, 10_000);
    }
}

fn byzantine(draft: &mut Draft) {
    draft.services(4);
    let liar = draft.other();
    let honest: Vec<usize> = (0..draft.nodes).filter(|node| *node != liar).collect();
    for _ in 0..3 {
        for lie in Lie::ALL {
            let to = draft.random.pick(&honest).copied().unwrap_or(0);
            let at = draft.moment();
            draft.at(at, Act::Lie(liar, to, lie));
        }
    }
}

fn upgrade(draft: &mut Draft) {
    draft.services(4);
    let newer = draft.other();
    let pace = draft.length_ms / (draft.nodes as u64 + 1);
    for node in (0..draft.nodes).filter(|node| *node != newer) {
        let at = 1000 + pace * node as u64;
        draft.at(at, Act::Stop(node));
        draft.at(at + 500, Act::Start(node));
        for _ in 0..3 {
            let said = 1000 + draft.moment();
            draft.at(said, Act::Lie(newer, node, Lie::Newer));
        }
    }
}

fn ca_off(draft: &mut Draft) {
    draft.at(500, Act::Stop(0));
    for _ in 0..4 {
        let (node, at) = (draft.other(), 1000 + draft.moment());
        let number = draft.service();
        draft.at(at, Act::Add(node, number));
        let (node, at) = (draft.other(), 1000 + draft.moment());
        draft.at(at, Act::Crash(node));
        draft.at(at + 2000, Act::Start(node));
        let (node, at) = (draft.other(), 1000 + draft.moment());
        draft.at(at, Act::Roam(node));
    }
}

fn months(draft: &mut Draft) {
    // Each step is longer than the time between two looks at the certificate.
    const STEP_MS: u64 = 70_000;
    draft.services(2);
    let node = draft.other();
    draft.at(1000, Act::Stop(node));
    for step in 1..=5 {
        draft.at(step * STEP_MS, Act::Days(40));
    }
    draft.at(6 * STEP_MS, Act::Start(node));
    draft.length_ms = 7 * STEP_MS;
}

fn mix(draft: &mut Draft) {
    draft.services(6);
    let parts: [fn(&mut Draft); 9] = [
        churn, partition, asymmetric, lossy, clocks, disks, roaming, pauses, nats,
    ];
    for part in parts {
        if draft.random.chance(0.5) {
            part(draft);
        }
    }
}
