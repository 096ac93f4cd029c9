//! What this node serves to programs and people near it: names, ACME, the page that
//! hands out the root, certificates of programs, and health checks of services.
//!
//! Owns the servers, and the rules of their protocols. Must not know the ledger or
//! other nodes: what a server needs of them it asks of a trait, or is given as a
//! value such as the zone.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod acme;
pub mod dns;
pub mod page;
pub mod program_certs;
pub mod services;
pub mod sinkhole;
mod streams;
