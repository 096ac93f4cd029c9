//! The ledger: who may. An ordered, hash-chained log of signed requests that
//! every node applies with the same result.
//!
//! A [`request::Request`] is what somebody wants, signed. A [`batch::Batch`] is
//! what the roster decided to write down, proved by a majority of it. A
//! [`state::State`] is what follows from all batches so far. Nothing here
//! knows how batches travel or are stored.

mod access;
mod access_effects;
mod access_phrases;
mod appointments;
pub mod audit;
pub mod batch;
mod chain;
pub mod content;
pub mod device;
mod devices;
mod draft;
mod effect;
mod effects;
pub mod evidence;
mod extension;
mod genesis;
mod kinds;
mod leads;
mod leaf;
mod outcome;
mod phrases;
mod place;
mod policy;
mod policy_in_force;
mod position;
mod publications;
pub mod publish;
mod publish_effects;
pub mod record;
mod record_form;
mod recover;
pub mod recovery;
mod refusal;
pub mod request;
mod role;
mod role_effects;
mod roster;
mod roster_effects;
pub mod route;
pub mod rules;
mod salts;
mod shares;
mod sizes;
pub mod snapshot;
pub mod stamp;
pub mod state;
mod state_form;
mod tunnel_keys;
mod utc;
mod version;

pub use self::{
    audit::AuditEvent,
    batch::{Batch, Entry, Genesis, Header, SignedGenesis},
    chain::{BatchError, Quorums},
    draft::Draft,
    effect::Decision,
    genesis::GenesisError,
    outcome::Outcome,
    policy::{PolicyFact, PolicyText},
    position::Position,
    recovery::{Recovery, SignedRecovery},
    refusal::Refusal,
    request::{Author, Content, Grant, HoldId, Request, RequestId, Role},
    rules::Eviction,
    snapshot::{EpochError, Epochs, Snapshot, SnapshotError},
    state::{Member, State},
    tunnel_keys::NodeKeys,
    version::RULES,
};
