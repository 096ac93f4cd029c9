//! The agent itself: opens what a member's state folder holds, starts gossip,
//! ledger and transport, makes one view of what they say, and has DNS, tunnel
//! and certificates follow it. Everything outside comes in as a
//! [`Host`](crate::host::Host).
//!
//! `opened` opens, `parts` wires and starts; what follows the view is in `follow`, what people ask
//! in `commands`, what other nodes ask in `peer`. Each task holds what it uses, and
//! what several use lies in `shared`.

mod agent;
mod build;
mod build_error;
mod commands;
mod config;
mod follow;
mod loading;
mod opened;
mod parts;
mod peer;
pub mod preflight;
mod shared;

pub use self::{
    agent::Agent,
    build_error::BuildError,
    commands::recovery::{Offline, OfflineError},
    config::{AgentConfig, LaneSettings, VERSION},
    loading::Loading,
    shared::hold_set::parse as parse_holds,
};
