//! Where a WireGuard client finds a gateway: a name or an address, with a port.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Longest name of a host, in bytes (RFC 1035 §2.3.4).
const NAME_BYTES: usize = 253;
/// Longest label of a name, in bytes.
const LABEL_BYTES: usize = 63;

/// A name or an address, with a port. It ends up in files that programs run as
/// root read line by line, so it has nothing in it that could end a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Not a name or an address with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a name or an address with a port, such as gw.example.org:51820, \
     192.0.2.1:51820 or [2001:db8::1]:51820"
)]
pub struct HostPortError(String);

impl HostPort {
    /// With `port` where the text has none.
    ///
    /// # Errors
    /// [`HostPortError`].
    pub fn parse_or(text: &str, port: u16) -> Result<Self, HostPortError> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let bare = bare.unwrap_or(text);
        let is_bare = bare.parse::<IpAddr>().is_ok() || !text.contains(':');
        if is_bare {
            let host = match bare.parse() {
                Ok(ip) => return Self::from_address(SocketAddr::new(ip, port), text),
                Err(_) => bare,
            };
            return Self::named(host, port, text);
        }
        text.parse()
    }

    /// The address, where it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.to_string().parse().ok()
    }

    /// The name, or the address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        let bare = self.host.strip_prefix('[');
        bare.and_then(|it| it.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// Never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn from_address(address: SocketAddr, text: &str) -> Result<Self, HostPortError> {
        let ip = address.ip().to_canonical();
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(HostPortError::of(text));
        }
        Ok(Self::from((ip, address.port())))
    }

    fn named(host: &str, port: u16, text: &str) -> Result<Self, HostPortError> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_label = |label: &str| {
            (1..=LABEL_BYTES).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
        };
        // What is all digits at its end is a mistyped address and no name.
        let is_number = host
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if port == 0 || host.len() > NAME_BYTES || is_number || !host.split('.').all(is_label) {
            return Err(HostPortError::of(text));
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl HostPortError {
    fn of(text: &str) -> Self {
        Self(text.chars().filter(|c| !c.is_control()).take(80).collect())
    }
}

impl From<(IpAddr, u16)> for HostPort {
    fn from((ip, port): (IpAddr, u16)) -> Self {
        let ip = ip.to_canonical();
        Self {
            host: if ip.is_ipv6() {
                format!("[{ip}]")
            } else {
                ip.to_string()
            },
            port,
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Self::from_address(address, text);
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| HostPortError::of(text))?;
        let port = port.parse().map_err(|_| HostPortError::of(text))?;
        Self::named(host, port, text)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(it: HostPort) -> Self {
        it.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken_as_people_write_them() {
        for (text, read) in [
            ("gw.example.org:51820", "gw.example.org:51820"),
            ("GW.example.org.:4", "gw.example.org:4"),
            ("192.0.2.1:51820", "192.0.2.1:51820"),
            ("[2001:db8::1]:51820", "[2001:db8::1]:51820"),
            ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), read);
        }
        for (text, read) in [
            ("gw.example.org", "gw.example.org:9"),
            ("192.0.2.1", "192.0.2.1:9"),
            ("2001:db8::1", "[2001:db8::1]:9"),
            ("[2001:db8::1]", "[2001:db8::1]:9"),
            ("gw:5", "gw:5"),
        ] {
            assert_eq!(HostPort::parse_or(text, 9).unwrap().to_string(), read);
        }
    }

    #[test]
    fn nothing_gets_in_that_could_begin_a_line_of_its_own() {
        for text in [
            "gw:51820\nPostUp = reboot",
            "gw\n:51820",
            "gw :51820",
            "gw.example.org:0",
            "gw.example.org:70000",
            "0.0.0.0:1",
            "[ff02::1]:1",
            "192.0.2.300:1",
            "-gw:1",
            "a..b:1",
            ":1",
            "",
            "gw",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
        assert!(
            format!("{}:1", "a.".repeat(128))
                .parse::<HostPort>()
                .is_err()
        );
        assert!(HostPort::parse_or("x y", 1).is_err());
    }

    #[test]
    fn an_address_is_told_from_a_name() {
        let address = |text: &str| text.parse::<HostPort>().unwrap().address();
        assert_eq!(address("192.0.2.1:5"), "192.0.2.1:5".parse().ok());
        assert_eq!(address("[2001:db8::1]:5"), "[2001:db8::1]:5".parse().ok());
        assert_eq!(address("gw.example.org:5"), None);
    }
}
