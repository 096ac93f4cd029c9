//! UDP ports of this host that its router maps to outer ones on request: by PCP (RFC 6887),
//! NAT-PMP (RFC 6886), or UPnP's Internet Gateway Device. What is asked, what is believed of
//! the answers, and whether a router began anew. It must not know what the ports are for.

mod client;
mod epoch;
pub mod http;
mod keeper;
mod nat_pmp;
mod pcp;
mod refusal;
mod schedule;
pub mod upnp;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

pub use self::{
    client::{Client, Seen, Speaks},
    epoch::Epoch,
    keeper::{Keeper, Mapped, Mappings},
    nat_pmp::{address as nat_pmp_address, mapped as nat_pmp_mapped},
    pcp::{Nonce, announced as pcp_announced, mapped as pcp_mapped},
    refusal::{MapError, Refusal},
    schedule::{Schedule, Todo},
};

/// How a router is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// An Internet Gateway Device.
    Upnp,
}

impl Protocol {
    /// All, those first that say most.
    pub const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// The router that this host's packets to the internet go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub router: Ipv4Addr,
    /// This host's towards it.
    pub own: Ipv4Addr,
}

/// A mapping that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// This host's UDP port.
    pub port: u16,
    /// The outer place that it should get: what it had before.
    pub before: Option<SocketAddrV4>,
    /// By this PCP knows that a mapping is this host's.
    pub nonce: Nonce,
}

/// A mapping that a router made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Where others find the port.
    pub external: SocketAddrV4,
    /// For how long; `None` until it is deleted.
    pub lifetime: Option<Duration>,
    /// The router's own time, in seconds, where it says that.
    pub epoch: Option<u32>,
}

/// For how long a mapping is asked for (RFC 6886 §3.3).
pub const LIFETIME: Duration = Duration::from_secs(7200);

#[cfg(test)]
mod tests;
