//! What a service speaks, by the name that IANA registered for it (RFC 6335 §5).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Protocol;

/// A name such as `https`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceType(Box<str>);

/// Not such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not what a service speaks: 1 to 15 letters, digits and single hyphens, such as \
     http, https, ssh or ipp"
)]
pub struct ServiceTypeError(String);

/// Longest name, in characters (RFC 6335 §5.1).
const LONGEST: usize = 15;
const HTTPS: &str = "https";

/// TCP ports that say what is spoken there: those of which nearly every service
/// keeps to its own. At 631 it may be one of two.
const PORTS: [(u16, &str); 7] = [
    (22, "ssh"),
    (80, "http"),
    (443, HTTPS),
    (445, "smb"),
    (1883, "mqtt"),
    (2049, "nfs"),
    (5900, "rfb"),
];

impl ServiceType {
    /// What a port says by itself.
    pub fn of_port(protocol: Protocol, port: u16) -> Option<Self> {
        let mut ports = PORTS.iter();
        let (_, name) = ports.find(|(at, _)| protocol == Protocol::Tcp && *at == port)?;
        Some(Self((*name).into()))
    }

    /// HTTP without TLS.
    pub fn http() -> Self {
        Self("http".into())
    }

    pub fn is_https(&self) -> bool {
        &*self.0 == HTTPS
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceType {
    type Err = ServiceTypeError;

    fn from_str(text: &str) -> Result<Self, ServiceTypeError> {
        let name = text.to_ascii_lowercase();
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let is_name = (1..=LONGEST).contains(&name.len())
            && name.bytes().all(is_part)
            && name.bytes().any(|b| b.is_ascii_alphabetic())
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--");
        if is_name {
            Ok(Self(name.into()))
        } else {
            Err(ServiceTypeError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ServiceType {
    type Error = ServiceTypeError;

    fn try_from(text: String) -> Result<Self, ServiceTypeError> {
        text.parse()
    }
}

impl From<ServiceType> for String {
    fn from(service_type: ServiceType) -> Self {
        service_type.0.into()
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_registry() {
        for text in [
            "https",
            "HTTP",
            "pdl-datastream",
            "afpovertcp",
            "z39-50",
            "a",
        ] {
            let read: ServiceType = text.parse().unwrap();
            assert_eq!(read.as_str(), text.to_ascii_lowercase());
        }
        for text in [
            "",
            "_http",
            "http/2",
            "-a",
            "a-",
            "a--b",
            "1234",
            "http._tcp",
            "sixteen-letters-",
            "abcdefghijklmnop",
            "é",
        ] {
            assert!(text.parse::<ServiceType>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_says_what_is_spoken_there_by_tcp_alone() {
        let of = |protocol, port| ServiceType::of_port(protocol, port);
        assert!(of(Protocol::Tcp, 443).unwrap().is_https());
        assert_eq!(of(Protocol::Tcp, 80), Some(ServiceType::http()));
        assert_eq!(of(Protocol::Udp, 443), None);
        assert_eq!(of(Protocol::Tcp, 8443), None);
        for (port, name) in PORTS {
            assert_eq!(of(Protocol::Tcp, port), Some(name.parse().unwrap()));
        }
    }
}
