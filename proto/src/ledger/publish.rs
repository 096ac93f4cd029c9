//! Ports of public nodes that lead to services inside: what the ledger says of
//! them, from rules 5 on.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{
    codec,
    id::{MeshId, NodeId},
    map::Map,
    name::Label,
    tunnel::TunnelKey,
};

/// A TCP port of a node that strangers reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublicPort {
    pub on: NodeId,
    pub port: u16,
}

/// Where such a port leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// A service or a node.
    pub name: Label,
    /// The port there.
    pub to_port: u16,
    /// Whether the agent of the public node connects to the service itself, and
    /// tells it the client's address by the PROXY protocol; else packets are
    /// forwarded as they are.
    pub proxy_protocol: bool,
    /// The admin that asked for it.
    pub by: NodeId,
    /// In milliseconds of ledger time.
    pub at_ms: u64,
}

/// Asks for a port of a public node to lead to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub at: PublicPort,
    pub name: Label,
    pub to_port: u16,
    pub proxy_protocol: bool,
}

/// The author, which may run what a port of `on` leads to, says by which key the
/// tunnel ends here through which `on` forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishKey {
    pub on: NodeId,
    pub key: TunnelKey,
}

/// The tunnel between a node inside and a public node: what comes by it has
/// sources from anywhere, so that it is none of the overlay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishLink {
    /// The inside end's WireGuard key.
    pub key: TunnelKey,
    /// Its addresses, of the overlay's range and nobody else's.
    pub ipv4: Ipv4Addr,
    /// As `ipv4`.
    pub ipv6: Ipv6Addr,
}

impl PublishLink {
    pub fn addresses(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.ipv4), IpAddr::V6(self.ipv6)]
    }

    /// What the addresses of a link are made from, as a node's are from its id.
    pub(super) fn seed(inside: NodeId, on: NodeId) -> NodeId {
        let mut seed = [0; 16];
        seed.copy_from_slice(&codec::hash(&("publish", inside, on)).0[..16]);
        NodeId(seed)
    }

    pub(super) fn ipv6_of(mesh: &MeshId, inside: NodeId, on: NodeId) -> Ipv6Addr {
        Self::seed(inside, on).ipv6(mesh)
    }
}

/// Facts that rules 5 brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    pub ports: Map<PublicPort, Publication>,
    /// By the node inside and the public one.
    pub links: Map<(NodeId, NodeId), PublishLink>,
}
