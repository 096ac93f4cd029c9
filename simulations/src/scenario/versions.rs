//! Scenarios of machines whose builds know different rules of the ledger.

use super::draft::{Draft, Scenario};
use crate::schedule::Act;

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "mixed-rules",
    about: "a mesh of earlier rules is upgraded machine by machine; one comes late",
    promises: &["upgrade", "claim", "stop", "start", "newer rules"],
    nobody_dies: false,
    needs_datagrams: false,
    carries: false,
    make: mixed,
}];

/// Voters, and at least two that only follow.
const LEAST: usize = 5;
/// How long a machine takes to be upgraded.
const DOWN_MS: u64 = 500;
/// What is left for the one that comes late, and for the rules to be raised.
const LATE_MS: u64 = 25_000;

fn mixed(draft: &mut Draft) {
    draft.rules = 0;
    draft.roster(3);
    draft.nodes = draft.nodes.max(LEAST);
    draft.services(4);
    let laggard = draft.nodes - 1;
    let mut order: Vec<usize> = (0..laggard).collect();
    for last in (1..order.len()).rev() {
        let other = draft.random.below(last as u64 + 1) as usize;
        order.swap(last, other);
    }
    // It is away while the others change over, and follows again once its build
    // knows by which rules they go on.
    draft.at(1000, Act::Stop(laggard));
    let room = draft.length_ms.saturating_sub(LATE_MS);
    let pace = (room / (order.len() as u64 + 1)).max(2 * DOWN_MS);
    for (node, turn) in order.into_iter().zip(1..) {
        let at = pace * turn + draft.random.below(pace / 4);
        draft.at(at, Act::Stop(node));
        draft.at(at + DOWN_MS / 2, Act::Upgrade(node));
        draft.at(at + DOWN_MS, Act::Start(node));
    }
    let all = pace * (draft.nodes as u64 + 1);
    draft.at(all + LATE_MS / 3, Act::Start(laggard));
    let late = all + LATE_MS * 2 / 3;
    draft.at(late, Act::Stop(laggard));
    draft.at(late + DOWN_MS / 2, Act::Upgrade(laggard));
    draft.at(late + DOWN_MS, Act::Start(laggard));
    for number in 0..10 {
        let (node, at) = (draft.node(), draft.random.below(late));
        draft.at(at, Act::Claim(node, number));
    }
    draft.length_ms = draft.length_ms.max(late + LATE_MS / 3);
}
