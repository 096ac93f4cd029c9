//! The ledger on one node: its files, its newest state, following it, and, on
//! the node that leads, the one place where requests become batches.
//!
//! `decide` is the core: what this node makes of all that it hears, as a
//! value without files, channels, tasks and clocks. `pump` is the task that
//! drives it and owns the `files`; [`raft`] is how voters agree on their log;
//! a [`Ledger`] is a handle on it all. What a request may change is decided in
//! [`innermesh_proto::ledger`]; how batches travel between nodes is [`follow`]'s,
//! and how a request reaches the leader is [`client`]'s.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod archive;
mod behind;
mod claims;
pub mod client;
mod command;
mod decide;
pub mod deliveries;
pub mod file;
mod files;
pub mod follow;
mod frames;
mod furthest;
mod gone;
pub mod history;
mod index;
mod issuers;
mod ledger;
pub mod loading;
mod open;
pub mod past;
mod past_index;
mod pump;
pub mod raft;
mod raft_log;
mod recover;
mod sender;
mod shorten;
mod sizes;
mod source;
pub mod start;
mod starts;
mod stored;
mod take;
mod views;

use innermesh_host as host;
use innermesh_net::{gossip, quic};

pub use self::{
    decide::{Builds, InstallError, ProposeError, ROOM, RaftStatus, TakeError, VotingDisabled},
    gone::note as note_gone,
    issuers::IssuerKeysError,
    ledger::Ledger,
    recover::Lost,
    sender::PeerSender,
    sizes::Sizes,
    stored::{LedgerError, Stored},
};
