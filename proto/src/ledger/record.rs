//! DNS records that users add, as data: whatever is in the ledger can be
//! served as it is.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::record_form::{AddRecordForm, UserRecordForm};
use crate::{
    id::NodeId,
    limits,
    service_address::is_service_address,
    zone::{
        Caa, DigestError, DomainName, Mx, Rdata, RecordType, Srv, Sshfp, Svcb, SvcbError, Tlsa,
        words,
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AddRecordForm", into = "AddRecordForm")]
pub struct AddRecord {
    /// Its name, fully qualified: the mesh's domain or below it.
    pub name: DomainName,
    /// What it says.
    pub data: RecordData,
    /// Seconds for which it may be kept, where not [`crate::zone::TTL_S`]; from
    /// rules 3 on.
    pub ttl_s: Option<u32>,
    /// Whether it also belongs in the zone that strangers see.
    pub public: bool,
}

/// Takes all records of one name and type away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveRecords {
    pub name: DomainName,
    /// The type's number.
    pub rtype: u16,
}

/// Takes one record away; from rules 3 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveRecord {
    pub name: DomainName,
    /// What it says.
    pub data: RecordData,
}

/// A record in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "UserRecordForm", into = "UserRecordForm")]
pub struct UserRecord {
    /// What it says.
    pub data: RecordData,
    /// As [`AddRecord::ttl_s`].
    pub ttl_s: Option<u32>,
    /// Whether it also belongs in the zone that strangers see.
    pub public: bool,
    /// Who added it.
    pub owner: NodeId,
    /// Index of the batch that added it.
    pub since: u64,
}

impl UserRecord {
    pub(super) fn of(add: AddRecord, owner: NodeId, since: u64) -> Self {
        Self {
            data: add.data,
            ttl_s: add.ttl_s,
            public: add.public,
            owner,
            since,
        }
    }
}

/// What a user's record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordData {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name for one that exists elsewhere; alone at its name
    /// (RFC 1034 §3.6.2).
    Cname(DomainName),
    /// Text: strings of up to 255 octets (RFC 1035 §3.3.14).
    Txt(Vec<Vec<u8>>),
    /// Where a service is.
    Srv(Srv),
    /// Who takes mail.
    Mx(Mx),
    /// Who may issue certificates.
    Caa(Caa),
    /// How a service is reached; from rules 3 on.
    Svcb(Svcb),
    /// How a web site is reached; from rules 3 on.
    Https(Svcb),
    /// The digest of an SSH host key; from rules 7 on.
    Sshfp(Sshfp),
    /// What a TLS server must show; from rules 7 on.
    Tlsa(Tlsa),
}

/// Not the data of such a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordDataError {
    /// A type that users can't add.
    #[error(
        "{0} records can't be added; A, AAAA, CNAME, TXT, SRV, MX, CAA, HTTPS, SVCB, SSHFP and TLSA can"
    )]
    Type(RecordType),
    /// The text doesn't say what the type needs.
    #[error("\"{text}\" is no {rtype} record; it needs {needs}")]
    Text {
        rtype: RecordType,
        /// What was given.
        text: String,
        /// What is needed.
        needs: &'static str,
    },
    /// Well formed, but not to be served.
    #[error("a record {0}")]
    Bad(&'static str),
    /// What no client could use.
    #[error("a record of type {rtype} can't say that: {why}")]
    Svcb { rtype: RecordType, why: SvcbError },
    /// As [`RecordDataError::Svcb`].
    #[error("a record of type {rtype} can't say that: {why}")]
    Digest { rtype: RecordType, why: DigestError },
}

impl RecordData {
    /// Whether users can add records of this type.
    ///
    /// # Errors
    /// [`RecordDataError::Type`].
    pub fn check_type(rtype: RecordType) -> Result<(), RecordDataError> {
        needs(rtype).map(|_| ())
    }

    /// Reads what stands behind the type in a master file (RFC 1035 §5.1);
    /// names are fully qualified, with or without the trailing dot.
    ///
    /// # Errors
    /// [`RecordDataError`].
    pub fn parse(rtype: RecordType, text: &str) -> Result<Self, RecordDataError> {
        let needs = needs(rtype)?;
        let parts: Vec<&str> = text.split_whitespace().collect();
        let svcb = || Svcb::parse(text).map_err(|why| RecordDataError::Svcb { rtype, why });
        let digest = |why| RecordDataError::Digest { rtype, why };
        let data = match (rtype, &parts[..]) {
            (RecordType::TXT, _) => strings(text).map(Self::Txt),
            (RecordType::A, [address]) => address.parse().ok().map(Self::A),
            (RecordType::AAAA, [address]) => address.parse().ok().map(Self::Aaaa),
            (RecordType::CNAME, [name]) => name.parse().ok().map(Self::Cname),
            (RecordType::SRV, [priority, weight, port, target]) => {
                read_srv(priority, weight, port, target)
            }
            (RecordType::MX, [preference, exchange]) => read_mx(preference, exchange),
            (RecordType::CAA, _) => read_caa(text),
            (RecordType::SVCB, _) => Some(Self::Svcb(svcb()?)),
            (RecordType::HTTPS, _) => Some(Self::Https(svcb()?)),
            (RecordType::SSHFP, _) => Some(Self::Sshfp(Sshfp::parse(text).map_err(digest)?)),
            (RecordType::TLSA, _) => Some(Self::Tlsa(Tlsa::parse(text).map_err(digest)?)),
            _ => None,
        };
        let data = data.ok_or_else(|| RecordDataError::Text {
            rtype,
            text: text.chars().take(80).collect(),
            needs,
        })?;
        data.check()?;
        Ok(data)
    }

    /// Whether it may be served.
    ///
    /// # Errors
    /// [`RecordDataError::Bad`].
    pub fn check(&self) -> Result<(), RecordDataError> {
        let bad = |why| Err(RecordDataError::Bad(why));
        match self {
            Self::A(ip) if !is_service_address(IpAddr::V4(*ip)) => {
                bad("can't have an address that means another machine to each reader")
            }
            Self::Aaaa(ip) if !is_service_address(IpAddr::V6(*ip)) => {
                bad("can't have an address that means another machine to each reader")
            }
            Self::Txt(strings)
                if strings.is_empty()
                    || strings.iter().any(|string| string.len() > 255)
                    || strings.iter().map(|string| string.len() + 1).sum::<usize>()
                        > limits::RECORD_TEXT_BYTES =>
            {
                bad("has from 1 to 1024 characters of text, in strings of up to 255")
            }
            Self::Caa(Caa { tag, value, .. })
                if !(1..=15).contains(&tag.len())
                    || !tag
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                    || value.len() > 255 =>
            {
                bad(
                    "of type CAA has a tag of 1 to 15 letters and digits in lower case and a value of up to 255 characters",
                )
            }
            Self::Svcb(svcb) | Self::Https(svcb) => {
                if !svcb.hints().all(is_service_address) {
                    return bad("can't have an address that means another machine to each reader");
                }
                let rtype = self.record_type();
                svcb.check()
                    .map_err(|why| RecordDataError::Svcb { rtype, why })
            }
            Self::Sshfp(sshfp) => {
                let rtype = RecordType::SSHFP;
                let checked = sshfp.check();
                checked.map_err(|why| RecordDataError::Digest { rtype, why })
            }
            Self::Tlsa(tlsa) => {
                let rtype = RecordType::TLSA;
                let checked = tlsa.check();
                checked.map_err(|why| RecordDataError::Digest { rtype, why })
            }
            _ => Ok(()),
        }
    }

    /// The first rules that know such a record.
    pub fn since_rules(&self) -> u32 {
        match self {
            Self::Svcb(_) | Self::Https(_) => 3,
            Self::Sshfp(_) | Self::Tlsa(_) => 7,
            _ => 0,
        }
    }

    pub fn record_type(&self) -> RecordType {
        self.rdata().record_type()
    }

    /// As the zone has it.
    pub fn rdata(&self) -> Rdata {
        match self {
            Self::A(address) => Rdata::A(*address),
            Self::Aaaa(address) => Rdata::Aaaa(*address),
            Self::Cname(name) => Rdata::Cname(name.clone()),
            Self::Txt(strings) => Rdata::Txt(strings.clone()),
            Self::Srv(srv) => Rdata::Srv(srv.clone()),
            Self::Mx(mx) => Rdata::Mx(mx.clone()),
            Self::Caa(caa) => Rdata::Caa(caa.clone()),
            Self::Svcb(svcb) => Rdata::Svcb(svcb.clone()),
            Self::Https(svcb) => Rdata::Https(svcb.clone()),
            Self::Sshfp(sshfp) => Rdata::Sshfp(sshfp.clone()),
            Self::Tlsa(tlsa) => Rdata::Tlsa(tlsa.clone()),
        }
    }
}

impl fmt::Display for RecordData {
    /// As in a master file (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rdata().fmt(f)
    }
}

/// What a record of this type says, for a person.
fn needs(rtype: RecordType) -> Result<&'static str, RecordDataError> {
    Ok(match rtype {
        RecordType::A => "an IPv4 address",
        RecordType::AAAA => "an IPv6 address",
        RecordType::CNAME => "a name",
        RecordType::TXT => "a text",
        RecordType::SRV => "a priority, a weight, a port and a host",
        RecordType::MX => "a preference and a host",
        RecordType::CAA => "flags, a tag and a value",
        RecordType::SVCB | RecordType::HTTPS => {
            "a priority, a host or a dot for the name itself, and parameters such as alpn=h2"
        }
        RecordType::SSHFP => "a key algorithm, a digest type and the digest",
        RecordType::TLSA => "a certificate usage, a selector, a matching type and the data",
        other => return Err(RecordDataError::Type(other)),
    })
}

fn read_srv(priority: &str, weight: &str, port: &str, target: &str) -> Option<RecordData> {
    Some(RecordData::Srv(Srv {
        priority: priority.parse().ok()?,
        weight: weight.parse().ok()?,
        port: port.parse().ok()?,
        target: target.parse().ok()?,
    }))
}

fn read_mx(preference: &str, exchange: &str) -> Option<RecordData> {
    Some(RecordData::Mx(Mx {
        preference: preference.parse().ok()?,
        exchange: DomainName::from_str(exchange).ok()?,
    }))
}

/// A value without quotes goes to the end.
fn read_caa(text: &str) -> Option<RecordData> {
    let words = words(text)?;
    let [flags, tag, value @ ..] = &words[..] else {
        return None;
    };
    let value: Vec<&[u8]> = value.iter().map(|word| word.octets.as_slice()).collect();
    if value.is_empty() {
        return None;
    }
    Some(RecordData::Caa(Caa {
        flags: flags.text()?.parse().ok()?,
        tag: tag.text()?.to_ascii_lowercase(),
        value: value.join(&b' '),
    }))
}

/// Where there are quotes, the strings of a master file; without any, all is one
/// text: a shell takes the quotes away. Long ones are cut where a string must end.
fn strings(text: &str) -> Option<Vec<Vec<u8>>> {
    let is_list = has_quotes(text);
    let read = if is_list {
        words(text)?
    } else {
        words(&format!("\"{}\"", text.trim()))?
    };
    let mut strings = Vec::new();
    for word in read {
        if word.octets.is_empty() {
            strings.push(Vec::new());
        } else {
            strings.extend(word.octets.chunks(255).map(<[u8]>::to_vec));
        }
    }
    Some(strings)
}

/// Whether there are quotes that aren't escaped.
fn has_quotes(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        for (rtype, text) in [
            ("A", "192.0.2.7"),
            ("AAAA", "fd00::7"),
            ("CNAME", "host.example.org."),
            ("TXT", "\"v=spf1 -all\""),
            ("TXT", "\"one\" \"two\""),
            ("SRV", "10 20 5060 sip.example.org."),
            ("MX", "10 mail.example.org."),
            ("MX", "0 ."),
            ("CAA", "0 issue \"ca.example.org\""),
            ("CAA", "128 issue \"ca.example.org; a=\\\"b\\\"\""),
            ("TXT", "\"a \\\"b\\\" \\\\c\" \"\" \"\\195\\188\""),
            ("HTTPS", "1 . alpn=h2,h3 port=8443"),
            ("HTTPS", "0 other.example.org."),
            ("SVCB", "2 dot.example.org. key667=\"two words\""),
            ("SSHFP", "4 1 000102030405060708090a0b0c0d0e0f10111213"),
            ("TLSA", "3 1 0 3003020107"),
        ] {
            let rtype = rtype.parse().unwrap();
            let data = RecordData::parse(rtype, text).unwrap();
            assert_eq!(data.to_string(), text);
            assert_eq!(data.record_type(), rtype);
        }
    }

    #[test]
    fn text_is_read_as_in_a_zone_file() {
        let read = |text: &str| match RecordData::parse(RecordType::TXT, text) {
            Ok(RecordData::Txt(strings)) => strings,
            other => panic!("{text}: {other:?}"),
        };
        let is = |text: &str, strings: &[&[u8]]| assert_eq!(read(text), strings, "{text}");
        // A shell took the quotes away.
        is("v=spf1 -all", &[b"v=spf1 -all"]);
        is(
            "\"one\" two \"three four\"",
            &[b"one", b"two", b"three four"],
        );
        is(r#"caf\195\169 \"x\""#, &["café \"x\"".as_bytes()]);
        is("café", &["café".as_bytes()]);
        is(r#""a\"b" "c""#, &[b"a\"b", b"c"]);
        is("", &[b""]);
        assert_eq!(read(&"x".repeat(300)).len(), 2);
        for bad in ["\"open", "\\", "\\999", "\"a\" \"b"] {
            assert!(RecordData::parse(RecordType::TXT, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_that_nobody_should_be_served_are_refused() {
        let long = "x".repeat(2000);
        for (rtype, text) in [
            ("A", "127.0.0.1"),
            ("A", "fd00::7"),
            ("AAAA", "::1"),
            ("TXT", long.as_str()),
            ("SRV", "1 2 sip.example.org"),
            ("MX", "70000 mail.example.org"),
            ("CAA", "0 is-sue x"),
            ("CAA", "0 issue"),
            ("HTTPS", "1 . ipv4hint=127.0.0.1"),
            ("HTTPS", "1 . ipv6hint=::1"),
            ("HTTPS", "alpn=h2"),
            ("NS", "ns.example.org"),
            ("SSHFP", "4 2 abcd"),
            ("TLSA", "3 1 1 abcd"),
        ] {
            assert!(
                RecordData::parse(rtype.parse().unwrap(), text).is_err(),
                "{rtype} {text}"
            );
        }
    }
}
