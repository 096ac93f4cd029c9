//! What is in the files of a renewal.

use crate::program_certs::files::Found;

/// What is in the files, and when it is to be renewed by wall time.
pub(crate) struct SeenFiles {
    pub found: Found,
    pub due_ms: u64,
}
