//! What other nodes ask of this one, and who may.

pub mod answers;
pub mod handler;
pub mod requests;
