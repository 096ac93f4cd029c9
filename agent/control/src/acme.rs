//! Requests about ACME: keys by which sources that are no local process may
//! have accounts.

#![allow(missing_docs, reason = "the names say it")]

use serde::{Deserialize, Serialize};

use super::request::{Done, requests};

requests! {
    /// What is asked about ACME.
    AcmeRequest {
        changes POST "/v1/acme/eab": Add(EabAddRequest) -> ExternalAccount,
        changes POST "/v1/acme/eab/rm": Rm(EabRmRequest) -> Done,
    }
}

/// Makes a key for binding an account (RFC 8555 §7.3.4) that may have
/// certificates for a name and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EabAddRequest {
    pub name: String,
}

/// Takes all keys for a name back; accounts bound with them get nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EabRmRequest {
    pub name: String,
}

/// The answer to `ca eab`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    /// What its account may have certificates for.
    pub name: String,
    pub kid: String,
    /// The key, base64url: for HMAC-SHA256.
    pub hmac_key: String,
    /// Where the client begins.
    pub directory: String,
}
