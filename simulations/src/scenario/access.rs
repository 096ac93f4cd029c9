//! Scenarios of who may reach what.

use super::draft::{Draft, Scenario};
use crate::schedule::Act;

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "policies",
    about: "the policy changes while the mesh is cut in two, and machines fail",
    promises: &["policy", "add", "cut", "heal", "crash"],
    nobody_dies: false,
    needs_datagrams: false,
    make: policies,
}];

fn policies(draft: &mut Draft) {
    draft.nodes = draft.nodes.max(4);
    // Without one, with a phone, while nothing fails.
    draft.at(300, Act::Policy(0));
    let (node, number) = (draft.node(), draft.service());
    draft.at(600, Act::Add(node, number));
    let mut at = 3000;
    while at < draft.length_ms {
        let policy = draft.random.below(5);
        draft.at(at, Act::Policy(u32::try_from(policy).unwrap_or(0)));
        let (from, to) = draft.halves();
        match draft.random.below(3) {
            0 => {
                draft.at(at, Act::Cut(from, to));
                draft.at(at + 4000, Act::Heal);
            }
            1 => {
                let node = draft.node();
                draft.at(at + 50, Act::Crash(node));
                draft.at(at + 3000, Act::StartAll);
            }
            _ => {
                let (node, number) = (draft.node(), draft.service());
                draft.at(at + 500, Act::Add(node, number));
            }
        }
        at += draft.random.range(2000, 8000);
    }
    // Each kind at least once, whatever was drawn.
    let (from, to) = draft.halves();
    draft.at(1500, Act::Cut(from, to));
    draft.at(2500, Act::Heal);
    draft.at(2600, Act::Crash(1));
    draft.at(2900, Act::StartAll);
}
