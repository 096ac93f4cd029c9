//! What became of a request.

#![allow(missing_docs, reason = "the names say it")]

use serde::{Deserialize, Serialize};

use super::{
    refusal::Refusal,
    request::{Author, RequestId},
};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, in the batch with this index.
    Done(u64),
    /// Written down in the batch with this index; it comes to pass when a
    /// second admin asks for the same.
    Waiting(u64),
    Refused(Refusal),
}

impl Outcome {
    /// The batch that it was decided in, unless it was refused.
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Done(index) | Self::Waiting(index) => Some(*index),
            Self::Refused(_) => None,
        }
    }
}

/// By what a request that was decided is known again: two authors can't get
/// into each other's way by their ids.
pub(super) type RequestKey = (Author, RequestId);
