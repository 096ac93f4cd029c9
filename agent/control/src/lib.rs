//! The control socket: how the command line talks to the running agent.
//!
//! Owns every request and its answer as a value, in the file of its subject; a
//! server for them over a Unix socket, which settles who may ask what; and a
//! client. The answers are also what `--json` prints: field names are a contract
//! with scripts, and more may be added, never taken away.
//!
//! Must not know how the agent comes to its answers: it asks a [`Control`]. So it
//! knows no ledger, no peers and none of the agent's servers.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod acme;
mod all;
pub mod ca;
pub mod certificates;
pub mod check;
pub mod client;
mod der;
pub mod devices;
pub mod dns;
mod error;
pub mod exits;
pub mod finding;
pub mod log;
pub mod members;
pub mod node;
pub mod policy;
pub mod publish;
pub mod records;
pub mod renewals;
mod request;
pub mod routes;
pub mod secondaries;
pub mod server;
pub mod services;
pub mod socket;
pub mod spec;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use self::{
    all::{AnyRequest, Control},
    client::{Client, ClientError},
    der::{Der, DerError},
    error::{ControlError, ErrorCode},
    request::{Done, Reply, Request, answer},
};
