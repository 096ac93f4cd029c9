//! Scenarios of a roster of several: its leader dies, it grows and shrinks, its
//! members are cut off, wrong about the time, or lie.

use super::draft::{Draft, Scenario};
use crate::{byzantine::Lie, net::link::Link, schedule::Act};

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "leader-killed",
        about: "the leader dies before, in and after each step of a commit",
        promises: &[
            "claim",
            "issue",
            "leader crash",
            "crash in a write",
            "start all",
        ],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: leader_killed,
    },
    Scenario {
        name: "roster-changes",
        about: "the roster grows and shrinks while machines fail and links are cut",
        promises: &["promote", "demote", "claim", "cut"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: changes,
    },
    Scenario {
        name: "roster-shrinks",
        about: "of three CA nodes two are demoted and stopped for good",
        promises: &["demote", "stop", "decides"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: shrinks,
    },
    Scenario {
        name: "roster-network",
        about: "five decide over links that lose, double and fail in one direction",
        promises: &["duplicated", "lost", "cut", "claim"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: network,
    },
    Scenario {
        name: "roster-clocks",
        about: "a voter's clock is wrong, or the leader's",
        promises: &["clock step", "leader clock", "claim"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: clocks,
    },
    Scenario {
        name: "name-contest",
        about: "machines on both sides of a split ask for one name",
        promises: &["rivals", "cut", "heal"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: contest,
    },
    Scenario {
        name: "stale-refusals",
        about: "a leader that is cut off refuses a name that was given back meanwhile",
        promises: &["claim", "leader alone", "give back", "heal"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: stale_refusals,
    },
    Scenario {
        name: "token-race",
        about: "machines race for one token while the leader dies",
        promises: &["contest", "leader crash"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: token_race,
    },
    Scenario {
        name: "cloned-identity",
        about: "a copy of a machine's disk runs somewhere else",
        promises: &["clone"],
        nobody_dies: false,
        needs_datagrams: true,
        carries: false,
        make: cloned,
    },
    Scenario {
        name: "evict-split",
        about: "a member is evicted while the mesh is in two halves",
        promises: &["evict", "cut", "heal"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: evict,
    },
    Scenario {
        name: "all-ca-off",
        about: "every CA node is off for 30 days; the rest restarts and roams",
        promises: &["stop", "days", "crash", "start", "roam"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: all_off,
    },
    Scenario {
        name: "roster-lost",
        about: "two of three CA nodes are lost for good; the root has the third go on",
        promises: &["lose", "recover", "decides", "claim"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: lost,
    },
    Scenario {
        name: "follower-rollback",
        about: "a machine that follows the roster is put back to an old copy of its disk",
        promises: &["snapshot", "rollback", "claim"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: rollback,
    },
    Scenario {
        name: "byzantine-ca",
        about: "a CA node lies: forks, false signatures, what it may not ask",
        promises: &["lie: fork", "lie: false endorsement", "lie: not allowed"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: byzantine,
    },
];

impl Draft {
    /// So many decide; there is at least one that doesn't.
    pub(super) fn roster(&mut self, ca: usize) {
        self.ca = ca;
        self.nodes = self.nodes.max(ca + 1);
    }

    /// One of those that decide.
    fn voter(&mut self) -> usize {
        self.random.below(self.ca as u64) as usize
    }

    /// One of those that don't.
    fn follower(&mut self) -> usize {
        let others = (self.nodes - self.ca) as u64;
        self.ca + self.random.below(others) as usize
    }

    /// Some machine asks for a name about now.
    fn claim_about(&mut self, at_ms: u64) {
        let (node, number) = (self.node(), self.service());
        let at = (at_ms + self.random.below(1500)).saturating_sub(1000);
        self.at(at, Act::Claim(node, number));
    }
}

fn leader_killed(draft: &mut Draft) {
    let ca = draft.random.pick(&[3, 3, 5]).copied().unwrap_or(3);
    draft.roster(ca);
    let mut at = 1000;
    let mut round: u64 = 0;
    while at < draft.length_ms || round < 4 {
        for _ in 0..3 {
            draft.claim_about(at);
        }
        let (node, when) = (draft.node(), at + draft.random.below(200));
        draft.at(when.saturating_sub(100), Act::Issue(node));
        // In which write of a commit, or when between two.
        let act = if round.is_multiple_of(2) {
            // At the first one it is certain that somebody leads.
            Act::LeaderCrash
        } else {
            Act::LeaderStops(draft.random.range(1, 9))
        };
        draft.at(at, act);
        if draft.random.chance(0.4) {
            let (node, when) = (draft.voter(), at + draft.random.below(20));
            draft.at(when, Act::Crash(node));
        }
        let down = draft.random.range(500, 9000);
        draft.at(at + down, Act::StartAll);
        draft.claim_about(at + down);
        at += down + draft.random.range(500, 8000);
        round += 1;
    }
}

fn changes(draft: &mut Draft) {
    draft.roster(3);
    draft.nodes = draft.nodes.max(6);
    // Each kind at least once, whatever is drawn.
    draft.at(300, Act::Demote(1));
    draft.at(600, Act::Promote(1));
    // One to five and back, at any moment of what else happens.
    let mut at = 1000;
    for act in [
        Act::Promote(3),
        Act::Promote(4),
        Act::Demote(1),
        Act::Demote(2),
        Act::Promote(1),
        Act::Demote(3),
        Act::Demote(4),
    ] {
        draft.at(at, act);
        at += draft.random.range(500, draft.length_ms / 8);
        for _ in 0..2 {
            draft.claim_about(at);
        }
        match draft.random.below(4) {
            0 => {
                let node = 1 + draft.random.below(4) as usize;
                draft.at(at, Act::Crash(node));
                draft.at(at + 3000, Act::Start(node));
            }
            1 => {
                draft.at(at, Act::LeaderCrash);
                draft.at(at + 4000, Act::StartAll);
            }
            _ => {
                let (from, to) = (
                    draft.random.below(5) as usize,
                    draft.random.below(5) as usize,
                );
                draft.at(at, Act::Cut(vec![from], vec![to]));
                draft.at(at + 5000, Act::Heal);
            }
        }
    }
    let (one, other) = draft.halves();
    draft.at(at, Act::Cut(one, other));
    draft.at(at + 4000, Act::Heal);
}

fn shrinks(draft: &mut Draft) {
    draft.roster(3);
    let (one, other) = if draft.random.chance(0.5) {
        (1, 2)
    } else {
        (2, 1)
    };
    let at = 1000 + draft.random.below(draft.length_ms / 4);
    draft.at(at, Act::Demote(one));
    let next = at + draft.random.range(0, 4000);
    draft.at(next, Act::Demote(other));
    for _ in 0..3 {
        draft.claim_about(next);
    }
    draft.at(next + 8000, Act::Stop(one));
    draft.at(next + 8000, Act::Stop(other));
    draft.at(next + 9000, Act::Decides);
}

fn network(draft: &mut Draft) {
    draft.roster(5);
    let link = Link {
        latency_ms: draft.random.range(1, 60),
        jitter_ms: draft.random.range(0, 60),
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        ..Link::default()
    };
    draft.at(0, Act::Links(link));
    let mut at = 1000;
    while at < draft.length_ms {
        for _ in 0..draft.random.range(1, 4) {
            let (from, to) = (draft.voter(), draft.voter());
            if from != to {
                draft.at(at, Act::Cut(vec![from], vec![to]));
            }
        }
        draft.at(at, Act::Cut(vec![draft.ca - 1], vec![0]));
        for _ in 0..3 {
            draft.claim_about(at + 1500);
        }
        let long = draft.random.range(1000, 15_000);
        draft.at(at + long, Act::Heal);
        at += long + draft.random.range(500, 5000);
    }
}

fn clocks(draft: &mut Draft) {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    draft.roster(3);
    let mut at = 1000;
    let mut round: u64 = 0;
    while at < draft.length_ms || round < 2 {
        let span = if draft.random.chance(0.5) {
            10 * 60_000
        } else {
            80 * YEAR_MS
        };
        let by = draft.random.range(1000, span) as i64;
        let by = if draft.random.chance(0.5) { by } else { -by };
        let long = draft.random.range(2000, 12_000);
        if round.is_multiple_of(2) {
            // The leader's stays wrong until it has made room for another.
            draft.at(at, Act::LeaderClock(by))
        } else {
            let node = draft.voter();
            draft.at(at, Act::ClockStep(node, by));
            draft.at(at + long, Act::ClockStep(node, -by));
        }
        for _ in 0..3 {
            draft.claim_about(at + 1500);
        }
        draft.at(at + long, Act::ClocksRight);
        at += long + draft.random.range(500, 8000);
        round += 1;
    }
}

fn contest(draft: &mut Draft) {
    draft.roster(3);
    let mut at = 1000;
    while at < draft.length_ms {
        let (one, other) = draft.halves();
        draft.at(at, Act::Cut(one.clone(), other.clone()));
        draft.at(at, Act::Cut(other.clone(), one.clone()));
        for _ in 0..2 {
            let pick = |draft: &mut Draft, from: &[usize]| {
                draft.random.pick(from).copied().unwrap_or_default()
            };
            let rivals = vec![pick(draft, &one), pick(draft, &other)];
            let number = draft.service();
            let when = at + draft.random.below(4000);
            draft.at(when, Act::Rivals(rivals, number));
        }
        let long = draft.random.range(1000, 20_000);
        draft.at(at + long, Act::Heal);
        at += long + draft.random.range(1000, 10_000);
    }
}

fn stale_refusals(draft: &mut Draft) {
    const ROUND_MS: u64 = 14_000;
    draft.roster(3);
    draft.nodes = draft.nodes.max(5);
    // The last two follow: one had the name, the other asks for it.
    let (first, second) = (draft.nodes - 2, draft.nodes - 1);
    let mut at = 1000;
    while at + ROUND_MS <= draft.length_ms.max(2 * ROUND_MS) {
        let number = draft.service();
        draft.at(at, Act::Claim(first, number));
        draft.at(at + 2000, Act::LeaderOnlyFor(second));
        draft.at(at + 2100, Act::GiveBack(first, number));
        // The leader doesn't know for up to three seconds that it was deposed.
        let mut asked = at + 2200 + draft.random.below(50);
        while asked < at + 6000 {
            draft.at(asked, Act::Claim(second, number));
            asked += 50;
        }
        draft.at(at + 8000, Act::Heal);
        at += ROUND_MS;
    }
}

fn token_race(draft: &mut Draft) {
    draft.roster(3);
    for round in 0..3 {
        let at = 1000 + round * draft.length_ms / 3;
        let (rivals, after) = (draft.random.range(2, 5), draft.random.below(400));
        draft.at(at, Act::ContestWithout(rivals as usize, after));
        draft.at(at + 8000, Act::StartAll);
    }
}

fn cloned(draft: &mut Draft) {
    draft.roster(3);
    draft.services(4);
    let (node, at) = (draft.node(), 1000 + draft.random.below(draft.length_ms / 2));
    draft.at(at, Act::Clone(node));
}

fn evict(draft: &mut Draft) {
    draft.roster(3);
    draft.services(4);
    let node = draft.follower();
    let at = 1000 + draft.random.below(draft.length_ms / 2);
    let (one, other) = draft.halves();
    draft.at(at, Act::Cut(one.clone(), other.clone()));
    draft.at(at, Act::Cut(other, one));
    let said = at + draft.random.below(3000);
    draft.at(said, Act::Evict(node));
    let long = draft.random.range(2000, 20_000);
    draft.at(at + long, Act::Heal);
    // What the first didn't reach.
    draft.at(at + long + 6000, Act::Evict(node));
}

fn all_off(draft: &mut Draft) {
    draft.roster(3);
    draft.services(4);
    let at = draft.length_ms / 3;
    for node in 0..draft.ca {
        draft.at(at, Act::Stop(node));
    }
    draft.at(at + 5000, Act::Days(30));
    for _ in 0..3 {
        let (node, when) = (
            draft.follower(),
            at + 6000 + draft.random.below(draft.length_ms / 3),
        );
        draft.at(when, Act::Crash(node));
        draft.at(when + 2000, Act::Start(node));
        let (node, when) = (
            draft.follower(),
            at + 6000 + draft.random.below(draft.length_ms / 3),
        );
        draft.at(when, Act::Roam(node));
    }
}

fn lost(draft: &mut Draft) {
    draft.roster(3);
    let survivor = draft.voter();
    let at = 2000 + draft.random.below(draft.length_ms / 3);
    for node in (0..3).filter(|node| *node != survivor) {
        let when = at + draft.random.below(300);
        draft.at(when, Act::Lose(node));
    }
    for _ in 0..6 {
        draft.claim_about(at);
    }
    // Not before a leader is missed.
    let back = at + draft.random.range(9000, 15_000);
    draft.at(back, Act::Recover(survivor));
    draft.at(back + 3000, Act::Decides);
    let again = draft.random.range(500, 5000);
    draft.at(back + 3000 + again, Act::Crash(survivor));
    draft.at(back + 4000 + again, Act::StartAll);
    for _ in 0..4 {
        draft.claim_about(back + 8000);
    }
}

fn rollback(draft: &mut Draft) {
    draft.roster(3);
    let node = draft.follower();
    let taken = draft.random.below(draft.length_ms / 3);
    draft.at(taken, Act::Snapshot(node));
    for _ in 0..8 {
        let at = draft.moment();
        draft.claim_about(at);
    }
    let back = draft.length_ms / 2 + draft.random.below(draft.length_ms / 3);
    draft.at(back, Act::Rollback(node));
    let again = back + draft.random.range(100, 3000);
    draft.at(again, Act::Start(node));
}

fn byzantine(draft: &mut Draft) {
    draft.roster(3);
    let liar = 1 + draft.random.below(2) as usize;
    let honest: Vec<usize> = (0..draft.nodes).filter(|node| *node != liar).collect();
    for _ in 0..4 {
        for lie in Lie::OF_A_VOTER {
            let to = draft.random.pick(&honest).copied().unwrap_or(0);
            let at = 500 + draft.moment();
            draft.at(at, Act::Lie(liar, to, lie));
        }
        let at = draft.moment();
        draft.claim_about(at);
    }
}
