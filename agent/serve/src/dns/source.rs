//! Who asks: the view that a client gets follows from the true source address
//! of its query and from nothing else, whichever of our addresses it reached.

use std::{collections::BTreeSet, net::IpAddr};

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

/// The policy of an agent: this host and the valid members are internal, and LANs that
/// the user named get what is in them.
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

impl SourcePolicy for MemberSources {
    fn class(&self, source: IpAddr) -> Source {
        let internal = source.is_loopback()
            || self.own.contains(&source)
            || self.members.contains(&source)
            || self.local.iter().any(|net| net.contains(&source));
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&source));
        if internal {
            Source::Internal
        } else if within(&self.lan) && !within(&self.overlay) {
            Source::Lan
        } else {
            Source::Stranger
        }
    }
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
            local: vec!["172.17.0.0/16".parse().unwrap()],
            lan: vec![
                "192.168.1.0/24".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ],
            overlay: vec!["10.77.0.0/16".parse().unwrap()],
        };
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "192.0.2.1",
            "10.77.0.2",
            "fd00::2",
            "172.17.0.9",
        ] {
            assert_eq!(sources.class(ip(inside)), Source::Internal, "{inside}");
        }
        // An overlay address that is no member's is a stranger's too.
        for outside in ["192.0.2.2", "10.77.0.3", "fd00::3", "0.0.0.0"] {
            assert_eq!(sources.class(ip(outside)), Source::Stranger, "{outside}");
        }
        for beside in ["192.168.1.9", "10.3.3.3"] {
            assert_eq!(sources.class(ip(beside)), Source::Lan, "{beside}");
        }
    }
}
