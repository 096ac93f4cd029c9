//! The agent.

pub mod ca;
pub mod dns;
pub mod host;
pub mod tls;
pub mod tunnel;
