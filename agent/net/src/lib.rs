//! What agents say to each other and how: QUIC between two ([`quic`]), who is
//! shown and accepted ([`tls`]), and gossip among all ([`gossip`]).
//!
//! Must not know how the ledger is stored or decided: gossip asks and tells it
//! through a trait.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod gossip;
pub mod quic;
pub mod tls;

#[cfg(test)]
use innermesh_ca as ca;
use innermesh_host::{self as host, listen, telemetry};
