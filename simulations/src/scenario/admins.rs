//! Scenarios of who may do what: roles are given and taken, by whose word, and
//! by a thief.

use super::draft::{Draft, Scenario};
use crate::{byzantine::Lie, schedule::Act};

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "roles",
        about: "roles are given and taken, by two, by the root, by oneself, while machines fail",
        promises: &[
            "give admin",
            "take admin",
            "take admin by root",
            "demote",
            "days",
        ],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: roles,
    },
    Scenario {
        name: "stolen-admin",
        about: "an admin is stolen, makes itself a second, and wants all others gone",
        promises: &["give admin", "lie: takes over", "claim"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: stolen,
    },
];

/// Voters, and at least four that aren't.
const LEAST: usize = 7;

fn roles(draft: &mut Draft) {
    draft.roster(3);
    draft.nodes = draft.nodes.max(LEAST);
    let (one, other, third) = (draft.ca, draft.ca + 1, draft.ca + 2);
    // Each kind at least once, while nothing fails.
    draft.at(300, Act::GiveAdmin(0, one));
    draft.at(600, Act::GiveAdmin(0, other));
    // Both speak for the first on their first day: none of this counts.
    draft.at(1500, Act::TakeAdmin(one, 0));
    draft.at(1800, Act::TakeAdmin(other, 0));
    draft.at(2500, Act::TakeAdminByRoot(other));
    draft.at(3500, Act::Demote(2));
    draft.at(4500, Act::GiveAdmin(one, third));
    draft.at(5000, Act::TakeAdmin(third, third));
    draft.at(6000, Act::Days(1));
    let mut at = 7000;
    let admins = [0, one, other, third];
    while at < draft.length_ms {
        let pick = |draft: &mut Draft| draft.random.pick(&admins).copied().unwrap_or(0);
        let (by, of) = (pick(draft), pick(draft));
        match draft.random.below(5) {
            0 => draft.at(at, Act::GiveAdmin(by, of)),
            // The first asks for whatever else is to be done.
            1 if of != 0 => draft.at(at, Act::TakeAdminByRoot(of)),
            2 if of != 0 => draft.at(at, Act::TakeAdmin(by, of)),
            3 => {
                draft.at(at, Act::LeaderCrash);
                draft.at(at + 4000, Act::StartAll);
            }
            _ => {
                let (from, to) = draft.halves();
                draft.at(at, Act::Cut(from, to));
                draft.at(at + 3000, Act::Heal);
            }
        }
        let node = draft.node();
        let number = draft.service();
        draft.at(at + 500, Act::Claim(node, number));
        at += draft.random.range(500, 4000);
    }
}

fn stolen(draft: &mut Draft) {
    draft.roster(3);
    draft.nodes = draft.nodes.max(LEAST);
    // A good admin, the stolen one, and one that is the thief's as well.
    let (good, thief, second) = (draft.ca, draft.ca + 1, draft.ca + 2);
    draft.at(200, Act::GiveAdmin(0, good));
    draft.at(400, Act::GiveAdmin(0, thief));
    // On some seeds the thief has waited for a day.
    if draft.random.chance(0.5) {
        draft.at(1500, Act::Days(1));
    }
    let honest: Vec<usize> = (0..draft.nodes)
        .filter(|node| ![thief, second].contains(node))
        .collect();
    for round in 0..4 {
        let at = 3000 + round * draft.length_ms / 5 + draft.random.below(2000);
        for (liar, after) in [(thief, 0), (second, 1500), (thief, 3000)] {
            for voter in 0..draft.ca {
                draft.at(at + after, Act::Lie(liar, voter, Lie::TakesOver));
            }
        }
    }
    for number in 0..6 {
        let node = draft.random.pick(&honest[..draft.ca]).copied().unwrap_or(0);
        let at = draft.moment();
        draft.at(at, Act::Claim(node, number));
    }
}
