//! A new roster for a ledger whose old one has lost its majority for good.

use std::collections::BTreeSet;

use super::{
    batch::{Batch, Header, Position},
    chain::BatchError,
    recovery::{Recovery, SignedRecovery},
    state::State,
};
use crate::{
    certificate::Serial,
    crypto::{Hash, PublicKey, Verify},
    id::NodeId,
};

impl State {
    /// Goes on with the roster that the root signed: the state after the batch
    /// that says so, and that batch without a proof, which a majority of the
    /// new roster signs.
    ///
    /// # Errors
    /// [`BatchError::Recovery`].
    pub fn recovered(
        &self,
        signed: &SignedRecovery,
        stamp_ms: u64,
        verify: &dyn Verify,
    ) -> Result<(Self, Batch), BatchError> {
        let recovery = self.read_recovery(signed, verify)?;
        let mut state = self.after(&recovery, stamp_ms, verify)?;
        let index = self.position.index + 1;
        let header = Header {
            mesh: self.mesh,
            epoch: self.epoch,
            index,
            previous: self.position.hash,
            entries: Batch::entries_hash(&[]),
            stamp_ms: state.stamp_ms,
            state: Some(state.hash_at(index)),
            next: Some(recovery.roster),
            recovery: Some(signed.clone()),
            rules: state.rules,
        };
        let batch = Batch::unproved(&header, Vec::new());
        state.position = Position {
            index,
            hash: Hash::of(&batch.header),
        };
        Ok((state, batch))
    }

    /// The recovery, if it belongs after this state: of members.
    pub(super) fn read_recovery(
        &self,
        signed: &SignedRecovery,
        verify: &dyn Verify,
    ) -> Result<Recovery, BatchError> {
        let fits = |recovery: &Recovery| {
            let is_member = |key: &PublicKey| self.member_by_key(key).is_some();
            recovery.number > self.recovery
                && recovery.position == self.position
                && recovery.roster.iter().all(is_member)
        };
        signed
            .open(&self.root.spki, verify)
            .filter(fits)
            .ok_or(BatchError::Recovery)
    }

    /// The state that a recovery leads to. Each of its roster must be able to
    /// issue then: else nobody could lead it.
    pub(super) fn after(
        &self,
        recovery: &Recovery,
        stamp_ms: u64,
        verify: &dyn Verify,
    ) -> Result<Self, BatchError> {
        let mut state = self.clone();
        state.note_newest_batch();
        state.advance(stamp_ms);
        let mut issuers = Vec::new();
        for (node, der) in &recovery.issuers {
            if !recovery.roster.iter().any(|key| key.node_id() == *node) {
                return Err(BatchError::Recovery);
            }
            let read = self.read_issuers(*node, std::slice::from_ref(der), verify);
            let read = read.map_err(|_| BatchError::Recovery)?;
            issuers.extend(read.into_iter().map(|issuer| (*node, issuer)));
        }
        state.recover(recovery.number, &recovery.roster, issuers);
        if state.roster.iter().all(|node| state.can_issue(*node)) {
            Ok(state)
        } else {
            Err(BatchError::Recovery)
        }
    }

    /// What this state revoked and `other` did not: a node that followed a
    /// roster which was lost meanwhile goes on without whom that had revoked.
    pub fn revoked_beyond(&self, other: &Self) -> (BTreeSet<NodeId>, BTreeSet<Serial>) {
        let nodes = self.evicted.keys().copied();
        let serials = self.revoked.keys().copied();
        (
            nodes
                .filter(|node| !other.evicted.contains_key(node))
                .collect(),
            serials
                .filter(|serial| !other.revoked.contains_key(serial))
                .collect(),
        )
    }
}
