//! Networks behind gateways: by which gateway each is reached, and what a gateway
//! forwards.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::MeshView;
use crate::{
    filter::{GatewayFilter, HostNetworks},
    id::NodeId,
    limits,
};

impl MeshView {
    /// The gateway by which this node reaches each network that gateways bring. Of
    /// several it is the live one with the smallest id, on every node: what leaves a
    /// LAN's host comes back by one of them only. One that is late to be heard of gives
    /// way to one that isn't, before it counts as dead.
    pub fn route_gateways(&self) -> BTreeMap<IpNet, NodeId> {
        let routes = self.ledger.routes();
        let others = routes.filter(|(_, gateways)| !gateways.contains(&self.me));
        others
            .filter_map(|(net, gateways)| Some((*net, self.serving(gateways)?)))
            .collect()
    }

    /// The networks of [`MeshView::route_gateways`], by gateway.
    pub(super) fn nets_by_gateway(&self) -> BTreeMap<NodeId, BTreeSet<IpNet>> {
        let mut nets: BTreeMap<NodeId, BTreeSet<IpNet>> = BTreeMap::new();
        for (net, gateway) in self.route_gateways() {
            nets.entry(gateway).or_default().insert(net);
        }
        nets
    }

    fn serving(&self, gateways: &BTreeSet<NodeId>) -> Option<NodeId> {
        let serves = |node: &&NodeId| {
            let compared = self.nodes.get(*node).map(|view| view.ledger_caught_up);
            self.is_gateway(node) && compared == Some(true)
        };
        let live = |node: &&NodeId| self.nodes.get(*node).is_some_and(|view| view.live);
        let prompt = |node: &&NodeId| self.nodes.get(*node).is_some_and(|view| view.prompt);
        let serving = || gateways.iter().filter(serves);
        let best = serving().find(prompt).or_else(|| serving().find(live));
        // One that fell silent is as good as none, and may be back.
        best.or_else(|| serving().next()).copied()
    }

    /// Those of the networks behind gateways that this host has no network of its
    /// own for, and so reaches through the tunnel.
    pub fn routed(&self, host: &HostNetworks) -> BTreeSet<IpNet> {
        let nets = self.route_gateways().into_keys();
        nets.filter(|net| host.meets(net).is_none()).collect()
    }

    /// The others, which have no route through the tunnel.
    pub fn unrouted(&self, host: &HostNetworks) -> BTreeSet<IpNet> {
        let nets = self.route_gateways().into_keys();
        nets.filter(|net| host.meets(net).is_some()).collect()
    }

    /// What this node forwards; `None` where it is no gateway.
    pub(super) fn gateway_filter(&self, host: &HostNetworks) -> Option<GatewayFilter> {
        if !self.is_gateway(&self.me) {
            return None;
        }
        let routes = self.ledger.routes();
        let routes = routes.filter(|(_, gateways)| gateways.contains(&self.me));
        let lans = routes.flat_map(|(net, _)| host.leading_to(net));
        Some(GatewayFilter {
            devices: self.devices_behind(&self.me).into_iter().collect(),
            lans: lans.take(limits::GATEWAY_LANS).collect(),
        })
    }
}
