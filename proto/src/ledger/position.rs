//! A place in the ledger.

use serde::{Deserialize, Serialize};

use crate::crypto::Hash;

/// A place in the ledger: how many batches, and the hash of the newest header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// 0 is the genesis.
    pub index: u64,
    /// Hash of the header there (of the genesis, at 0).
    pub hash: Hash,
}
