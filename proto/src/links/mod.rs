//! Neighbours: with whom a node keeps links, what it names of them in its head, and
//! who is live by what all heads name.
//!
//! Owns the rings that everybody computes alike from the ledger ([`rings`]), the state of
//! each link of this node ([`state`]), the graph of links that heads name ([`graph`]), who
//! is live by it ([`live`]), the digest of the head table ([`digest`]), when changed links
//! are published ([`publish`]), and [`Links`], which is all of that for one node.
//!
//! Must not know sockets, connections, signatures, files and clocks: time comes in as
//! `now` (monotonic, from any origin), heads come in after they were verified, and a
//! ledger position was compared by whoever holds the ledger. What is to be done comes out
//! as [`Effect`]s. The same calls give the same effects.
//!
//! A link counts only if both ends name it. A node is live for an observer that has a
//! link up with it, or that reaches it over live nodes by links that count, at least half
//! of its own named links do, and it has answered whoever dropped it.

#![allow(missing_docs, reason = "the names say it")]

mod dials;
pub mod digest;
pub mod graph;
pub mod live;
mod node;
pub mod packet;
pub mod publish;
pub mod rings;
pub mod state;
pub mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    node::{Effect, Links, Settings},
    wire::{Beat, Flags, NamedLinks, Place},
};
use crate::id::NodeId;

/// Where a head stands among those of its node: generation and sequence.
pub type Order = (u64, u64);

/// The first eight bytes of a node's id, by which heads name it. A second key for a given
/// one costs 2^64 work.
pub type Key = u64;

/// See [`Key`].
pub fn key(node: &NodeId) -> Key {
    let (first, _) = node.0.split_at(8);
    Key::from_be_bytes(first.try_into().expect("8 of 16 bytes"))
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Time between two beats of one link, whose ends beat in turn.
pub const BEAT: Duration = ms(667);
/// After so much silence a link is probed, each [`PROBE`].
pub const QUIET: Duration = ms(1200);
/// See [`QUIET`]; also how often a link that forms is offered at first.
pub const PROBE: Duration = ms(300);
/// After so much silence the next on the ring is dialed.
pub const SPARE: Duration = ms(2000);
/// After so much silence a link is down.
pub const DOWN: Duration = ms(3000);
/// How long a node that fell below half of its links stays live while one still counts.
pub const HALF_GRACE: Duration = ms(300);
/// How long a node may take to answer a neighbour that dropped it.
pub const ANSWER: Duration = ms(3000);
/// How long this node waits to be named by a neighbour that it names already.
pub const RETURN: Duration = ms(1500);
/// Time between two calls of [`Links::poll`] at most.
pub const TICK: Duration = ms(250);
/// A call that comes so much later than it was due says that this node stood still, not
/// that the others fell silent (Lifeguard, arXiv 1707.00788).
pub const STANDSTILL: Duration = ms(500);
/// How long nobody is taken for dead after a standstill.
pub const KEEP_VIEW: Duration = ms(2000);
/// How long after its start a node takes nobody for dead, unless it is in sync earlier.
pub const SETTLE: Duration = ms(2000);
/// How long a link that neither end wants is kept.
pub const UNWANTED: Duration = ms(30_000);
/// A dial that takes longer has the next on the ring dialed beside it.
pub const SLOW_DIAL: Duration = ms(1000);
/// How long the node with the greater id leaves the dialing to the other.
pub const COURTESY: Duration = ms(300);
/// The first pause after a dial that failed; it doubles up to [`DIAL_PAUSE_MAX`].
pub const DIAL_PAUSE: Duration = ms(2000);
pub const DIAL_PAUSE_MAX: Duration = ms(30_000);
