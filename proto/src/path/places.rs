//! Where a node's tunnel may be found, as it says itself and as others see it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{crypto::Hash, endpoint::is_public, id::NodeId, limits};

/// What a node announces of its tunnel's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Where its tunnel may be reached: configured, its own addresses, and what others
    /// see its packets come from; at most [`limits::CANDIDATES`].
    pub candidates: Vec<SocketAddr>,
    /// The relay that it is connected with.
    pub relay: Option<NodeId>,
}

/// How a peer of the tunnel may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who it is.
    pub node: NodeId,
    /// Where it may be, the likeliest first.
    pub candidates: Vec<SocketAddr>,
    /// The relay that it says it is connected with.
    pub relay: Option<NodeId>,
}

/// How good a way is; the less the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Within one network.
    Local,
    /// Over the internet.
    Direct,
    /// By another node.
    Relayed,
}

/// Of a way that goes straight to an address.
pub fn tier(address: &SocketAddr) -> Tier {
    if is_public(address.ip()) {
        Tier::Direct
    } else {
        Tier::Local
    }
}

/// Which relay a node is to be connected with: the one of most weight by a hash of both
/// (rendezvous hashing: Thaler and Ravishankar 1998), so that members spread over all
/// relays, and few change where one comes or goes.
pub fn relay_of(node: &NodeId, relays: impl Iterator<Item = NodeId>) -> Option<NodeId> {
    relays.max_by_key(|relay| Hash::of(&[node.0, relay.0].concat()))
}

impl Places {
    /// Without what is too much, doubled, or no address of a host.
    pub fn bounded(mut self) -> Self {
        let mut kept: Vec<SocketAddr> = Vec::new();
        for candidate in self.candidates {
            let candidate = SocketAddr::new(candidate.ip().to_canonical(), candidate.port());
            if kept.len() < limits::CANDIDATES && !kept.contains(&candidate) && is_one(&candidate) {
                kept.push(candidate);
            }
        }
        self.candidates = kept;
        self
    }
}

fn is_one(address: &SocketAddr) -> bool {
    let is_host = match address.ip() {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_unspecified() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    };
    is_host && address.port() != 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_announced_is_bounded_and_may_be_a_hosts() {
        let all = [
            "192.0.2.1:51820",
            "[::ffff:192.0.2.1]:51820",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "192.0.2.2:0",
            "[fe80::1]:1",
            "10.0.0.1:7",
        ];
        let all = all.iter().map(|address| address.parse().unwrap());
        let more = (1..100).map(|n| SocketAddr::from(([198, 51, 100, n], 9)));
        let places = Places {
            candidates: all.chain(more).collect(),
            relay: None,
        };
        let kept = places.bounded().candidates;
        assert_eq!(kept.len(), limits::CANDIDATES);
        let first = ["192.0.2.1:51820", "10.0.0.1:7"];
        assert_eq!(kept[..2], first.map(|address| address.parse().unwrap()));
    }

    #[test]
    fn nodes_spread_over_relays_and_stay_where_another_goes() {
        let id = |n: u8| NodeId([n; 16]);
        let relays = || [201, 202, 203].map(id).into_iter();
        let mut with: BTreeMap<NodeId, usize> = BTreeMap::new();
        for node in (0..200).map(id) {
            let relay = relay_of(&node, relays()).unwrap();
            *with.entry(relay).or_default() += 1;
            let fewer = relays().filter(|other| *other != id(203));
            if relay != id(203) {
                assert_eq!(relay_of(&node, fewer), Some(relay));
            }
        }
        assert!(
            with.values().all(|count| (40..100).contains(count)),
            "{with:?}"
        );
        assert_eq!(relay_of(&id(1), std::iter::empty()), None);
    }
}
