//! The agent.

pub mod ca;
/// The outside world, as the agent sees it.
pub mod host {
    pub mod keys;
}
pub mod tunnel;
