//! Scenarios of one ordinary member that is against the others, with nothing
//! but its own valid key.

use super::draft::{Draft, Scenario};
use crate::{byzantine::Lie, schedule::Act};

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    HOSTILE,
    Scenario {
        name: "liar-for-the-dead",
        about: "a neighbour names links with machines that have died: all notice all the same",
        promises: &["lie: names the dead", "crash", "noticed", "start"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: for_the_dead,
    },
    Scenario {
        name: "liar-drops",
        about: "a neighbour drops its links with all others: nobody dies of it",
        promises: &["lie: drops links", "add"],
        nobody_dies: true,
        needs_datagrams: false,
        carries: false,
        make: drops,
    },
];

const HOSTILE: Scenario = Scenario {
    name: "hostile-member",
    about: "a member floods, claims what isn't its own, and keeps others from following",
    promises: &[
        "lie: spam",
        "lie: stolen key",
        "lie: names elsewhere",
        "lie: endless snapshot",
        "lie: far ahead",
        "lie: not allowed",
        "claim in time",
        "leader crash",
    ],
    nobody_dies: false,
    needs_datagrams: false,
    carries: false,
    make: hostile,
};

/// Voters, the liar, and at least two that only follow.
const LEAST: usize = 6;

/// Before a leader fails, what was asked is answered.
const IN_TIME_MS: u64 = 4000;
/// How long after its failure another one leads, and it follows.
const LED_AGAIN_MS: u64 = 6000;

fn hostile(draft: &mut Draft) {
    draft.roster(3);
    draft.nodes = draft.nodes.max(LEAST);
    // The first that doesn't vote: an older member than all that only follow.
    let liar = draft.ca;
    let honest: Vec<usize> = (0..draft.nodes).filter(|node| *node != liar).collect();
    draft.services(4);
    for _ in 0..3 {
        for lie in Lie::OF_A_MEMBER {
            let at = draft.moment();
            match lie {
                // To all who may decide: one of them leads.
                Lie::Spam | Lie::NotAllowed | Lie::NamesElsewhere => {
                    for voter in 0..draft.ca {
                        draft.at(at, Act::Lie(liar, voter, lie));
                    }
                }
                _ => {
                    let to = draft.random.pick(&honest).copied().unwrap_or(0);
                    draft.at(at, Act::Lie(liar, to, lie));
                }
            }
        }
    }
    behind(draft, liar, &honest);
    let crashes = [draft.length_ms / 6, draft.length_ms / 6 + 2 * LED_AGAIN_MS];
    for crash in crashes {
        lead_anew(draft, liar, crash);
    }
    // What others ask meanwhile, while somebody leads.
    for number in 0..8 {
        let node = draft.random.pick(&honest[..draft.ca]).copied().unwrap_or(0);
        let mut at = draft.moment();
        for crash in crashes {
            if (crash.saturating_sub(IN_TIME_MS)..crash + LED_AGAIN_MS).contains(&at) {
                at = crash + LED_AGAIN_MS;
            }
        }
        draft.at(at, Act::ClaimInTime(node, number));
    }
}

/// A new leader doesn't know what the liar had used up before, and is asked for
/// as much again.
fn lead_anew(draft: &mut Draft, liar: usize, crash: u64) {
    for voter in 0..draft.ca {
        draft.at(crash - 1000, Act::Lie(liar, voter, Lie::Spam));
        for after in [LED_AGAIN_MS, LED_AGAIN_MS + 1500] {
            draft.at(crash + after, Act::Lie(liar, voter, Lie::Spam));
        }
    }
    draft.at(crash, Act::LeaderCrash);
    draft.at(crash + LED_AGAIN_MS / 2, Act::StartAll);
}

/// A machine comes back while it is behind, and meets the liar first.
fn behind(draft: &mut Draft, liar: usize, honest: &[usize]) {
    let victim = draft.nodes - 1;
    let others: Vec<usize> = honest.iter().copied().filter(|n| *n != victim).collect();
    let begin = draft.length_ms / 2 + draft.random.below(draft.length_ms / 4);
    draft.at(begin, Act::Crash(victim));
    for number in 0..3 {
        draft.at(begin + 500, Act::Claim(others[0], number));
    }
    draft.at(begin + 3000, Act::Cut(vec![victim], others.clone()));
    draft.at(begin + 3000, Act::Cut(others, vec![victim]));
    draft.at(begin + 3000, Act::Start(victim));
    for after in [3100, 3500] {
        draft.at(begin + after, Act::Lie(liar, victim, Lie::EndlessSnapshot));
    }
    draft.at(begin + 4000, Act::Heal);
}

/// From a machine's death until all have noticed it.
const NOTICED_MS: u64 = 4000;
/// The same where two that die name each other and the liar: half of their links count,
/// until they have left those that dropped them without an answer.
const UNANSWERED_MS: u64 = 7000;
/// Until all have links with all, after a start.
const LINKED_MS: u64 = 12_000;

fn for_the_dead(draft: &mut Draft) {
    draft.nodes = draft.nodes.max(4);
    let liar = draft.other();
    draft.at(500, Act::Lie(liar, 0, Lie::NamesTheDead));
    let honest: Vec<usize> = (1..draft.nodes).filter(|node| *node != liar).collect();
    let mut at = LINKED_MS;
    // A link that fails again and again waits for longer and longer.
    for (turn, victim) in honest.iter().enumerate() {
        // Every second time two die at once.
        let also = honest.get((turn + 1) % honest.len());
        let also = also.filter(|also| turn % 2 == 1 && *also != victim);
        let noticed = if also.is_some() {
            UNANSWERED_MS
        } else {
            NOTICED_MS
        };
        for victim in [Some(victim), also].into_iter().flatten() {
            draft.at(at, Act::Crash(*victim));
            draft.at(at + noticed, Act::Noticed(*victim));
            draft.at(at + noticed + 1000, Act::Start(*victim));
        }
        at += noticed + LINKED_MS;
        if at + UNANSWERED_MS > draft.length_ms {
            break;
        }
    }
}

fn drops(draft: &mut Draft) {
    draft.nodes = draft.nodes.max(4);
    draft.services(4);
    let liar = draft.other();
    for (turn, victim) in (0..draft.nodes).filter(|node| *node != liar).enumerate() {
        let at = LINKED_MS + 3000 * turn as u64;
        draft.at(at, Act::Lie(liar, victim, Lie::DropsLinks));
    }
}
