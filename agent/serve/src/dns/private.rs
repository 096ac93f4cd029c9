//! Which addresses of an upstream answer lead inside: to the mesh, or, where a
//! member's alias leads out, to the network that the client is in. A web page
//! could read what is there under its own name (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_server::proto::rr::{
    RData, Record,
    rdata::{
        A, AAAA,
        svcb::{IpHint, SVCB, SvcParamValue},
    },
};

/// Whether a record leads a client to an address that `inside` says is one.
pub(super) fn leads(record: &Record, inside: &impl Fn(IpAddr) -> bool) -> bool {
    match &record.data {
        RData::A(A(address)) => is(*address, inside),
        RData::AAAA(AAAA(address)) => is(*address, inside),
        RData::HTTPS(https) => hints(&https.0, inside),
        RData::SVCB(svcb) => hints(svcb, inside),
        _ => false,
    }
}

fn hints(svcb: &SVCB, inside: &impl Fn(IpAddr) -> bool) -> bool {
    svcb.svc_params.iter().any(|(_, value)| match value {
        SvcParamValue::Ipv4Hint(IpHint(all)) => all.iter().any(|A(a)| is(*a, inside)),
        SvcParamValue::Ipv6Hint(IpHint(all)) => all.iter().any(|AAAA(a)| is(*a, inside)),
        _ => false,
    })
}

fn is(address: impl Into<IpAddr>, inside: &impl Fn(IpAddr) -> bool) -> bool {
    let address = address.into();
    let embedded = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded_ipv4(v6),
    };
    inside(address) || embedded.is_some_and(inside)
}

/// Whether an address is of a local network, this machine or nobody
/// (RFC 6890), and so means another machine to each who asks.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 0
                || v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4 == Ipv4Addr::BROADCAST
                // Shared address space (RFC 6598).
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                // Site-local (RFC 3879).
                || first & 0xffc0 == 0xfec0
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped or compatible
/// (RFC 4291 §2.5.5), or by NAT64's well-known prefix (RFC 6052 §2.1).
fn embedded_ipv4(address: Ipv6Addr) -> Option<IpAddr> {
    const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
    if let Some(v4) = address.to_ipv4() {
        return Some(v4.into());
    }
    let bits = u128::from(address);
    (address.segments()[..6] == NAT64)
        .then(|| IpAddr::from(((bits & 0xffff_ffff) as u32).to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_hides_in_ipv6_in_known_ways() {
        let v4: IpAddr = "10.77.0.1".parse().unwrap();
        for disguise in ["::ffff:10.77.0.1", "::10.77.0.1", "64:ff9b::10.77.0.1"] {
            assert_eq!(
                embedded_ipv4(disguise.parse().unwrap()),
                Some(v4),
                "{disguise}"
            );
        }
        assert_eq!(embedded_ipv4("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn addresses_of_local_networks_are_known_also_in_disguise() {
        for address in [
            "192.168.1.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "169.254.169.254",
            "127.0.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "fd12::1",
            "fe80::1",
            "::ffff:192.168.1.9",
            "64:ff9b::192.168.1.9",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(is(address, &is_private), "{address}");
        }
        for address in [
            "192.0.2.1",
            "172.32.0.1",
            "100.128.0.1",
            "8.8.8.8",
            "2001:db8::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(!is(address, &is_private), "{address}");
        }
    }
}
