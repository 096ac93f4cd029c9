//! The agents in a world of their own: the same `Agent::build` that the
//! program calls, on hosts whose clock, keys, network, disk and tunnel are
//! simulated.

pub mod clock;
pub mod disk;
pub mod keys;
pub mod mesh;
pub mod net;
pub mod random;
pub mod world;

pub use self::world::{Machine, World};
