//! What the host's packet filter and routing must be so that the overlay
//! belongs to its interface (S25), as one value.
//!
//! Owns which packets with an overlay address may pass where. Knows no kernel
//! and no program: [`nft`] says it in nftables' words, [`FilterPlan::routes`]
//! in the routing table's.

#![allow(missing_docs, reason = "the names say it")]

pub mod access;
mod exit;
mod gateway;
mod host;
pub mod nft;
mod nft_access;
mod nft_changes;
mod nft_exit;
mod nft_gateway;
mod nft_publish;
mod nft_table;
pub(crate) mod publish;
mod ranges;
mod routing;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::access::AccessPlan;
pub use self::{
    exit::{ExitFilter, LanAccess, MARK, ThroughExit, elsewhere, internet},
    gateway::GatewayFilter,
    host::{Containers, HostNetworks, Interface, InterfaceError, Lan, LanAddress},
    publish::{LinkFilter, PublishFilter, PublishedPort},
    ranges::outside,
    routing::{OverlayRoute, RoutingRule},
};
use crate::limits;

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
    /// What is published. Not stored: until the agent runs and has heard of others,
    /// nothing is.
    #[serde(skip)]
    pub publish: PublishFilter,
    /// What an exit forwards; none on other nodes.
    #[serde(default)]
    pub exit: Option<ExitFilter>,
    /// How this host keeps from the internet but by an exit; none where it uses none.
    #[serde(default)]
    pub through: Option<ThroughExit>,
    /// Who reaches what by the tunnel. Not stored: until the agent runs, and has
    /// compiled the policy, nothing passes.
    #[serde(skip)]
    pub access: AccessPlan,
    /// UDP ports that this node sends to others from below the overlay: what it
    /// sends from them never goes into the tunnel that it is to keep up.
    #[serde(default)]
    pub outer_ports: BTreeSet<u16>,
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
            publish: PublishFilter::default(),
            exit: None,
            through: None,
            access: AccessPlan::open(),
            outer_ports: BTreeSet::new(),
            interface,
            networks,
            own,
            resolvers,
        }
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
        let exits = self.exit.as_ref().is_none_or(ExitFilter::is_bounded);
        let through = self.through.as_ref().is_none_or(ThroughExit::is_bounded);
        let bounded = few && routed && forwards && exits && through && self.access.is_bounded();
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
mod access_tests;
#[cfg(test)]
mod tests;
