//! The agent.

pub mod ca;
pub mod host;
pub mod tls;
pub mod tunnel;
