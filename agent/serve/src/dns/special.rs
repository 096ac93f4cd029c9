//! Names with a meaning of their own, which no upstream should be asked for.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{Ipv4Addr, Ipv6Addr};

use innermesh_proto::zone::{DomainName, Rdata, Record, RecordType, Soa};

/// What is said to a special name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Special {
    Record(Rdata),
    /// It exists, without data of this type. The SOA goes with it.
    NoData(Record),
    /// The SOA goes with it.
    NxDomain(Record),
}

/// Seconds for which it may be kept that a special name isn't there. Not the hours
/// of RFC 6303 §3: a rule may come that has names below `.local` forwarded.
const NEGATIVE_TTL_S: u32 = 300;

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
    let above = |domain: &[&[u8]]| {
        DomainName::from_labels(domain.iter().copied()).filter(|domain| name.is_within(domain))
    };
    // RFC 6761 §6.3.
    if let Some(localhost) = above(&[b"localhost"]) {
        return Some(match rtype {
            RecordType::A => Special::Record(Rdata::A(Ipv4Addr::LOCALHOST)),
            RecordType::AAAA => Special::Record(Rdata::Aaaa(Ipv6Addr::LOCALHOST)),
            _ => Special::NoData(soa(localhost)),
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
            // IPv6's is a zone of its own (RFC 6303 §4.3).
            _ => Special::NoData(soa(
                above(&[b"127", b"in-addr", b"arpa"]).unwrap_or_else(|| name.clone())
            )),
        });
    }
    // A forwarder must not pass on the designation of other resolvers: clients
    // would turn to those, past the mesh's names (RFC 9462 §6.4).
    if let Some(resolver) = above(&[b"resolver", b"arpa"]) {
        return Some(Special::NoData(soa(resolver)));
    }
    let nowhere = NOWHERE.iter().find_map(|domain| above(domain))?;
    Some(Special::NxDomain(soa(nowhere)))
}

/// The SOA of a zone that is empty here (RFC 6303 §3): without one nobody knows
/// for how long to keep that there is nothing (RFC 2308 §5).
fn soa(domain: DomainName) -> Record {
    let below = |label: &[u8]| domain.child(label).unwrap_or_else(|| domain.clone());
    Record {
        ttl_s: NEGATIVE_TTL_S,
        data: Rdata::Soa(Soa {
            primary: domain.clone(),
            mailbox: below(b"nobody"),
            serial: 1,
            refresh_s: 3600,
            retry_s: 1200,
            expire_s: 604_800,
            minimum_s: NEGATIVE_TTL_S,
        }),
        name: domain,
    }
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
        assert_eq!(
            ask("x.localhost", RecordType::TXT),
            Some(Special::NoData(soa("localhost".parse().unwrap())))
        );
        assert!(matches!(
            ask("1.0.0.127.in-addr.arpa", RecordType::PTR),
            Some(Special::Record(_))
        ));
        assert_eq!(
            ask("2.0.0.127.in-addr.arpa", RecordType::PTR),
            Some(Special::NxDomain(soa("127.in-addr.arpa".parse().unwrap())))
        );
    }

    #[test]
    fn names_for_other_ways_of_looking_up_do_not_exist_here() {
        for (name, zone) in [
            ("printer.local", "local"),
            ("local", "local"),
            ("abc.onion", "onion"),
            ("x.invalid", "invalid"),
            ("x.alt", "alt"),
            ("use-application-dns.net", "use-application-dns.net"),
        ] {
            let missing = Special::NxDomain(soa(zone.parse().unwrap()));
            assert_eq!(ask(name, RecordType::A), Some(missing), "{name}");
        }
        assert_eq!(
            ask("_dns.resolver.arpa", RecordType::SVCB),
            Some(Special::NoData(soa("resolver.arpa".parse().unwrap())))
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
