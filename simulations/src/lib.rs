//! The agents in a world of their own: the same `Agent::build` that the
//! program calls, on hosts whose clock, keys, network, disk and tunnel are
//! simulated.

pub mod byzantine;
pub mod check;
pub mod clock;
pub mod course;
pub mod disk;
pub mod entropy;
pub mod forge;
mod handshakes;
pub mod keys;
pub mod leads;
pub mod memory;
pub mod mesh;
pub mod net;
pub mod outcome;
pub mod outside;
mod packets;
pub mod panics;
pub mod parsers;
pub mod plot;
pub mod profile;
mod questions;
pub mod random;
pub mod run;
pub mod saved;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod stand_in;
pub mod trace;
pub mod tunnel;
pub mod violation;
pub mod world;

pub use self::world::{Machine, World};
