//! What of others' ledgers counts here: their batches, a state to begin anew
//! with, and what the root signed where the roster is lost for good.

use std::{collections::BTreeSet, sync::Arc};

use innermesh_proto::ledger::{Batch, BatchError, SignedGenesis, SignedRecovery, State};

use super::{
    core::Core,
    error::InstallError,
    proofs::{Proofs, Proved},
    recovery::{self, Rewind, is_fork},
    time::Now,
};
use crate::start::Start;

/// What came of a peer's batches.
pub struct Taken {
    /// Those that are new, to be stored.
    pub batches: Vec<Proved>,
    /// Of the first that doesn't follow.
    pub result: Result<(), BatchError>,
}

impl Core {
    /// Takes batches that a peer sent, in order. What is new counts at once: a
    /// proved batch is true whether or not it is on this disk yet, so views
    /// needn't wait for it. What this node tells others of its position does
    /// (S20): that is what the index lists.
    pub fn handle_batches(&mut self, batches: Vec<Batch>) -> Taken {
        let mut taken = Taken {
            batches: Vec::new(),
            result: Ok(()),
        };
        let mut state = self.state.clone();
        for batch in batches {
            match self.next(&state, &batch) {
                Ok(None) => {}
                Ok(Some(after)) => {
                    state = after.clone();
                    taken.batches.push(Proved { batch, after });
                }
                Err(error) => {
                    taken.result = Err(error);
                    break;
                }
            }
        }
        self.state = state;
        taken
    }

    /// The state after `batch`; none when it is held already.
    fn next(&mut self, state: &State, batch: &Batch) -> Result<Option<Arc<State>>, BatchError> {
        let position = batch.position()?;
        let verify = &*self.keys;
        if position.index <= state.position.index {
            let held = self.index.hash_at(position.index);
            // Worth an alarm only if the roster really signed both.
            if held.is_some_and(|held| held != position.hash) && state.has_proved(batch, verify) {
                tracing::error!(
                    index = position.index,
                    "the roster signed two batches for one index"
                );
                return Err(BatchError::Fork(position.index));
            }
            return Ok(None);
        }
        let header = batch.read_header()?;
        if header.rules > self.versions.known() {
            state.check_proof(batch, verify)?;
            return Err(self.versions.note_unknown(header.rules));
        }
        // What this node applied itself needs only its proof checked.
        if let Some(applied) = self.proofs.applied(position, state.position) {
            applied.before.check_proof(batch, verify)?;
            return if applied.batch.entries == batch.entries {
                Ok(Some(applied.after.clone()))
            } else {
                Err(BatchError::Entries)
            };
        }
        let (after, _) = state.next(batch, verify)?;
        Ok(Some(Arc::new(after)))
    }

    /// If these batches are another history that counts: where to go back to.
    ///
    /// # Errors
    /// Why it isn't followed.
    pub fn recovery_to_follow(&self, batches: &[Batch]) -> Result<Option<Rewind>, BatchError> {
        recovery::to_follow(batches, &self.state, &self.index, &*self.keys)
    }

    /// Goes back to `state`: nothing of the lost roster's log counts any more.
    pub fn rewind(&mut self, state: Arc<State>) {
        self.leave_log();
        self.state = state;
    }

    /// Goes on alone by what the root signed for this node: the batch that says
    /// so, to be stored.
    ///
    /// # Errors
    /// It isn't signed for this node and this place; nothing was changed.
    pub fn handle_recovery(
        &mut self,
        signed: &SignedRecovery,
        now: Now,
    ) -> Result<Proved, BatchError> {
        let stamp_ms = self.time.next_stamp(self.state.stamp_ms, now);
        let (after, mut batch) = self.state.recovered(signed, stamp_ms, &*self.keys)?;
        if after.roster != BTreeSet::from([self.me]) {
            return Err(BatchError::Proof);
        }
        let (node, signature) = batch.endorse(&self.state.mesh, &*self.key);
        batch.proof.insert(node, signature);
        self.leave_log();
        tracing::warn!(
            position = ?after.position,
            "the root gave the ledger a new roster: this node"
        );
        Ok(Proved {
            batch,
            after: Arc::new(after),
        })
    }

    fn leave_log(&mut self) {
        self.give_up();
        self.proofs = Proofs::default();
        self.voting.leave();
    }

    /// The state that a peer's ledger begins with, if this node's is to begin
    /// anew with it.
    ///
    /// # Errors
    /// [`InstallError`].
    pub fn check_start(
        &self,
        start: &Start,
        genesis: &SignedGenesis,
    ) -> Result<Arc<State>, InstallError> {
        let now = &self.state;
        let state = start.open(genesis, &*self.keys)?;
        if state.position.index <= now.position.index {
            return Err(InstallError::Old);
        }
        let decides = now.roster.contains(&self.me) && !self.voting.is_disabled();
        if self.voting.voter().is_some() || decides {
            return Err(InstallError::Voter);
        }
        let led = start.ends.iter().chain([&start.at]);
        if is_fork(now, state.recovery, led) || !now.revoked_beyond(&state).0.is_empty() {
            return Err(InstallError::Fork);
        }
        Ok(Arc::new(state))
    }

    /// The ledger on disk begins anew with `state`.
    pub fn handle_installed(&mut self, state: Arc<State>) {
        self.state = state;
    }
}
