//! The overlay's routing table, and the rules that lead there before any other
//! table is asked.

use std::{collections::BTreeSet, io, net::IpAddr};

use innermesh_proto::filter::{FilterPlan, OverlayRoute};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    IpVersion,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use crate::tunnel::interface::{
    Netlink, PROTOCOL, address, collect, destination, done, is, is_no_ipv6, output_interface,
};

/// The table's number.
const TABLE: u8 = 105;
/// Where its rules stand: before `main` (32766) and before those of other
/// VPNs (Tailscale 5210, wg-quick 32764), behind Cilium's (100).
const PREFERENCE: u32 = 905;
/// So that every other route of the table wins.
const LAST_METRIC: u32 = u32::MAX;
/// Of a route through the tunnel or to a neighbour.
const METRIC: u32 = 1;

/// A route of the table, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    net: IpNet,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Unreachable,
    Link { index: u32, source: Option<IpAddr> },
}

/// Makes table and rules equal to `plan`. What others have put into either
/// stays. Rules lead to the table only once it holds what takes packets away.
pub(super) async fn apply(netlink: &Netlink, plan: &FilterPlan) -> io::Result<()> {
    let wanted = wanted_routes(netlink, plan).await?;
    set_routes(netlink, &wanted).await?;
    set_rules(netlink, &plan.networks).await
}

/// Takes all of it away.
pub(super) async fn remove(netlink: &Netlink) -> io::Result<()> {
    set_rules(netlink, &BTreeSet::new()).await?;
    set_routes(netlink, &BTreeSet::new()).await
}

/// Those that can be had now: through an interface that is up and has the
/// address that packets leave from.
async fn wanted_routes(netlink: &Netlink, plan: &FilterPlan) -> io::Result<BTreeSet<Route>> {
    let links = netlink.links().await?;
    let addresses: BTreeSet<(u32, IpAddr)> = netlink
        .addresses()
        .await?
        .iter()
        .filter_map(|message| Some((message.header.index, address(message)?.addr())))
        .collect();
    let link = |name: &str| {
        let mut all = links.values();
        all.find(|link| link.name == name && link.up)
    };
    let route = |route: OverlayRoute| match route {
        OverlayRoute::Unreachable(net) => Some(Route {
            net,
            way: Way::Unreachable,
        }),
        OverlayRoute::Tunnel { net, source } => {
            let index = link(plan.interface.as_str())?.index;
            addresses.contains(&(index, source)).then_some(Route {
                net,
                way: Way::Link {
                    index,
                    source: Some(source),
                },
            })
        }
        OverlayRoute::Neighbour(lan) => Some(Route {
            net: lan.address.into(),
            way: Way::Link {
                index: link(lan.interface.as_str())?.index,
                source: None,
            },
        }),
    };
    Ok(plan.routes().into_iter().filter_map(route).collect())
}

async fn set_routes(netlink: &Netlink, wanted: &BTreeSet<Route>) -> io::Result<()> {
    let mut present = BTreeSet::new();
    let mut gone = Vec::new();
    for message in netlink.routes().await? {
        if message.header.table != TABLE
            || message.header.protocol != RouteProtocol::Other(PROTOCOL)
        {
            continue;
        }
        match read_route(&message).filter(|route| wanted.contains(route)) {
            Some(route) => {
                present.insert(route);
            }
            None => gone.push(message),
        }
    }
    let (taking, leading): (Vec<&Route>, Vec<&Route>) = wanted
        .difference(&present)
        .partition(|route| route.way == Way::Unreachable);
    for route in taking {
        add_route(netlink, route).await?;
    }
    for message in gone {
        match done(netlink.handle().route().del(message).execute().await) {
            Err(error) if is(&error, Errno::ESRCH) => {}
            other => other?,
        }
    }
    for route in leading {
        add_route(netlink, route).await?;
    }
    Ok(())
}

async fn add_route(netlink: &Netlink, route: &Route) -> io::Result<()> {
    let request = netlink.handle().route().add(route_message(route));
    match done(request.execute().await) {
        Err(error) if is(&error, Errno::EEXIST) => Ok(()),
        Err(error) if matches!(route.net, IpNet::V6(_)) && is_no_ipv6(&error) => Ok(()),
        // The interface or its address went in between; the next time tells.
        Err(error)
            if route.way != Way::Unreachable
                && [Errno::ENETDOWN, Errno::ENODEV, Errno::EINVAL]
                    .iter()
                    .any(|code| is(&error, *code)) =>
        {
            Ok(())
        }
        other => other,
    }
}

async fn set_rules(netlink: &Netlink, networks: &BTreeSet<IpNet>) -> io::Result<()> {
    let mut present = BTreeSet::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules = collect(netlink.handle().rule().get(version).execute()).await;
        let rules = match rules {
            Err(error) if is_no_ipv6(&error) => Vec::new(),
            other => other?,
        };
        for message in rules {
            if !is_ours(&message) {
                continue;
            }
            match read_rule(&message).filter(|net| networks.contains(net)) {
                Some(net) if present.insert(net) => {}
                _ => match done(netlink.handle().rule().del(message).execute().await) {
                    Err(error) if is(&error, Errno::ENOENT) => {}
                    other => other?,
                },
            }
        }
    }
    for net in networks.difference(&present) {
        let mut request = netlink.handle().rule().add();
        *request.message_mut() = rule_message(*net);
        match done(request.execute().await) {
            Err(error) if is(&error, Errno::EEXIST) => {}
            Err(error) if matches!(net, IpNet::V6(_)) && is_no_ipv6(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_ours(message: &RuleMessage) -> bool {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    message.attributes.contains(&ours)
}

/// The network of a rule that is just as [`rule_message`] makes it.
fn read_rule(message: &RuleMessage) -> Option<IpNet> {
    let ip = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Destination(ip) => Some(*ip),
            _ => None,
        })?;
    let net = IpNet::new(ip, message.header.dst_len).ok()?;
    let plain = |attribute: &RuleAttribute| match attribute {
        RuleAttribute::Destination(_) => true,
        RuleAttribute::Priority(preference) => *preference == PREFERENCE,
        RuleAttribute::Table(table) => *table == u32::from(TABLE),
        RuleAttribute::Protocol(_) => true,
        // The kernel says of every rule that it suppresses no prefix (-1).
        RuleAttribute::SuppressPrefixLen(length) => *length == u32::MAX,
        _ => false,
    };
    let whole = message.header.table == TABLE
        && message.header.action == RuleAction::ToTable
        && message.header.src_len == 0
        && message.header.tos == 0
        && message.header.flags.is_empty()
        && message
            .attributes
            .contains(&RuleAttribute::Priority(PREFERENCE))
        && message.attributes.iter().all(plain);
    whole.then_some(net)
}

fn rule_message(net: IpNet) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(net);
    message.header.dst_len = net.prefix_len();
    message.header.table = TABLE;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Destination(net.network()),
        RuleAttribute::Priority(PREFERENCE),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

fn read_route(message: &RouteMessage) -> Option<Route> {
    let net = destination(message)?;
    let source = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
    let is_via = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_));
    let way = match message.header.kind {
        RouteType::Unreachable => Way::Unreachable,
        RouteType::Unicast if !message.attributes.iter().any(is_via) => Way::Link {
            index: output_interface(message)?,
            source,
        },
        _ => return None,
    };
    Some(Route { net, way })
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = TABLE;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.destination_prefix_length = route.net.prefix_len();
    message.header.address_family = family(route.net);
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(
        route.net.network(),
    ))];
    match route.way {
        Way::Unreachable => {
            message.header.kind = RouteType::Unreachable;
            message
                .attributes
                .push(RouteAttribute::Priority(LAST_METRIC));
        }
        Way::Link { index, source } => {
            message.header.kind = RouteType::Unicast;
            if let IpNet::V4(_) = route.net {
                // The next hop of a route elsewhere is looked up by the rules
                // too, and found on its link only where the scope says so.
                message.header.scope = RouteScope::Link;
            }
            message.attributes.push(RouteAttribute::Oif(index));
            message.attributes.push(RouteAttribute::Priority(METRIC));
            if let Some(source) = source {
                message
                    .attributes
                    .push(RouteAttribute::PrefSource(RouteAddress::from(source)));
            }
        }
    }
    message
}

fn family(net: IpNet) -> AddressFamily {
    match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_as_the_same() {
        for net in ["10.77.0.0/16", "fd77:77:77::/48"] {
            let net: IpNet = net.parse().unwrap();
            assert_eq!(read_rule(&rule_message(net)), Some(net));
            for way in [
                Way::Unreachable,
                Way::Link {
                    index: 7,
                    source: Some(net.addr()),
                },
            ] {
                let route = Route { net, way };
                assert_eq!(read_route(&route_message(&route)), Some(route));
            }
        }
    }

    #[test]
    fn a_rule_that_somebody_narrowed_is_not_taken_for_ours_as_it_should_be() {
        let net = "10.77.0.0/16".parse().unwrap();
        let mut message = rule_message(net);
        message
            .attributes
            .push(RuleAttribute::Iifname("eth0".into()));
        assert!(is_ours(&message));
        assert_eq!(read_rule(&message), None);
    }
}
