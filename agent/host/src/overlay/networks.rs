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

use crate::tunnel::interface::{Netlink, address, destination, output_interface};

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
        .filter(|(_, name)| name != tunnel)
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
    let routed = routes.iter().filter_map(|route| {
        let is_used = route.header.kind == RouteType::Unicast
            && route.header.table == RouteHeader::RT_TABLE_MAIN;
        let interface = on(output_interface(route)?).filter(|_| is_used)?;
        let net = destination(route).or_else(|| everything(route))?;
        Some(lan(interface, net))
    });
    // The widest: a host may know all networks of the internet.
    let mut routed: Vec<Lan> = routed.collect();
    routed.sort_by_key(|link| (link.net.prefix_len(), link.net));
    routed.truncate(limits::HOST_ROUTES);
    let connected = nets
        .iter()
        .map(|(interface, _, net)| lan(interface, net.trunc()));
    HostNetworks {
        links: connected.chain(routed).collect(),
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
