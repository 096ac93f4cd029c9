//! How the roster agrees: Raft, as a machine without clock, randomness or IO.
//!
//! Owns the voters' messages, their log and its file. Raft itself is the
//! library `raft`; what it says on the wire and writes to the disk goes through
//! types of our own, so that its parser never sees bytes from outside. Must not
//! know what an entry means: the ledger's writer does.
//!
//! What a caller does with an [`Engine`], in this order: [`Engine::tick`],
//! [`Engine::step`] or a proposal; then, until [`Engine::ready`] has nothing
//! more, send what may be sent at once, write what is to be written and sync
//! it, and only then [`Engine::written`], whose messages acknowledge it and
//! whose entries are committed; each is told by [`Engine::applied`].

mod check;
mod convert;
mod engine;
mod file;
mod message;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    check::Rejected,
    engine::{Dropped, Engine, Peer, Standing, Work, Written},
    file::{DiskLog, LOG, LogError},
    message::{Base, Body, Change, Conf, Entry, Hard, Message, Payload, Reject, VoterId},
    store::Saved,
};
