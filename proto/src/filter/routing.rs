//! The overlay's own routing tables, and the rules that lead there.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    FilterPlan,
    exit::{LanAccess, everything},
    host::LanAddress,
    publish::LinkFilter,
};
use crate::limits;

/// A route of one of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlayRoute {
    /// Below all others: what has no route here has none at all.
    Unreachable(IpNet),
    /// Through the tunnel, once its interface is there.
    Tunnel {
        /// The overlay's network, or everything.
        net: IpNet,
        /// What this host sends from.
        source: IpAddr,
    },
    /// To an exception of the overlay's range, on its link.
    Neighbour(LanAddress),
}

/// Which table is asked for what, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutingRule {
    /// The overlay's, for one of its networks.
    Overlay(IpNet),
    /// That of a link of a public node, for what leaves from its address: the table
    /// has this number among those of links.
    Link { from: IpAddr, number: u8 },
    /// The host's own, for a network that isn't reached by the exit. A default route
    /// counts there only where `by_default` says so.
    Own { net: IpNet, by_default: bool },
    /// That of the exit, for all that isn't marked, of one address family.
    Exit { v4: bool },
}

/// Addresses on a link, without which a host has no neighbours, and multicast's, for
/// which there are mostly no routes.
const LINK: [(&str, bool); 2] = [("fe80::/10", false), ("ff00::/8", true)];
/// Those of LANs.
const LANS: [(&str, bool); 8] = [
    ("10.0.0.0/8", false),
    ("100.64.0.0/10", false),
    ("169.254.0.0/16", false),
    ("172.16.0.0/12", false),
    ("192.168.0.0/16", false),
    ("224.0.0.0/4", true),
    ("255.255.255.255/32", true),
    ("fc00::/7", false),
];

impl FilterPlan {
    /// What the overlay's routing table holds. Each of [`FilterPlan::networks`]
    /// is looked up there and, as one of these covers it, nowhere else.
    pub fn routes(&self) -> BTreeSet<OverlayRoute> {
        let through = self
            .networks
            .iter()
            .flat_map(|net| self.through_tunnel(*net));
        let neighbours = self
            .lan_neighbours
            .iter()
            .map(|lan| OverlayRoute::Neighbour(lan.clone()));
        through.chain(neighbours).collect()
    }

    /// What the exit's routing table holds: nothing where none is in use, and nothing
    /// that leads past it.
    pub fn exit_routes(&self) -> BTreeSet<OverlayRoute> {
        let families = self.through.iter().flat_map(|_| [true, false]);
        let all = families.flat_map(|v4| self.through_tunnel(everything(v4)));
        all.collect()
    }

    fn through_tunnel(&self, net: IpNet) -> Vec<OverlayRoute> {
        let mut own = self.own.iter();
        let source = own.find(|own| own.is_ipv4() == net.addr().is_ipv4());
        let tunnel = source.map(|source| OverlayRoute::Tunnel {
            net,
            source: *source,
        });
        let unreachable = OverlayRoute::Unreachable(net);
        tunnel.into_iter().chain([unreachable]).collect()
    }

    /// The links that end here, each with its number.
    pub fn links(&self) -> impl Iterator<Item = (u8, &LinkFilter)> {
        let links = self.publish.links.iter();
        (0..).zip(links.take(limits::PUBLISH_LINKS_PER_NODE))
    }

    /// Which tables are asked for what.
    pub fn rules(&self) -> BTreeSet<RoutingRule> {
        let overlay = self.networks.iter().copied().map(RoutingRule::Overlay);
        let links = self.links().flat_map(|(number, link)| {
            let addresses = link.addresses.iter();
            addresses.map(move |from| RoutingRule::Link {
                from: *from,
                number,
            })
        });
        let mut rules: BTreeSet<RoutingRule> = overlay.chain(links).collect();
        let Some(through) = &self.through else {
            return rules;
        };
        let lans: &[_] = match through.lan {
            LanAccess::Keep => &LANS,
            LanAccess::Cut => &[],
        };
        let named = LINK.iter().chain(lans);
        let named = named.filter_map(|(net, by_default)| Some((net.parse().ok()?, *by_default)));
        // Behind gateways, and on this very host.
        let behind = self.behind_gateways.iter().copied();
        let containers = self.containers.iter().map(|containers| containers.subnet);
        let own = named.chain(behind.chain(containers).map(|net| (net, false)));
        rules.extend(own.map(|(net, by_default)| RoutingRule::Own { net, by_default }));
        rules.extend([true, false].map(|v4| RoutingRule::Exit { v4 }));
        rules
    }
}
