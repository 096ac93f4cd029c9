//! What the ledger's files may grow to.

use innermesh_proto::limits;

/// From how many bytes on something is done about a ledger's files.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A longer file begins with a state as soon as there is a proved one.
    pub file: u64,
    /// After so many bytes of batches the next header has the state's hash.
    pub unhashed: u64,
    /// What a CA node keeps of the time before its file begins.
    pub past: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            file: limits::LEDGER_FILE_BYTES,
            unhashed: limits::STATE_HASH_BYTES,
            past: limits::PAST_BYTES,
        }
    }
}
