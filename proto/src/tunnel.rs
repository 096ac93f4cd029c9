//! What a node's WireGuard interface should be, as one value, and the steps
//! from what it is to what it should be.
//!
//! Owns the rule that no address has two holders, at any moment (S11). Knows
//! no device, no clock and no name: it is given what is installed now.

mod host_port;
mod key_text;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::path::Way;

pub use self::{
    host_port::{HostPort, HostPortError},
    key_text::TunnelKeyError,
    steps::{InstalledPeer, PeerChange, Step, steps},
};

/// A WireGuard public key (Curve25519).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TunnelKey(pub [u8; 32]);

impl fmt::Display for TunnelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE64.encode(&self.0))
    }
}

impl fmt::Debug for TunnelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A secret that two peers mix into their handshakes, so that a recording of
/// them stays closed to somebody who can break Curve25519 later.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(pub [u8; 32]);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

/// A pre-shared key, sealed to the WireGuard key of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedSecret(pub Vec<u8>);

/// The whole desired state of the interface, but for its private key, name,
/// port and MTU, which are the host's own and don't change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPlan {
    /// Overlay addresses of this node, each with the prefix of the whole
    /// overlay network.
    pub addresses: BTreeSet<IpNet>,
    /// The resolver's addresses: host scope, never a source address.
    pub resolver_v4: Option<Ipv4Addr>,
    /// As `resolver_v4`, IPv6.
    pub resolver_v6: Option<Ipv6Addr>,
    /// Peers by key. Their allowed IPs are disjoint (S11).
    pub peers: BTreeMap<TunnelKey, TunnelPeer>,
    /// Networks behind peers that have no route through the tunnel, as a network of
    /// the host's own has addresses of theirs.
    pub unrouted: BTreeSet<IpNet>,
    /// Devices by key, which become peers once their secrets are opened.
    pub devices: BTreeMap<TunnelKey, DevicePeer>,
    /// How those of the peers are reached that choose their way with this node.
    pub ways: BTreeMap<TunnelKey, Way>,
}

/// A device that this node takes in as a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePeer {
    /// What it is as a peer, but for its pre-shared key.
    pub peer: TunnelPeer,
    /// The WireGuard key of this node to which its pre-shared key is sealed.
    pub sealed_to: TunnelKey,
    /// Its pre-shared key.
    pub secret: WrappedSecret,
}

/// One peer of the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Networks that this peer, and no other, sends from and is sent to.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where it was last known to be reachable. `None` leaves what the
    /// interface knows by itself.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; none when both ends are reachable.
    pub keepalive_s: Option<u16>,
    /// Mixed into the handshakes of this pair, where one is agreed.
    pub preshared_key: Option<PresharedKey>,
}

impl TunnelPlan {
    /// Makes peers of the devices whose pre-shared keys `open` opens, given the key of
    /// the device and what is sealed. The others are left out: without its secret a peer
    /// would be open to whoever has the device's key alone.
    pub fn open_devices(
        &mut self,
        mut open: impl FnMut(&TunnelKey, &DevicePeer) -> Option<PresharedKey>,
    ) {
        for (key, device) in std::mem::take(&mut self.devices) {
            if let Some(secret) = open(&key, &device) {
                let preshared_key = Some(secret);
                let peer = TunnelPeer {
                    preshared_key,
                    ..device.peer
                };
                self.peers.insert(key, peer);
            }
        }
    }

    /// The first two networks of different peers that overlap, if any do.
    pub fn overlap(&self) -> Option<Overlap> {
        let devices = self.devices.iter();
        let devices = devices.map(|(key, device)| (*key, &device.peer.allowed_ips));
        let peers = self.peers.iter();
        overlap(
            peers
                .map(|(key, peer)| (*key, &peer.allowed_ips))
                .chain(devices),
        )
    }

    /// The overlay's networks, and those behind peers that none of them covers,
    /// but for [`TunnelPlan::unrouted`]: the kernel needs a route for each. A default
    /// route isn't among them: without a mark on WireGuard's own packets it would
    /// swallow those too.
    pub fn routes(&self) -> BTreeSet<IpNet> {
        let overlay: BTreeSet<IpNet> = self.addresses.iter().map(IpNet::trunc).collect();
        let behind: BTreeSet<IpNet> = self
            .peers
            .values()
            .flat_map(|peer| &peer.allowed_ips)
            .map(IpNet::trunc)
            .filter(|net| net.prefix_len() > 0 && !self.unrouted.contains(net))
            .filter(|net| !overlay.iter().any(|own| own.contains(net)))
            .collect();
        overlay.union(&behind).copied().collect()
    }
}

/// Two peers that both hold an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The wider network, and who holds it.
    pub wide: (TunnelKey, IpNet),
    /// The one within it (or equal to it), and who holds that.
    pub narrow: (TunnelKey, IpNet),
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of peer {} and {} of peer {}",
            self.wide.1, self.wide.0, self.narrow.1, self.narrow.0
        )
    }
}

/// Two networks are nested or disjoint, so in address order (the wider first)
/// an overlap lies within the last network that no earlier one covers.
fn overlap<'a>(peers: impl Iterator<Item = (TunnelKey, &'a BTreeSet<IpNet>)>) -> Option<Overlap> {
    let nets: BTreeSet<(IpNet, TunnelKey)> = peers
        .flat_map(|(key, nets)| nets.iter().map(move |net| (net.trunc(), key)))
        .collect();
    let mut cover: Option<(TunnelKey, IpNet)> = None;
    for (net, key) in nets {
        match cover {
            Some(wide) if wide.1.contains(&net) => {
                if wide.0 != key {
                    return Some(Overlap {
                        wide,
                        narrow: (key, net),
                    });
                }
            }
            _ => cover = Some((key, net)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(peers: &[(u8, &[&str])]) -> TunnelPlan {
        TunnelPlan {
            addresses: ["10.7.0.1/16", "fd00:7::1/48"]
                .iter()
                .map(|net| net.parse().unwrap())
                .collect(),
            peers: peers
                .iter()
                .map(|(key, nets)| {
                    let peer = TunnelPeer {
                        allowed_ips: nets.iter().map(|net| net.parse().unwrap()).collect(),
                        ..TunnelPeer::default()
                    };
                    (TunnelKey([*key; 32]), peer)
                })
                .collect(),
            ..TunnelPlan::default()
        }
    }

    #[test]
    fn a_network_within_another_peers_network_is_an_overlap() {
        let plan = plan(&[
            (1, &["192.168.0.0/16", "10.7.0.2/32"]),
            (2, &["10.7.0.3/32"]),
            (3, &["192.168.9.0/24"]),
        ]);
        let overlap = plan.overlap().expect("they overlap");
        assert_eq!(overlap.wide.0, TunnelKey([1; 32]));
        assert_eq!(overlap.narrow.0, TunnelKey([3; 32]));
    }

    #[test]
    fn an_overlap_behind_a_nested_network_of_the_same_peer_is_found() {
        let plan = plan(&[(1, &["10.0.0.0/8", "10.1.0.0/24"]), (2, &["10.1.1.0/24"])]);
        assert!(plan.overlap().is_some());
    }

    #[test]
    fn neighbours_and_the_two_families_do_not_overlap() {
        let plan = plan(&[
            (1, &["10.7.0.0/24", "::/1", "10.7.2.0/24"]),
            (2, &["10.7.1.0/24", "8000::/1"]),
        ]);
        assert_eq!(plan.overlap(), None);
    }

    #[test]
    fn host_bits_in_a_network_do_not_hide_an_overlap() {
        assert!(
            plan(&[(1, &["10.8.0.9/24"]), (2, &["10.8.0.1/32"])])
                .overlap()
                .is_some()
        );
    }

    #[test]
    fn the_overlay_and_networks_outside_it_need_a_route_and_no_default_does() {
        let mut plan = plan(&[
            (1, &["10.7.0.2/32", "fd00:7::2/128", "192.168.5.7/24"]),
            (2, &["::/0"]),
        ]);
        assert_eq!(
            plan.routes(),
            ["10.7.0.0/16", "192.168.5.0/24", "fd00:7::/48"]
                .map(|net| net.parse().unwrap())
                .into()
        );
        plan.unrouted = ["192.168.5.0/24".parse().unwrap()].into();
        assert_eq!(
            plan.routes(),
            ["10.7.0.0/16", "fd00:7::/48"]
                .map(|net| net.parse().unwrap())
                .into(),
            "the host stands in a LAN with that range"
        );
    }
}
