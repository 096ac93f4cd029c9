//! What is published, as the filter has it: ports of this node that lead to others,
//! and tunnels by which public nodes lead to this one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{HostNetworks, Interface};
use crate::{id::NodeId, limits};

/// Letters of the tunnel's name in a link's.
const NAME: usize = 8;

/// What passes by publications, and nothing besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishFilter {
    /// The interfaces that strangers come by.
    pub outer: BTreeSet<Interface>,
    /// This node's TCP ports that lead elsewhere.
    pub ports: BTreeSet<PublishedPort>,
    /// Links that end here.
    pub links: BTreeSet<LinkFilter>,
    /// UDP ports that those send from, as [`FilterPlan::outer_ports`] are the tunnel's.
    ///
    /// [`FilterPlan::outer_ports`]: super::FilterPlan::outer_ports
    pub outer_ports: BTreeSet<u16>,
    /// Sources from which nothing is carried: the overlay, networks behind gateways,
    /// this host's own, and what is nobody's.
    pub never: BTreeSet<IpNet>,
}

/// Where a port leads, in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    pub port: u16,
    pub to: IpAddr,
    pub to_port: u16,
}

/// A tunnel of its own that a public node forwards by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkFilter {
    pub interface: Interface,
    pub addresses: BTreeSet<IpAddr>,
    /// The TCP ports that are published.
    pub ports: BTreeSet<u16>,
}

impl Interface {
    /// The interface of the link to a public node, of the node whose tunnel this
    /// is.
    pub fn link_to(&self, on: &NodeId) -> Self {
        let name: String = self.0.chars().take(NAME).collect();
        let [a, b, c, ..] = on.0;
        Self(format!("{name}p{a:02x}{b:02x}{c:02x}"))
    }

    /// Whether it is one of those that [`Interface::link_to`] makes.
    pub fn is_link_of(&self, tunnel: &Self) -> bool {
        let name: String = tunnel.0.chars().take(NAME).collect();
        let number = self.0.strip_prefix(&name);
        let number = number.and_then(|rest| rest.strip_prefix('p'));
        number.is_some_and(|it| it.len() == 6 && it.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

/// Sources that are nobody's on the internet, or the service's own side: `mesh` are
/// the overlay's networks and those behind gateways, `own` this host's.
pub(crate) fn never<'n>(
    mesh: impl Iterator<Item = &'n IpNet>,
    own: impl Iterator<Item = &'n IpNet>,
) -> BTreeSet<IpNet> {
    let v4 = |a: u8, b: u8, length: u8| Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length);
    let v6 =
        |first: u16, length: u8| Ipv6Net::new(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length);
    let special = [v4(0, 0, 8), v4(127, 0, 8), v4(169, 254, 16), v4(224, 0, 3)];
    // What isn't in use, with loopback and mapped IPv4; link-local; multicast.
    let special6 = [v6(0, 8), v6(0xfe80, 10), v6(0xff00, 8)];
    let special = special.into_iter().flatten().map(IpNet::V4);
    let special = special.chain(special6.into_iter().flatten().map(IpNet::V6));
    let nets = mesh.chain(own).filter(|net| net.prefix_len() > 0);
    let all: Vec<IpNet> = special.chain(nets.map(IpNet::trunc)).collect();
    // nftables takes no network within another.
    let all = IpNet::aggregate(&all).into_iter();
    all.take(limits::PUBLISH_NEVER).collect()
}

/// Whether a network's addresses are private ones (RFC 1918, 6598, 4193).
pub(crate) fn is_private(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xfe00 == 0xfc00,
    }
}

/// The interfaces that strangers may come by: all but the tunnel's and those of
/// containers.
pub(crate) fn outer(host: &HostNetworks) -> BTreeSet<Interface> {
    let is_bridge = |name: &Interface| {
        let mut all = host.containers.iter();
        all.any(|containers| containers.bridge == *name)
    };
    let all = host.links.iter().map(|link| &link.interface);
    let all = all.filter(|name| !is_bridge(name));
    all.cloned().collect()
}
