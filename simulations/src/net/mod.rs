//! The network: UDP between simulated hosts, or whole messages (`message`), and
//! TCP (`tcp`).
//! [`link`] decides what becomes of a datagram; those that arrive do so in the
//! order of (time, sequence). A host
//! may be behind a NAT ([`nat`]), move to another address, and stand still. It
//! has this network and nothing else: no name server but the world's hosts.

mod datagrams;
mod inbox;
pub mod link;
mod message;
pub mod nat;
mod network;
mod pipe;
mod place;
mod tcp;
mod tcp_table;
mod wire;

pub use self::{
    datagrams::Asked,
    place::{HostId, address, elsewhere},
    wire::{Observer, Passing, Wire},
};
