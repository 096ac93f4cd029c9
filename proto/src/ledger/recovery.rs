//! A new roster for a ledger whose old one has lost its majority for good.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    batch::{Batch, Header, Position},
    chain::BatchError,
    state::State,
};
use crate::{
    certificate::Serial,
    codec,
    crypto::{Hash, PublicKey, Purpose, Verify},
    id::{MeshId, NodeId},
    limits,
};

/// What the root signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The mesh.
    pub mesh: MeshId,
    /// Above that of any recovery before; the highest counts.
    pub number: u32,
    /// The batch after which the new roster goes on.
    pub position: Position,
    /// The new roster's keys.
    pub roster: BTreeSet<PublicKey>,
    /// Issuers (DER) for those of the new roster that have none in force:
    /// where no CA node is left, any member can go on as one.
    pub issuers: Vec<(NodeId, Vec<u8>)>,
}

/// An encoded [`Recovery`] and the root's signature over it (P-256, ASN.1 DER)
/// under [`Purpose::Recovery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecovery {
    /// The encoded recovery.
    pub bytes: Vec<u8>,
    /// The root's signature.
    pub signature: Vec<u8>,
}

impl SignedRecovery {
    /// Its number and place, as it says **without** the signature being checked.
    pub fn claims(&self) -> Option<(u32, Position)> {
        let recovery: Recovery = codec::decode(&self.bytes, limits::HEADER_BYTES).ok()?;
        Some((recovery.number, recovery.position))
    }

    /// Reads it, if the root with this SubjectPublicKeyInfo (DER) signed it.
    pub fn open(&self, root_spki: &[u8], verify: &dyn Verify) -> Option<Recovery> {
        let recovery: Recovery = codec::decode(&self.bytes, limits::HEADER_BYTES).ok()?;
        let message = Purpose::Recovery.message(&recovery.mesh, &self.bytes);
        (recovery.mesh == MeshId::of_root(root_spki)
            && (1..=limits::ROSTER).contains(&recovery.roster.len())
            && recovery.issuers.len() <= limits::RECOVERY_ISSUERS
            && verify.p256(root_spki, &message, &self.signature))
        .then_some(recovery)
    }
}

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
