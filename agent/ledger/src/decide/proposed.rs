//! The batch that this node proposed, and those who wait for it.

use std::sync::Arc;

use innermesh_proto::{
    crypto::Hash,
    ledger::{Outcome, Position, State},
};

use super::outbox::Ticket;
use crate::raft::Standing;

/// Ticks after which a batch that the others don't take up is given up.
const STUCK: u64 = 50;

/// A batch on its way.
pub struct Flight {
    /// Where its entry is in the log.
    pub entry: u64,
    pub position: Position,
    pub state: Arc<State>,
    /// Who asked, and what they are to be told once it is proved.
    pub replies: Vec<(Ticket, Outcome)>,
    /// Ticks since the start when it was proposed.
    pub since: u64,
}

/// At most one at a time.
#[derive(Default)]
pub struct Proposed(Option<Flight>);

impl Proposed {
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub fn set(&mut self, flight: Flight) {
        self.0 = Some(flight);
    }

    /// The state after it, if it is the batch at `position`: it needn't be
    /// applied once more.
    pub fn state_at(&self, position: Position) -> Option<Arc<State>> {
        let flight = self.0.as_ref();
        let own = flight.filter(|flight| flight.position == position);
        own.map(|flight| flight.state.clone())
    }

    /// Takes it once the ledger has come so far as `index`.
    pub fn take_reached(&mut self, index: u64) -> Option<Flight> {
        self.0.take_if(|flight| flight.position.index <= index)
    }

    /// Whether it can't come about any more: this node doesn't lead, or its
    /// entry was passed over. `hash_at` is of what is applied.
    pub fn is_lost(&self, standing: &Standing, hash_at: impl FnOnce(u64) -> Option<Hash>) -> bool {
        self.0.as_ref().is_some_and(|flight| {
            let applied = hash_at(flight.position.index) == Some(flight.position.hash);
            let passed_over = standing.applied >= flight.entry && !applied;
            !standing.leads && !applied || passed_over
        })
    }

    /// Whether the others leave its entry lying.
    pub fn is_stuck(&self, ticks: u64, applied: u64) -> bool {
        self.0
            .as_ref()
            .is_some_and(|flight| ticks > flight.since + STUCK && applied < flight.entry)
    }

    /// Gives it up: those who wait for it.
    pub fn give_up(&mut self) -> impl Iterator<Item = Ticket> {
        let flight = self.0.take().map(|flight| flight.replies);
        flight.into_iter().flatten().map(|(ticket, _)| ticket)
    }
}
