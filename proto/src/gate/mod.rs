//! The gossip gate: what stands between a peer's bytes and chitchat 0.11.2.
//!
//! chitchat believes what it is told, and asserts on what it isn't meant to be
//! told. So its bytes are read here, by a reader that accepts only what an
//! honest agent's chitchat says; ids that no verified head stands behind are
//! left out; and the rest is written anew. chitchat never sees a peer's bytes.
//!
//! Two kinds of wrong are kept apart. What no honest agent can have said
//! refuses the whole message ([`GateError`]). What an honest agent may well
//! pass on (a node not known here yet, a state from before this node's
//! restart, a head that a newer build understands) is left out one by one and
//! counted ([`Drops`]), so that nobody's bad head holds up another node's.
//!
//! The gate knows nothing of keys, members or time: [`HeadFilter`] does. A message
//! is read first ([`read`], [`read_compact`]); the caller takes the heads that it
//! brings ([`Incoming::heads`]) into its table, and then has the rest filtered by
//! what it holds ([`Incoming::filter`]).

pub mod compact;
mod compression;
mod envelope;
mod error;
mod filter;
mod name;
#[cfg(test)]
mod tests;
mod wire;

pub use envelope::{unwrap, wrap};
pub use error::GateError;
pub use filter::{Drops, Filtered, HeadFilter, Incoming, Kind, read, read_compact};
pub use name::{Name, Short, gossip_address, gossip_id, short};
pub use wire::{GossipId, KEY, Known, Message, Offer, Value};
