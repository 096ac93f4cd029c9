//! Which announced addresses are worth a packet: a member may announce what it
//! likes, also what is somebody else's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::ledger::State;

/// The overlay's own ranges, in which no peer is below the overlay.
pub fn overlay(state: &State) -> [IpNet; 2] {
    [IpNet::V4(state.ipv4), IpNet::V6(state.mesh.ula())]
}

/// Whether a peer can be at this address at all: a unicast address outside of
/// the overlay, and one of this host only where `loopback` says that this node
/// itself is found there.
pub fn is_plausible(address: &SocketAddr, overlay: &[IpNet], loopback: bool) -> bool {
    let ip = address.ip().to_canonical();
    let is_special = match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
    };
    address.port() != 0
        && !is_special
        && (loopback || !ip.is_loopback())
        && !overlay.iter().any(|net| net.contains(&ip))
}

/// The address that stands for a lane: of a range that no host has (RFC 1112 §4), so that
/// QUIC takes it for a peer's and nothing is ever sent to it.
pub fn of_lane(number: u32) -> SocketAddr {
    let ip = Ipv4Addr::from_bits(u32::from(LANES) << 24 | number & LANE_NUMBERS);
    SocketAddr::new(ip.into(), LANE_PORT)
}

/// Which lane an address stands for, mapped into IPv6 or not.
pub fn lane_number(address: &SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = address.ip().to_canonical() else {
        return None;
    };
    let [first, ..] = ip.octets();
    let is_lane = first & 0xf8 == LANES && address.port() == LANE_PORT;
    is_lane.then(|| ip.to_bits() & LANE_NUMBERS)
}

/// Whether an address stands for a lane.
pub fn is_lane(address: &SocketAddr) -> bool {
    lane_number(address).is_some()
}

/// The first octet of 240.0.0.0/5.
const LANES: u8 = 240;
const LANE_NUMBERS: u32 = (1 << 27) - 1;
const LANE_PORT: u16 = 1;

/// Whether everybody reaches an address who reaches the internet: no private, shared
/// or local one (RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291).
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_local = ip.is_private() || ip.is_link_local() || ip.is_loopback() || is_shared;
            !is_local && first != 0 && first < 224
        }
        IpAddr::V6(ip) => {
            let is_local = ip.is_unique_local() || ip.is_unicast_link_local();
            !is_local && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_lanes_are_told_from_all_others_and_from_each_other() {
        for number in [0, 1, LANE_NUMBERS] {
            let at = of_lane(number);
            let IpAddr::V4(ip) = at.ip() else { panic!() };
            let mapped = SocketAddr::new(ip.to_ipv6_mapped().into(), at.port());
            assert_eq!(
                [lane_number(&at), lane_number(&mapped)],
                [Some(number); 2],
                "{at}"
            );
            assert!(!is_plausible(&at, &[], true), "nobody announces it");
        }
        assert_eq!(of_lane(LANE_NUMBERS + 1), of_lane(0));
        for other in [
            "255.255.255.255:1",
            "239.0.0.1:1",
            "240.0.0.1:2",
            "[fd00::1]:1",
        ] {
            assert!(!is_lane(&other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn the_internet_reaches_public_addresses_and_no_others() {
        for (address, public) in [
            ("203.0.113.7", true),
            ("2001:db8::7", true),
            ("100.128.0.1", true),
            ("192.168.1.1", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn nobody_is_at_addresses_of_groups_of_the_overlay_or_of_this_host() {
        let overlay = ["10.77.0.0/16", "fd12:3456:789a::/48"].map(|net| net.parse().unwrap());
        let may =
            |address: &str, loopback| is_plausible(&address.parse().unwrap(), &overlay, loopback);
        for fine in [
            "192.0.2.1:51819",
            "10.78.0.1:1",
            "[2001:db8::1]:51819",
            "[fd00::1]:9",
        ] {
            assert!(may(fine, false), "{fine}");
        }
        for bad in [
            "192.0.2.1:0",
            "0.0.0.0:51819",
            "224.0.0.251:5353",
            "255.255.255.255:9",
            "10.77.3.4:51819",
            "[::]:51819",
            "[ff02::fb]:5353",
            "[fe80::1]:51819",
            "[fd12:3456:789a::1]:51819",
            "[::ffff:10.77.0.1]:51819",
        ] {
            assert!(!may(bad, true), "{bad}");
        }
        for own in ["127.0.0.1:51819", "[::1]:51819"] {
            assert!(!may(own, false) && may(own, true), "{own}");
        }
    }
}
