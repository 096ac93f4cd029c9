//! Which keys are certified, and with what a signing request may be signed:
//! with whatever rustls or OpenSSL accept, but for hashes that are broken or
//! that no library here knows.

use aws_lc_rs::signature::{
    self, RsaParameters, RsaPssSaltLength, UnparsedPublicKey, VerificationAlgorithm,
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData,
};
use x509_parser::{
    asn1_rs::{Oid, oid},
    certification_request::X509CertificationRequest,
    public_key::PublicKey,
    signature_algorithm::{RsaSsaPssParams, SignatureAlgorithm},
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::{build, csr::CsrError};

/// A key that is certified.
#[derive(Clone, Copy)]
pub(super) enum KeyKind {
    P256,
    P384,
    P521,
    Ed25519,
    /// The bits of its modulus.
    Rsa(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

impl KeyKind {
    /// # Errors
    /// [`CsrError::Key`] for one that isn't certified.
    pub(super) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, CsrError> {
        let Some(key) = build::public_key(spki.raw) else {
            return Err(CsrError::Key(why_not(&spki.algorithm)));
        };
        let algorithm = key.algorithm();
        if algorithm == &PKCS_ECDSA_P256_SHA256 {
            Ok(Self::P256)
        } else if algorithm == &PKCS_ECDSA_P384_SHA384 {
            Ok(Self::P384)
        } else if algorithm == &PKCS_ED25519 {
            Ok(Self::Ed25519)
        } else if algorithm == &PKCS_RSA_SHA256 {
            match spki.parsed() {
                Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => Err(CsrError::Key(
                    "an RSA key of less than 2048 bits is too weak",
                )),
                Ok(PublicKey::RSA(rsa)) if rsa.key_size() > 8192 => Err(CsrError::Key(
                    "an RSA key of more than 8192 bits is too slow",
                )),
                Ok(PublicKey::RSA(rsa)) => Ok(Self::Rsa(rsa.key_size())),
                _ => Err(CsrError::Malformed),
            }
        } else if is_p521(algorithm) {
            Ok(Self::P521)
        } else {
            Err(CsrError::Key(why_not(&spki.algorithm)))
        }
    }

    /// Checks that a request is signed with its own key.
    ///
    /// # Errors
    /// [`CsrError::Algorithm`] and [`CsrError::Signature`].
    pub(super) fn check(self, csr: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
        let info = &csr.certification_request_info;
        let algorithm = self.verifier(&csr.signature_algorithm)?;
        UnparsedPublicKey::new(algorithm, &info.subject_pki.subject_public_key.data)
            .verify(info.raw, &csr.signature_value.data)
            .map_err(|_| CsrError::Signature)
    }

    fn verifier(
        self,
        algorithm: &AlgorithmIdentifier<'_>,
    ) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
        let other = || CsrError::Algorithm {
            is: shown(&algorithm.algorithm),
            accepted: self.accepted(),
        };
        let oid = &algorithm.algorithm;
        let found: Option<&'static dyn VerificationAlgorithm> = match self {
            Self::P256 | Self::P384 | Self::P521 => ecdsa(oid).map(|digest| self.ecdsa(digest)),
            Self::Ed25519 if *oid == ED25519 => Some(&signature::ED25519),
            Self::Ed25519 => None,
            Self::Rsa(bits) => match SignatureAlgorithm::try_from(algorithm) {
                Ok(SignatureAlgorithm::RSASSA_PSS(params)) => {
                    pss(&params, bits).map(|found| found as &dyn VerificationAlgorithm)
                }
                _ => pkcs1(oid).map(|found| found as &dyn VerificationAlgorithm),
            },
        };
        found.ok_or_else(other)
    }

    fn ecdsa(self, digest: Digest) -> &'static dyn VerificationAlgorithm {
        match (self, digest) {
            (Self::P384, Digest::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
            (Self::P384, Digest::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
            (Self::P384, Digest::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
            (Self::P521, Digest::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
            (Self::P521, Digest::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
            (Self::P521, Digest::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
            (_, Digest::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
            (_, Digest::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
            (_, Digest::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        }
    }

    fn accepted(self) -> &'static str {
        match self {
            Self::P256 | Self::P384 | Self::P521 => "ECDSA with SHA-256, SHA-384 or SHA-512",
            Self::Ed25519 => "Ed25519",
            Self::Rsa(_) => {
                "RSA with SHA-256, SHA-384 or SHA-512, also as PSS with a salt as long as the hash \
                 or as long as there is room"
            }
        }
    }
}

/// All of them write the same key.
fn is_p521(algorithm: &rcgen::SignatureAlgorithm) -> bool {
    [
        &PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ECDSA_P521_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA256,
    ]
    .contains(&algorithm)
}

const EC: Oid<'static> = oid!(1.2.840.10045.2.1);
const RSA: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const RSA_PSS: Oid<'static> = oid!(1.2.840.113549.1.1.10);
const ECDSA_SHA256: Oid<'static> = oid!(1.2.840.10045.4.3.2);
const ECDSA_SHA384: Oid<'static> = oid!(1.2.840.10045.4.3.3);
const ECDSA_SHA512: Oid<'static> = oid!(1.2.840.10045.4.3.4);
const RSA_SHA256: Oid<'static> = oid!(1.2.840.113549.1.1.11);
const RSA_SHA384: Oid<'static> = oid!(1.2.840.113549.1.1.12);
const RSA_SHA512: Oid<'static> = oid!(1.2.840.113549.1.1.13);
const ED25519: Oid<'static> = oid!(1.3.101.112);
const ED448: Oid<'static> = oid!(1.3.101.113);
const MGF1: Oid<'static> = oid!(1.2.840.113549.1.1.8);
const SHA256: Oid<'static> = oid!(2.16.840.1.101.3.4.2.1);
const SHA384: Oid<'static> = oid!(2.16.840.1.101.3.4.2.2);
const SHA512: Oid<'static> = oid!(2.16.840.1.101.3.4.2.3);

/// What else a request may be signed with.
const OTHERS: [(Oid<'static>, &str); 8] = [
    (oid!(1.2.840.113549.1.1.4), "RSA with MD5, which is broken"),
    (
        oid!(1.2.840.113549.1.1.5),
        "RSA with SHA-1, which is broken",
    ),
    (oid!(1.2.840.113549.1.1.14), "RSA with SHA-224"),
    (RSA_PSS, "RSA as PSS with another hash or salt"),
    (oid!(1.2.840.10045.4.1), "ECDSA with SHA-1, which is broken"),
    (oid!(1.2.840.10045.4.3.1), "ECDSA with SHA-224"),
    (ED448, "Ed448"),
    (oid!(1.2.840.10040.4.3), "DSA"),
];

fn shown(oid: &Oid<'_>) -> String {
    let others = OTHERS;
    let named = others.iter().find(|(other, _)| other == oid);
    named.map_or_else(
        || format!("the algorithm {}", oid.to_id_string()),
        |(_, name)| (*name).to_owned(),
    )
}

fn why_not(algorithm: &AlgorithmIdentifier<'_>) -> &'static str {
    let oid = &algorithm.algorithm;
    if *oid == EC {
        "no TLS client knows its curve, or it is oddly encoded"
    } else if *oid == RSA_PSS {
        "an RSA key that is bound to PSS; make it as an RSA key for all uses"
    } else if *oid == RSA {
        "it is oddly encoded"
    } else if *oid == ED448 {
        "TLS clients don't know Ed448"
    } else {
        "it is of a kind that TLS clients don't know, or oddly encoded"
    }
}

fn ecdsa(oid: &Oid<'_>) -> Option<Digest> {
    [
        (ECDSA_SHA256, Digest::Sha256),
        (ECDSA_SHA384, Digest::Sha384),
        (ECDSA_SHA512, Digest::Sha512),
    ]
    .into_iter()
    .find_map(|(known, digest)| (known == *oid).then_some(digest))
}

fn pkcs1(oid: &Oid<'_>) -> Option<&'static RsaParameters> {
    if *oid == RSA_SHA256 {
        Some(&signature::RSA_PKCS1_2048_8192_SHA256)
    } else if *oid == RSA_SHA384 {
        Some(&signature::RSA_PKCS1_2048_8192_SHA384)
    } else if *oid == RSA_SHA512 {
        Some(&signature::RSA_PKCS1_2048_8192_SHA512)
    } else {
        None
    }
}

const MAX: RsaPssSaltLength = RsaPssSaltLength::Max;

/// RSASSA-PSS (RFC 4055 §3.1) with MGF1 over the same hash, and a salt as long
/// as the hash, as TLS has it, or as long as there is room, as OpenSSL makes it.
fn pss(params: &RsaSsaPssParams<'_>, bits: usize) -> Option<&'static RsaParameters> {
    let hash = params.hash_algorithm_oid();
    let mask = params.mask_gen_algorithm().ok()?;
    if mask.mgf != MGF1 || mask.hash != *hash || params.trailer_field() != 1 {
        return None;
    }
    let (digest, length) = if *hash == SHA256 {
        (Digest::Sha256, 32)
    } else if *hash == SHA384 {
        (Digest::Sha384, 48)
    } else if *hash == SHA512 {
        (Digest::Sha512, 64)
    } else {
        return None;
    };
    let salt = usize::try_from(params.salt_length()).ok()?;
    // RFC 8017 §9.1.1.
    let longest = ((bits + 6) / 8).checked_sub(length + 2)?;
    if salt == length {
        Some(match digest {
            Digest::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Digest::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Digest::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
        })
    } else if salt == longest {
        Some(match digest {
            Digest::Sha256 => {
                &const { signature::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(MAX) }
            }
            Digest::Sha384 => {
                &const { signature::RSA_PSS_2048_8192_SHA384.with_pss_salt_length(MAX) }
            }
            Digest::Sha512 => {
                &const { signature::RSA_PSS_2048_8192_SHA512.with_pss_salt_length(MAX) }
            }
        })
    } else {
        None
    }
}
