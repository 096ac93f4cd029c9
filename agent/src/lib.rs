//! The agent.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod ca;
pub mod config;
pub mod control;
pub mod dns;
pub mod host;
pub mod quic;
pub mod services;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
