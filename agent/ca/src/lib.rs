//! The making of certificates: root, issuers, leaves, requests for them, and
//! the file that the root's key is kept in; when issuers are due, and end. Who may have which certificate is
//! decided elsewhere (in the ledger); what a good certificate looks like is
//! `innermesh_proto::certificate`, which is asked about each one made here.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod build;
pub mod csr;
pub mod expiry;
pub mod issuer;
pub mod pem;
pub mod recovery;
pub mod revocations;
pub mod root;
mod signature;
mod unproved;

use innermesh_proto::certificate::{CertificateError, RevocationListError, Serial};

pub use self::{issuer::Issuer, root::Root, unproved::unproved};
use innermesh_host::keys::{KeyError, Keys};

/// Why a certificate was not made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The key refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate would be one that the mesh refuses.
    #[error("no such certificate can be made: {0}")]
    Refused(#[from] CertificateError),
    /// The revocation list would be one that the mesh refuses.
    #[error("no such revocation list can be made: {0}")]
    RefusedList(#[from] RevocationListError),
    /// The key belongs to another certificate.
    #[error("the certificate is for another key; is it a copy from another machine?")]
    Mismatch,
    /// A time that X.509 can't write.
    #[error("a certificate can't end in the year 10000 or later; check the clock")]
    Time,
    /// The encoder refused.
    #[error("the certificate could not be encoded: {0}")]
    Encoding(String),
}

/// A random serial number.
pub fn random_serial(keys: &dyn Keys) -> Serial {
    let mut bytes = [0; 16];
    keys.random(&mut bytes);
    // Zero is no serial number (RFC 5280 §4.1.2.2).
    if bytes == [0; 16] {
        bytes[15] = 1;
    }
    Serial(bytes)
}

/// A SHA-256 fingerprint as browsers and `openssl x509 -fingerprint` show it:
/// pairs of capitals with colons between.
pub fn fingerprint(hex: &str) -> String {
    let capitals = hex.to_ascii_uppercase();
    let pairs: Vec<String> = capitals
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect();
    pairs.join(":")
}

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
