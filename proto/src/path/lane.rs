//! Where a relay takes in lanes, and what goes over one: QUIC's datagrams in the binary
//! messages of a WebSocket (RFC 6455), for hosts on networks that let no UDP out.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{limits, tunnel::HostPort};

/// Bytes of the length before each datagram.
const LENGTH: usize = 2;

/// Where lanes of a node begin: `wss://relay.example.org/innermesh`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LaneUrl {
    tls: bool,
    at: HostPort,
    /// Begins with a slash.
    path: String,
}

/// No URL of a lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the URL of a lane, such as wss://relay.example.org/innermesh")]
pub struct LaneUrlError(String);

impl LaneUrl {
    /// One at an address, by TLS.
    pub fn at(address: SocketAddr, path: &str) -> Option<Self> {
        format!("wss://{address}{path}").parse().ok()
    }

    /// Whether TLS is around it.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The name or address, IPv6 without brackets, and the port.
    pub fn host(&self) -> (&str, u16) {
        (self.at.host(), self.at.port())
    }

    /// The address, where it has one in place of a name.
    pub fn address(&self) -> Option<SocketAddr> {
        self.at.address()
    }
}

impl FromStr for LaneUrl {
    type Err = LaneUrlError;

    fn from_str(text: &str) -> Result<Self, LaneUrlError> {
        let refused = || LaneUrlError(text.chars().filter(|c| !c.is_control()).take(80).collect());
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("wss") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => (false, rest),
            _ => return Err(refused()),
        };
        let (at, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = if tls { 443 } else { 80 };
        let at = HostPort::parse_or(at, port).map_err(|_| refused())?;
        let path = if path.is_empty() { "/" } else { path };
        let url = Self {
            tls,
            at,
            path: path.to_owned(),
        };
        // What may stand in a path (RFC 3986 §3.3), but no query and no fragment.
        let may = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
        let is_short = url.to_string().len() <= limits::LANE_URL_BYTES;
        let is_one = is_short && url.path.bytes().all(may);
        is_one.then_some(url).ok_or_else(refused)
    }
}

impl fmt::Display for LaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.tls { ("wss", 443) } else { ("ws", 80) };
        let at = self.at.to_string();
        let unsaid = format!(":{usual}");
        let at = at.strip_suffix(&unsaid).unwrap_or(&at);
        write!(f, "{scheme}://{at}{}", self.path)
    }
}

impl From<LaneUrl> for String {
    fn from(url: LaneUrl) -> Self {
        url.to_string()
    }
}

impl TryFrom<String> for LaneUrl {
    type Error = LaneUrlError;

    fn try_from(text: String) -> Result<Self, LaneUrlError> {
        text.parse()
    }
}

/// The bytes of a datagram in a message, without itself.
pub const OVERHEAD: usize = LENGTH;

/// The length that stands before a datagram; `None` where none may be so long.
pub fn header(datagram: &[u8]) -> Option<[u8; LENGTH]> {
    let length = u16::try_from(datagram.len()).ok()?;
    let fits = (1..=limits::LANE_DATAGRAM_BYTES).contains(&datagram.len());
    fits.then(|| length.to_be_bytes())
}

/// Where the datagrams of a message begin and end, in order. `None` where it isn't made
/// of datagrams to its last byte.
pub fn datagrams(message: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = message.get(at..).filter(|rest| !rest.is_empty()) {
        let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let datagram = rest.get(..length)?;
        header(datagram)?;
        found.push(at + LENGTH..at + LENGTH + length);
        at += LENGTH + length;
    }
    (!found.is_empty() && message.len() <= limits::LANE_MESSAGE_BYTES).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let mut message = Vec::new();
        for datagram in datagrams {
            message.extend(header(datagram).unwrap());
            message.extend(datagram);
        }
        message
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            sent in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..=limits::LANE_DATAGRAM_BYTES), 1..40),
        ) {
            let message = message(&sent);
            let read = datagrams(&message);
            if message.len() > limits::LANE_MESSAGE_BYTES {
                prop_assert_eq!(read, None);
                return Ok(());
            }
            let read: Vec<Vec<u8>> =
                read.unwrap().into_iter().map(|range| message[range].to_vec()).collect();
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(found) = datagrams(&bytes) {
                let all: Vec<Vec<u8>> =
                    found.into_iter().map(|range| bytes[range].to_vec()).collect();
                prop_assert_eq!(message(&all), bytes);
            }
        }

        #[test]
        fn any_text_is_a_url_or_refused(text in "(wss?://)?[ -~]{0,40}") {
            if let Ok(url) = text.parse::<LaneUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }

    #[test]
    fn a_message_is_datagrams_to_its_last_byte() {
        for bad in [
            &[][..],
            &[0],
            &[0, 0],
            &[0, 1],
            &[0, 1, 7, 0],
            &[0, 1, 7, 0, 0],
            &[255, 255, 1],
        ] {
            assert_eq!(datagrams(bad), None, "{bad:?}");
        }
        assert_eq!(datagrams(&[0, 1, 7, 0, 2, 8, 9]), Some(vec![2..3, 5..7]));
        let most = limits::LANE_DATAGRAM_BYTES;
        assert!(header(&vec![1; most]).is_some() && header(&vec![1; most + 1]).is_none());
        assert!(header(&[]).is_none());
        let length = u16::try_from(most + 1).unwrap().to_be_bytes();
        let long = [&length[..], &vec![1; most + 1]].concat();
        assert_eq!(datagrams(&long), None);
    }

    #[test]
    fn a_url_has_a_scheme_a_host_and_a_path_and_nothing_else() {
        for (text, written, tls, host) in [
            (
                "wss://relay.example.org/innermesh",
                "wss://relay.example.org/innermesh",
                true,
                ("relay.example.org", 443),
            ),
            (
                "WSS://Relay.example.org:443",
                "wss://relay.example.org/",
                true,
                ("relay.example.org", 443),
            ),
            (
                "ws://192.0.2.7:8080/a/b",
                "ws://192.0.2.7:8080/a/b",
                false,
                ("192.0.2.7", 8080),
            ),
            (
                "wss://[2001:db8::7]/",
                "wss://[2001:db8::7]/",
                true,
                ("2001:db8::7", 443),
            ),
            (
                "ws://[2001:db8::7]:443/x",
                "ws://[2001:db8::7]:443/x",
                false,
                ("2001:db8::7", 443),
            ),
        ] {
            let url: LaneUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!((url.is_tls(), url.host()), (tls, host), "{text}");
        }
        let long = format!("wss://a.example/{}", "x".repeat(256));
        for bad in [
            "",
            "relay.example.org",
            "https://relay.example.org/",
            "wss://",
            "wss:///x",
            "wss://user@relay.example.org/",
            "wss://relay.example.org:0/",
            "wss://relay.example.org:99999/",
            "wss://relay.example.org/x?y",
            "wss://relay.example.org/x#y",
            "wss://relay.example.org/x y",
            "wss://relay.example.org/x\r\nHost: y",
            "wss://0.0.0.0/",
            "wss://224.0.0.1/",
            long.as_str(),
        ] {
            assert!(bad.parse::<LaneUrl>().is_err(), "{bad}");
        }
    }
}
