//! Ways to the internet: what an exit forwards there, and what keeps a host that
//! uses one from sending there by itself.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{
    host::{HostNetworks, Interface, Lan},
    ranges,
};
use crate::limits;

/// What carries it goes by this host's own routes, also where an exit is in use: the
/// tunnel's and QUIC's own packets, the agent's questions to name servers, and
/// answers to whoever has come in by another interface. One bit of the mark, of which
/// others' masks rarely make use.
pub const MARK: u32 = 0x2000_0000;

/// Addresses that mean something else than a host on the internet, or nothing (RFC
/// 6890). Of IPv6 all but 2000::/3, which is what has been given out (RFC 4291).
const ELSEWHERE: [&str; 14] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    // Multicast, and what is reserved.
    "224.0.0.0/3",
    "::/3",
    "4000::/2",
    "8000::/2",
    "c000::/2",
];

/// What a node with the role `exit` forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFilter {
    /// Where its default routes lead, one for each address family that has one.
    #[serde(default)]
    pub outer: BTreeSet<Lan>,
    /// Networks of this host's own: nobody is let into those.
    #[serde(default)]
    pub own_networks: BTreeSet<IpNet>,
}

/// What of this host's own LANs is reached while it uses an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LanAccess {
    /// Private addresses that its routes lead to.
    #[default]
    Keep,
    /// Nothing.
    Cut,
}

/// Has this host send to the internet by an exit and in no other way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThroughExit {
    pub lan: LanAccess,
    /// Interfaces that lead elsewhere than to containers. What comes in by them is
    /// answered by this host's own routes, and so is what others send through it.
    #[serde(default)]
    pub beside: BTreeSet<Interface>,
}

impl ExitFilter {
    pub(crate) fn new(host: &HostNetworks) -> Self {
        let own = host.own_networks.iter().copied();
        Self {
            outer: host.outer.clone(),
            own_networks: own.take(limits::HOST_ROUTES).collect(),
        }
    }

    /// Where an address family leaves.
    pub fn outer(&self, v4: bool) -> Option<&Interface> {
        let mut outer = self.outer.iter();
        let of_family = outer.find(|lan| lan.net.addr().is_ipv4() == v4);
        of_family.map(|lan| &lan.interface)
    }

    /// Whether what was read from a file keeps every bound.
    pub(super) fn is_bounded(&self) -> bool {
        self.outer.len() <= 2 && self.own_networks.len() <= limits::HOST_ROUTES
    }
}

impl ThroughExit {
    /// Beside container bridges each interface with an address of the host's.
    pub fn new(lan: LanAccess, host: &HostNetworks) -> Self {
        let is_bridge = |name: &Interface| host.containers.iter().any(|it| it.bridge == *name);
        let is_link_local = |ip: IpAddr| match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let own = host.own.iter().filter(|own| !is_link_local(own.address));
        let names = own.map(|own| &own.interface);
        let names = names.chain(host.outer.iter().map(|outer| &outer.interface));
        Self {
            lan,
            beside: names
                .filter(|name| !is_bridge(name))
                .take(limits::LAN_EXCEPTIONS)
                .cloned()
                .collect(),
        }
    }

    /// Whether what was read from a file keeps every bound.
    pub(super) fn is_bounded(&self) -> bool {
        self.beside.len() <= limits::LAN_EXCEPTIONS
    }
}

/// Networks that are no part of the internet, wherever one is.
pub fn elsewhere() -> BTreeSet<IpNet> {
    ELSEWHERE
        .iter()
        .filter_map(|net| net.parse().ok())
        .collect()
}

/// The internet, but for `without`.
pub fn internet(without: impl IntoIterator<Item = IpNet>) -> BTreeSet<IpNet> {
    ranges::outside(&elsewhere().into_iter().chain(without).collect())
}

/// A default route's network.
pub(super) fn everything(v4: bool) -> IpNet {
    if v4 {
        Ipv4Net::default().into()
    } else {
        Ipv6Net::default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::host::{Containers, LanAddress};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_internet_is_what_has_been_given_out_and_is_nobodys_own() {
        let all = internet([net("203.0.113.0/24")]);
        let within = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            all.iter().any(|net| net.contains(&ip))
        };
        for ip in [
            "1.1.1.1",
            "9.9.9.9",
            "223.255.255.255",
            "172.32.0.1",
            "2606:4700::1111",
        ] {
            assert!(within(ip), "{ip}");
        }
        for ip in [
            "0.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "203.0.113.7",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!within(ip), "{ip}");
        }
        assert_eq!(elsewhere().len(), ELSEWHERE.len(), "each can be read");
        // Each is an allowed address of the exit's peer.
        assert!(all.len() < 100, "{}", all.len());
    }

    #[test]
    fn interfaces_of_containers_are_none_that_others_come_in_by() {
        let interface = |name: &str| Interface::try_from(name.to_owned()).unwrap();
        let own = |name: &str, address: &str| LanAddress {
            interface: interface(name),
            address: address.parse().unwrap(),
        };
        let host = HostNetworks {
            own: [
                own("eth0", "192.168.1.7"),
                own("docker0", "172.17.0.1"),
                own("veth1", "fe80::7"),
            ]
            .into(),
            containers: [Containers {
                bridge: interface("docker0"),
                subnet: net("172.17.0.0/16"),
            }]
            .into(),
            outer: [Lan {
                interface: interface("ppp0"),
                net: net("0.0.0.0/0"),
            }]
            .into(),
            ..HostNetworks::default()
        };
        let through = ThroughExit::new(LanAccess::Keep, &host);
        let names: Vec<&str> = through.beside.iter().map(Interface::as_str).collect();
        assert_eq!(names, ["eth0", "ppp0"]);
    }
}
