//! A name server elsewhere, as it is written: an address, or a URL that says how it
//! is asked and who must answer.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use data_encoding::{BASE64, BASE64_NOPAD};
use rustls::pki_types::ServerName;

/// How many bytes of a text are shown again.
const SHOWN: usize = 120;
/// Longest text, in bytes.
const LONGEST: usize = 1024;
/// Most pins of one server: the key in use, the next, and some.
const PINS: usize = 4;
const DOH_PATH: &str = "/dns-query";

/// A name server, by its address: a name would have to be asked for first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameServer {
    pub address: SocketAddr,
    pub transport: Transport,
}

/// How a name server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// UDP, and TCP where an answer was cut.
    Udp,
    Tcp,
    /// RFC 7858.
    Tls(Identity),
    /// RFC 8484.
    Https {
        path: String,
        identity: Identity,
    },
}

/// Who must answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The host name that the certificate must have; without it, the address.
    pub name: Option<String>,
    /// SHA-256 hashes of SubjectPublicKeyInfo: with any, the server's key must be one
    /// of these, and nothing else counts.
    pub pins: BTreeSet<[u8; 32]>,
}

/// Not a name server. What is wrong, and what is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameServerError {
    #[error(
        "\"{0}\" is not a name server such as 9.9.9.9, 192.0.2.1:5353, [2001:db8::1]:5353, \
         tcp://9.9.9.9, tls://9.9.9.9#dns.quad9.net or https://9.9.9.9/dns-query#dns.quad9.net"
    )]
    Form(String),
    #[error(
        "\"{0}\" names its server by a name, which nobody can be asked for yet: give the address, \
         and the name behind #, such as tls://9.9.9.9#dns.quad9.net"
    )]
    ByName(String),
    #[error("\"{0}\" has a path, which only https:// has")]
    Path(String),
    #[error("\"{0}\" has a path that isn't one of a URL, such as /dns-query")]
    BadPath(String),
    #[error(
        "\"{0}\" says who must answer, which only tls:// and https:// can check; \
         put tls:// in front of the address"
    )]
    Unchecked(String),
    #[error("\"{0}\" has something behind # that is no host name")]
    Name(String),
    #[error(
        "\"{0}\" has a query other than pin=, which is a SHA-256 hash of the server's public key \
         in base64; at most {PINS} of them, with & between"
    )]
    Pin(String),
}

impl From<SocketAddr> for NameServer {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::Udp,
        }
    }
}

impl From<&NameServer> for NameServer {
    fn from(server: &NameServer) -> Self {
        server.clone()
    }
}

impl From<&SocketAddr> for NameServer {
    fn from(address: &SocketAddr) -> Self {
        (*address).into()
    }
}

impl Transport {
    fn scheme(&self) -> Option<&'static str> {
        match self {
            Self::Udp => None,
            Self::Tcp => Some("tcp"),
            Self::Tls(_) => Some("tls"),
            Self::Https { .. } => Some("https"),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls(_) => 853,
            Self::Https { .. } => 443,
        }
    }

    /// Who must answer, where that is checked.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Udp | Self::Tcp => None,
            Self::Tls(identity) | Self::Https { identity, .. } => Some(identity),
        }
    }
}

impl FromStr for NameServer {
    type Err = NameServerError;

    fn from_str(text: &str) -> Result<Self, NameServerError> {
        let shown = || text.chars().take(SHOWN).collect::<String>();
        if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NameServerError::Form(shown()));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let (rest, name) = split(rest, '#');
        let (rest, query) = split(rest, '?');
        let (authority, path) = match rest.find('/') {
            Some(at) => {
                let (authority, path) = rest.split_at(at);
                (authority, Some(path))
            }
            None => (rest, None),
        };
        let identity = || {
            Ok(Identity {
                name: name.map(|name| host_name(name, shown)).transpose()?,
                pins: query.map_or(Ok(BTreeSet::new()), |query| pins(query, shown))?,
            })
        };
        let transport = match scheme.as_deref() {
            None | Some("tcp" | "udp") if name.is_some() || query.is_some() => {
                return Err(NameServerError::Unchecked(shown()));
            }
            None | Some("udp") => Transport::Udp,
            Some("tcp") => Transport::Tcp,
            Some("tls") => Transport::Tls(identity()?),
            Some("https") => Transport::Https {
                path: match path {
                    None | Some("/") => DOH_PATH.into(),
                    Some(path) if is_path(path) => path.into(),
                    Some(_) => return Err(NameServerError::BadPath(shown())),
                },
                identity: identity()?,
            },
            Some(_) => return Err(NameServerError::Form(shown())),
        };
        if path.is_some() && !matches!(transport, Transport::Https { .. }) {
            return Err(NameServerError::Path(shown()));
        }
        let address = address(authority, transport.port()).ok_or_else(|| {
            // What has letters beyond an address's was meant as a name.
            let is_name = authority
                .bytes()
                .any(|b| b.is_ascii_alphabetic() && !b.is_ascii_hexdigit());
            if is_name {
                NameServerError::ByName(shown())
            } else {
                NameServerError::Form(shown())
            }
        })?;
        Ok(Self { address, transport })
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(scheme) = self.transport.scheme() else {
            return self.address.fmt(f);
        };
        write!(f, "{scheme}://")?;
        match (self.address, self.transport.port()) {
            (at, port) if at.port() != port => write!(f, "{at}")?,
            (SocketAddr::V4(v4), _) => write!(f, "{}", v4.ip())?,
            (SocketAddr::V6(v6), _) => write!(f, "[{}]", v6.ip())?,
        }
        if let Transport::Https { path, .. } = &self.transport {
            f.write_str(path)?;
        }
        let Some(identity) = self.transport.identity() else {
            return Ok(());
        };
        for (pin, before) in identity
            .pins
            .iter()
            .zip(std::iter::once('?').chain(['&'; PINS]))
        {
            write!(f, "{before}pin={}", BASE64.encode(pin))?;
        }
        match &identity.name {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(text).parse().ok()?;
    (bare.is_none() || ip.is_ipv6()).then(|| SocketAddr::new(ip, port))
}

fn host_name(name: &str, shown: impl FnOnce() -> String) -> Result<String, NameServerError> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match ServerName::try_from(name.as_str()) {
        Ok(ServerName::DnsName(_)) => Ok(name),
        _ => Err(NameServerError::Name(shown())),
    }
}

fn pins(query: &str, shown: impl Fn() -> String) -> Result<BTreeSet<[u8; 32]>, NameServerError> {
    let mut pins = BTreeSet::new();
    for pair in query.split('&') {
        let pin = pair
            .strip_prefix("pin=")
            // As RFC 7858 and curl write them.
            .map(|pin| pin.strip_prefix("sha256//").unwrap_or(pin))
            .map(|pin| pin.trim_end_matches('='))
            .and_then(|pin| BASE64_NOPAD.decode(pin.as_bytes()).ok())
            .and_then(|pin| <[u8; 32]>::try_from(pin).ok());
        pins.insert(pin.ok_or_else(|| NameServerError::Pin(shown()))?);
    }
    if pins.len() > PINS {
        return Err(NameServerError::Pin(shown()));
    }
    Ok(pins)
}

/// What RFC 3986 §3.3 has in paths.
fn is_path(path: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&b);
    path.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "qQRtgLwPkHm9A0IqPzDCLLdqG8Pf5oy4zFKOr0SzAgU=";

    fn read(text: &str) -> Result<NameServer, NameServerError> {
        text.parse()
    }

    #[test]
    fn each_form_is_read_and_written_again() {
        for (text, again, address) in [
            ("9.9.9.9", "9.9.9.9:53", "9.9.9.9:53"),
            ("2620:fe::fe", "[2620:fe::fe]:53", "[2620:fe::fe]:53"),
            ("[2620:fe::fe]", "[2620:fe::fe]:53", "[2620:fe::fe]:53"),
            ("udp://9.9.9.9:54", "9.9.9.9:54", "9.9.9.9:54"),
            ("tcp://9.9.9.9", "tcp://9.9.9.9", "9.9.9.9:53"),
            ("tls://9.9.9.9", "tls://9.9.9.9", "9.9.9.9:853"),
            (
                "TLS://9.9.9.9:853#DNS.Quad9.net.",
                "tls://9.9.9.9#dns.quad9.net",
                "9.9.9.9:853",
            ),
            (
                "tls://[2620:fe::fe]:8853#dns.quad9.net",
                "tls://[2620:fe::fe]:8853#dns.quad9.net",
                "[2620:fe::fe]:8853",
            ),
            (
                "https://9.9.9.9#dns.quad9.net",
                "https://9.9.9.9/dns-query#dns.quad9.net",
                "9.9.9.9:443",
            ),
            (
                "https://[2620:fe::fe]/ab/c-d#dns.quad9.net",
                "https://[2620:fe::fe]/ab/c-d#dns.quad9.net",
                "[2620:fe::fe]:443",
            ),
        ] {
            let server = read(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(server.address, address.parse().unwrap(), "{text}");
            assert_eq!(server.to_string(), again);
            assert_eq!(read(again), Ok(server));
        }
        let pinned = format!("tls://192.0.2.1?pin={PIN}#dns.example");
        let server = read(&pinned).unwrap();
        assert_eq!(server.to_string(), pinned);
        assert_eq!(server.transport.identity().unwrap().pins.len(), 1);
        let curls = format!("https://192.0.2.1/?pin=sha256//{}", &PIN[..43]);
        let again = format!("https://192.0.2.1/dns-query?pin={PIN}");
        assert_eq!(read(&curls).unwrap().to_string(), again);
    }

    #[test]
    fn what_is_no_name_server_is_told_why() {
        let (form, unchecked) = (NameServerError::Form, NameServerError::Unchecked);
        for (text, error) in [
            ("", form as fn(String) -> _),
            ("9.9.9", form),
            ("9.9.9.9:0", form),
            ("[9.9.9.9]", form),
            ("tls://", form),
            ("tls://9.9.9.9 ", form),
            ("quic://9.9.9.9", form),
            ("dns.quad9.net", NameServerError::ByName),
            ("tls://dns.quad9.net", NameServerError::ByName),
            ("https://dns.quad9.net/dns-query", NameServerError::ByName),
            ("tls://9.9.9.9/dns-query", NameServerError::Path),
            ("9.9.9.9/24", NameServerError::Path),
            ("https://9.9.9.9/a\"b", NameServerError::BadPath),
            ("9.9.9.9#dns.quad9.net", unchecked),
            ("tcp://9.9.9.9?pin=x", unchecked),
            ("tls://9.9.9.9#", NameServerError::Name),
            ("tls://9.9.9.9#9.9.9.9", NameServerError::Name),
            ("tls://9.9.9.9#a b", form),
            ("tls://9.9.9.9#a_b!", NameServerError::Name),
            ("tls://9.9.9.9?", NameServerError::Pin),
            ("tls://9.9.9.9?pin=AAAA", NameServerError::Pin),
            ("tls://9.9.9.9?ca=mesh", NameServerError::Pin),
        ] {
            assert_eq!(read(text), Err(error(text.into())), "{text}");
        }
        let long = format!("tls://9.9.9.9#{}", "a.".repeat(LONGEST));
        assert!(matches!(read(&long), Err(NameServerError::Form(text)) if text.len() == SHOWN));
    }
}
