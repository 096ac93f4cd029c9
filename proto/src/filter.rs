//! What the host's packet filter and routing must be so that the overlay
//! belongs to its interface (S25), as one value.
//!
//! Owns which packets with an overlay address may pass where. Knows no kernel
//! and no program: [`nft`] says it in nftables' words, [`FilterPlan::routes`]
//! in the routing table's.

#![allow(missing_docs, reason = "the names say it")]

pub mod access;
mod gateway;
pub mod nft;
mod nft_access;
mod nft_gateway;
mod nft_table;
mod ranges;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::access::AccessPlan;
pub use self::gateway::{GatewayFilter, Lan};
use crate::limits;

/// The name of a network interface, as it may stand in a ruleset: plain ASCII,
/// so that no name is more than a name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interface(String);

impl Interface {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a name that may stand in a ruleset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" isn't an interface's name of letters, digits and `-_.`")]
pub struct InterfaceError(String);

impl TryFrom<String> for Interface {
    type Error = InterfaceError;

    fn try_from(name: String) -> Result<Self, InterfaceError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // 15 bytes is the kernel's bound (IFNAMSIZ).
        let fits = (1..=15).contains(&name.len()) && name.bytes().all(plain);
        if fits && !name.starts_with(['-', '.']) && name != "lo" {
            Ok(Self(name))
        } else {
            Err(InterfaceError(name.chars().take(40).collect()))
        }
    }
}

impl From<Interface> for String {
    fn from(interface: Interface) -> Self {
        interface.0
    }
}

/// Containers of this host: a bridge and a subnet on it. One without the other
/// proves nothing, as both can be made up by somebody on a LAN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Containers {
    pub bridge: Interface,
    /// A subnet of the addresses that the bridge itself has.
    pub subnet: IpNet,
}

/// An address on one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LanAddress {
    pub interface: Interface,
    pub address: IpAddr,
}

/// What the filter depends on of the host's own networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetworks {
    /// The host's container bridges.
    pub containers: BTreeSet<Containers>,
    /// The host's own addresses on interfaces other than the tunnel's.
    pub own: BTreeSet<LanAddress>,
    /// The networks of those addresses.
    pub own_networks: BTreeSet<IpNet>,
    /// Gateways of its default routes, and its name servers on the same link.
    pub neighbours: BTreeSet<LanAddress>,
    /// Where its addresses and routes lead on interfaces other than the tunnel's;
    /// a default route is one to `0.0.0.0/0` or `::/0`.
    pub links: BTreeSet<Lan>,
}

impl HostNetworks {
    /// A network of this host's own that has addresses of `net` too.
    pub fn meets(&self, net: &IpNet) -> Option<&Lan> {
        let links = self.links.iter().filter(|link| link.net.prefix_len() > 0);
        let mut met = links.filter(|link| link.net.contains(net) || net.contains(&link.net));
        met.next()
    }

    /// The interfaces that lead to `net`: what lies within it, and the narrowest
    /// that has all of it.
    pub fn leading_to(&self, net: &IpNet) -> BTreeSet<Lan> {
        let has_all = |link: &&Lan| link.net.contains(net);
        let covering = self.links.iter().filter(has_all);
        let longest = covering.clone().map(|link| link.net.prefix_len()).max();
        let within: BTreeSet<&Interface> = self
            .links
            .iter()
            .filter(|link| net.contains(&link.net))
            .map(|link| &link.interface)
            .collect();
        let is_narrowest = |link: &&Lan| {
            Some(link.net.prefix_len()) == longest && (longest > Some(0) || within.is_empty())
        };
        let covering = covering.filter(is_narrowest).map(|link| &link.interface);
        let all = within.iter().copied().chain(covering);
        all.map(|interface| Lan {
            interface: interface.clone(),
            net: *net,
        })
        .collect()
    }
}

/// The whole desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterPlan {
    /// The tunnel's interface.
    pub interface: Interface,
    /// The overlay's networks.
    pub networks: BTreeSet<IpNet>,
    /// This node's own overlay addresses: what comes by the tunnel is for them.
    pub own: BTreeSet<IpAddr>,
    /// The resolver's addresses, which are for this host and its containers.
    pub resolvers: BTreeSet<IpAddr>,
    /// Containers, which reach this host's overlay addresses.
    pub containers: BTreeSet<Containers>,
    /// Whether containers reach other nodes too, as this node.
    pub containers_reach_mesh: bool,
    /// The host's own LAN addresses within the overlay's range that the ledger
    /// gives to nobody: strangers outside the range may reach them.
    #[serde(default)]
    pub lan_own: BTreeSet<LanAddress>,
    /// As `lan_own`, gateways and name servers of a LAN with that range.
    #[serde(default)]
    pub lan_neighbours: BTreeSet<LanAddress>,
    /// Networks of the host that overlap the overlay's, for people to know.
    #[serde(default)]
    pub lan_networks: BTreeSet<IpNet>,
    /// Networks behind gateways that this node reaches through the tunnel.
    #[serde(default)]
    pub behind_gateways: BTreeSet<IpNet>,
    /// What a gateway forwards; none on other nodes.
    #[serde(default)]
    pub gateway: Option<GatewayFilter>,
    /// Who reaches what by the tunnel. Not stored: until the agent runs, and has
    /// compiled the policy, nothing passes.
    #[serde(skip)]
    pub access: AccessPlan,
    /// UDP ports that this node sends to others from below the overlay: what it
    /// sends from them never goes into the tunnel that it is to keep up.
    #[serde(default)]
    pub outer_ports: BTreeSet<u16>,
}

/// A route of the overlay's own routing table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlayRoute {
    /// Below all others: what has no route here has none at all.
    Unreachable(IpNet),
    /// Through the tunnel, once its interface is there.
    Tunnel {
        /// The overlay's network.
        net: IpNet,
        /// What this host sends from.
        source: IpAddr,
    },
    /// To an exception of the overlay's range, on its link.
    Neighbour(LanAddress),
}

impl FilterPlan {
    /// The plan for a node with the addresses `own`. Exceptions for a LAN whose
    /// range overlaps the overlay's are made where `is_given` says that the
    /// ledger gives the address to nobody.
    pub fn new(
        interface: Interface,
        networks: BTreeSet<IpNet>,
        own: BTreeSet<IpAddr>,
        resolvers: BTreeSet<IpAddr>,
        host: &HostNetworks,
        is_given: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let excepted = |all: &BTreeSet<LanAddress>| -> BTreeSet<LanAddress> {
            let inside = |address: IpAddr| networks.iter().any(|net| net.contains(&address));
            let taken = |address: IpAddr| {
                own.contains(&address) || resolvers.contains(&address) || is_given(address)
            };
            let mut found: BTreeSet<LanAddress> = all
                .iter()
                .filter(|lan| lan.interface != interface)
                .filter(|lan| inside(lan.address) && !taken(lan.address))
                .cloned()
                .collect();
            while found.len() > limits::LAN_EXCEPTIONS {
                found.pop_last();
            }
            found
        };
        let overlaps = |lan: &IpNet| {
            let mut overlay = networks.iter();
            overlay.any(|net| net.contains(lan) || lan.contains(net))
        };
        let lans = host.own_networks.iter().filter(|lan| overlaps(lan));
        let lan_networks = lans.take(limits::LAN_EXCEPTIONS).copied().collect();
        Self {
            lan_networks,
            lan_own: excepted(&host.own),
            lan_neighbours: excepted(&host.neighbours),
            containers: bounded(&host.containers, &interface),
            containers_reach_mesh: true,
            behind_gateways: BTreeSet::new(),
            gateway: None,
            access: AccessPlan::open(),
            outer_ports: BTreeSet::new(),
            interface,
            networks,
            own,
            resolvers,
        }
    }

    /// What the overlay's routing table holds. Each of [`FilterPlan::networks`]
    /// is looked up there and, as one of these covers it, nowhere else.
    pub fn routes(&self) -> BTreeSet<OverlayRoute> {
        let unreachable = self
            .networks
            .iter()
            .map(|net| OverlayRoute::Unreachable(*net));
        let tunnel = self.networks.iter().filter_map(|net| {
            let source = self.own.iter().find(|own| net.contains(*own))?;
            Some(OverlayRoute::Tunnel {
                net: *net,
                source: *source,
            })
        });
        let neighbours = self
            .lan_neighbours
            .iter()
            .map(|lan| OverlayRoute::Neighbour(lan.clone()));
        unreachable.chain(tunnel).chain(neighbours).collect()
    }

    /// Whether a plan that was read from a file keeps every bound.
    pub fn is_bounded(&self) -> bool {
        let few = self.networks.len() <= 2
            && self.containers.len() <= limits::CONTAINER_NETWORKS
            && self.outer_ports.len() <= limits::LAN_EXCEPTIONS
            && [self.own.len(), self.resolvers.len()]
                .into_iter()
                .chain([self.lan_own.len(), self.lan_neighbours.len()])
                .all(|length| length <= limits::LAN_EXCEPTIONS);
        // An overlay as wide as the world would cut the host off.
        let narrow = |net: &IpNet| *net == net.trunc() && net.prefix_len() >= 8;
        let routed =
            self.behind_gateways.len() <= limits::ROUTES && self.behind_gateways.iter().all(narrow);
        let forwards = self.gateway.as_ref().is_none_or(GatewayFilter::is_bounded);
        let bounded = few && routed && forwards && self.access.is_bounded();
        bounded && self.networks.iter().all(narrow)
    }
}

/// Those that matter, no subnet within another of the same bridge, which
/// nftables refuses.
fn bounded(all: &BTreeSet<Containers>, tunnel: &Interface) -> BTreeSet<Containers> {
    let is_link_local = |net: &IpNet| match net {
        IpNet::V4(net) => net.network().is_link_local() || net.network() == Ipv4Addr::UNSPECIFIED,
        IpNet::V6(net) => net.network().is_unicast_link_local() || net.network().is_unspecified(),
    };
    let covered = |inner: &Containers| {
        all.iter().any(|outer| {
            let wider = outer.subnet.prefix_len() < inner.subnet.prefix_len();
            outer.bridge == inner.bridge && wider && outer.subnet.contains(&inner.subnet)
        })
    };
    all.iter()
        .filter(|containers| containers.bridge != *tunnel)
        .filter(|containers| !is_link_local(&containers.subnet) && !covered(containers))
        .take(limits::CONTAINER_NETWORKS)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
