//! Names with a meaning of their own, which no upstream should be asked for.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{Ipv4Addr, Ipv6Addr};

use innermesh_proto::zone::{DomainName, Rdata, RecordType};

/// What is said to a special name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Special {
    Record(Rdata),
    /// It exists, without data of this type.
    NoData,
    NxDomain,
}

/// Domains in which nothing may be looked up by unicast DNS, or nothing exists.
const NOWHERE: [&[&[u8]]; 7] = [
    // Multicast DNS (RFC 6762 §22.1).
    &[b"local"],
    // RFC 6761 §6.4.
    &[b"invalid"],
    // Asking for one tells others who is visited (RFC 7686 §2).
    &[b"onion"],
    // RFC 9476 §3.
    &[b"alt"],
    // Firefox asks for it, and stays with this resolver when it isn't there:
    // <https://support.mozilla.org/kb/canary-domain-use-application-dnsnet>.
    &[b"use-application-dns", b"net"],
    // Loopback and link-local addresses have no names (RFC 6303 §4).
    &[b"127", b"in-addr", b"arpa"],
    &[b"254", b"169", b"in-addr", b"arpa"],
];

/// The rule for a name, if there is one.
pub(super) fn special(name: &DomainName, rtype: RecordType) -> Option<Special> {
    let is_or_below = |domain: &[&[u8]]| {
        DomainName::from_labels(domain.iter().copied())
            .is_some_and(|domain| name.is_within(&domain))
    };
    // RFC 6761 §6.3.
    if is_or_below(&[b"localhost"]) {
        return Some(match rtype {
            RecordType::A => Special::Record(Rdata::A(Ipv4Addr::LOCALHOST)),
            RecordType::AAAA => Special::Record(Rdata::Aaaa(Ipv6Addr::LOCALHOST)),
            _ => Special::NoData,
        });
    }
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if loopback
        .into_iter()
        .any(|address| *name == DomainName::reverse(address))
    {
        let localhost = DomainName::from_labels([b"localhost".as_slice()])?;
        return Some(match rtype {
            RecordType::PTR => Special::Record(Rdata::Ptr(localhost)),
            _ => Special::NoData,
        });
    }
    // A forwarder must not pass on the designation of other resolvers: clients
    // would turn to those, past the mesh's names (RFC 9462 §6.4).
    if is_or_below(&[b"resolver", b"arpa"]) {
        return Some(Special::NoData);
    }
    NOWHERE
        .iter()
        .any(|domain| is_or_below(domain))
        .then_some(Special::NxDomain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, rtype: RecordType) -> Option<Special> {
        special(&name.parse().unwrap(), rtype)
    }

    #[test]
    fn localhost_is_this_host() {
        assert_eq!(
            ask("localhost", RecordType::A),
            Some(Special::Record(Rdata::A(Ipv4Addr::LOCALHOST)))
        );
        assert_eq!(ask("x.localhost", RecordType::TXT), Some(Special::NoData));
        assert!(matches!(
            ask("1.0.0.127.in-addr.arpa", RecordType::PTR),
            Some(Special::Record(_))
        ));
        assert_eq!(
            ask("2.0.0.127.in-addr.arpa", RecordType::PTR),
            Some(Special::NxDomain)
        );
    }

    #[test]
    fn names_for_other_ways_of_looking_up_do_not_exist_here() {
        for name in [
            "printer.local",
            "local",
            "abc.onion",
            "x.invalid",
            "x.alt",
            "use-application-dns.net",
        ] {
            assert_eq!(ask(name, RecordType::A), Some(Special::NxDomain), "{name}");
        }
        assert_eq!(
            ask("_dns.resolver.arpa", RecordType(64)),
            Some(Special::NoData)
        );
    }

    #[test]
    fn names_of_the_lan_and_of_the_world_are_forwarded() {
        for name in [
            "example.org",
            "nas.lan",
            "nas.internal",
            "x.test",
            "1.1.168.192.in-addr.arpa",
            "notlocal",
            ".",
        ] {
            assert_eq!(ask(name, RecordType::A), None, "{name}");
        }
    }
}
