//! The control socket: how the command line talks to the running agent.
//!
//! Owns the requests and answers ([`api`]), a server for them over a Unix
//! socket, and a client. Must not know how the agent comes to its answers:
//! it asks a [`Control`], and decides only who may ask what.

pub mod acme;
pub mod api;
pub mod authority;
mod ca;
mod calls;
pub mod client;
pub mod finding;
pub mod renewals;
mod routes;
pub mod server;
pub mod socket;

pub use self::{
    api::{Control, ControlError, ErrorCode},
    client::{Client, ClientError},
};

#[cfg(test)]
pub(crate) mod tests;
