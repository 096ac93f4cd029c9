//! The ledger: who may. An ordered, hash-chained log of signed requests that
//! every node applies with the same result.
//!
//! A [`request::Request`] is what somebody wants, signed. A [`batch::Batch`] is
//! what the roster decided to write down, proved by a majority of it. A
//! [`state::State`] is what follows from all batches so far. Nothing here
//! knows how batches travel or are stored.

pub mod batch;
mod chain;
pub mod content;
mod draft;
mod effects;
pub mod evidence;
mod extension;
mod genesis;
pub mod record;
pub mod recovery;
pub mod request;
mod role;
mod roster;
pub mod rules;
pub mod sentence;
mod shares;
pub mod snapshot;
pub mod stamp;
pub mod state;
mod tunnel_keys;
mod version;

pub use self::{
    batch::{Batch, Entry, Genesis, Header, Position, SignedGenesis},
    chain::{BatchError, Quorums},
    draft::Draft,
    genesis::GenesisError,
    recovery::{Recovery, SignedRecovery},
    request::{Author, Content, Grant, HoldId, Request, RequestId, Role},
    rules::{Decision, Eviction, Outcome, Refusal},
    sentence::Sentence,
    snapshot::{EpochError, Epochs, Snapshot, SnapshotError},
    state::{Member, State},
    tunnel_keys::NodeKeys,
    version::RULES,
};
