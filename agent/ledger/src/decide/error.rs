//! Why requests and batches aren't taken.

use std::time::Duration;

use innermesh_proto::{id::NodeId, ledger::BatchError};

use crate::start::StartError;

/// Why a request got no answer. It may or may not have been applied; asking
/// again with the same request is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node doesn't lead; this one does, as far as it is known.
    #[error("this node doesn't decide the ledger")]
    NotLeader(Option<NodeId>),
    /// Too many requests wait.
    #[error("the ledger is busy; try again")]
    Busy,
    /// The disk of the node that decides is nearly full.
    #[error(
        "the disk of the CA node that leads is nearly full: until there is room it takes only \
         what takes something away, such as an eviction"
    )]
    Full,
    /// The author's budget is spent for so long.
    #[error("{}", spent(.0))]
    Spent(Duration),
    /// The ledger's disk failed, and it stopped writing.
    #[error("the ledger can't be written: {0}")]
    Stopped(String),
}

/// Why batches were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// One of them isn't the next; those before it were taken.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The ledger can't be written since its disk failed; nothing was changed.
    #[error("the ledger can't be written")]
    Stopped,
    /// The disk is full; nothing was changed.
    #[error("the disk is full")]
    Full,
}

/// Why a node doesn't start from a peer's state. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// It isn't what it says.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It isn't further than this node is.
    #[error("it is of an earlier batch than this node's newest")]
    Old,
    /// It lacks what this node knows: an eviction, or a recovery by the root.
    #[error("it is of another history than the one held here")]
    Fork,
    /// This node takes part in deciding, and needs every batch.
    #[error("a CA node takes every batch")]
    Voter,
    /// The ledger can't be written since its disk failed.
    #[error("the ledger can't be written")]
    Stopped,
}

/// That a budget is spent, and how long to wait.
pub(crate) fn spent(wait: &Duration) -> String {
    let seconds = wait.as_secs() + 1;
    let wait = match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds.div_ceil(60)),
        _ => format!("{} hours", seconds.div_ceil(3600)),
    };
    format!("too many requests to the ledger lately; try again in {wait}")
}
