//! Resource records: those that the mesh's zone holds, and no others.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::name::DomainName;

/// A record type by its number (RFC 1035 §3.2.2 and the IANA registry).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u16);

impl RecordType {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// A name server.
    pub const NS: Self = Self(2);
    /// Another name (RFC 1034 §3.6.2).
    pub const CNAME: Self = Self(5);
    /// Start of a zone of authority.
    pub const SOA: Self = Self(6);
    /// The name of an address.
    pub const PTR: Self = Self(12);
    /// Host information; here only the minimal answer to ANY (RFC 8482).
    pub const HINFO: Self = Self(13);
    /// A mail exchange.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// An IPv6 address (RFC 3596).
    pub const AAAA: Self = Self(28);
    /// The place of a service (RFC 2782).
    pub const SRV: Self = Self(33);
    /// Service binding for HTTPS (RFC 9460).
    pub const HTTPS: Self = Self(65);
    /// All types, as a question.
    pub const ANY: Self = Self(255);
    /// Who may issue certificates (RFC 8659).
    pub const CAA: Self = Self(257);
}

const TYPE_NAMES: [(RecordType, &str); 18] = [
    (RecordType::A, "A"),
    (RecordType::NS, "NS"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::SOA, "SOA"),
    (RecordType::PTR, "PTR"),
    (RecordType::HINFO, "HINFO"),
    (RecordType::MX, "MX"),
    (RecordType::TXT, "TXT"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::SRV, "SRV"),
    (RecordType(43), "DS"),
    (RecordType(46), "RRSIG"),
    (RecordType(48), "DNSKEY"),
    (RecordType(52), "TLSA"),
    (RecordType(64), "SVCB"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::ANY, "ANY"),
    (RecordType::CAA, "CAA"),
];

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TYPE_NAMES.iter().find(|(rtype, _)| rtype == self) {
            Some((_, name)) => f.write_str(name),
            // RFC 3597 §5.
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Not a record type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a record type: try A, AAAA, SRV, PTR, or TYPE and a number")]
pub struct RecordTypeError(String);

impl FromStr for RecordType {
    type Err = RecordTypeError;

    fn from_str(s: &str) -> Result<Self, RecordTypeError> {
        let upper = s.to_ascii_uppercase();
        let known = TYPE_NAMES.iter().find(|(_, name)| *name == upper);
        let number = || {
            upper
                .strip_prefix("TYPE")
                .and_then(|n| n.parse().ok())
                .map(Self)
        };
        known
            .map(|(rtype, _)| *rtype)
            .or_else(number)
            .ok_or_else(|| RecordTypeError(s.chars().take(80).collect()))
    }
}

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rdata {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A name server.
    Ns(DomainName),
    /// The name of an address.
    Ptr(DomainName),
    /// Another name for this one.
    Cname(DomainName),
    /// Strings of up to 255 octets.
    Txt(Vec<Vec<u8>>),
    /// Who takes mail.
    Mx(Mx),
    /// Who may issue certificates.
    Caa(Caa),
    /// Where a service is; of the mesh's own, priority and weight are 0.
    Srv(Srv),
    /// Start of authority.
    Soa(Soa),
    /// The minimal answer to ANY: CPU "RFC8482", no OS (RFC 8482 §4.2).
    Hinfo,
}

/// Where a service is (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Srv {
    /// Lower ones are tried first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    pub port: u16,
    /// The host that it runs on.
    pub target: DomainName,
}

impl fmt::Display for Srv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            priority,
            weight,
            port,
            target,
        } = self;
        write!(f, "{priority} {weight} {port} {target}")
    }
}

/// Who takes mail (RFC 1035 §3.3.9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mx {
    /// Lower ones are tried first.
    pub preference: u16,
    /// The host; the root for nobody (RFC 7505).
    pub exchange: DomainName,
}

impl fmt::Display for Mx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.preference, self.exchange)
    }
}

/// Who may issue certificates (RFC 8659).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Caa {
    /// 128 when who doesn't understand the tag must not issue.
    pub flags: u8,
    /// `issue`, `issuewild`, `iodef` and others.
    pub tag: String,
    /// What the tag says.
    pub value: Vec<u8>,
}

impl fmt::Display for Caa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} \"{}\"", self.flags, self.tag, Quoted(&self.value))
    }
}

impl Rdata {
    /// The record type that this is data of.
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Ns(_) => RecordType::NS,
            Self::Ptr(_) => RecordType::PTR,
            Self::Cname(_) => RecordType::CNAME,
            Self::Txt(_) => RecordType::TXT,
            Self::Mx(_) => RecordType::MX,
            Self::Caa(_) => RecordType::CAA,
            Self::Srv(_) => RecordType::SRV,
            Self::Soa(_) => RecordType::SOA,
            Self::Hinfo => RecordType::HINFO,
        }
    }

    /// An A or AAAA record's data.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::A(v4),
            IpAddr::V6(v6) => Self::Aaaa(v6),
        }
    }
}

impl fmt::Display for Rdata {
    /// As in a master file (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => write!(f, "{address}"),
            Self::Aaaa(address) => write!(f, "{address}"),
            Self::Ns(name) | Self::Ptr(name) | Self::Cname(name) => write!(f, "{name}"),
            Self::Txt(strings) => {
                for (number, string) in strings.iter().enumerate() {
                    let space = if number == 0 { "" } else { " " };
                    write!(f, "{space}\"{}\"", Quoted(string))?;
                }
                Ok(())
            }
            Self::Mx(mx) => mx.fmt(f),
            Self::Caa(caa) => caa.fmt(f),
            Self::Srv(srv) => srv.fmt(f),
            Self::Soa(soa) => write!(
                f,
                "{} {} {} {} {} {} {}",
                soa.primary,
                soa.mailbox,
                soa.serial,
                soa.refresh_s,
                soa.retry_s,
                soa.expire_s,
                soa.minimum_s
            ),
            Self::Hinfo => f.write_str("\"RFC8482\" \"\""),
        }
    }
}

/// A character string within quotes (RFC 1035 §5.1).
struct Quoted<'s>(&'s [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\{byte:03}")?,
            }
        }
        Ok(())
    }
}

/// Start of authority (RFC 1035 §3.3.13).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Soa {
    /// The primary name server.
    pub primary: DomainName,
    /// The mailbox of who is responsible, its `@` a dot.
    pub mailbox: DomainName,
    /// The zone's version, modulo 2^32 (RFC 1982).
    pub serial: u32,
    /// Seconds after which a secondary asks again.
    pub refresh_s: u32,
    /// Seconds after which it asks again when that failed.
    pub retry_s: u32,
    /// Seconds after which it stops answering.
    pub expire_s: u32,
    /// Seconds for which a negative answer may be kept (RFC 2308 §4).
    pub minimum_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner.
    pub name: DomainName,
    /// Seconds for which it may be kept.
    pub ttl_s: u32,
    /// What it says.
    pub data: Rdata,
}

impl fmt::Display for Record {
    /// One line of a master file (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} IN {} {}",
            self.name,
            self.ttl_s,
            self.data.record_type(),
            self.data
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_types_are_known_by_name_and_by_number() {
        for (rtype, name) in TYPE_NAMES {
            assert_eq!(name.parse(), Ok(rtype));
            assert_eq!(rtype.to_string(), name);
        }
        assert_eq!("type65280".parse(), Ok(RecordType(65280)));
        assert_eq!(RecordType(65280).to_string(), "TYPE65280");
        assert!("TYPE65536".parse::<RecordType>().is_err());
        assert!("nonsense".parse::<RecordType>().is_err());
    }
}
