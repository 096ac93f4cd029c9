//! Who is to lead: whose turn it is, and that one whose batches the others don't
//! accept doesn't keep them.

use std::{collections::BTreeMap, time::Duration};

use innermesh_host::Mono;
use innermesh_proto::{id::NodeId, ledger::State};

use super::{roster::is_near, voting::Voting};

/// Ticks between two looks.
const LOOK: u64 = 10;
/// How long one node leads, of ledger time, unless it is told otherwise.
const TERM: Duration = Duration::from_secs(6 * 3600);
/// How long a node that leadership couldn't be handed to is passed over.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a leader that others don't follow leaves it to them.
const ABSTAIN: Duration = Duration::from_secs(30);

/// Whose turn it is to lead.
pub struct Rotation {
    /// How long ledger time is one node's turn.
    term: Duration,
    /// To whom leadership was to be handed without effect, and when it may be
    /// tried again.
    failed: BTreeMap<NodeId, Mono>,
    /// To whom it is being handed.
    trying: Option<NodeId>,
    /// Until when this node leaves it to others.
    abstains: Option<Mono>,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            term: TERM,
            failed: BTreeMap::new(),
            trying: None,
            abstains: None,
        }
    }
}

impl Rotation {
    pub fn set_term(&mut self, term: Duration) {
        self.term = term;
    }

    /// Whether it is looked at in this tick.
    pub fn looks(ticks: u64) -> bool {
        ticks.is_multiple_of(LOOK)
    }

    /// Whether this node leaves it to others to lead.
    pub fn abstains(&self) -> bool {
        self.abstains.is_some()
    }

    /// Leaves it to others for a while.
    pub fn abstain(&mut self, now: Mono) {
        self.abstains = Some(now + ABSTAIN);
    }

    /// Whether that is over now.
    pub fn stands_again(&mut self, now: Mono) -> bool {
        self.abstains.take_if(|until| *until <= now).is_some()
    }

    /// Whether this node leads and could hand over now. One that it was handed
    /// to without effect is passed over for a while.
    pub fn is_free(&mut self, voting: &Voting, now: Mono) -> bool {
        self.failed.retain(|_, until| *until > now);
        let Some(standing) = voting.standing() else {
            return false;
        };
        if !standing.leads {
            self.trying = None;
            return false;
        }
        if !standing.established || standing.transferring.is_some() {
            return false;
        }
        if let Some(node) = self.trying.take() {
            tracing::info!(
                ?node,
                "leadership could not be handed over; trying the next"
            );
            self.failed.insert(node, now + AGAIN);
        }
        true
    }

    /// Who is to lead at `now_ms` of ledger time, in this order.
    pub fn order(&self, state: &State, now_ms: u64) -> Vec<NodeId> {
        let term_ms = (self.term.as_millis() as u64).max(1);
        state.leader_order(now_ms / term_ms)
    }

    /// Hands leadership to the first in `order` who can take it, unless it is
    /// `me`, which `stays`.
    pub fn hand_over(&mut self, voting: &mut Voting, order: Vec<NodeId>, me: NodeId, stays: bool) {
        for node in order {
            if node == me && stays {
                return;
            }
            let id = voting.number_of(&node);
            let (Some(id), Some(voter)) = (id, voting.voter_mut()) else {
                continue;
            };
            let able = node != me
                && voter.engine.conf().voters.contains(&id)
                && !self.failed.contains_key(&node)
                && is_near(&voter.engine, id);
            if able {
                tracing::info!(?node, "leadership is handed over");
                voter.engine.transfer_leader(id);
                self.trying = Some(node);
                return;
            }
        }
    }
}
