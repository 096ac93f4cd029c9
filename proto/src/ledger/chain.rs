//! How a batch is checked against the state before it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    batch::{Batch, Entry, Header},
    outcome::Outcome,
    state::State,
    version::RULES,
};
use crate::{
    codec::CodecError,
    crypto::{PublicKey, Verify},
    id::{MeshId, NodeId},
    limits,
};

/// Why a batch is not the next one. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not an encoding of a batch.
    #[error("the batch is malformed: {0}")]
    Codec(#[from] CodecError),
    /// More entries or bytes than a batch may have.
    #[error("the batch is larger than a batch may be")]
    TooLarge,
    /// For another mesh or another epoch.
    #[error("the batch is of another mesh or epoch")]
    Foreign,
    /// Not the successor of the position here.
    #[error("the batch has index {got}, and {expected} is next")]
    Index {
        /// The batch's.
        got: u64,
        /// The one that is next here.
        expected: u64,
    },
    /// It follows another batch than the one held here: two histories exist.
    #[error("the batch with index {0} follows another history than the one held here")]
    Fork(u64),
    /// Its entries are not those that the header names.
    #[error("the batch's entries are not those of its header")]
    Entries,
    /// Its stamp is below the one before.
    #[error("the batch is stamped before its predecessor")]
    Stamp,
    /// Not signed by a majority of the roster.
    #[error("the batch is not proved by a majority of the roster")]
    Proof,
    /// It ends an epoch where its entries don't, or for another roster.
    #[error("the next roster is not the one that the batch's entries lead to")]
    Next,
    /// The root didn't sign this roster, or not for this place.
    #[error("the recovery is not signed by the mesh's root for this place")]
    Recovery,
    /// The state after it has another hash than its header says.
    #[error("the state after batch {0} is not the one that the roster signed")]
    State(u64),
    /// It is decided by rules that this build doesn't know.
    #[error(
        "the ledger follows rules {needed}, and this version knows rules up to {known}: update the agent"
    )]
    Rules {
        /// The rules in force after the batch.
        needed: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// Its header names other rules than its entries lead to.
    #[error("the rules that the batch names are not those that its entries lead to")]
    OtherRules,
}

impl State {
    /// The state after `batch`, and what became of each of its entries.
    ///
    /// # Errors
    /// [`BatchError`]; this state stands.
    pub fn next(
        &self,
        batch: &Batch,
        verify: &dyn Verify,
    ) -> Result<(Self, Vec<Outcome>), BatchError> {
        // First, so that a batch costs its sender a majority's signatures
        // before it costs anybody the check of its entries.
        self.check_proof(batch, verify)?;
        self.apply(batch, verify)
    }

    /// As [`State::next`], for a batch without its proof: what a CA node does
    /// with one that the roster agreed on, before it signs it.
    ///
    /// # Errors
    /// [`BatchError`] but for [`BatchError::Proof`]; this state stands.
    pub fn apply(
        &self,
        batch: &Batch,
        verify: &dyn Verify,
    ) -> Result<(Self, Vec<Outcome>), BatchError> {
        let header = self.read_next(batch)?;
        if header.previous != self.position.hash {
            return Err(BatchError::Fork(header.index));
        }
        if header.entries != Batch::entries_hash(&batch.entries) {
            return Err(BatchError::Entries);
        }
        if header.stamp_ms < self.stamp_ms {
            return Err(BatchError::Stamp);
        }
        check_rules(&header)?;
        let (mut state, outcomes) = match &header.recovery {
            None => self.with_entries(batch, &header, verify)?,
            Some(signed) => {
                let recovery = self.read_recovery(signed, verify)?;
                if !batch.entries.is_empty() || header.next.as_ref() != Some(&recovery.roster) {
                    return Err(BatchError::Recovery);
                }
                (self.after(&recovery, header.stamp_ms, verify)?, Vec::new())
            }
        };
        if header.rules != state.rules {
            return Err(BatchError::OtherRules);
        }
        // Where an epoch ends a late node's snapshot may start.
        if header.next.is_some() && header.state.is_none() {
            return Err(BatchError::State(header.index));
        }
        let signed = header.state;
        if signed.is_some_and(|hash| hash != state.hash_at(header.index)) {
            return Err(BatchError::State(header.index));
        }
        state.position = batch.position()?;
        Ok((state, outcomes))
    }

    fn with_entries(
        &self,
        batch: &Batch,
        header: &Header,
        verify: &dyn Verify,
    ) -> Result<(Self, Vec<Outcome>), BatchError> {
        let mut draft = self.draft(header.stamp_ms);
        let outcomes = batch
            .entries
            .iter()
            .map(|entry| draft.add(entry.clone(), verify))
            .collect();
        if header.next == draft.next_roster() {
            Ok((draft.into_state(), outcomes))
        } else {
            Err(BatchError::Next)
        }
    }

    /// Whether `batch`, which comes next here, is signed by all who must.
    ///
    /// # Errors
    /// [`BatchError::Proof`], or why it doesn't come next.
    pub fn check_proof(&self, batch: &Batch, verify: &dyn Verify) -> Result<(), BatchError> {
        let header = self.read_next(batch)?;
        if let Some(signed) = &header.recovery {
            self.read_recovery(signed, verify)?;
        }
        if Quorums::of(&self.roster_keys, &header).are_met(&self.mesh, batch, verify) {
            Ok(())
        } else {
            Err(BatchError::Proof)
        }
    }

    /// Whose signatures `batch`, which comes next here, needs: those of a
    /// majority of the roster, and where that changes, of the new one as well;
    /// where the root changed it, of the new one alone.
    ///
    /// # Errors
    /// [`BatchError`]: why it doesn't come next.
    pub fn proof_needed(&self, batch: &Batch) -> Result<Quorums, BatchError> {
        let header = self.read_next(batch)?;
        Ok(Quorums::of(&self.roster_keys, &header))
    }

    /// Whether the roster in force signed this batch, wherever it belongs.
    pub fn has_proved(&self, batch: &Batch, verify: &dyn Verify) -> bool {
        let header = batch.read_header();
        header.is_ok_and(|header| {
            header.recovery.is_none()
                && Quorums::of(&self.roster_keys, &header).are_met(&self.mesh, batch, verify)
        })
    }

    fn read_next(&self, batch: &Batch) -> Result<Header, BatchError> {
        let sizes = || batch.entries.iter().map(Entry::size);
        if batch.entries.len() > limits::BATCH_ENTRIES
            || !batch.entries.iter().all(|it| it.is_bounded(self.rules))
            || sizes().sum::<usize>() > limits::BATCH_ENTRY_BYTES
        {
            return Err(BatchError::TooLarge);
        }
        let header = batch.read_header()?;
        if header.mesh != self.mesh || header.epoch != self.epoch {
            return Err(BatchError::Foreign);
        }
        let expected = self.position.index + 1;
        if header.index != expected {
            return Err(BatchError::Index {
                got: header.index,
                expected,
            });
        }
        Ok(header)
    }
}

/// Whose signatures prove a batch: of each group more than half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorums(Vec<BTreeMap<NodeId, PublicKey>>);

impl Quorums {
    /// What a batch with this header needs from the roster before it.
    pub(super) fn of(roster: &BTreeMap<NodeId, PublicKey>, header: &Header) -> Self {
        let next = header.next.as_ref();
        let next = next.map(|keys| keys.iter().map(|key| (key.node_id(), *key)).collect());
        // What the root gave away isn't for the old roster to refuse.
        let old = header.recovery.is_none().then(|| roster.clone());
        Self([old, next].into_iter().flatten().collect())
    }

    /// All whose signatures count, with their keys.
    pub fn signers(&self) -> BTreeMap<NodeId, PublicKey> {
        self.0
            .iter()
            .flatten()
            .map(|(node, key)| (*node, *key))
            .collect()
    }

    /// Whether the signatures of those for whom `signed` says so are enough.
    pub fn are_met_by(&self, signed: impl Fn(&NodeId) -> bool) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|group| {
                let count = group.keys().filter(|node| signed(node)).count();
                count > group.len() / 2
            })
    }

    /// Whether the batch's proof is enough. Signatures of others are no part
    /// of a proof: whoever passes a batch on could make it longer than anybody
    /// can store.
    pub fn are_met(&self, mesh: &MeshId, batch: &Batch, verify: &dyn Verify) -> bool {
        let signers = self.signers();
        let signed: BTreeSet<&NodeId> = batch
            .proof
            .iter()
            .filter(|(node, signature)| {
                signers
                    .get(node)
                    .is_some_and(|key| batch.is_endorsed_by(mesh, key, signature, verify))
            })
            .map(|(node, _)| node)
            .collect();
        batch.proof.keys().all(|node| signers.contains_key(node))
            && self.are_met_by(|node| signed.contains(node))
    }
}

/// Whether this build can follow a batch with this header.
///
/// # Errors
/// [`BatchError::Rules`].
pub(super) fn check_rules(header: &Header) -> Result<(), BatchError> {
    if header.rules > RULES {
        return Err(BatchError::Rules {
            needed: header.rules,
            known: RULES,
        });
    }
    Ok(())
}
