//! The WireGuard side of the mesh: makes one interface equal to a
//! [`TunnelPlan`](innermesh_proto::tunnel::TunnelPlan).
//!
//! Owns the interface, its addresses and the routes through it. Must not know
//! why a peer is in the plan, and never filters or masquerades (S23).
//!
//! Two devices ([`Device`]) are driven alike: the kernel's WireGuard where there is
//! one (its routes survive a restart of the agent), and otherwise one in this
//! process behind the socket that `wg` knows. [`Recorded`] stands in for both
//! where no interface is wanted, over a [`MemoryDevice`].

mod device;
mod effect;
mod embedded;
pub mod engine_device;
mod error;
pub(crate) mod interface;
mod kernel;
mod kernel_peers;
mod kernel_ways;
mod keys;
mod memory;
pub mod narrow;
mod open;
mod past;
mod paths;
mod recorded;
pub mod relayed;
pub mod routes;
mod settings;
mod system;

pub use self::{
    device::{Device, Reading},
    effect::{Applied, PeerState, Tunnel, TunnelState, Tunnels, WallClock},
    embedded::uapi,
    error::TunnelError,
    keys::{generate_private_key, public_key},
    memory::MemoryDevice,
    open::{open, remove_links},
    recorded::Recorded,
    settings::{BackendChoice, DEFAULT_MTU, TunnelSettings},
};
