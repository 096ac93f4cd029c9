//! What an ACME server answers instead of what was asked for: problem
//! documents (RFC 8555 §6.7, RFC 9457).

#![allow(missing_docs, reason = "the names say it")]

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kinds of problems (RFC 8555 §6.7, RFC 9773 §7.4, and the profiles
/// extension's `invalidProfile`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// There is no such account.
    AccountDoesNotExist,
    /// The certificate was replaced by another order, or is being.
    AlreadyReplaced,
    /// The certificate is revoked already.
    AlreadyRevoked,
    /// The signing request can't be certified.
    #[serde(rename = "badCSR")]
    BadCsr,
    /// The nonce isn't one of this server's, or was used.
    BadNonce,
    /// A key that isn't good enough.
    BadPublicKey,
    /// The reason for a revocation isn't one.
    BadRevocationReason,
    /// An algorithm that isn't accepted.
    BadSignatureAlgorithm,
    /// A CAA record forbids it.
    Caa,
    /// The server that was to answer a challenge couldn't be reached.
    Connection,
    /// A name couldn't be looked up.
    Dns,
    /// Who isn't on this machine needs a key for binding its account.
    ExternalAccountRequired,
    /// The response to a challenge was another one.
    IncorrectResponse,
    /// A contact that isn't one.
    InvalidContact,
    InvalidProfile,
    /// The request isn't what the protocol says.
    Malformed,
    /// The order waits for something else.
    OrderNotReady,
    /// Too much was asked.
    RateLimited,
    /// This machine may not have that name.
    RejectedIdentifier,
    /// Something on this side is not as it should be.
    ServerInternal,
    /// TLS failed while a challenge was validated.
    Tls,
    /// The one who asks may not.
    Unauthorized,
    /// A contact of a kind that isn't used.
    UnsupportedContact,
    /// An identifier of a kind that can't be certified.
    UnsupportedIdentifier,
}

/// A problem: what is told to the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(with = "urn")]
    pub r#type: Kind,
    /// For a person: what is wrong, and what to do.
    pub detail: String,
    pub status: u16,
    /// Algorithms that would have been accepted (RFC 8555 §6.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    /// What is wrong with which identifier (RFC 8555 §6.7.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subproblems: Vec<Subproblem>,
    /// After how many seconds to ask again (RFC 8555 §6.6): a header of its own.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
    /// The methods that would have been accepted (RFC 9110 §10.2.1): a header of
    /// its own.
    #[serde(skip)]
    pub allow: Option<&'static str>,
}

/// When to ask again where no CA node can be reached, in seconds.
const UNAVAILABLE_S: u64 = 10;

/// What is wrong with one identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subproblem {
    #[serde(with = "urn")]
    pub r#type: Kind,
    pub detail: String,
    pub identifier: super::order::Identifier,
}

impl Problem {
    /// A problem of a kind, with the status that goes with it.
    pub fn new(kind: Kind, detail: impl ToString) -> Self {
        Self {
            r#type: kind,
            detail: detail.to_string(),
            status: kind.status(),
            algorithms: Vec::new(),
            subproblems: Vec::new(),
            retry_after_s: None,
            allow: None,
        }
    }

    /// Too much was asked, and may be asked again after a while.
    pub fn rate_limited(detail: impl ToString, wait: Duration) -> Self {
        Self {
            retry_after_s: Some(wait.as_secs() + 1),
            ..Self::new(Kind::RateLimited, detail)
        }
    }

    /// Nobody can be reached who decides; it may be otherwise soon.
    pub fn unavailable(detail: impl ToString) -> Self {
        Self::internal(detail)
            .with_status(503)
            .with_retry(UNAVAILABLE_S)
    }

    /// What is there is asked with other methods.
    pub fn not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::malformed(format!("this is asked with {allow}")).with_status(405)
        }
    }

    /// The request isn't what the protocol says.
    pub fn malformed(detail: impl ToString) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    /// What was named isn't there.
    pub fn not_found(detail: impl ToString) -> Self {
        Self::malformed(detail).with_status(404)
    }

    /// Who asks may not.
    pub fn unauthorized(detail: impl ToString) -> Self {
        Self::new(Kind::Unauthorized, detail)
    }

    /// Something on this side failed.
    pub fn internal(detail: impl ToString) -> Self {
        Self::new(Kind::ServerInternal, detail)
    }

    /// The same, to be asked again after so many seconds.
    pub fn with_retry(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same, with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

impl Kind {
    fn status(self) -> u16 {
        match self {
            Self::ServerInternal => 500,
            Self::Unauthorized
            | Self::OrderNotReady
            | Self::Caa
            | Self::RejectedIdentifier
            | Self::ExternalAccountRequired => 403,
            Self::AlreadyReplaced => 409,
            Self::RateLimited => 429,
            _ => 400,
        }
    }
}

mod urn {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Kind;

    const PREFIX: &str = "urn:ietf:params:acme:error:";

    pub fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        let name = serde_json::to_value(kind).unwrap_or_default();
        serializer.collect_str(&format_args!(
            "{PREFIX}{}",
            name.as_str().unwrap_or_default()
        ))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        let text = String::deserialize(deserializer)?;
        let name = text.strip_prefix(PREFIX).unwrap_or(&text);
        serde_json::from_value(name.into()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_written_as_the_rfc_says_and_read_back() {
        let problem = Problem::new(Kind::BadCsr, "no");
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            r#"{"type":"urn:ietf:params:acme:error:badCSR","detail":"no","status":400}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
