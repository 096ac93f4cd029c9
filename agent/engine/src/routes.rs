//! Which peer an address belongs to: the longest network that holds it (cryptokey
//! routing, whitepaper §2). A network belongs to one peer.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// The place of a peer among the peers.
pub(crate) type Place = usize;

#[derive(Default)]
pub(crate) struct Routes {
    v4: PrefixMap<Ipv4Net, Place>,
    v6: PrefixMap<Ipv6Net, Place>,
}

impl Routes {
    /// Gives a network to a peer; whose it was until now.
    pub(crate) fn give(&mut self, net: IpNet, to: Place) -> Option<Place> {
        match net {
            IpNet::V4(net) => self.v4.insert(net.trunc(), to),
            IpNet::V6(net) => self.v6.insert(net.trunc(), to),
        }
    }

    /// Takes a network away, where it is this peer's.
    pub(crate) fn take(&mut self, net: IpNet, from: Place) {
        match net {
            IpNet::V4(net) => {
                let net = net.trunc();
                if self.v4.get(&net) == Some(&from) {
                    self.v4.remove(&net);
                }
            }
            IpNet::V6(net) => {
                let net = net.trunc();
                if self.v6.get(&net) == Some(&from) {
                    self.v6.remove(&net);
                }
            }
        }
    }

    pub(crate) fn of(&self, address: IpAddr) -> Option<Place> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, to)| *to),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, to)| *to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_network_has_the_address_and_only_its_owner_can_lose_it() {
        let mut routes = Routes::default();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let of = |routes: &Routes, text: &str| routes.of(text.parse().unwrap());
        assert_eq!(routes.give(net("10.0.0.0/8"), 1), None);
        assert_eq!(routes.give(net("10.1.0.0/16"), 2), None);
        assert_eq!(routes.give(net("fd00::/8"), 3), None);
        assert_eq!(routes.give(net("10.1.0.9/16"), 4), Some(2));
        assert_eq!(of(&routes, "10.1.2.3"), Some(4));
        assert_eq!(of(&routes, "10.2.2.3"), Some(1));
        assert_eq!(of(&routes, "fd01::1"), Some(3));
        assert_eq!(of(&routes, "11.0.0.1"), None);
        routes.take(net("10.1.0.0/16"), 2);
        assert_eq!(of(&routes, "10.1.2.3"), Some(4));
        routes.take(net("10.1.0.0/16"), 4);
        assert_eq!(of(&routes, "10.1.2.3"), Some(1));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_no_ipv4_address() {
        let mut routes = Routes::default();
        routes.give("10.0.0.0/8".parse().unwrap(), 1);
        assert_eq!(routes.of("::ffff:10.0.0.1".parse().unwrap()), None);
    }
}
