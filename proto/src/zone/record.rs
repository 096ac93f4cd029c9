//! Resource records: those that the mesh's zone holds, and no others.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use super::{
    character_string::Quoted,
    digest::{Sshfp, Tlsa},
    name::DomainName,
    record_type::RecordType,
    svcb::Svcb,
};

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
    /// How a service is reached.
    Svcb(Svcb),
    /// How a web site is reached.
    Https(Svcb),
    /// The digest of an SSH host key.
    Sshfp(Sshfp),
    /// What a TLS server must show.
    Tlsa(Tlsa),
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
            Self::Svcb(_) => RecordType::SVCB,
            Self::Https(_) => RecordType::HTTPS,
            Self::Sshfp(_) => RecordType::SSHFP,
            Self::Tlsa(_) => RecordType::TLSA,
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
            Self::Svcb(svcb) | Self::Https(svcb) => svcb.fmt(f),
            Self::Sshfp(sshfp) => sshfp.fmt(f),
            Self::Tlsa(tlsa) => tlsa.fmt(f),
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
