//! What this node decides about the ledger, as a value: which of its peers'
//! batches count, what is proposed and when, who is to vote and to lead, who
//! is refused and why.
//!
//! Owns the newest proved state and all that is under way. Must not know files,
//! channels, tasks or clocks: what comes in is handed to a `handle_*` of
//! [`Core`] with the time at which it came, what follows from it is asked for by
//! a `poll_*`, and whoever asks (the pump) writes and sends it. Signing, checking
//! and randomness are the [`Keys`](innermesh_host::keys::Keys) that the core is
//! made with.
//!
//! Each subject is a value of its own with its own state: ledger time ([`time`]),
//! this node's vote ([`voting`]), what is applied and not proved yet
//! ([`proofs`]), the batch that is proposed ([`proposed`]), requests that wait
//! ([`queue`]) and what they cost ([`budget`], [`bill`]), refusals that wait
//! ([`refusals`]), who votes ([`roster`]) and leads ([`rotation`]), the rules'
//! version ([`versions`]), the keys of certificates ([`issuers`]) and room on the
//! disk ([`room`]). [`core`] has them meet.

mod apply;
mod bill;
mod budget;
mod core;
mod error;
mod follow;
mod issuers;
mod judge;
mod outbox;
mod proofs;
mod propose;
mod proposed;
mod queue;
mod recovery;
mod refusals;
mod room;
mod roster;
mod rotation;
mod status;
#[cfg(test)]
mod tests;
mod time;
mod versions;
mod voting;

pub(crate) use self::{
    core::{Asked, Core, Step},
    error::spent,
    outbox::Ticket,
    proofs::Proved,
    queue::Lane,
    recovery::is_fork,
    room::LEAST,
    time::Now,
    voting::{FoundLog, LogFollows, Part, Place, part},
};
pub use self::{
    error::{InstallError, ProposeError, TakeError},
    room::ROOM,
    status::{RaftStatus, VotingDisabled},
    versions::Builds,
};
