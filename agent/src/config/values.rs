//! What single values of the configuration may be.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use innermesh_proto::tunnel::{HostPort, HostPortError};
use serde::{Deserialize, Serialize};

use crate::{
    dns::{NameServer, NameServerError},
    host::duration::Span,
};

/// An address, with a port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Address {
    pub ip: IpAddr,
    port: Option<u16>,
}

pub(super) fn with_port(list: &[Address], default: u16) -> Vec<SocketAddr> {
    list.iter()
        .map(|a| SocketAddr::new(a.ip, a.port.unwrap_or(default)))
        .collect()
}

/// Not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an address such as 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353")]
pub(super) struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, AddressError> {
        if let Ok(address) = s.parse::<SocketAddr>() {
            return Ok(Self {
                ip: address.ip(),
                port: Some(address.port()),
            });
        }
        match s.parse() {
            Ok(ip) => Ok(Self { ip, port: None }),
            Err(_) => Err(AddressError(s.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(s: String) -> Result<Self, AddressError> {
        s.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// A name server elsewhere, and how the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Upstream {
    text: String,
    pub server: NameServer,
}

impl TryFrom<String> for Upstream {
    type Error = NameServerError;

    fn try_from(text: String) -> Result<Self, NameServerError> {
        let server = text.parse()?;
        Ok(Self { text, server })
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> Self {
        upstream.text
    }
}

/// A name that Linux takes for a network interface, and a file name too: the
/// embedded tunnel's socket is called after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(pub(super) String);

impl InterfaceName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not the name of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" can't be the tunnel's interface: use 1 to 15 letters, digits, hyphens and underscores, such as im0"
)]
pub struct InterfaceNameError(String);

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(s: String) -> Result<Self, InterfaceNameError> {
        let good = (1..=15).contains(&s.len())
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            // iproute2 and wg would take it for an option.
            && !s.starts_with('-')
            && s != "lo";
        if good {
            Ok(Self(s))
        } else {
            Err(InterfaceNameError(s.chars().take(80).collect()))
        }
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

/// WireGuard's UDP port: the usual one, or the next free one where that is taken,
/// unless the file names one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum TunnelPort {
    /// [`WIREGUARD_PORT`], if it is free.
    #[default]
    Usual,
    /// This one.
    Fixed(u16),
}

/// WireGuard's registered port.
pub const WIREGUARD_PORT: u16 = 51820;

impl TunnelPort {
    /// The port to begin with.
    pub fn number(self) -> u16 {
        match self {
            Self::Usual => WIREGUARD_PORT,
            Self::Fixed(port) => port,
        }
    }

    /// Whether the file names it.
    pub fn is_fixed(self) -> bool {
        self != Self::Usual
    }
}

impl From<u16> for TunnelPort {
    fn from(port: u16) -> Self {
        Self::Fixed(port)
    }
}

impl From<TunnelPort> for u16 {
    fn from(port: TunnelPort) -> Self {
        port.number()
    }
}

/// Where devices find this gateway: a name or an address, with a port or without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TunnelEndpoint(String);

impl TunnelEndpoint {
    /// With `port` where the file has none.
    pub fn with_port(&self, port: u16) -> Option<HostPort> {
        HostPort::parse_or(&self.0, port).ok()
    }
}

impl TryFrom<String> for TunnelEndpoint {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        HostPort::parse_or(&text, WIREGUARD_PORT)?;
        Ok(Self(text))
    }
}

impl From<TunnelEndpoint> for String {
    fn from(it: TunnelEndpoint) -> Self {
        it.0
    }
}

/// How long one CA node leads, as people write it: `6h`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaderTerm(String);

/// Shorter ones would have the CA nodes do little else.
const LEAST_TERM: Duration = Duration::from_secs(60);
const MOST_TERM: Duration = Duration::from_secs(30 * 24 * 3600);

impl LeaderTerm {
    /// As a length of time.
    pub fn duration(&self) -> Duration {
        self.0.parse::<Span>().map_or(MOST_TERM, Span::duration)
    }
}

impl Default for LeaderTerm {
    fn default() -> Self {
        Self("6h".into())
    }
}

/// Not how long a CA node may lead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" can't be `term` of [ca]: use 1m to 30d, such as 6h")]
pub struct LeaderTermError(String);

impl TryFrom<String> for LeaderTerm {
    type Error = LeaderTermError;

    fn try_from(s: String) -> Result<Self, LeaderTermError> {
        let term = s.parse::<Span>().map(Span::duration);
        if term.is_ok_and(|term| (LEAST_TERM..=MOST_TERM).contains(&term)) {
            Ok(Self(s))
        } else {
            Err(LeaderTermError(s.chars().take(40).collect()))
        }
    }
}

impl From<LeaderTerm> for String {
    fn from(term: LeaderTerm) -> Self {
        term.0
    }
}
