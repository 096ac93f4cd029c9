//! What the host's network looks like without the tunnel: its addresses, and
//! whether an overlay range is in use already.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressFlags, AddressMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use super::{
    TunnelError,
    interface::{Link, Netlink, address, destination, flags, metric, output_interface},
};

/// A local network that overlaps an overlay range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteClash {
    /// The network of the address or route.
    pub net: IpNet,
    /// The interface that it belongs to.
    pub interface: String,
}

impl fmt::Display for RouteClash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.net, self.interface)
    }
}

/// The first address or route of this host, other than a default route and
/// those of `except_interface`, that overlaps `net`.
///
/// # Errors
/// The kernel's, when its tables can't be read.
pub async fn clashing_route(
    net: IpNet,
    except_interface: &str,
) -> Result<Option<RouteClash>, TunnelError> {
    let net = net.trunc();
    let tables = Tables::read()
        .await
        .map_err(|source| TunnelError::system("read the host's routes", source))?;
    let mut clashes: Vec<RouteClash> = tables
        .networks()
        .filter(|clash| clash.interface != except_interface)
        .filter(|clash| clash.net.contains(&net) || net.contains(&clash.net))
        .collect();
    // The widest says most, and the answer doesn't depend on the kernel's order.
    clashes.sort_by(|a, b| {
        (a.net.prefix_len(), a.net, &a.interface).cmp(&(b.net.prefix_len(), b.net, &b.interface))
    });
    Ok(clashes.into_iter().next())
}

/// Addresses of this host that others may reach it at, with their interfaces:
/// global scope, in use, on interfaces that are up. No loopback, no link-local.
/// First those of the interface that the default route leaves by, last those of
/// bridges, which mostly lead to containers.
///
/// # Errors
/// The kernel's, when its tables can't be read.
pub async fn local_addresses() -> Result<Vec<(String, IpAddr)>, TunnelError> {
    let tables = Tables::read()
        .await
        .map_err(|source| TunnelError::system("read the host's addresses", source))?;
    let ranks = tables.ranks();
    let mut addresses: Vec<(Rank, String, IpAddr)> = tables
        .addresses
        .iter()
        .filter(|message| reachable(message))
        .filter_map(|message| {
            let link = tables.link(message.header.index)?;
            let other = if link.bridge {
                Rank::Bridge
            } else {
                Rank::Other
            };
            let rank = ranks.get(&link.index).copied().unwrap_or(other);
            (link.up && !link.loopback)
                .then(|| Some((rank, link.name.clone(), address(message)?.addr())))?
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses
        .into_iter()
        .map(|(_, interface, ip)| (interface, ip))
        .collect())
}

/// The router of the host's own default route for IPv4. `None` where there is none, or the
/// best leads to a link without routers.
///
/// # Errors
/// The kernel's, when its tables can't be read.
pub async fn default_router() -> Result<Option<Ipv4Addr>, TunnelError> {
    let tables = Tables::read()
        .await
        .map_err(|source| TunnelError::system("read the host's routes", source))?;
    let by_ipv4 = |message: &&RouteMessage| message.header.address_family == AddressFamily::Inet;
    let routes = tables.default_routes().filter(by_ipv4);
    let best = routes.min_by_key(|message| metric(message).unwrap_or(0));
    Ok(best.and_then(router))
}

fn router(message: &RouteMessage) -> Option<Ipv4Addr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(*ip),
            _ => None,
        })
}

/// How likely others reach an interface's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A default route of this metric leaves by it.
    Default(u32),
    Other,
    Bridge,
}

struct Tables {
    links: BTreeMap<u32, Link>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl Tables {
    async fn read() -> io::Result<Self> {
        let netlink = Netlink::open()?;
        Ok(Self {
            links: netlink.links().await?,
            addresses: netlink.addresses().await?,
            routes: netlink.routes().await?,
        })
    }

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    fn default_routes(&self) -> impl Iterator<Item = &RouteMessage> {
        self.routes.iter().filter(|message| {
            message.header.kind == RouteType::Unicast
                && message.header.destination_prefix_length == 0
                && message.header.table == RouteHeader::RT_TABLE_MAIN
        })
    }

    /// The interfaces that default routes leave by.
    fn ranks(&self) -> BTreeMap<u32, Rank> {
        let mut ranks = BTreeMap::new();
        for message in self.default_routes() {
            if let Some(index) = output_interface(message) {
                let rank = Rank::Default(metric(message).unwrap_or(0));
                let best = ranks.entry(index).or_insert(rank);
                *best = rank.min(*best);
            }
        }
        ranks
    }

    /// Networks in use. A route to nowhere isn't a use: `unreachable 10.0.0.0/8`
    /// is there to be overruled by something narrower.
    fn networks(&self) -> impl Iterator<Item = RouteClash> {
        let addresses = self
            .addresses
            .iter()
            .filter_map(|message| Some((message.header.index, address(message)?.trunc())));
        let routes = self
            .routes
            .iter()
            .filter(|message| message.header.kind == RouteType::Unicast)
            .filter_map(|message| Some((output_interface(message)?, destination(message)?)));
        addresses.chain(routes).filter_map(|(index, net)| {
            (net.prefix_len() > 0).then(|| {
                Some(RouteClash {
                    net,
                    interface: self.link(index)?.name.clone(),
                })
            })?
        })
    }
}

fn reachable(message: &AddressMessage) -> bool {
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let Some(net) = address(message) else {
        return false;
    };
    let scoped = match net.addr() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_unspecified()
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast(),
    };
    u8::from(message.header.scope) == 0 && !scoped && !flags(message).intersects(unusable)
}
