//! A certificate as it is kept: read once, and written as its DER.

#![allow(missing_docs, reason = "the names say it")]

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Certificate, CertificateError};

/// A certificate with its encoding. Cheap to clone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct KeptCertificate(Arc<Kept>);

struct Kept {
    der: Vec<u8>,
    certificate: Certificate,
}

impl KeptCertificate {
    /// Reads one from DER.
    ///
    /// # Errors
    /// As [`Certificate::parse`].
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        Self::try_from(der.to_vec())
    }

    pub fn der(&self) -> &[u8] {
        &self.0.der
    }
}

impl TryFrom<Vec<u8>> for KeptCertificate {
    type Error = CertificateError;

    fn try_from(der: Vec<u8>) -> Result<Self, CertificateError> {
        let certificate = Certificate::parse(&der)?;
        Ok(Self(Arc::new(Kept { der, certificate })))
    }
}

impl From<KeptCertificate> for Vec<u8> {
    fn from(kept: KeptCertificate) -> Self {
        kept.0.der.clone()
    }
}

impl Deref for KeptCertificate {
    type Target = Certificate;

    fn deref(&self) -> &Certificate {
        &self.0.certificate
    }
}

impl PartialEq for KeptCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for KeptCertificate {}

impl fmt::Debug for KeptCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {:?}", self.serial)
    }
}
