//! Networks behind gateways: by one gateway at any time, and never over a network of
//! the host's own.

use std::{collections::BTreeSet, time::Duration};

use innermesh_proto::{
    filter::{HostNetworks, Lan},
    id::NodeId,
    ledger::{Content, Role, request::RoleChange, route::RouteChange},
    tunnel::TunnelKey,
};
use ipnet::IpNet;

use crate::{
    mesh::{id, key},
    view::{Seen, wireguard},
};

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

const HOME: &str = "192.168.1.0/24";

/// One and two are gateways that bring one LAN.
fn seen() -> Seen {
    let mut seen = Seen::new();
    for number in [1, 2] {
        let change = RoleChange {
            node: node(number),
            role: Role::Gateway,
            root: None,
        };
        seen.mesh.ask(&*key(0), Content::GiveRole(change));
        let route = RouteChange {
            net: net(HOME),
            gateway: node(number),
        };
        seen.mesh.ask(&*key(0), Content::AddRoute(route));
    }
    seen
}

/// The number of the node with the smaller id, and of the other.
fn ordered() -> [u8; 2] {
    if node(1) < node(2) { [1, 2] } else { [2, 1] }
}

impl Seen {
    /// By which peer the founder reaches the LAN.
    fn way_home(&self) -> Option<TunnelKey> {
        let plan = self.view().tunnel_plan();
        assert_eq!(plan.overlap(), None);
        let mut peers = plan.peers.iter();
        let found = peers.find(|(_, peer)| peer.allowed_ips.contains(&net(HOME)));
        found.map(|(key, _)| *key)
    }
}

#[test]
fn s11_a_network_is_reached_by_the_live_gateway_with_the_smallest_id() {
    let mut seen = seen();
    let [first, second] = ordered();
    assert_eq!(seen.way_home(), None, "no gateway is here");
    seen.meet(&key(second), &wireguard(second));
    assert_eq!(seen.way_home(), Some(TunnelKey([second; 32])));
    seen.meet(&key(first), &wireguard(first));
    assert_eq!(seen.way_home(), Some(TunnelKey([first; 32])));
    // The first falls silent.
    seen.now += Duration::from_secs(10);
    seen.meet(&key(second), &wireguard(second));
    assert_eq!(seen.way_home(), Some(TunnelKey([second; 32])));
    // Who is no gateway any more brings nothing.
    let change = RoleChange {
        node: node(second),
        role: Role::Gateway,
        root: None,
    };
    seen.mesh.ask(&*key(0), Content::TakeRole(change));
    seen.meet(&key(first), &wireguard(first));
    seen.meet(&key(second), &wireguard(second));
    assert_eq!(seen.way_home(), Some(TunnelKey([first; 32])));
}

#[test]
fn a_gateway_that_is_late_to_be_heard_of_gives_way_before_it_counts_as_dead() {
    let mut seen = seen();
    let [first, second] = ordered();
    for number in [first, second] {
        seen.meet(&key(number), &wireguard(number));
    }
    assert_eq!(seen.way_home(), Some(TunnelKey([first; 32])));
    // Two of its renewals are overdue.
    seen.now += Duration::from_millis(3500);
    assert!(seen.view().nodes[&node(first)].live);
    assert_eq!(
        seen.way_home(),
        Some(TunnelKey([first; 32])),
        "both are late"
    );
    seen.meet(&key(second), &wireguard(second));
    assert_eq!(seen.way_home(), Some(TunnelKey([second; 32])));
    seen.meet(&key(first), &wireguard(first));
    assert_eq!(seen.way_home(), Some(TunnelKey([first; 32])));
}

#[test]
fn a_gateway_of_a_network_takes_nothing_of_it_from_the_tunnel() {
    let mut seen = seen();
    let [first, second] = ordered();
    seen.meet(&key(first), &wireguard(first));
    seen.meet(&key(second), &wireguard(second));
    let view = seen.view_by(node(second));
    assert!(view.route_gateways().is_empty());
    let plan = view.tunnel_plan();
    let mut nets = plan.peers.values().flat_map(|peer| &peer.allowed_ips);
    assert!(!nets.any(|it| *it == net(HOME)));

    let interface = |name: &str| name.to_owned().try_into().unwrap();
    let lan = Lan {
        interface: interface("eth0"),
        net: net(HOME),
    };
    let host = HostNetworks {
        links: [lan.clone()].into(),
        ..HostNetworks::default()
    };
    let filter = view.filter_plan(&interface("im0"), &host).unwrap();
    assert!(filter.is_bounded() && filter.behind_gateways.is_empty());
    assert_eq!(filter.gateway.unwrap().lans, [lan].into());
}

#[test]
fn a_host_with_a_network_of_that_range_takes_nothing_of_it_from_the_tunnel() {
    let mut seen = seen();
    seen.meet(&key(1), &wireguard(1));
    let view = seen.view();
    let interface = |name: &str| name.to_owned().try_into().unwrap();
    let of = |lans: &[&str]| {
        let host = HostNetworks {
            links: lans
                .iter()
                .map(|lan| Lan {
                    interface: interface("wlan0"),
                    net: net(lan),
                })
                .collect(),
            ..HostNetworks::default()
        };
        let filter = view.filter_plan(&interface("im0"), &host).unwrap();
        assert_eq!(filter.gateway, None);
        assert!(filter.behind_gateways.is_disjoint(&view.unrouted(&host)));
        filter.behind_gateways
    };
    let home: BTreeSet<IpNet> = [net(HOME)].into();
    assert_eq!(of(&[]), home);
    assert_eq!(of(&["192.168.2.0/24", "0.0.0.0/0"]), home);
    for meets in [HOME, "192.168.0.0/16", "192.168.1.128/25"] {
        assert_eq!(of(&[meets]), BTreeSet::new(), "{meets}");
    }
}
