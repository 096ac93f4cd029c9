//! Gossip: who is. Each node publishes one signed head; this module owns what
//! a head and its body say, and the table of heads that a node holds.
//!
//! A node's gossip address isn't in the head: it follows from the key
//! ([`crate::gate::gossip_address`]), so nobody can claim another's.

#![allow(missing_docs, reason = "the names say it")]

mod announcement;
mod table;

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

pub use self::{
    announcement::{Announcement, ExitWays, Instance, WireGuard},
    table::{Body, HeadTable, Known, Offer},
};
use crate::{
    codec,
    crypto::{Hash, PublicKey, Purpose, SealError, Sealed, Sign, Verify},
    id::{MeshId, NodeId},
    ledger::Position,
    limits,
};

/// What a node signs about itself, whole: a member that passes it on can't
/// leave a part of it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose head it is.
    pub node: NodeId,
    /// Rises at each start of the node.
    pub generation: u64,
    /// Rises with each head of a generation; also chitchat's version of it.
    pub seq: u64,
    /// The node is live for this long after its newest head arrived, in
    /// milliseconds; 0 says goodbye.
    pub lease_ms: u32,
    /// Hash of the encoded body.
    pub body: Hash,
    /// Length of the encoded body, in bytes.
    pub body_len: u32,
    /// How far the node follows the ledger.
    pub position: Position,
    /// The node's own clock, in milliseconds since 1970: others compare a
    /// leader's with it.
    pub clock_ms: u64,
}

/// Longest lease that is believed, in milliseconds.
const MAX_LEASE_MS: u32 = 90_000;

impl Head {
    /// Signs it, for this mesh.
    pub fn seal(&self, key: &dyn Sign, mesh: &MeshId) -> Sealed {
        Sealed::new(key, Purpose::Head, mesh, self)
    }

    /// Where it stands among the heads of its node.
    pub fn order(&self) -> (u64, u64) {
        (self.generation, self.seq)
    }
}

/// How often a head is renewed in a mesh of `nodes`: 1.5 s up to 50 nodes,
/// then in proportion, so that the renewals' traffic per node stays level.
pub fn renewal_interval(nodes: usize) -> Duration {
    let ms = (nodes as u64).saturating_mul(1500) / 50;
    Duration::from_millis(ms.clamp(1500, 15_000))
}

/// The lease that goes with [`renewal_interval`]: three renewals may be lost in
/// a mesh of less than 250 nodes, and five from 500 on, where the rounds that
/// carry a renewal to the last node take longer than the time between two.
pub fn lease_ms(nodes: usize) -> u32 {
    let renewals = 3 + (nodes as u128 / 250).min(2);
    u32::try_from(renewal_interval(nodes).as_millis() * renewals).unwrap_or(MAX_LEASE_MS)
}

/// A sealed head as text, for gossip that carries strings.
pub fn to_text(sealed: &Sealed) -> String {
    BASE64URL_NOPAD.encode(&codec::encode(sealed))
}

/// A sealed head from its text; `None` when it isn't one.
pub fn from_text(text: &str) -> Option<Sealed> {
    if text.len() > limits::HEAD_BYTES * 2 {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    codec::decode(&bytes, limits::HEAD_BYTES + 128).ok()
}

/// Why a head was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Malformed, or not signed by its node.
    #[error("the head is not its node's: {0}")]
    Seal(#[from] SealError),
    /// Of another node than its key's.
    #[error("the head is of another node")]
    Foreign,
    /// States a body or a lease beyond what is allowed.
    #[error("the head's body is larger than a body may be")]
    TooLarge,
}

/// Reads a head and checks that it is `key`'s.
///
/// # Errors
/// [`HeadError`].
pub fn open(
    sealed: &Sealed,
    key: &PublicKey,
    mesh: &MeshId,
    verify: &dyn Verify,
) -> Result<Head, HeadError> {
    let head: Head = sealed.open(verify, key, Purpose::Head, mesh, limits::HEAD_BYTES)?;
    if head.node != key.node_id() {
        return Err(HeadError::Foreign);
    }
    if head.body_len as usize > limits::BODY_BYTES {
        return Err(HeadError::TooLarge);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_mesh_may_lose_more_renewals() {
        for (nodes, ms) in [
            (1, 4500),
            (50, 4500),
            (200, 18_000),
            (250, 30_000),
            (500, 75_000),
            (1000, 75_000),
        ] {
            assert_eq!(lease_ms(nodes), ms, "{nodes} nodes");
        }
        assert!(lease_ms(usize::MAX) <= MAX_LEASE_MS);
    }
}
