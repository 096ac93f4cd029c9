//! Scenarios of certificates: issued and revoked on both sides of a split,
//! across their ends, by clocks that are wrong, and by issuers that follow
//! each other.

use super::draft::{Draft, Scenario};
use crate::{schedule::Act, world::START_MS};

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "issue-split",
        about: "certificates are issued and revoked on both sides of splits, and leaders die",
        promises: &[
            "issue",
            "revoke",
            "cut",
            "heal",
            "leader crash",
            "start all",
        ],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: split,
    },
    Scenario {
        name: "issue-clocks",
        about: "clocks jump across the ends of certificates, and a machine starts in 1970",
        promises: &["issue", "clock step", "days", "start", "decides"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: clocks,
    },
    Scenario {
        name: "issuer-rollover",
        about: "issuers end and their successors sign, while links are cut",
        promises: &["days", "issue", "cut", "heal", "decides"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: rollover,
    },
];

/// Longer than the time between two looks at a certificate.
const LOOK_MS: u64 = 70_000;

impl Draft {
    /// Machines ask for certificates, and one for the end of one, about now.
    fn certificates_about(&mut self, at_ms: u64) {
        for _ in 0..3 {
            let (node, after) = (self.node(), self.random.below(1500));
            self.at(at_ms + after, Act::Issue(node));
        }
        let (node, after) = (self.node(), self.random.below(3000));
        self.at(at_ms + 500 + after, Act::Revoke(node));
    }
}

fn split(draft: &mut Draft) {
    draft.roster(3);
    for node in 0..draft.nodes.min(4) {
        draft.at(300, Act::Issue(node));
    }
    draft.at(900, Act::Revoke(0));
    let mut at = 2000;
    let mut round = 0u64;
    while at < draft.length_ms || round < 2 {
        let (one, other) = draft.halves();
        draft.at(at, Act::Cut(one.clone(), other.clone()));
        draft.at(at, Act::Cut(other, one));
        draft.certificates_about(at);
        draft.certificates_about(at + 3000);
        if round.is_multiple_of(2) {
            let after = draft.random.below(4000);
            draft.at(at + after, Act::LeaderCrash);
        }
        let long = draft.random.range(4000, 15_000);
        draft.at(at + long, Act::Heal);
        let back = draft.random.below(3000);
        draft.at(at + long + back, Act::StartAll);
        draft.certificates_about(at + long);
        at += long + draft.random.range(4000, 10_000);
        round += 1;
    }
}

fn clocks(draft: &mut Draft) {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    draft.roster(3);
    let (behind, at) = (draft.other(), 1000);
    draft.certificates_about(at);
    // Its clock has no battery.
    draft.at(at + 1000, Act::Stop(behind));
    let wrong = -i64::try_from(START_MS).unwrap_or(i64::MAX);
    draft.at(at + 1500, Act::ClockStep(behind, wrong));
    draft.at(at + 2000, Act::Start(behind));
    draft.at(at + 4000, Act::Issue(behind));
    // Across the end of a certificate, and back.
    let jumps = draft.other();
    draft.at(at + 5000, Act::ClockStep(jumps, 100 * DAY_MS));
    draft.certificates_about(at + 6000);
    draft.at(at + 9000, Act::ClockStep(jumps, -100 * DAY_MS));
    draft.at(at + 12_000, Act::ClocksRight);
    draft.at(at + LOOK_MS, Act::Days(85));
    draft.certificates_about(at + LOOK_MS + 2000);
    draft.at(at + 2 * LOOK_MS, Act::Days(85));
    draft.at(at + 3 * LOOK_MS, Act::Decides);
    draft.length_ms = 4 * LOOK_MS;
}

fn rollover(draft: &mut Draft) {
    /// After so many steps issuers have successors (640 days).
    const STEPS: u64 = 8;
    draft.roster(3);
    for step in 1..=STEPS {
        let at = step * LOOK_MS;
        draft.at(at, Act::Days(85));
        draft.certificates_about(at + 5000);
        if step >= STEPS - 1 || draft.random.chance(0.3) {
            let (one, other) = draft.halves();
            draft.at(at + 100, Act::Cut(one.clone(), other.clone()));
            draft.at(at + 100, Act::Cut(other, one));
            let long = draft.random.range(2000, 20_000);
            draft.at(at + long, Act::Heal);
        }
    }
    draft.at((STEPS + 1) * LOOK_MS, Act::Decides);
    draft.length_ms = (STEPS + 2) * LOOK_MS;
}
