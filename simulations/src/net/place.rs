//! Which host is meant, and where the hosts of a world are.

use std::net::{IpAddr, Ipv6Addr};

/// The first port that is given to a socket that asked for any.
pub(super) const EPHEMERAL: u16 = 49152;

/// A host's number in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub(super) usize);

/// Where a host of a world is, by its number.
pub fn address(number: u32) -> IpAddr {
    // The documentation's prefix (RFC 3849).
    let host = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    IpAddr::V6(Ipv6Addr::from(u128::from(host) + u128::from(number)))
}

/// Another address for the host that has `home`, its `number`th.
pub fn elsewhere(home: IpAddr, number: u32) -> IpAddr {
    let IpAddr::V6(home) = home else { return home };
    let mut segments = home.segments();
    segments[2] = number as u16;
    segments[3] = (number >> 16) as u16;
    IpAddr::V6(segments.into())
}
