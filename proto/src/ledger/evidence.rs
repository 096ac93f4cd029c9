//! What shows that a CA node signed two histories.

use std::collections::{BTreeMap, BTreeSet};

use super::{batch::Batch, state::State};
use crate::{
    crypto::{Hash, PublicKey, Verify},
    id::{MeshId, NodeId},
};

/// Two batches with one place in the ledger, and who signed both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// The place.
    pub index: u64,
    /// Hashes of the two headers, the smaller first.
    pub headers: (Hash, Hash),
    /// Who signed both.
    pub nodes: BTreeSet<NodeId>,
}

/// Whether two batches are evidence of equivocation: other headers for one
/// index of one epoch, signed by the same nodes. `keys` are those of the
/// epoch's roster. A roster that was lost and one that the root put in its
/// place may both have signed one index; that is no lie.
pub fn equivocation(
    mesh: &MeshId,
    keys: &BTreeMap<NodeId, PublicKey>,
    one: &Batch,
    other: &Batch,
    verify: &dyn Verify,
) -> Option<Equivocation> {
    let headers = [one.read_header().ok()?, other.read_header().ok()?];
    let [first, second] = &headers;
    if one.header == other.header
        || first.mesh != *mesh
        || (first.mesh, first.epoch, first.index) != (second.mesh, second.epoch, second.index)
        || headers.iter().any(|header| header.recovery.is_some())
    {
        return None;
    }
    let signed = |batch: &Batch, node: &NodeId, key: &PublicKey| {
        let signature = batch.proof.get(node);
        signature.is_some_and(|signature| batch.is_endorsed_by(mesh, key, signature, verify))
    };
    let nodes: BTreeSet<NodeId> = keys
        .iter()
        .filter(|(node, key)| signed(one, node, key) && signed(other, node, key))
        .map(|(node, _)| *node)
        .collect();
    let (a, b) = (Hash::of(&one.header), Hash::of(&other.header));
    (!nodes.is_empty()).then(|| Equivocation {
        index: first.index,
        headers: (a.min(b), a.max(b)),
        nodes,
    })
}

impl State {
    /// The keys by which the roster in force signs.
    pub fn roster_keys(&self) -> &BTreeMap<NodeId, PublicKey> {
        &self.roster_keys
    }
}
