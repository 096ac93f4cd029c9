//! The agent: the shell around the pure core in `innermesh-proto`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod acme;
mod bucket;
pub mod ca;
pub mod cli;
pub mod config;
pub mod control;
pub mod dns;
pub mod enroll;
pub mod gossip;
pub mod host;
pub mod ledger;
pub mod listen;
pub mod mesh;
pub mod overlay;
pub mod page;
pub mod quic;
pub mod renewal;
pub mod services;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
