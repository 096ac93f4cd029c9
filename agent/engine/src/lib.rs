//! A WireGuard device as a value: datagrams and packets go in and come out, time is
//! given, and all randomness follows from a seed. The protocol itself is `sanstun`'s.
//!
//! Owns peers and their sessions, which peer an address belongs to, and how packets are
//! cut and joined, so that one call of the kernel carries many. Must not know sockets,
//! interfaces, threads or clocks: whoever drives an [`Engine`] hands it what came and
//! sends what it gives ([`Wire`], [`Inside`]). The host does that with a UDP socket and
//! a TUN interface.
//!
//! Nothing is allocated for a packet, and no packet is copied but by its encryption: a
//! frame of many segments is cut in place, and what was decrypted is joined by
//! reference.

mod checksum;
mod coalesce;
mod control;
mod counters;
mod engine;
mod first_mac;
mod inbound;
pub mod limits;
mod outgoing;
mod packet;
mod peer;
mod routes;
mod split;
mod vnet;
mod ways;

pub use self::{
    coalesce::Inside,
    control::PeerReading,
    counters::Counters,
    engine::Engine,
    first_mac::FirstMac,
    outgoing::Wire,
    peer::PeerSettings,
    split::{BadFrame, Segments},
    vnet::{VNET_HEADER, VnetHeader},
    ways::{Event, Happened, Probe},
};
