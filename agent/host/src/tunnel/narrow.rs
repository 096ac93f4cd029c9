//! Host routes by which the kernel cuts what goes to an address over IPv6 into
//! packets that every link takes: no router on the way does that (RFC 8200 §5),
//! and one that says nothing about what it drops leaves a hole for large packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteType,
    },
};

use super::interface::{
    Netlink, PROTOCOL, destination, done, is, is_no_ipv6, metric, output_interface,
};

/// What every link of IPv6 takes, in bytes (RFC 8200 §5).
const LEAST_MTU: u32 = 1280;

/// By which interface and router an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    interface: u32,
    router: Option<Ipv6Addr>,
    /// Whether the router is on the link though no route says so.
    is_onlink: bool,
}

/// Has the host send to exactly these addresses in packets of 1280 bytes at most,
/// each by the way that the host's other routes give it now.
///
/// # Errors
/// The kernel's.
pub async fn keep_narrow(to: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let routes = netlink.routes().await?;
    let (ours, others): (Vec<_>, Vec<_>) = routes
        .into_iter()
        .filter(|route| route.header.address_family == AddressFamily::Inet6)
        .filter(|route| route.header.table == RouteHeader::RT_TABLE_MAIN)
        .partition(is_ours);
    let mut held: BTreeMap<Ipv6Addr, Way> = BTreeMap::new();
    for route in ours {
        let wanted = address(&route).filter(|address| to.contains(address));
        let way = wanted.and_then(|address| Some((address, way(&route)?)));
        match way {
            Some((address, way)) if best(&others, address) == Some(way) => {
                held.insert(address, way);
            }
            _ => match done(netlink.handle().route().del(route).execute().await) {
                Err(error) if is(&error, Errno::ESRCH) => {}
                other => other?,
            },
        }
    }
    for address in to.iter().filter(|address| !held.contains_key(address)) {
        let Some(way) = best(&others, *address) else {
            continue;
        };
        let request = netlink.handle().route().add(message(*address, way));
        match done(request.execute().await) {
            Err(error) if is(&error, Errno::EEXIST) || is_no_ipv6(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_ours(route: &RouteMessage) -> bool {
    let narrows = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.contains(&RouteMetric::Mtu(LEAST_MTU)),
        _ => false,
    };
    route.header.protocol == RouteProtocol::Other(PROTOCOL) && route.attributes.iter().any(narrows)
}

fn address(route: &RouteMessage) -> Option<Ipv6Addr> {
    match destination(route)? {
        IpNet::V6(net) if net.prefix_len() == 128 => Some(net.addr()),
        _ => None,
    }
}

/// `None` of a route with several ways, and of one that leads nowhere.
fn way(route: &RouteMessage) -> Option<Way> {
    let router = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet6(router)) => Some(*router),
            _ => None,
        });
    let leads = route.header.kind == RouteType::Unicast;
    let interface = output_interface(route).filter(|_| leads)?;
    Some(Way {
        interface,
        router,
        is_onlink: route.header.flags.contains(RouteFlags::Onlink),
    })
}

/// As the kernel chooses: the longest prefix, and of equal ones the least metric.
fn best(routes: &[RouteMessage], to: Ipv6Addr) -> Option<Way> {
    let covering = routes.iter().filter_map(|route| {
        let net = destination(route);
        let net = net.unwrap_or(IpNet::V6(Ipv6Net::default()));
        let is_whole = net.prefix_len() == route.header.destination_prefix_length;
        let covers = is_whole && net.contains(&IpAddr::V6(to));
        covers.then(|| {
            let metric = metric(route).unwrap_or(0);
            ((net.prefix_len(), std::cmp::Reverse(metric)), route)
        })
    });
    let (_, route) = covering.max_by_key(|(rank, _)| *rank)?;
    way(route)
}

fn message(to: Ipv6Addr, way: Way) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = 128;
    if way.is_onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(to)),
        RouteAttribute::Oif(way.interface),
        RouteAttribute::Metrics(vec![RouteMetric::Mtu(LEAST_MTU)]),
    ];
    let router = way.router.map(RouteAddress::Inet6);
    message
        .attributes
        .extend(router.map(RouteAttribute::Gateway));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(net: &str, priority: u32, interface: u32, router: Option<&str>) -> RouteMessage {
        let net: Ipv6Net = net.parse().unwrap();
        let mut route = message(
            net.addr(),
            Way {
                interface,
                router: router.map(|router| router.parse().unwrap()),
                is_onlink: false,
            },
        );
        route.header.protocol = RouteProtocol::Static;
        route.header.destination_prefix_length = net.prefix_len();
        route.attributes.push(RouteAttribute::Priority(priority));
        if net.prefix_len() == 0 {
            // As the kernel lists a default route.
            route
                .attributes
                .retain(|it| !matches!(it, RouteAttribute::Destination(_)));
        }
        route
    }

    fn interface(routes: &[RouteMessage], to: &str) -> Option<u32> {
        best(routes, to.parse().unwrap()).map(|way| way.interface)
    }

    #[test]
    fn the_way_is_that_of_the_longest_prefix_and_the_least_metric() {
        let routes = [
            route("::/0", 1024, 1, Some("fe80::1")),
            route("::/0", 100, 2, Some("fe80::2")),
            route("2001:db8::/32", 2000, 3, None),
        ];
        assert_eq!(interface(&routes, "2001:db8::7"), Some(3));
        assert_eq!(interface(&routes, "2001:db9::7"), Some(2));
        assert_eq!(interface(&routes[2..], "2001:db9::7"), None);
        let mut nowhere = routes.to_vec();
        nowhere[2].header.kind = RouteType::Unreachable;
        assert_eq!(interface(&nowhere, "2001:db8::7"), None);
    }

    #[test]
    fn only_routes_that_this_makes_are_ours() {
        let way = Way {
            interface: 4,
            router: Some("fe80::1".parse().unwrap()),
            is_onlink: true,
        };
        let to = "2001:db8::9".parse().unwrap();
        let made = message(to, way);
        assert!(is_ours(&made));
        assert_eq!((address(&made), super::way(&made)), (Some(to), Some(way)));
        assert!(!is_ours(&route("2001:db8::9/128", 1024, 4, None)));
        let mut other = made;
        other
            .attributes
            .retain(|it| !matches!(it, RouteAttribute::Metrics(_)));
        assert!(
            !is_ours(&other),
            "the overlay's own routes are of this protocol too"
        );
    }
}
