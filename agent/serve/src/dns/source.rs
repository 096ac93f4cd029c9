//! Who asks: the view that a client gets follows from the true source address
//! of its query and from nothing else, whichever of our addresses it reached.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

/// What a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The mesh's names, and recursion for the rest.
    Internal,
    /// As that, with the addresses that names have in its LAN.
    Lan,
    /// Nothing: every question is refused.
    Stranger,
}

/// Tells what a client may see by its address.
pub trait SourcePolicy: Send + Sync {
    /// The class of a source. IPv4 addresses come as such, never mapped into IPv6.
    fn class(&self, source: IpAddr) -> Source;
}

impl<F: Fn(IpAddr) -> Source + Send + Sync> SourcePolicy for F {
    fn class(&self, source: IpAddr) -> Source {
        self(source)
    }
}

/// Whom an agent takes as what: this host and the valid members are internal, and LANs
/// that the user named get what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberSources {
    /// The host's own addresses; loopback needn't be listed.
    pub own: BTreeSet<IpAddr>,
    /// Overlay addresses of valid, unrevoked members and of their devices.
    pub members: BTreeSet<IpAddr>,
    /// Networks on this host that the user trusts as the host itself, such as
    /// a container bridge.
    pub local: Vec<IpNet>,
    /// Networks beside the mesh whose hosts may ask.
    pub lan: Vec<IpNet>,
    /// The mesh's networks: who has an address there and isn't listed is nobody.
    pub overlay: Vec<IpNet>,
}

/// The same as ranges of addresses, in order: searches in them tell what a client may
/// see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceTable {
    internal: Ranges,
    lan: Ranges,
    overlay: Ranges,
}

impl From<&MemberSources> for SourceTable {
    fn from(sources: &MemberSources) -> Self {
        let hosts = sources.own.iter().chain(&sources.members);
        let nets = hosts.map(|host| IpNet::from(*host));
        Self {
            internal: nets.chain(sources.local.iter().copied()).collect(),
            lan: sources.lan.iter().copied().collect(),
            overlay: sources.overlay.iter().copied().collect(),
        }
    }
}

impl SourcePolicy for SourceTable {
    fn class(&self, source: IpAddr) -> Source {
        if source.is_loopback() || self.internal.has(source) {
            Source::Internal
        } else if self.lan.has(source) && !self.overlay.has(source) {
            Source::Lan
        } else {
            Source::Stranger
        }
    }
}

/// Whom an address counts for: a host has as many addresses of its /64 as it likes.
pub(super) fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl FromIterator<IpNet> for Ranges {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let mut ranges = Self::default();
        for net in nets {
            match net {
                IpNet::V4(net) => {
                    let (first, last) = (net.network(), net.broadcast());
                    ranges.v4.push((first.into(), last.into()));
                }
                IpNet::V6(net) => {
                    let (first, last) = (net.network(), net.broadcast());
                    ranges.v6.push((first.into(), last.into()));
                }
            }
        }
        merge(&mut ranges.v4);
        merge(&mut ranges.v6);
        ranges
    }
}

impl Ranges {
    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => has(&self.v4, v4.into()),
            IpAddr::V6(v6) => has(&self.v6, v6.into()),
        }
    }
}

/// Puts ranges in order, each address in one at most.
fn merge<T: Copy + Ord>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let overlaps = next.0 <= before.1;
        if overlaps {
            before.1 = before.1.max(next.1);
        }
        overlaps
    });
}

fn has<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let end = ranges.partition_point(|(first, _)| *first <= address);
    let range = end.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_members_are_internal_lans_that_are_named_are_lans_and_all_others_strangers() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let sources = MemberSources {
            own: [ip("192.0.2.1")].into(),
            members: [ip("10.77.0.2"), ip("fd00::2")].into(),
            local: [
                "172.17.0.0/16",
                "172.17.3.0/24",
                "fd00:5::/64",
                "198.51.100.0/31",
            ]
            .map(|net| net.parse().unwrap())
            .into(),
            lan: vec![
                "192.168.1.0/24".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ],
            overlay: vec!["10.77.0.0/16".parse().unwrap()],
        };
        let sources = SourceTable::from(&sources);
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "192.0.2.1",
            "10.77.0.2",
            "fd00::2",
            "172.17.0.9",
            "172.17.255.255",
            "fd00:5::9",
            "198.51.100.1",
        ] {
            assert_eq!(sources.class(ip(inside)), Source::Internal, "{inside}");
        }
        // An overlay address that is no member's is a stranger's too.
        for outside in [
            "192.0.2.2",
            "10.77.0.3",
            "fd00::3",
            "0.0.0.0",
            "172.18.0.0",
            "172.16.255.255",
            "198.51.100.2",
            "fd00:5:0:1::",
            // Addresses come as such, never mapped.
            "::ffff:192.0.2.1",
            "255.255.255.255",
        ] {
            assert_eq!(sources.class(ip(outside)), Source::Stranger, "{outside}");
        }
        for beside in ["192.168.1.9", "10.3.3.3"] {
            assert_eq!(sources.class(ip(beside)), Source::Lan, "{beside}");
        }
    }
}
