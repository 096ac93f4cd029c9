//! The agent: the shell around the pure core in `innermesh-proto`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod acme;
pub mod ca;
pub mod cli;
pub mod config;
pub mod control;
pub mod dns;
pub mod enroll;
pub mod gossip;
pub mod ledger;
pub mod mesh;
pub mod page;
pub mod quic;
pub mod renewal;
pub mod services;
pub mod tls;

pub use innermesh_host::{self as host, listen, overlay, telemetry, tunnel};
