//! Requests about certificates in the ledger.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use innermesh_proto::certificate::Serial;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{der::Der, renewals::RenewalRow, request::requests};
use innermesh_host::UnixTime;

requests! {
    /// What is asked about certificates.
    CertificatesRequest {
        looks GET "/v1/certificates": List(CertListRequest) -> Vec<CertRow>,
        changes POST "/v1/certificates": Issue(CertRequest) -> Issued,
        changes DELETE "/v1/certificates/{serial}": Revoke(CertRevokeRequest) -> CertRevoked,
    }
}

/// Every certificate in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertListRequest {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertRequest {
    /// Full names, as they stand in the request too.
    pub names: Vec<String>,
    /// A signing request (PKCS #10, RFC 2986): the key never leaves its maker.
    pub csr: Der,
    pub days: u32,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub certificate: String,
    /// The issuer above it, PEM.
    pub issuer: String,
    /// The root above that, PEM.
    pub root: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
    pub not_after: UnixTime,
}

/// Revokes a certificate of this node's, or as an admin any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertRevokeRequest {
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub serial: Serial,
}

fn as_text<S: Serializer>(serial: &Serial, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(serial)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Serial, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

/// A certificate that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertRevoked {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    pub names: Vec<String>,
    /// Name of the node that it was issued to.
    pub node: String,
}

/// One row of `cert list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertRow {
    /// Serial number, in hexadecimal.
    pub serial: String,
    pub names: Vec<String>,
    /// Name of the node that it was issued to.
    pub node: String,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    /// What it is for.
    pub kind: CertKind,
    /// Whether it was revoked: by itself, with its key, or with its issuer.
    pub revoked: bool,
    /// How this machine renews it; null where it doesn't.
    pub renewal: Option<RenewalRow>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertKind {
    Member,
    Service,
}

impl fmt::Display for CertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Member => "member",
            Self::Service => "service",
        })
    }
}
