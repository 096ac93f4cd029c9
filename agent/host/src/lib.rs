//! The outside world, as the agent sees it: clock, keys and randomness,
//! sockets, files, the tunnel. It comes in once, here, as one value; the
//! simulation hands in another. Nothing else in this crate may reach for a
//! clock, a random number, a socket or a file by itself.

#![allow(
    clippy::disallowed_methods,
    reason = "the one place that may: everything else asks the host"
)]

#[warn(clippy::disallowed_methods)]
pub mod bucket;
mod clock;
mod command;
pub mod datagrams;
pub mod disk;
pub mod duration;
pub mod echo;
mod file_set;
pub mod folder_watch;
mod fragments;
pub mod holder;
pub mod identity;
pub mod key_files;
pub mod keys;
#[warn(clippy::disallowed_methods)]
pub mod listen;
pub mod mark;
mod network;
pub mod outside;
#[warn(clippy::disallowed_methods)]
pub mod overlay;
pub mod owner;
pub mod pair_exchange;
#[warn(clippy::disallowed_methods)]
pub mod port_map;
pub mod program;
mod resolv;
pub mod resolver;
#[warn(clippy::disallowed_methods)]
pub mod sealed;
mod set;
mod sockets;
pub mod state_folder;
mod storage;
mod surroundings;
pub mod system;
pub mod tasks;
#[warn(clippy::disallowed_methods)]
pub mod telemetry;
mod time;
#[warn(clippy::disallowed_methods)]
pub mod tunnel;
mod unit;

pub use innermesh_proto::moments::until_next;

pub use self::{
    clock::{Clock, Mono, within},
    datagrams::{DatagramBatch, DatagramSender, Datagrams, Responder, Serving},
    network::{Accepted, Network, Presence, Stream, TcpListener, http_status},
    storage::{AppendFile, Disk, ReadFile},
    surroundings::Host,
    time::UnixTime,
    tunnel::Tunnels,
};
