//! What gossip asks of this node's ledger, and what it tells it of others.

use std::sync::Arc;

use async_trait::async_trait;
use innermesh_proto::{
    crypto::Hash,
    id::NodeId,
    ledger::{Position, State},
};

/// This node's ledger.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The newest state.
    fn state(&self) -> Arc<State>;
    /// The newest batch that is on the disk.
    fn durable(&self) -> Position;
    /// The hash of the batch at `index`, if it is known here.
    fn hash_at(&self, index: u64) -> Option<Hash>;
    /// The index of the newest batch at this node's start.
    fn opened_at(&self) -> u64;
    /// Whether what this node held of it was damaged at its start.
    fn was_damaged(&self) -> bool;
    /// This node's state was put back to an earlier one: it may not vote.
    async fn roll_back(&self);
    /// `peer` claims batches up to `index`.
    fn ahead(&self, peer: NodeId, index: u64);
    /// `peer` holds another batch than this node for some index.
    fn differs(&self, peer: NodeId);
}
