//! Who votes, as the leader has it become what the ledger wants: who waits gets
//! the log first, and votes once it has it.

use std::collections::BTreeSet;

use innermesh_proto::{id::NodeId, ledger::State};

use super::voting::Voting;
use crate::raft::{Change, Engine, VoterId};

/// Entries that a voter may lack and still be taken in, or handed leadership:
/// it gets them in the same moment.
const NEAR: u64 = 16;

/// Whether a voter was heard of lately and has all but the newest entries.
pub fn is_near(engine: &Engine, id: VoterId) -> bool {
    let last = engine.standing().last;
    engine
        .peer(id)
        .is_some_and(|peer| peer.active && peer.matched > 0 && peer.matched + NEAR >= last)
}

/// Has the log's learners be those who wait in the ledger: a waiting node gets
/// the log before it votes, and a node that is neither gets it no longer.
pub fn sync_learners(voting: &mut Voting, state: &State) {
    let Some(voter) = voting.voter_mut() else {
        return;
    };
    let conf = voter.engine.conf();
    if conf.is_joint() {
        return;
    }
    let listed = state.waiting();
    let listed: Vec<VoterId> = listed
        .iter()
        .filter_map(|node| state.voters.get(node).copied())
        .collect();
    let waiting = listed.iter().find(|id| !conf.contains(**id));
    let gone = conf.learners.iter().find(|id| !listed.contains(id));
    let change = match (waiting, gone) {
        (Some(id), _) => Change::Learner(*id),
        (None, Some(id)) => Change::Remove(*id),
        (None, None) => return,
    };
    // Dropped, it is proposed again at the next look.
    let _ = voter.engine.propose_roster(&[change], Vec::new());
}

/// The roster that the ledger wants, once this node may propose it: those who
/// are new to it have the log. To be without itself a node hands over first.
pub fn due(voting: &Voting, state: &State, me: NodeId) -> Option<BTreeSet<NodeId>> {
    let wanted = state.wanted_roster()?;
    let engine = &voting.voter()?.engine;
    if engine.conf().is_joint() || !wanted.contains(&me) {
        return None;
    }
    let mut new = wanted.difference(&state.roster);
    let ready = new.all(|node| {
        voting
            .number_of(node)
            .is_some_and(|id| engine.conf().learners.contains(&id) && is_near(engine, id))
    });
    ready.then_some(wanted)
}
