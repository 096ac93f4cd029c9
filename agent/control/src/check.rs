//! How a service is asked whether it works: `tcp`, or an `http://` address.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Check {
    /// A TCP connection to the service's port is accepted.
    Tcp,
    /// An HTTP GET is answered with a status of 2xx or 3xx.
    Http(HttpCheck),
}

/// What is fetched, from an address such as `http://photos.home.arpa:8080/health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The host as written. An IP address, or `localhost`, is where the check
    /// goes; any other name only stands in the request, which goes to the
    /// service's own address: a lookup could lead to another node's instance.
    pub host: String,
    /// The port; 80 where none is written, as in every such address.
    pub port: u16,
    /// Path and query, from the slash on.
    pub path: String,
}

/// Why a text is not a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Longer than a check may be.
    #[error("a check is at most {CHECK_BYTES} characters long")]
    TooLong,
    /// Neither `tcp` nor an HTTP address.
    #[error(
        "\"{0}\" is not a check: write tcp, or an address such as http://localhost:8080/health"
    )]
    Unknown(String),
    /// HTTPS, whose certificate the check would have to judge.
    #[error("a check can't fetch https addresses; check the port with tcp, or an http:// address")]
    Https,
    /// The host is neither a name nor an address.
    #[error("\"{0}\" is not a host that a check can ask")]
    Host(String),
    /// The port is no number from 1 to 65535.
    #[error("\"{0}\" is not a port: write a number from 1 to 65535")]
    Port(String),
    /// A space, a control character or a fragment in the path.
    #[error("the check's path may hold no spaces, control characters or #")]
    Path,
}

/// Longest check as text, in bytes.
const CHECK_BYTES: usize = 1024;
/// The port of an address without one (RFC 9110 §4.2.1).
const HTTP_PORT: u16 = 80;

impl HttpCheck {
    /// The addresses that the host is, if it isn't a name; `localhost` is those of
    /// both families (RFC 6761 §6.3).
    pub fn literals(&self) -> Vec<IpAddr> {
        if self.host.eq_ignore_ascii_case("localhost") {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().into_iter().collect()
    }

    /// Host and port as they stand in an address and in the `Host` field.
    pub fn authority(&self) -> String {
        match self.port {
            HTTP_PORT => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(s: &str) -> Result<Self, CheckError> {
        if s.len() > CHECK_BYTES {
            return Err(CheckError::TooLong);
        }
        match s.split_once("://") {
            None if s == "tcp" => Ok(Self::Tcp),
            Some(("http", rest)) => Ok(Self::Http(http(rest)?)),
            Some(("https", _)) => Err(CheckError::Https),
            _ => Err(CheckError::Unknown(shortened(s))),
        }
    }
}

/// Reads what follows `http://`.
fn http(rest: &str) -> Result<HttpCheck, CheckError> {
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    // The path goes into the request as it is: a line break would start another field.
    if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(CheckError::Path);
    }
    let (host, port) = match authority.rsplit_once(':') {
        // A colon within brackets belongs to an IPv6 address (RFC 3986 §3.2.2).
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if !is_host(host) {
        return Err(CheckError::Host(shortened(host)));
    }
    let port = match port {
        None => HTTP_PORT,
        Some(text) => match text.parse() {
            Ok(0) | Err(_) => return Err(CheckError::Port(shortened(text))),
            Ok(port) => port,
        },
    };
    Ok(HttpCheck {
        host: host.to_owned(),
        port,
        path,
    })
}

/// Whether it is a host name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(http) => write!(f, "http://{}{}", http.authority(), http.path),
        }
    }
}

impl TryFrom<String> for Check {
    type Error = CheckError;

    fn try_from(s: String) -> Result<Self, CheckError> {
        s.parse()
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_reads_back_as_it_was_written() {
        for text in [
            "tcp",
            "http://localhost/",
            "http://photos.home.arpa:8080/health?deep=1",
            "http://192.0.2.1:8080/",
            "http://[fd00::1]:8080/x",
            "http://[fd00::1]/x",
        ] {
            assert_eq!(text.parse::<Check>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn localhost_is_this_host_by_either_family() {
        let literals = |text: &str| match text.parse() {
            Ok(Check::Http(http)) => http.literals(),
            other => panic!("{text}: {other:?}"),
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            literals("http://LocalHost:1/"),
            [ip("127.0.0.1"), ip("::1")]
        );
        assert_eq!(literals("http://[fd00::1]/"), [ip("fd00::1")]);
        assert_eq!(literals("http://192.0.2.1/"), [ip("192.0.2.1")]);
        assert!(literals("http://photos.home.arpa/").is_empty());
    }

    #[test]
    fn an_address_may_leave_out_port_and_path() {
        let expected = HttpCheck {
            host: "a".into(),
            port: 80,
            path: "/".into(),
        };
        assert_eq!("http://a".parse(), Ok(Check::Http(expected.clone())));
        assert_eq!("http://a:80/".parse(), Ok(Check::Http(expected)));
        assert_eq!(
            "http://a?x".parse::<Check>().unwrap().to_string(),
            "http://a/?x"
        );
    }

    #[test]
    fn what_is_no_check_is_refused_with_the_reason() {
        for (text, error) in [
            ("udp", CheckError::Unknown("udp".into())),
            ("https://a/", CheckError::Https),
            ("http://", CheckError::Host(String::new())),
            ("http://me@a/", CheckError::Host("me@a".into())),
            ("http://fd00::1/", CheckError::Host("fd00:".into())),
            ("http://[fd00::x]/", CheckError::Host("[fd00::x]".into())),
            ("http://a:0/", CheckError::Port("0".into())),
            ("http://a:70000/", CheckError::Port("70000".into())),
            ("http://a/x\r\nEvil: 1", CheckError::Path),
            ("http://a/x#y", CheckError::Path),
        ] {
            assert_eq!(text.parse::<Check>(), Err(error), "{text:?}");
        }
        let long = format!("http://a/{}", "x".repeat(CHECK_BYTES));
        assert_eq!(long.parse::<Check>(), Err(CheckError::TooLong));
    }
}
