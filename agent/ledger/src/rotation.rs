//! What the leader sees to between batches: who votes, who is to lead, and that
//! a batch which the others don't accept doesn't keep them.

use std::{collections::BTreeMap, time::Duration};

use innermesh_proto::{id::NodeId, ledger::stamp};

use super::{
    raft::{Change, Engine},
    writer::Writer,
};
use crate::host::Mono;

/// Ticks between two looks.
const LOOK: u64 = 10;
/// How long a node that leadership couldn't be handed to is passed over.
const AGAIN: Duration = Duration::from_secs(60);
/// Ticks after which a batch that the others don't take up is given up.
const STUCK: u64 = 50;
/// How long a leader that others don't follow leaves it to them.
const ABSTAIN: Duration = Duration::from_secs(30);
/// Entries that a voter may lack and still be taken in, or handed leadership:
/// it gets them in the same moment.
const NEAR: u64 = 16;

/// Whose turn it is to lead.
#[derive(Default)]
pub(super) struct Rotation {
    /// How long ledger time is one node's turn.
    pub term: Duration,
    /// To whom leadership was to be handed without effect, and when it may be
    /// tried again.
    pub failed: BTreeMap<NodeId, Mono>,
    /// To whom it is being handed.
    pub trying: Option<NodeId>,
    /// Until when this node leaves it to others.
    pub abstains: Option<Mono>,
}

impl Writer {
    /// Looks at who votes and who leads, every second.
    pub fn keep_order(&mut self, ticks: u64) {
        self.stand_again();
        self.leave_stuck(ticks);
        if ticks.is_multiple_of(LOOK) {
            self.tell_may_lead();
            self.sync_learners();
            self.hand_over();
        }
    }

    /// Has the log's learners be those who wait in the ledger: a waiting node
    /// gets the log before it votes, and a node that is neither gets it no
    /// longer.
    fn sync_learners(&mut self) {
        let state = self.current();
        let able = self.may_draft();
        let Some(voter) = &mut self.voter else { return };
        let conf = voter.engine.conf();
        if !able || conf.is_joint() {
            return;
        }
        let listed = state.waiting();
        let listed: Vec<u64> = listed
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

    /// Proposes the roster that the ledger wants, once those who are new to it
    /// have the log; `true` when it was proposed.
    pub fn change_roster(&mut self) -> bool {
        let state = self.current();
        let Some(wanted) = state.wanted_roster() else {
            return false;
        };
        let Some(voter) = &self.voter else {
            return false;
        };
        let engine = &voter.engine;
        let me = self.me();
        // To be without itself it hands over first.
        if engine.conf().is_joint() || !wanted.contains(&me) {
            return false;
        }
        let new = wanted.difference(&state.roster);
        let ready = new.into_iter().all(|node| {
            let id = self.numbers.get(node);
            id.is_some_and(|id| engine.conf().learners.contains(id) && is_near(engine, *id))
        });
        ready && self.propose_roster(wanted)
    }

    /// Hands leadership to whose turn it is: at the end of a term of ledger
    /// time, when this node can't or may not go on, or when it is to leave.
    fn hand_over(&mut self) {
        let now = self.host.clock.now();
        self.rotation.failed.retain(|_, until| *until > now);
        let me = self.me();
        let Some(voter) = &self.voter else { return };
        let standing = voter.engine.standing();
        if !standing.leads {
            self.rotation.trying = None;
            return;
        }
        if !standing.established || standing.transferring.is_some() {
            return;
        }
        if let Some(node) = self.rotation.trying.take() {
            tracing::info!(
                ?node,
                "leadership could not be handed over; trying the next"
            );
            self.rotation.failed.insert(node, now + AGAIN);
        }
        let state = self.current();
        let wall_ms = self.host.clock.wall_ms();
        let now_ms = stamp::estimate(state.stamp_ms, wall_ms, &self.clocks, self.elapsed_ms());
        let term_ms = (self.rotation.term.as_millis() as u64).max(1);
        let order = state.leader_order(now_ms / term_ms);
        let leaves = state
            .wanted_roster()
            .is_some_and(|roster| !roster.contains(&me));
        let stays = !leaves && self.may_lead() && !self.room.hands_over(now);
        for node in order {
            if node == me && stays {
                return;
            }
            let id = self.numbers.get(&node).copied();
            let (Some(id), Some(voter)) = (id, &mut self.voter) else {
                continue;
            };
            let able = node != me
                && voter.engine.conf().voters.contains(&id)
                && !self.rotation.failed.contains_key(&node)
                && is_near(&voter.engine, id);
            if able {
                tracing::info!(?node, "leadership is handed over");
                voter.engine.transfer_leader(id);
                self.rotation.trying = Some(node);
                return;
            }
        }
    }

    /// A leader whose batch the others leave lying, as they do with one that is
    /// stamped too far ahead of their clocks, lets another lead.
    fn leave_stuck(&mut self, ticks: u64) {
        let stuck = self
            .flight
            .as_ref()
            .is_some_and(|flight| ticks > flight.since + STUCK);
        let Some(voter) = &mut self.voter else { return };
        let standing = voter.engine.standing();
        let entry = self.flight.as_ref().map_or(0, |flight| flight.entry);
        if stuck && standing.leads && standing.applied < entry && !voter.engine.is_alone() {
            tracing::warn!(
                "the other CA nodes don't accept this node's batch; is its clock right? Another \
                 is to lead"
            );
            voter.engine.set_may_lead(false);
            voter.engine.step_down();
            self.rotation.abstains = Some(self.host.clock.now() + ABSTAIN);
            self.give_up();
        }
    }

    fn stand_again(&mut self) {
        let now = self.host.clock.now();
        if self.rotation.abstains.is_some_and(|until| until <= now) {
            self.rotation.abstains = None;
            self.tell_may_lead();
        }
    }
}

/// Whether a voter was heard of lately and has all but the newest entries.
fn is_near(engine: &Engine, id: u64) -> bool {
    let last = engine.standing().last;
    engine
        .peer(id)
        .is_some_and(|peer| peer.active && peer.matched > 0 && peer.matched + NEAR >= last)
}
