//! Certificates that other programs use, and that are renewed by themselves:
//! how their files look, what is kept of them, and when the next one is due.
//! Must not know how a certificate is had, or what the ledger is.

pub mod due;
pub mod files;
pub mod kept;
pub mod report;

/// Most renewals of one machine.
pub const RENEWALS: usize = 256;
/// Longest command, in bytes.
pub const EXEC_BYTES: usize = 4096;
