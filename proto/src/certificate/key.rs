//! Subjects' keys, as far as certificates depend on their kind.

use x509_parser::{
    asn1_rs::{Oid, oid},
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

/// The uncompressed point within a P-256 SubjectPublicKeyInfo in DER
/// (RFC 5480 §2), in the one encoding that is accepted.
pub fn p256_point(spki: &[u8]) -> Option<&[u8; 65]> {
    let point: &[u8; 65] = spki.strip_prefix(&P256_SPKI)?.try_into().ok()?;
    (point[0] == 4).then_some(point)
}

/// A P-256 SubjectPublicKeyInfo in DER, from the uncompressed point.
pub fn p256_spki(point: &[u8; 65]) -> Vec<u8> {
    [&P256_SPKI[..], point].concat()
}

/// DER of a P-256 SubjectPublicKeyInfo up to the point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Whether a SubjectPublicKeyInfo in DER is of an RSA key (RFC 3279 §2.3.1).
pub fn is_rsa(spki: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(spki).is_ok_and(|(_, key)| key.algorithm.algorithm == RSA)
}

/// rsaEncryption.
const RSA: Oid<'static> = oid!(1.2.840.113549.1.1.1);
