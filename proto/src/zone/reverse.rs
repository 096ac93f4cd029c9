//! Places in the reverse tree: an address, or the first bits of one, written as
//! labels below `in-addr.arpa` (RFC 1035 §3.5) or `ip6.arpa` (RFC 3596 §2.5).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use super::name::DomainName;

/// The first bits of an address.
pub(super) struct ReversePrefix {
    first: IpAddr,
    last: IpAddr,
}

impl ReversePrefix {
    /// The place that a name is; `None` when it is none.
    pub(super) fn of(name: &DomainName) -> Option<Self> {
        let mut labels: Vec<&[u8]> = name.labels().collect();
        if labels.pop()? != b"arpa" {
            return None;
        }
        match labels.pop()? {
            b"in-addr" => Self::v4(&labels),
            b"ip6" => Self::v6(&labels),
            _ => None,
        }
    }

    fn v4(labels: &[&[u8]]) -> Option<Self> {
        let unused = 4usize.checked_sub(labels.len())?;
        let mut bits = 0;
        for label in labels.iter().rev() {
            let text = std::str::from_utf8(label).ok()?;
            let octet: u8 = text.parse().ok()?;
            // One name for each address: not "010", not "+10".
            if octet.to_string() != text {
                return None;
            }
            bits = bits << 8 | u32::from(octet);
        }
        let shift = 8 * unused as u32;
        let first = bits.checked_shl(shift).unwrap_or(0);
        let span = u32::MAX.checked_shr(32 - shift).unwrap_or(0);
        Some(Self {
            first: Ipv4Addr::from(first).into(),
            last: Ipv4Addr::from(first | span).into(),
        })
    }

    fn v6(labels: &[&[u8]]) -> Option<Self> {
        let unused = 32usize.checked_sub(labels.len())?;
        let mut bits = 0;
        for label in labels.iter().rev() {
            let [digit] = **label else { return None };
            // Names are lower case.
            let nibble = char::from(digit).to_digit(16)?;
            bits = bits << 4 | u128::from(nibble);
        }
        let shift = 4 * unused as u32;
        let first = bits.checked_shl(shift).unwrap_or(0);
        let span = u128::MAX.checked_shr(128 - shift).unwrap_or(0);
        Some(Self {
            first: Ipv6Addr::from(first).into(),
            last: Ipv6Addr::from(first | span).into(),
        })
    }

    /// The addresses that begin with these bits.
    pub(super) fn addresses(&self) -> RangeInclusive<IpAddr> {
        self.first..=self.last
    }

    /// Whether all bits are given.
    pub(super) fn is_whole(&self) -> bool {
        self.first == self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str) -> Option<String> {
        let place = ReversePrefix::of(&name.parse().unwrap())?;
        Some(format!("{}-{}", place.first, place.last))
    }

    #[test]
    fn every_place_stands_for_the_addresses_below_it() {
        let of = |name: &str| range(name).unwrap();
        assert_eq!(of("1.2.0.10.in-addr.arpa"), "10.0.2.1-10.0.2.1");
        assert_eq!(of("2.0.10.in-addr.arpa"), "10.0.2.0-10.0.2.255");
        assert_eq!(of("in-addr.arpa"), "0.0.0.0-255.255.255.255");
        assert_eq!(
            of("8.b.d.F.ip6.arpa"),
            "fdb8::-fdb8:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        assert_eq!(of("ip6.arpa"), "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        for ip in ["10.77.0.53", "2001:db8::1f"] {
            let name = DomainName::reverse(ip.parse().unwrap()).to_string();
            assert_eq!(of(&name), format!("{ip}-{ip}"));
        }
    }

    #[test]
    fn other_names_are_no_places() {
        for no in [
            "home.arpa",
            "arpa",
            "1.1.2.0.10.in-addr.arpa",
            "010.in-addr.arpa",
            "256.in-addr.arpa",
            "x.10.in-addr.arpa",
            "g.f.ip6.arpa",
            "10.f.ip6.arpa",
            "a.lab.internal",
        ] {
            assert_eq!(range(no), None, "{no}");
        }
    }
}
