//! How a service is reached: SVCB and HTTPS records (RFC 9460).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use super::{
    character_string::{Quoted, words},
    name::DomainName,
};
use crate::limits;

/// What SVCB and HTTPS records say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Svcb {
    /// Lower ones are tried first; 0 makes it an alias.
    pub priority: u16,
    /// The host; the root for the record's own name.
    pub target: DomainName,
    /// In ascending order of their keys, each once.
    pub params: Vec<SvcParam>,
}

/// One thing to know of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SvcParam {
    /// What it is, by the number in IANA's registry.
    pub key: u16,
    /// In wire form.
    pub value: Vec<u8>,
}

/// Not what such a record may say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvcbError {
    #[error("it needs a priority, a host and parameters such as alpn=h2")]
    Form,
    #[error(
        "\"{0}\" is no parameter: alpn, port, ipv4hint, ipv6hint, dohpath, ech, ohttp, no-default-alpn, mandatory, or key and a number"
    )]
    Key(String),
    #[error("{0} stands there twice")]
    Twice(String),
    #[error("{0} has no such value")]
    Value(String),
    #[error("with priority 0 it is an alias, which has no parameters")]
    Alias,
    #[error("mandatory names {0}, which isn't there")]
    Mandatory(String),
    #[error("no-default-alpn needs alpn beside it")]
    NoAlpn,
    #[error("its parameters take more than {} octets", limits::RECORD_TEXT_BYTES)]
    TooLong,
}

mod key {
    pub const MANDATORY: u16 = 0;
    pub const ALPN: u16 = 1;
    pub const NO_DEFAULT_ALPN: u16 = 2;
    pub const PORT: u16 = 3;
    pub const IPV4_HINT: u16 = 4;
    pub const ECH: u16 = 5;
    pub const IPV6_HINT: u16 = 6;
    pub const DOH_PATH: u16 = 7;
    pub const OHTTP: u16 = 8;
    /// Never a key (RFC 9460 §14.3.2).
    pub const INVALID: u16 = u16::MAX;
}

/// Where a web server is that says no port (RFC 9110 §4.2.2).
const WEB_PORT: u16 = 443;

const KEYS: [(u16, &str); 9] = [
    (key::MANDATORY, "mandatory"),
    (key::ALPN, "alpn"),
    (key::NO_DEFAULT_ALPN, "no-default-alpn"),
    (key::PORT, "port"),
    (key::IPV4_HINT, "ipv4hint"),
    (key::ECH, "ech"),
    (key::IPV6_HINT, "ipv6hint"),
    (key::DOH_PATH, "dohpath"),
    (key::OHTTP, "ohttp"),
];

impl Svcb {
    /// A web server: HTTP/2 where both ends have it, and HTTP/1.1, which is never said
    /// (RFC 9460 §7.1). TLS decides between them.
    pub fn of_web(target: DomainName, port: u16) -> Self {
        let param = |key, value: &[u8]| SvcParam {
            key,
            value: value.to_vec(),
        };
        let mut params = vec![param(key::ALPN, b"\x02h2")];
        if port != WEB_PORT {
            params.push(param(key::PORT, &port.to_be_bytes()));
        }
        Self {
            priority: 1,
            target,
            params,
        }
    }

    /// Reads what stands behind the type in a master file (RFC 9460 §2.1).
    ///
    /// # Errors
    /// [`SvcbError`].
    pub fn parse(text: &str) -> Result<Self, SvcbError> {
        let (priority, rest) = first_word(text);
        let (target, params) = first_word(rest);
        let (Ok(priority), Ok(target)) = (priority.parse(), target.parse()) else {
            return Err(SvcbError::Form);
        };
        let mut params = words(params)
            .ok_or(SvcbError::Form)?
            .iter()
            .map(|word| SvcParam::parse(&word.octets))
            .collect::<Result<Vec<_>, _>>()?;
        params.sort();
        let svcb = Self {
            priority,
            target,
            params,
        };
        svcb.check()?;
        Ok(svcb)
    }

    /// Whether a client can make something of it.
    ///
    /// # Errors
    /// [`SvcbError`].
    pub fn check(&self) -> Result<(), SvcbError> {
        if self.priority == 0 && !self.params.is_empty() {
            return Err(SvcbError::Alias);
        }
        for pair in self.params.windows(2) {
            if let [one, next] = pair
                && one.key >= next.key
            {
                return Err(SvcbError::Twice(key_name(next.key)));
            }
        }
        if self
            .params
            .iter()
            .map(|param| 4 + param.value.len())
            .sum::<usize>()
            > limits::RECORD_TEXT_BYTES
        {
            return Err(SvcbError::TooLong);
        }
        for param in &self.params {
            if !param.is_well_formed() {
                return Err(SvcbError::Value(key_name(param.key)));
            }
        }
        if self.param(key::NO_DEFAULT_ALPN).is_some() && self.param(key::ALPN).is_none() {
            return Err(SvcbError::NoAlpn);
        }
        let mandatory = self.param(key::MANDATORY).unwrap_or_default();
        for named in keys(mandatory) {
            if self.param(named).is_none() {
                return Err(SvcbError::Mandatory(key_name(named)));
            }
        }
        Ok(())
    }

    fn param(&self, key: u16) -> Option<&[u8]> {
        let found = self.params.iter().find(|param| param.key == key);
        found.map(|param| param.value.as_slice())
    }

    /// The host that a record at `owner` leads to.
    pub fn host<'n>(&'n self, owner: &'n DomainName) -> &'n DomainName {
        if self.target.is_root() {
            owner
        } else {
            &self.target
        }
    }

    /// Addresses that it tells beside the host's own.
    pub fn hints(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.param(key::IPV4_HINT).unwrap_or_default();
        let v6 = self.param(key::IPV6_HINT).unwrap_or_default();
        addresses::<4, Ipv4Addr>(v4).chain(addresses::<16, Ipv6Addr>(v6))
    }

    /// As the data of a record in a message (RFC 9460 §2.2).
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = self.priority.to_be_bytes().to_vec();
        wire.extend(Vec::from(self.target.clone()));
        wire.push(0);
        for param in &self.params {
            // What is longer than 16 bits can say doesn't pass the check.
            let length = u16::try_from(param.value.len()).unwrap_or(u16::MAX);
            wire.extend(param.key.to_be_bytes());
            wire.extend(length.to_be_bytes());
            wire.extend(&param.value);
        }
        wire
    }
}

impl fmt::Display for Svcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.priority, self.target)?;
        for param in &self.params {
            write!(f, " {param}")?;
        }
        Ok(())
    }
}

impl SvcParam {
    /// Reads `key=value` or `key`.
    fn parse(octets: &[u8]) -> Result<Self, SvcbError> {
        let end = octets.iter().position(|octet| *octet == b'=');
        let (name, value) = match end.and_then(|end| octets.split_at_checked(end)) {
            Some((name, value)) => (name, value.get(1..)),
            None => (octets, None),
        };
        let name = String::from_utf8_lossy(name);
        let shortened = || name.chars().take(80).collect::<String>();
        let key = key_of(&name).ok_or_else(|| SvcbError::Key(shortened()))?;
        let value = wire_value(key, value).ok_or_else(|| SvcbError::Value(shortened()))?;
        Ok(Self { key, value })
    }

    fn is_well_formed(&self) -> bool {
        let value = self.value.as_slice();
        let is_list = |step: usize| !value.is_empty() && value.len().is_multiple_of(step);
        match self.key {
            key::MANDATORY => {
                let keys: Vec<u16> = keys(value).collect();
                is_list(2) && keys.is_sorted_by(|a, b| a < b) && !keys.contains(&key::MANDATORY)
            }
            key::ALPN => protocols(value).is_some_and(|all| !all.is_empty()),
            key::NO_DEFAULT_ALPN | key::OHTTP => value.is_empty(),
            key::PORT => value.len() == 2,
            key::IPV4_HINT => is_list(4),
            key::IPV6_HINT => is_list(16),
            key::ECH => !value.is_empty(),
            key::DOH_PATH => std::str::from_utf8(value).is_ok_and(|path| path.contains("{?dns}")),
            key::INVALID => false,
            _ => true,
        }
    }
}

impl fmt::Display for SvcParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_name(self.key))?;
        let value = self.value.as_slice();
        let text = match self.key {
            key::MANDATORY => joined(keys(value).map(key_name)),
            key::PORT if value.len() == 2 => keys(value).map(|port| port.to_string()).collect(),
            key::IPV4_HINT => joined(addresses::<4, Ipv4Addr>(value)),
            key::IPV6_HINT => joined(addresses::<16, Ipv6Addr>(value)),
            key::ECH => data_encoding::BASE64.encode(value),
            key::ALPN => {
                let list = protocols(value).unwrap_or_default();
                let list: Vec<Vec<u8>> = list.into_iter().map(with_commas_escaped).collect();
                return text_value(f, &list.join(&b','));
            }
            _ if value.is_empty() => return Ok(()),
            _ => return text_value(f, value),
        };
        write!(f, "={text}")
    }
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((text, ""))
}

fn text_value(f: &mut fmt::Formatter<'_>, value: &[u8]) -> fmt::Result {
    let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._/,:?{}".contains(octet);
    if value.iter().all(is_plain) {
        write!(f, "={}", String::from_utf8_lossy(value))
    } else {
        write!(f, "=\"{}\"", Quoted(value))
    }
}

fn joined(items: impl Iterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(",")
}

fn key_name(key: u16) -> String {
    match KEYS.iter().find(|(number, _)| *number == key) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("key{key}"),
    }
}

fn key_of(name: &str) -> Option<u16> {
    if let Some((key, _)) = KEYS.iter().find(|(_, known)| *known == name) {
        return Some(*key);
    }
    let digits = name.strip_prefix("key")?;
    let key: u16 = digits.parse().ok()?;
    (key.to_string() == digits).then_some(key)
}

/// A value in wire form; none where the text isn't one of the key.
fn wire_value(key: u16, text: Option<&[u8]>) -> Option<Vec<u8>> {
    let words = || std::str::from_utf8(text?).ok();
    match key {
        key::NO_DEFAULT_ALPN | key::OHTTP => text.is_none().then(Vec::new),
        key::MANDATORY => {
            let keys: Option<Vec<u16>> = words()?.split(',').map(key_of).collect();
            let mut keys = keys?;
            keys.sort_unstable();
            Some(keys.into_iter().flat_map(u16::to_be_bytes).collect())
        }
        key::ALPN => {
            let mut wire = Vec::new();
            for protocol in list(text?)? {
                wire.push(
                    u8::try_from(protocol.len())
                        .ok()
                        .filter(|length| *length > 0)?,
                );
                wire.extend(protocol);
            }
            Some(wire)
        }
        key::PORT => Some(words()?.parse::<u16>().ok()?.to_be_bytes().to_vec()),
        key::IPV4_HINT => hinted(words()?, |ip: Ipv4Addr| ip.octets().to_vec()),
        key::IPV6_HINT => hinted(words()?, |ip: Ipv6Addr| ip.octets().to_vec()),
        key::ECH => data_encoding::BASE64.decode(text?).ok(),
        _ => Some(text.unwrap_or_default().to_vec()),
    }
}

fn hinted<T: std::str::FromStr>(text: &str, octets: fn(T) -> Vec<u8>) -> Option<Vec<u8>> {
    let all: Option<Vec<Vec<u8>>> = text
        .split(',')
        .map(|address| address.parse().ok().map(octets))
        .collect();
    Some(all?.concat())
}

/// The items of a list; a backslash before a comma or another one makes that a
/// part of the item (RFC 9460 A.1).
fn list(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b',' => {
                items.push(Vec::new());
                continue;
            }
            b'\\' => octets.next().filter(|next| b",\\".contains(next))?,
            other => other,
        };
        items.last_mut()?.push(*octet);
    }
    Some(items)
}

fn with_commas_escaped(item: &[u8]) -> Vec<u8> {
    let escaped = item.iter().flat_map(|octet| match octet {
        b',' | b'\\' => vec![b'\\', *octet],
        other => vec![*other],
    });
    escaped.collect()
}

/// The protocols of `alpn` in wire form; none where it isn't.
fn protocols(mut wire: &[u8]) -> Option<Vec<&[u8]>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = wire.split_first() {
        let (protocol, rest) = rest.split_at_checked(usize::from(*length))?;
        if protocol.is_empty() {
            return None;
        }
        all.push(protocol);
        wire = rest;
    }
    Some(all)
}

fn keys(wire: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _) = wire.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_be_bytes(*pair))
}

fn addresses<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(
    wire: &[u8],
) -> impl Iterator<Item = IpAddr> {
    let (chunks, _) = wire.as_chunks::<N>();
    chunks.iter().map(|octets| A::from(*octets).into())
}

#[cfg(test)]
mod tests;
