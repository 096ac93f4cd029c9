//! The agent: the shell around the pure core in `innermesh-proto`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cli;
pub mod config;
pub mod enroll;
pub mod node;

pub use innermesh_ca as ca;
pub use innermesh_control as control;
pub use innermesh_host::{self as host, listen, overlay, telemetry, tunnel};
pub use innermesh_ledger as ledger;
pub use innermesh_net::{gossip, quic, tls};
pub use innermesh_serve::{acme, dns, page, program_certs, services, sinkhole};
