//! The types of resource records, by number and by name.

use std::{fmt, str::FromStr};

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
    /// The digest of an SSH host key (RFC 4255).
    pub const SSHFP: Self = Self(44);
    /// What a TLS server must show (RFC 6698).
    pub const TLSA: Self = Self(52);
    /// How a service is reached (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// As SVCB, of web sites (RFC 9460).
    pub const HTTPS: Self = Self(65);
    /// All types, as a question.
    pub const ANY: Self = Self(255);
    /// Who may issue certificates (RFC 8659).
    pub const CAA: Self = Self(257);

    /// Whether it is one of the few that this program has a name for.
    pub fn has_name(self) -> bool {
        TYPE_NAMES.iter().any(|(rtype, _)| *rtype == self)
    }
}

const TYPE_NAMES: [(RecordType, &str); 19] = [
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
    (RecordType::SSHFP, "SSHFP"),
    (RecordType(46), "RRSIG"),
    (RecordType(48), "DNSKEY"),
    (RecordType::TLSA, "TLSA"),
    (RecordType::SVCB, "SVCB"),
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
