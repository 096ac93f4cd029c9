//! What a node's WireGuard interface should be, as one value.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A WireGuard public key (Curve25519).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TunnelKey(pub [u8; 32]);

impl std::fmt::Debug for TunnelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::BASE64.encode(&self.0))
    }
}

/// The whole desired state of the interface, but for its private key, name,
/// port and MTU, which are the host's own and don't change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPlan {
    /// Overlay addresses of this node, each with the prefix of the whole
    /// overlay network, so that the kernel routes the overlay here.
    pub addresses: BTreeSet<IpNet>,
    /// The resolver's addresses: host scope, never a source address.
    pub resolver_v4: Option<Ipv4Addr>,
    /// As `resolver_v4`, IPv6.
    pub resolver_v6: Option<Ipv6Addr>,
    /// Peers by key. Their allowed IPs are disjoint (S11).
    pub peers: BTreeMap<TunnelKey, TunnelPeer>,
}

/// One peer of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Networks that this peer, and no other, sends from and is sent to.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where it was last known to be reachable.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; none when both ends are reachable.
    pub keepalive_s: Option<u16>,
}
