//! The interface as the kernel's routing sees it: link, addresses, routes.
//!
//! Owns what the kernel is asked over rtnetlink. Knows nothing of WireGuard.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use futures_util::{Stream, TryStreamExt};
use innermesh_proto::tunnel::TunnelPlan;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkUnspec, LinkWireguard,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
            RouteType,
        },
    },
};
use tokio::task::JoinHandle;

/// Marks our routes and rules among those of others (`ip route` shows `proto 105`).
pub(crate) const PROTOCOL: u8 = 105;

/// Above every metric that address configuration gives (NetworkManager's
/// highest is 1,000 plus; IPv6's kernel default 1,024), so that at home the
/// LAN's own route to the same network wins.
const METRIC: u32 = 5000;

/// A connection to the kernel's routing.
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    pub(crate) wireguard: bool,
    pub(crate) bridge: bool,
}

/// How many addresses or routes changed, and the first refusal of an IPv6 one
/// on a host where IPv6 is switched off.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) count: usize,
    pub(crate) no_ipv6: Option<io::Error>,
}

/// An address as it should stand on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    net: IpNet,
    /// The resolver's: answers here only, and is never a source address.
    resolver: bool,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        // It ends with this value and not with the agent's tasks: the overlay is
        // taken away after those.
        let connection = tokio::spawn(connection);
        Ok(Self { handle, connection })
    }

    /// The interface of that name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let request = self.handle.link().get().match_name(name.to_owned());
        match collect(request.execute()).await {
            Ok(links) => Ok(links.first().map(link)),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces by index.
    pub(crate) async fn links(&self) -> io::Result<BTreeMap<u32, Link>> {
        let links = collect(self.handle.link().get().execute()).await?;
        Ok(links
            .iter()
            .map(link)
            .map(|link| (link.index, link))
            .collect())
    }

    pub(crate) async fn create_wireguard(&self, name: &str) -> io::Result<()> {
        let message = LinkWireguard::new(name).build();
        done(self.handle.link().add(message).execute().await)
    }

    pub(crate) async fn bring_up(&self, index: u32, mtu: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        done(self.handle.link().set(message).execute().await)
    }

    /// Deletes the interface; fine when it isn't there.
    pub(crate) async fn delete(&self, name: &str) -> io::Result<()> {
        let Some(link) = self.link(name).await? else {
            return Ok(());
        };
        match done(self.handle.link().del(link.index).execute().await) {
            Err(error) if is(&error, Errno::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// All interfaces, as the kernel describes them.
    pub(crate) async fn link_messages(&self) -> io::Result<Vec<LinkMessage>> {
        collect(self.handle.link().get().execute()).await
    }

    /// For requests that have nothing to do with the tunnel's interface.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Every address of the host.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<AddressMessage>> {
        collect(self.handle.address().get().execute()).await
    }

    /// Every route of the host, of all tables.
    pub(crate) async fn routes(&self) -> io::Result<Vec<RouteMessage>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            routes.extend(collect(self.handle.route().get(message).execute()).await?);
        }
        Ok(routes)
    }

    /// Makes the interface's addresses those of `plan`; only link-local ones
    /// are left alone.
    pub(crate) async fn set_addresses(&self, index: u32, plan: &TunnelPlan) -> io::Result<Changed> {
        let wanted = planned_addresses(plan);
        let mut changed = Changed::default();
        for message in self.addresses_of(index).await? {
            if installed_address(&message).is_some_and(|address| !wanted.contains(&address)) {
                done(self.handle.address().del(message).execute().await)?;
                changed.count += 1;
            }
        }
        // Read again: with an IPv4 address the kernel drops the others of its
        // network (`promote_secondaries` is off by default).
        let present: BTreeSet<Address> = self
            .addresses_of(index)
            .await?
            .iter()
            .filter_map(installed_address)
            .collect();
        for address in wanted.difference(&present) {
            let mut request =
                self.handle
                    .address()
                    .add(index, address.net.addr(), address.net.prefix_len());
            describe(request.message_mut(), *address);
            changed.note(address.net, done(request.execute().await))?;
        }
        Ok(changed)
    }

    /// Makes our routes through the interface those of `plan`, in the main table:
    /// the overlay's own table is the overlay's.
    pub(crate) async fn set_routes(&self, index: u32, plan: &TunnelPlan) -> io::Result<Changed> {
        let wanted = plan.routes();
        let mut changed = Changed::default();
        let mut present = BTreeSet::new();
        for message in self.routes().await? {
            if message.header.protocol != RouteProtocol::Other(PROTOCOL)
                || message.header.table != RouteHeader::RT_TABLE_MAIN
                || output_interface(&message) != Some(index)
            {
                continue;
            }
            match destination(&message) {
                Some(net) if wanted.contains(&net) && metric(&message) == Some(METRIC) => {
                    present.insert(net);
                }
                _ => {
                    done(self.handle.route().del(message).execute().await)?;
                    changed.count += 1;
                }
            }
        }
        for net in wanted.difference(&present) {
            let request = self.handle.route().add(route(index, *net));
            changed.note(*net, done(request.execute().await))?;
        }
        Ok(changed)
    }

    async fn addresses_of(&self, index: u32) -> io::Result<Vec<AddressMessage>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        collect(request.execute()).await
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Changed {
    /// Counts a success. A host without IPv6 refuses with EACCES where it is
    /// switched off by sysctl, and else in the words of a missing protocol.
    fn note(&mut self, net: IpNet, result: io::Result<()>) -> io::Result<()> {
        match result {
            Ok(()) => self.count += 1,
            Err(error) if is(&error, Errno::EEXIST) => {}
            Err(error) if matches!(net, IpNet::V6(_)) && is_no_ipv6(&error) => {
                self.no_ipv6.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a refusal says that IPv6 is switched off on this host.
pub(crate) fn is_no_ipv6(error: &io::Error) -> bool {
    [
        Errno::EACCES,
        Errno::EAFNOSUPPORT,
        Errno::EOPNOTSUPP,
        Errno::ENETDOWN,
        Errno::ENODEV,
    ]
    .iter()
    .any(|code| is(error, *code))
}

/// The address of a message with its prefix, host bits kept.
pub(crate) fn address(message: &AddressMessage) -> Option<IpNet> {
    let find = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
    };
    let ip = find(true).or_else(|| find(false))?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

/// All flags of an address; the header has room for the first eight only.
pub(crate) fn flags(message: &AddressMessage) -> AddressFlags {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        })
        .unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()))
}

/// Where a route leads; a default route has no destination attribute.
pub(crate) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let ip = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        })?;
    let net = IpNet::new(ip, message.header.destination_prefix_length).ok()?;
    Some(net.trunc())
}

/// The interface that a route leaves by.
pub(crate) fn output_interface(message: &RouteMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

pub(crate) fn metric(message: &RouteMessage) -> Option<u32> {
    let priority = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    };
    message.attributes.iter().find_map(priority)
}

fn planned_addresses(plan: &TunnelPlan) -> BTreeSet<Address> {
    let own = plan.addresses.iter().map(|net| Address {
        net: *net,
        resolver: false,
    });
    let resolver = plan
        .resolver_v4
        .map(IpAddr::from)
        .into_iter()
        .chain(plan.resolver_v6.map(IpAddr::from))
        .map(|ip| Address {
            net: IpNet::from(ip),
            resolver: true,
        });
    own.chain(resolver).collect()
}

/// `None` for link-local addresses, which the kernel gives by itself.
fn installed_address(message: &AddressMessage) -> Option<Address> {
    let net = address(message)?;
    let (link_local, resolver) = match net.addr() {
        IpAddr::V4(_) => (false, message.header.scope == AddressScope::Host),
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            flags(message).contains(AddressFlags::Deprecated),
        ),
    };
    (!link_local).then_some(Address { net, resolver })
}

/// IPv4 keeps an address from being a source by its scope, IPv6 by a preferred
/// lifetime of zero (RFC 6724 section 5, rule 3). The kernel's own route to an
/// address's network would win over the LAN's, and not come back once flushed.
fn describe(message: &mut AddressMessage, address: Address) {
    let mut flags = AddressFlags::Noprefixroute;
    match address.net {
        IpNet::V4(_) => {
            if address.resolver {
                message.header.scope = AddressScope::Host;
            }
        }
        IpNet::V6(_) => {
            // Duplicates can't be asked for over a point-to-point link, and an
            // address under test can't be bound.
            flags |= AddressFlags::Nodad;
            if address.resolver {
                let mut lifetimes = CacheInfo::default();
                lifetimes.ifa_preferred = 0;
                lifetimes.ifa_valid = u32::MAX;
                message
                    .attributes
                    .push(AddressAttribute::CacheInfo(lifetimes));
            }
        }
    }
    message.attributes.push(AddressAttribute::Flags(flags));
}

fn route(index: u32, net: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = net.prefix_len();
    (message.header.address_family, message.header.scope) = match net {
        IpNet::V4(_) => (AddressFamily::Inet, RouteScope::Link),
        IpNet::V6(_) => (AddressFamily::Inet6, RouteScope::Universe),
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(net.network())),
        RouteAttribute::Oif(index),
        RouteAttribute::Priority(METRIC),
    ];
    message
}

pub(crate) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        wireguard: false,
        bridge: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(info) => {
                link.wireguard = info.contains(&LinkInfo::Kind(InfoKind::Wireguard));
                link.bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

pub(crate) async fn collect<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> io::Result<Vec<T>> {
    stream.try_collect().await.map_err(system)
}

/// An acknowledgement reaches some callers of the library as an error of code 0.
pub(crate) fn done(result: Result<(), rtnetlink::Error>) -> io::Result<()> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message)) if message.code.is_none() => Ok(()),
        other => other.map_err(system),
    }
}

fn system(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

pub(crate) fn is(error: &io::Error, code: Errno) -> bool {
    error.raw_os_error() == Some(code as i32)
}
