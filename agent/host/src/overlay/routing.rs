//! The overlay's routing tables, and the rules that lead there before any other
//! table is asked.

use std::{collections::BTreeSet, io, net::IpAddr};

use innermesh_proto::{
    filter::{FilterPlan, MARK, OverlayRoute, RoutingRule},
    limits,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::{
    IpVersion,
    packet_route::{
        AddressFamily,
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
            RouteType,
        },
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};

use crate::tunnel::interface::{
    Netlink, PROTOCOL, address, collect, destination, done, is, is_no_ipv6, output_interface,
};

/// The overlay's table.
const TABLE: u8 = 105;
/// The exit's.
const EXIT_TABLE: u8 = 106;
/// Where the overlay's rules stand: before `main` (32766) and before those of other
/// VPNs (Tailscale 5210, wg-quick 32764), behind Cilium's (100).
const PREFERENCE: u32 = 905;
/// The first of those of links, by which answers leave to public nodes.
const LINK_TABLE: u8 = 111;
/// Where the rules of links stand: what is for the overlay never leaves by one.
const LINK_PREFERENCE: u32 = 906;
/// What isn't reached by an exit, and then what is.
const OWN_PREFERENCE: u32 = 907;
const EXIT_PREFERENCE: u32 = 908;
/// So that every other route of the table wins.
const LAST_METRIC: u32 = u32::MAX;
/// Of a route through the tunnel or to a neighbour.
const METRIC: u32 = 1;

/// A route of one of the tables, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    table: u8,
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
    set_rules(netlink, &plan.rules()).await
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
    let route = |table: u8, route: OverlayRoute| match route {
        OverlayRoute::Unreachable(net) => Some(Route {
            table,
            net,
            way: Way::Unreachable,
        }),
        OverlayRoute::Tunnel { net, source } => {
            let index = link(plan.interface.as_str())?.index;
            addresses.contains(&(index, source)).then_some(Route {
                table,
                net,
                way: Way::Link {
                    index,
                    source: Some(source),
                },
            })
        }
        OverlayRoute::Neighbour(lan) => Some(Route {
            table,
            net: lan.address.into(),
            way: Way::Link {
                index: link(lan.interface.as_str())?.index,
                source: None,
            },
        }),
    };
    let overlay = plan.routes().into_iter().map(|it| (TABLE, it));
    let exit = plan.exit_routes().into_iter().map(|it| (EXIT_TABLE, it));
    let back = plan.links().flat_map(|(number, filter)| {
        let index = link(filter.interface.as_str()).map(|link| link.index);
        filter.addresses.iter().flat_map(move |address| {
            let way = index.map(|index| Way::Link {
                index,
                source: None,
            });
            let ways = std::iter::once(Way::Unreachable).chain(way);
            let (table, net) = (LINK_TABLE + number, everything(*address));
            ways.map(move |way| Route { table, net, way })
        })
    });
    let back: BTreeSet<Route> = back.collect();
    let all = overlay.chain(exit);
    let all = all.filter_map(|(table, it)| route(table, it));
    Ok(all.chain(back).collect())
}

/// Everything, in the family of an address.
fn everything(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

fn is_our_table(table: u8) -> bool {
    let links = usize::from(LINK_TABLE)..usize::from(LINK_TABLE) + limits::PUBLISH_LINKS_PER_NODE;
    [TABLE, EXIT_TABLE].contains(&table) || links.contains(&usize::from(table))
}

async fn set_routes(netlink: &Netlink, wanted: &BTreeSet<Route>) -> io::Result<()> {
    let mut present = BTreeSet::new();
    let mut gone = Vec::new();
    for message in netlink.routes().await? {
        if !is_our_table(message.header.table)
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

async fn set_rules(netlink: &Netlink, wanted: &BTreeSet<RoutingRule>) -> io::Result<()> {
    let mut present = BTreeSet::new();
    let mut gone = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules = collect(netlink.handle().rule().get(version).execute()).await;
        let rules = match rules {
            Err(error) if is_no_ipv6(&error) => Vec::new(),
            other => other?,
        };
        for message in rules.into_iter().filter(is_ours) {
            match read_rule(&message).filter(|rule| wanted.contains(rule)) {
                Some(rule) if present.insert(rule) => {}
                _ => gone.push(message),
            }
        }
    }
    // What leads to an exit is there before what leads past it goes.
    for rule in wanted.difference(&present) {
        let mut request = netlink.handle().rule().add();
        let message = rule_message(rule);
        let is_v6 = message.header.family == AddressFamily::Inet6;
        *request.message_mut() = message;
        match done(request.execute().await) {
            Err(error) if is(&error, Errno::EEXIST) => {}
            Err(error) if is_v6 && is_no_ipv6(&error) => {}
            other => other?,
        }
    }
    for message in gone {
        match done(netlink.handle().rule().del(message).execute().await) {
            Err(error) if is(&error, Errno::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_ours(message: &RuleMessage) -> bool {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    message.attributes.contains(&ours)
}

/// A rule that is just as [`rule_message`] makes it.
fn read_rule(message: &RuleMessage) -> Option<RoutingRule> {
    let find = |attribute: &RuleAttribute| match attribute {
        RuleAttribute::Destination(ip) => Some(*ip),
        _ => None,
    };
    let net = || {
        let ip = message.attributes.iter().find_map(find)?;
        IpNet::new(ip, message.header.dst_len).ok()
    };
    let suppresses = RuleAttribute::SuppressPrefixLen(0);
    let rule = match message.header.table {
        TABLE => RoutingRule::Overlay(net()?),
        EXIT_TABLE => RoutingRule::Exit {
            v4: message.header.family == AddressFamily::Inet,
        },
        table if table != RouteHeader::RT_TABLE_MAIN && is_our_table(table) => {
            let from = |attribute: &RuleAttribute| match attribute {
                RuleAttribute::Source(ip) => Some(*ip),
                _ => None,
            };
            RoutingRule::Link {
                from: message.attributes.iter().find_map(from)?,
                number: table - LINK_TABLE,
            }
        }
        RouteHeader::RT_TABLE_MAIN => RoutingRule::Own {
            net: net()?,
            by_default: !message.attributes.contains(&suppresses),
        },
        _ => return None,
    };
    let made = rule_message(&rule);
    // What the kernel says of every rule: its table once more, and that it suppresses
    // no prefix (-1).
    let plain = |attribute: &RuleAttribute| match attribute {
        RuleAttribute::Table(table) => *table == u32::from(message.header.table),
        RuleAttribute::SuppressPrefixLen(u32::MAX) => true,
        other => made.attributes.contains(other),
    };
    let header = &message.header;
    let whole = (header.family, header.dst_len) == (made.header.family, made.header.dst_len)
        && (header.action, header.flags) == (made.header.action, made.header.flags)
        && header.src_len == made.header.src_len
        && header.tos == 0
        && made
            .attributes
            .iter()
            .all(|attribute| message.attributes.contains(attribute))
        && message.attributes.iter().all(plain);
    whole.then_some(rule)
}

fn rule_message(rule: &RoutingRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.action = RuleAction::ToTable;
    let (preference, table) = match rule {
        RoutingRule::Overlay(_) => (PREFERENCE, TABLE),
        RoutingRule::Link { number, .. } => (LINK_PREFERENCE, LINK_TABLE + number),
        RoutingRule::Own { .. } => (OWN_PREFERENCE, RouteHeader::RT_TABLE_MAIN),
        RoutingRule::Exit { .. } => (EXIT_PREFERENCE, EXIT_TABLE),
    };
    message.header.table = table;
    message.attributes = vec![
        RuleAttribute::Priority(preference),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    match rule {
        RoutingRule::Overlay(net) | RoutingRule::Own { net, .. } => {
            message.header.family = family(*net);
            message.header.dst_len = net.prefix_len();
            let destination = RuleAttribute::Destination(net.network());
            message.attributes.push(destination);
        }
        RoutingRule::Link { from, .. } => {
            let net = IpNet::from(*from);
            message.header.family = family(net);
            message.header.src_len = net.prefix_len();
            message.attributes.push(RuleAttribute::Source(*from));
        }
        RoutingRule::Exit { v4 } => {
            message.header.family = if *v4 {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            };
            message.header.flags = RuleFlags::Invert;
            let mark = [RuleAttribute::FwMark(MARK), RuleAttribute::FwMask(MARK)];
            message.attributes.extend(mark);
        }
    }
    if let RoutingRule::Own {
        by_default: false, ..
    } = rule
    {
        let suppresses = RuleAttribute::SuppressPrefixLen(0);
        message.attributes.push(suppresses);
    }
    message
}

/// Where a route leads; a default route has no destination.
fn route_net(message: &RouteMessage) -> Option<IpNet> {
    match (message.header.address_family, destination(message)) {
        (_, Some(net)) => Some(net),
        _ if message.header.destination_prefix_length > 0 => None,
        (AddressFamily::Inet, None) => Some(IpNet::V4(Ipv4Net::default())),
        (AddressFamily::Inet6, None) => Some(IpNet::V6(Ipv6Net::default())),
        _ => None,
    }
}

fn read_route(message: &RouteMessage) -> Option<Route> {
    let net = route_net(message)?;
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
    let table = message.header.table;
    Some(Route { table, net, way })
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = route.table;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.destination_prefix_length = route.net.prefix_len();
    message.header.address_family = family(route.net);
    if route.net.prefix_len() > 0 {
        let destination = RouteAddress::from(route.net.network());
        message
            .attributes
            .push(RouteAttribute::Destination(destination));
    }
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
        for net in ["10.77.0.0/16", "fd77:77:77::/48", "0.0.0.0/0", "::/0"] {
            let net: IpNet = net.parse().unwrap();
            for way in [
                Way::Unreachable,
                Way::Link {
                    index: 7,
                    source: Some(net.addr()),
                },
            ] {
                let table = if net.prefix_len() == 0 {
                    EXIT_TABLE
                } else {
                    TABLE
                };
                let route = Route { table, net, way };
                assert_eq!(read_route(&route_message(&route)), Some(route));
            }
        }
        let net = "fd77:77:77::/48".parse().unwrap();
        for rule in [
            RoutingRule::Overlay(net),
            RoutingRule::Link {
                from: net.addr(),
                number: 2,
            },
            RoutingRule::Own {
                net,
                by_default: false,
            },
            RoutingRule::Own {
                net,
                by_default: true,
            },
            RoutingRule::Exit { v4: true },
            RoutingRule::Exit { v4: false },
        ] {
            let mut message = rule_message(&rule);
            assert_eq!(read_rule(&message), Some(rule));
            // As the kernel lists it.
            let table = RuleAttribute::Table(message.header.table.into());
            message.attributes.push(table);
            if !message
                .attributes
                .contains(&RuleAttribute::SuppressPrefixLen(0))
            {
                let none = RuleAttribute::SuppressPrefixLen(u32::MAX);
                message.attributes.push(none);
            }
            assert_eq!(read_rule(&message), Some(rule));
        }
    }

    #[test]
    fn a_rule_that_somebody_narrowed_is_not_taken_for_ours_as_it_should_be() {
        let net = "10.77.0.0/16".parse().unwrap();
        for rule in [RoutingRule::Overlay(net), RoutingRule::Exit { v4: true }] {
            let mut message = rule_message(&rule);
            message
                .attributes
                .push(RuleAttribute::Iifname("eth0".into()));
            assert!(is_ours(&message));
            assert_eq!(read_rule(&message), None);
        }
        let mut message = rule_message(&RoutingRule::Exit { v4: true });
        message.header.flags = RuleFlags::empty();
        assert_eq!(read_rule(&message), None, "it leads what is marked there");
    }
}
