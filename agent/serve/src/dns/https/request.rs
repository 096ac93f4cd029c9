//! What a request of DNS over HTTPS asks (RFC 8484 §4.1).

#![allow(missing_docs, reason = "the names say it")]

use data_encoding::BASE64URL_NOPAD;

/// Where questions are asked.
pub const PATH: &str = "/dns-query";
/// The type of a message of DNS.
pub const MESSAGE: &str = "application/dns-message";
/// The variable of a GET that has the message.
const VARIABLE: &str = "dns";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsRequest {
    /// A GET, with its message.
    Message(Vec<u8>),
    /// A POST, whose body is the message.
    InBody,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("DNS is asked at {PATH}")]
    Path,
    #[error("DNS is asked by GET or POST")]
    Method,
    #[error("a POST has the type {MESSAGE}")]
    MediaType,
    #[error("a GET has a message of DNS in {VARIABLE}, in base64url without padding")]
    Encoding,
    #[error("that is no question of DNS")]
    NoMessage,
    #[error("a message has at most 65535 bytes")]
    TooLong,
    #[error("the message didn't come in time")]
    TooSlow,
}

impl RequestError {
    /// The HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Path => 404,
            Self::Method => 405,
            Self::MediaType => 415,
            Self::Encoding | Self::NoMessage => 400,
            Self::TooLong => 413,
            Self::TooSlow => 408,
        }
    }
}

impl DnsRequest {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn read(
        method: &str,
        path: &str,
        query: Option<&str>,
        content_type: Option<&[u8]>,
    ) -> Result<Self, RequestError> {
        if path != PATH {
            return Err(RequestError::Path);
        }
        match method {
            "GET" => {
                let variables = query.unwrap_or_default().split('&');
                let mut pairs = variables.filter_map(|pair| pair.split_once('='));
                let message = pairs.find(|(name, _)| *name == VARIABLE);
                let (_, message) = message.ok_or(RequestError::Encoding)?;
                let message = BASE64URL_NOPAD.decode(message.as_bytes());
                message
                    .map(Self::Message)
                    .map_err(|_| RequestError::Encoding)
            }
            "POST" => {
                let is_message = content_type.is_some_and(|value| {
                    // Parameters would say nothing.
                    let value = value.split(|byte| *byte == b';').next().unwrap_or(value);
                    value.trim_ascii().eq_ignore_ascii_case(MESSAGE.as_bytes())
                });
                if is_message {
                    Ok(Self::InBody)
                } else {
                    Err(RequestError::MediaType)
                }
            }
            _ => Err(RequestError::Method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(query: &str) -> Result<DnsRequest, RequestError> {
        DnsRequest::read("GET", PATH, Some(query), None)
    }

    fn post(content_type: Option<&str>) -> Result<DnsRequest, RequestError> {
        DnsRequest::read("POST", PATH, None, content_type.map(str::as_bytes))
    }

    #[test]
    fn the_examples_of_rfc_8484_are_read() {
        // §4.1.1
        let text = "AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
        let DnsRequest::Message(message) = get(&format!("dns={text}")).unwrap() else {
            panic!("a GET has its message");
        };
        assert_eq!(message[..6], [0, 0, 1, 0, 0, 1]);
        assert_eq!(message[12..], *b"\x03www\x07example\x03com\0\0\x01\0\x01");
        assert_eq!(post(Some(MESSAGE)), Ok(DnsRequest::InBody));
    }

    #[test]
    fn what_is_no_such_request_is_told_why() {
        for (query, error) in [
            ("", RequestError::Encoding),
            ("dns", RequestError::Encoding),
            ("dn=AAAA", RequestError::Encoding),
            ("dns=AAA=", RequestError::Encoding),
            ("dns=AA%3D", RequestError::Encoding),
            ("dns=A+A/", RequestError::Encoding),
        ] {
            assert_eq!(get(query), Err(error), "{query}");
        }
        assert_eq!(get("ct&dns=AAAA&x=1"), Ok(DnsRequest::Message(vec![0; 3])));
        let upper = "Application/DNS-Message; charset=x";
        assert_eq!(post(Some(upper)), Ok(DnsRequest::InBody));
        for bad in [None, Some("text/plain"), Some("")] {
            assert_eq!(post(bad), Err(RequestError::MediaType));
        }
        let other = |method, path| DnsRequest::read(method, path, Some("dns=AAAA"), None);
        assert_eq!(other("HEAD", PATH), Err(RequestError::Method));
        assert_eq!(other("GET", "/"), Err(RequestError::Path));
        assert_eq!(other("GET", "/dns-query/"), Err(RequestError::Path));
    }
}
