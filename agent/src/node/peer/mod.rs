//! What other nodes ask of this one, and who may.

mod answers;
mod decider;
mod decode;
pub mod handler;
pub mod membership;
pub mod pair_keys;
pub mod punch;
mod relay;
pub mod requests;
