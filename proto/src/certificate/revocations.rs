//! Revocation lists (RFC 5280 §5), read. An issuer's list is signed by the node
//! that holds the issuer's key and handed on by all others, so whoever takes one
//! checks it first.

use std::collections::BTreeMap;

use x509_parser::{
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer,
    revocation_list::CertificateRevocationList,
    x509::X509Version,
};

use super::{Certificate, Serial, is_ecdsa_sha256, milliseconds, serial};
use crate::{crypto::Verify, limits};

/// What a revocation list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// The issuer's name in DER.
    pub issuer: Vec<u8>,
    /// The issuer's key identifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// The list's number (§5.2.3); a later one has a higher one.
    pub number: u64,
    /// When it was made, in milliseconds since 1970.
    pub this_update_ms: u64,
    /// When there is another at the latest, in milliseconds since 1970.
    pub next_update_ms: u64,
    /// The serials that are revoked, and when that was, in milliseconds since
    /// 1970.
    pub revoked: BTreeMap<Serial, u64>,
    tbs: Vec<u8>,
    signature: Vec<u8>,
}

/// Why a revocation list was not accepted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationListError {
    /// Longer than [`limits::REVOCATION_LIST_BYTES`].
    #[error("a revocation list of {0} bytes; at most {max} are accepted", max = limits::REVOCATION_LIST_BYTES)]
    TooLong(usize),
    /// Not DER of a revocation list.
    #[error("not a revocation list: {0}")]
    Malformed(String),
    /// Bytes that no signature covers, or an encoding that isn't DER's.
    #[error("there are other bytes in the revocation list, or after it")]
    Trailing,
    /// Not version 2.
    #[error("not a version 2 revocation list")]
    Version,
    /// The signature is not ECDSA with SHA-256, or the two places that name
    /// its algorithm differ.
    #[error("the revocation list is not signed with ECDSA and SHA-256")]
    Algorithm,
    /// A time before 1970, no end, or an end before the begin.
    #[error("the revocation list's times make no sense")]
    Times,
    /// No number, or one that is no positive number of 63 bits.
    #[error("the revocation list's number is missing or too large")]
    Number,
    /// An entry whose serial number is none, or that stands twice.
    #[error("the revocation list has an entry that can't be right")]
    Entry,
    /// A critical extension that isn't known here, or one that can't be read or
    /// stands twice.
    #[error("the revocation list's extension {0} can't be read")]
    Extension(String),
    /// It is another issuer's, by name or by key identifier.
    #[error("the revocation list is another issuer's")]
    Issuer,
    /// Not signed by the issuer's key.
    #[error("the revocation list's signature is not its issuer's")]
    Signature,
}

impl RevocationList {
    /// Reads one list from DER.
    ///
    /// # Errors
    /// [`RevocationListError`], up to [`RevocationListError::Extension`]: whose
    /// it is [`RevocationList::check`] tells.
    pub fn parse(der: &[u8]) -> Result<Self, RevocationListError> {
        if der.len() > limits::REVOCATION_LIST_BYTES {
            return Err(RevocationListError::TooLong(der.len()));
        }
        let (_, crl) = CertificateRevocationList::from_der(der)
            .map_err(|e| RevocationListError::Malformed(e.to_string()))?;
        let tbs = &crl.tbs_cert_list;
        if tbs.version != Some(X509Version::V2) {
            return Err(RevocationListError::Version);
        }
        if !is_ecdsa_sha256(&crl.signature_algorithm) || crl.signature_algorithm != tbs.signature {
            return Err(RevocationListError::Algorithm);
        }
        let signature = &crl.signature_value;
        if signature.unused_bits != 0 || der != whole(tbs.as_ref(), &signature.data) {
            return Err(RevocationListError::Trailing);
        }
        let time = |time| milliseconds(time).map_err(|_| RevocationListError::Times);
        let this_update_ms = time(tbs.this_update)?;
        let next_update_ms = time(tbs.next_update.ok_or(RevocationListError::Times)?)?;
        if next_update_ms <= this_update_ms {
            return Err(RevocationListError::Times);
        }
        let mut revoked = BTreeMap::new();
        for entry in &tbs.revoked_certificates {
            let serial = serial(entry.raw_serial()).map_err(|_| RevocationListError::Entry)?;
            no_critical(entry.extensions())?;
            if revoked
                .insert(serial, time(entry.revocation_date)?)
                .is_some()
            {
                return Err(RevocationListError::Entry);
            }
        }
        let (number, authority_key_id) = read_extensions(tbs.extensions())?;
        Ok(Self {
            issuer: tbs.issuer.as_raw().to_vec(),
            authority_key_id,
            number,
            this_update_ms,
            next_update_ms,
            revoked,
            tbs: tbs.as_ref().to_vec(),
            signature: signature.data.to_vec(),
        })
    }

    /// Whether `issuer` signed it, whose own certificate must be a good one.
    ///
    /// # Errors
    /// [`RevocationListError::Issuer`], [`RevocationListError::Signature`].
    pub fn check(
        &self,
        issuer: &Certificate,
        verify: &dyn Verify,
    ) -> Result<(), RevocationListError> {
        if self.issuer != issuer.subject
            || issuer.key_id.is_none()
            || self.authority_key_id != issuer.key_id
            || !issuer.key_usage.crl_sign
        {
            return Err(RevocationListError::Issuer);
        }
        if !verify.p256(&issuer.spki, &self.tbs, &self.signature) {
            return Err(RevocationListError::Signature);
        }
        Ok(())
    }

    /// Whether it still holds at `time_ms`, in milliseconds since 1970.
    pub fn holds_at(&self, time_ms: u64) -> bool {
        time_ms < self.next_update_ms
    }
}

fn read_extensions(
    extensions: &[X509Extension<'_>],
) -> Result<(u64, Option<Vec<u8>>), RevocationListError> {
    let (mut number, mut key_id) = (None, None);
    for extension in extensions {
        let unread = || RevocationListError::Extension(extension.oid.to_id_string());
        let twice = match extension.parsed_extension() {
            ParsedExtension::CRLNumber(big) => {
                let digits = big.to_u64_digits();
                let [digit] = digits.as_slice() else {
                    return Err(RevocationListError::Number);
                };
                // With room for a higher one for ever.
                let fits = i64::try_from(*digit).is_ok();
                let value = fits.then_some(*digit).ok_or(RevocationListError::Number)?;
                number.replace(value).is_some()
            }
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                let key = authority.key_identifier.as_ref().ok_or_else(unread)?;
                key_id.replace(key.0.to_vec()).is_some()
            }
            ParsedExtension::ParseError { .. } => return Err(unread()),
            _ => extension.critical,
        };
        if twice {
            return Err(unread());
        }
    }
    Ok((number.ok_or(RevocationListError::Number)?, key_id))
}

fn no_critical(extensions: &[X509Extension<'_>]) -> Result<(), RevocationListError> {
    match extensions.iter().find(|extension| extension.critical) {
        Some(extension) => Err(RevocationListError::Extension(extension.oid.to_id_string())),
        None => Ok(()),
    }
}

/// The one encoding of a list of these parts. Whatever else a frame could hold
/// would not be signed.
fn whole(tbs: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = framed(0x03, &[&[0], signature].concat());
    framed(0x30, &[tbs, &ECDSA_SHA256_DER, &signature].concat())
}

/// DER of an AlgorithmIdentifier: ecdsa-with-SHA256, without parameters.
const ECDSA_SHA256_DER: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

/// A DER element (X.690 §8.1).
fn framed(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let digits = length.to_be_bytes();
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = &digits[zeros..];
    match u8::try_from(length) {
        Ok(short) if short < 128 => [&[tag, short], content].concat(),
        _ => [&[tag, 0x80 | digits.len() as u8], digits, content].concat(),
    }
}
