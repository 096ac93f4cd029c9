//! The host's own networks: container bridges, addresses, and who is next to
//! this host on a LAN.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use innermesh_proto::{
    filter::{Containers, HostNetworks, Interface, Lan, LanAddress},
    limits,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::{
    AddressFamily,
    address::AddressMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use crate::tunnel::interface::{Netlink, address, destination, metric, output_interface};

/// Reads them; of `resolvers`, those on a link of this host are neighbours.
pub(super) async fn read(
    netlink: &Netlink,
    tunnel: &Interface,
    resolvers: &[IpAddr],
) -> io::Result<HostNetworks> {
    let links = netlink.link_messages().await?;
    let addresses = netlink.addresses().await?;
    let routes = netlink.routes().await?;
    Ok(conclude(&links, &addresses, &routes, tunnel, resolvers))
}

fn conclude(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
    tunnel: &Interface,
    resolvers: &[IpAddr],
) -> HostNetworks {
    let names: BTreeMap<u32, Interface> = links
        .iter()
        .filter_map(|link| Some((link.header.index, name(link)?)))
        .filter(|(_, name)| name != tunnel && !name.is_link_of(tunnel))
        .collect();
    let on = |index: u32| -> Option<&Interface> { names.get(&index) };
    let nets: Vec<(&Interface, u32, IpNet)> = addresses
        .iter()
        .filter_map(|message| {
            let index = message.header.index;
            Some((on(index)?, index, address(message)?))
        })
        .collect();

    let bridges = container_bridges(links);
    let containers = nets
        .iter()
        .filter(|(_, index, net)| bridges.contains(index) && net.prefix_len() > 0)
        .map(|(bridge, _, net)| Containers {
            bridge: (*bridge).clone(),
            subnet: net.trunc(),
        });
    let own = nets.iter().map(|(interface, _, net)| LanAddress {
        interface: (*interface).clone(),
        address: net.addr(),
    });
    let gateways = routes.iter().filter_map(|route| {
        let gateway = gateway(route).filter(|_| destination(route).is_none())?;
        Some(LanAddress {
            interface: on(output_interface(route)?)?.clone(),
            address: gateway,
        })
    });
    let servers = resolvers.iter().filter_map(|resolver| {
        let on_link = |net: &IpNet| net.contains(resolver) && net.addr() != *resolver;
        let (interface, ..) = nets.iter().find(|(_, _, net)| on_link(net))?;
        Some(LanAddress {
            interface: (*interface).clone(),
            address: *resolver,
        })
    });
    let used = |route: &&RouteMessage| {
        route.header.kind == RouteType::Unicast && route.header.table == RouteHeader::RT_TABLE_MAIN
    };
    let used = routes.iter().filter(used);
    let routed = used.clone().filter_map(|route| {
        let interface = on(output_interface(route)?)?;
        let net = destination(route).or_else(|| everything(route))?;
        Some(lan(interface, net))
    });
    // As the kernel chooses: the least metric of each address family.
    let mut outer: BTreeMap<IpNet, (u32, Lan)> = BTreeMap::new();
    for route in used.filter(|route| destination(route).is_none()) {
        let interface = output_interface(route).and_then(on);
        let Some((interface, net)) = interface.zip(everything(route)) else {
            continue;
        };
        let metric = metric(route).unwrap_or(0);
        if outer.get(&net).is_none_or(|(least, _)| metric < *least) {
            outer.insert(net, (metric, lan(interface, net)));
        }
    }
    // The widest: a host may know all networks of the internet.
    let mut routed: Vec<Lan> = routed.collect();
    routed.sort_by_key(|link| (link.net.prefix_len(), link.net));
    routed.truncate(limits::HOST_ROUTES);
    let connected = nets
        .iter()
        .map(|(interface, _, net)| lan(interface, net.trunc()));
    HostNetworks {
        links: connected.chain(routed).collect(),
        outer: outer.into_values().map(|(_, lan)| lan).collect(),
        containers: containers.collect(),
        own: own.collect(),
        own_networks: nets.iter().map(|(_, _, net)| net.trunc()).collect(),
        neighbours: gateways.chain(servers).collect(),
    }
}

fn lan(interface: &Interface, net: IpNet) -> Lan {
    Lan {
        interface: interface.clone(),
        net,
    }
}

/// Where a default route leads.
fn everything(route: &RouteMessage) -> Option<IpNet> {
    match route.header.address_family {
        AddressFamily::Inet => Some(IpNet::V4(Ipv4Net::default())),
        AddressFamily::Inet6 => Some(IpNet::V6(Ipv6Net::default())),
        _ => None,
    }
}

/// Bridges whose ports are all ends of veth pairs: behind them are network
/// namespaces of this host, and no cable, radio or virtual machine.
fn container_bridges(links: &[LinkMessage]) -> BTreeSet<u32> {
    let bridges = links.iter().filter(|link| is_kind(link, &InfoKind::Bridge));
    let mut bridges: BTreeSet<u32> = bridges.map(|link| link.header.index).collect();
    for port in links.iter().filter(|link| !is_kind(link, &InfoKind::Veth)) {
        if let Some(bridge) = controller(port) {
            bridges.remove(&bridge);
        }
    }
    bridges
}

fn is_kind(link: &LinkMessage, kind: &InfoKind) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(kind.clone())),
        _ => false,
    })
}

fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) if *index != 0 => Some(*index),
            _ => None,
        })
}

fn name(link: &LinkMessage) -> Option<Interface> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => name.clone().try_into().ok(),
            _ => None,
        })
}

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: InfoKind, controller: u32) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![
            LinkAttribute::IfName(format!("if{index}")),
            LinkAttribute::Controller(controller),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
        ];
        link
    }

    #[test]
    fn hosts_leave_by_the_default_route_of_the_least_metric_of_each_family() {
        let links = [1, 2, 3].map(|index| link(index, InfoKind::Veth, 0));
        let route = |family, index: u32, metric: Option<u32>| {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            route.header.table = RouteHeader::RT_TABLE_MAIN;
            route.header.kind = RouteType::Unicast;
            route.attributes = vec![RouteAttribute::Oif(index)];
            route
                .attributes
                .extend(metric.map(RouteAttribute::Priority));
            route
        };
        let mut elsewhere = route(AddressFamily::Inet, 3, None);
        elsewhere.header.table = 51;
        let routes = [
            route(AddressFamily::Inet, 1, Some(600)),
            route(AddressFamily::Inet, 2, Some(100)),
            elsewhere,
            route(AddressFamily::Inet6, 1, Some(1024)),
        ];
        let tunnel = "im0".to_owned().try_into().unwrap();
        let host = conclude(&links, &[], &routes, &tunnel, &[]);
        let outer: Vec<String> = host
            .outer
            .iter()
            .map(|lan| format!("{} {}", lan.interface, lan.net))
            .collect();
        assert_eq!(outer, ["if1 ::/0", "if2 0.0.0.0/0"]);
    }

    #[test]
    fn a_bridge_with_a_port_that_is_no_veth_holds_no_containers() {
        let mut card = link(6, InfoKind::Veth, 3);
        card.attributes.pop();
        let links = [
            link(1, InfoKind::Bridge, 0),
            link(2, InfoKind::Bridge, 0),
            link(3, InfoKind::Bridge, 0),
            link(4, InfoKind::Veth, 1),
            link(5, InfoKind::Tun, 2),
            // A network card, of which nothing more is said.
            card,
            link(7, InfoKind::Veth, 3),
        ];
        assert_eq!(container_bridges(&links), [1].into());
    }
}
