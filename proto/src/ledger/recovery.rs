//! What the root signs for a ledger whose roster has lost its majority for good.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::position::Position;
use crate::{
    codec,
    crypto::{PublicKey, Purpose, Verify},
    id::{MeshId, NodeId},
    limits,
};

/// What the root signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
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
