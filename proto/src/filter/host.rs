//! What there is on a host: interfaces, containers, and its own networks.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The name of a network interface, as it may stand in a ruleset: plain ASCII,
/// so that no name is more than a name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interface(pub(super) String);

impl Interface {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a name that may stand in a ruleset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" isn't an interface's name of letters, digits and `-_.`")]
pub struct InterfaceError(String);

impl TryFrom<String> for Interface {
    type Error = InterfaceError;

    fn try_from(name: String) -> Result<Self, InterfaceError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // 15 bytes is the kernel's bound (IFNAMSIZ).
        let fits = (1..=15).contains(&name.len()) && name.bytes().all(plain);
        if fits && !name.starts_with(['-', '.']) && name != "lo" {
            Ok(Self(name))
        } else {
            Err(InterfaceError(name.chars().take(40).collect()))
        }
    }
}

impl From<Interface> for String {
    fn from(interface: Interface) -> Self {
        interface.0
    }
}

/// Containers of this host: a bridge and a subnet on it. One without the other
/// proves nothing, as both can be made up by somebody on a LAN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Containers {
    pub bridge: Interface,
    /// A subnet of the addresses that the bridge itself has.
    pub subnet: IpNet,
}

/// An address on one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LanAddress {
    pub interface: Interface,
    pub address: IpAddr,
}

/// A network beside the overlay, on one interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lan {
    pub interface: Interface,
    pub net: IpNet,
}

/// What the filter depends on of the host's own networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetworks {
    /// The host's container bridges.
    pub containers: BTreeSet<Containers>,
    /// The host's own addresses on interfaces other than the tunnel's.
    pub own: BTreeSet<LanAddress>,
    /// The networks of those addresses.
    pub own_networks: BTreeSet<IpNet>,
    /// Gateways of its default routes, and its name servers on the same link.
    pub neighbours: BTreeSet<LanAddress>,
    /// Where its addresses and routes lead on interfaces other than the tunnel's;
    /// a default route is one to `0.0.0.0/0` or `::/0`.
    pub links: BTreeSet<Lan>,
    /// By which interface each address family leaves for everywhere else: that of the
    /// best default route.
    pub outer: BTreeSet<Lan>,
}

impl HostNetworks {
    /// A network of this host's own that has addresses of `net` too.
    pub fn meets(&self, net: &IpNet) -> Option<&Lan> {
        let links = self.links.iter().filter(|link| link.net.prefix_len() > 0);
        let mut met = links.filter(|link| link.net.contains(net) || net.contains(&link.net));
        met.next()
    }

    /// The interfaces that lead to `net`: what lies within it, and the narrowest
    /// that has all of it.
    pub fn leading_to(&self, net: &IpNet) -> BTreeSet<Lan> {
        let has_all = |link: &&Lan| link.net.contains(net);
        let covering = self.links.iter().filter(has_all);
        let longest = covering.clone().map(|link| link.net.prefix_len()).max();
        let within: BTreeSet<&Interface> = self
            .links
            .iter()
            .filter(|link| net.contains(&link.net))
            .map(|link| &link.interface)
            .collect();
        let is_narrowest = |link: &&Lan| {
            Some(link.net.prefix_len()) == longest && (longest > Some(0) || within.is_empty())
        };
        let covering = covering.filter(is_narrowest).map(|link| &link.interface);
        let all = within.iter().copied().chain(covering);
        all.map(|interface| Lan {
            interface: interface.clone(),
            net: *net,
        })
        .collect()
    }
}
