//! Certificate signing requests (PKCS #10, RFC 2986): made for `cert issue`,
//! and read from ACME clients. A request proves that who asks holds the key;
//! what it may be granted is decided elsewhere.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use innermesh_proto::{certificate::is_dns_name, limits};
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
};
use x509_parser::{
    asn1_rs::{Oid, oid},
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey,
    x509::{SubjectPublicKeyInfo, X509Version},
};

use super::{
    CaError,
    build::{self, RcgenKey, encoding},
};
use innermesh_host::keys::CaKey;

/// What a request asks for, its signature checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// The subject's key: SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// DNS names, in lower case.
    pub dns: BTreeSet<String>,
    /// IP addresses.
    pub ips: BTreeSet<IpAddr>,
}

/// Why a request was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not DER of a request.
    #[error("not a certificate signing request")]
    Malformed,
    /// Longer than [`limits::CERTIFICATE_BYTES`].
    #[error("a certificate signing request of {0} bytes; at most {max} are accepted", max = limits::CERTIFICATE_BYTES)]
    TooLong(usize),
    /// A key that browsers refuse, or that is too weak.
    #[error("the key can't be certified: {0}; use P-256, P-384, or RSA with 2048 to 8192 bits")]
    Key(&'static str),
    /// Not signed with that key.
    #[error("the request is not signed with the key that it is for")]
    Signature,
    /// No name at all.
    #[error("the request has no subject alternative name")]
    NoName,
    /// More than [`limits::CERTIFICATE_NAMES`] names.
    #[error("{0} names in one request; at most {max} are accepted", max = limits::CERTIFICATE_NAMES)]
    Names(usize),
    /// A name that is no host name or address.
    #[error("\"{0}\" is not a host name or an address")]
    Name(String),
    /// A common name that isn't among the alternative names.
    #[error("the common name \"{0}\" is not among the subject alternative names")]
    CommonName(String),
    /// It asks for a CA's certificate.
    #[error("the request asks for a CA certificate, which nobody is given this way")]
    Ca,
}

/// A request for a certificate for `key` with these names, in DER.
///
/// # Errors
/// [`CaError`] for a name that can't be encoded, or a key that doesn't sign.
pub fn make(
    key: &Arc<dyn CaKey>,
    dns: &BTreeSet<String>,
    ips: &BTreeSet<IpAddr>,
) -> Result<Vec<u8>, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = build::names(dns, ips)?;
    let csr = params
        .serialize_request(&RcgenKey(key.clone()))
        .map_err(encoding)?;
    Ok(csr.der().to_vec())
}

impl Csr {
    /// Reads a request in DER, checks that its key is good enough and that it
    /// is signed with it. Extensions that don't name anything are ignored.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > limits::CERTIFICATE_BYTES {
            return Err(CsrError::TooLong(der.len()));
        }
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        let info = &csr.certification_request_info;
        // Version "1" has the number 0 (RFC 2986 §4.1).
        if !rest.is_empty() || info.version != X509Version::V1 {
            return Err(CsrError::Malformed);
        }
        let kind = key_kind(&info.subject_pki)?;
        verifier(kind, &csr.signature_algorithm.algorithm)
            .ok_or(CsrError::Signature)
            .and_then(|algorithm| {
                UnparsedPublicKey::new(algorithm, &info.subject_pki.subject_public_key.data)
                    .verify(info.raw, &csr.signature_value.data)
                    .map_err(|_| CsrError::Signature)
            })?;
        let mut out = Self {
            spki: info.subject_pki.raw.to_vec(),
            dns: BTreeSet::new(),
            ips: BTreeSet::new(),
        };
        out.read_extensions(&csr)?;
        if out.dns.is_empty() && out.ips.is_empty() {
            return Err(CsrError::NoName);
        }
        for name in info.subject.iter_common_name() {
            let name = name.as_str().map_err(|_| CsrError::Malformed)?;
            let known = out.dns.contains(&name.to_ascii_lowercase())
                || name.parse().is_ok_and(|address| out.ips.contains(&address));
            if !known {
                return Err(CsrError::CommonName(shown(name)));
            }
        }
        Ok(out)
    }

    fn read_extensions(&mut self, csr: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
        let requests = csr
            .certification_request_info
            .iter_attributes()
            .filter_map(|attribute| match attribute.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(request) => Some(request),
                _ => None,
            });
        for extension in requests.flat_map(|request| &request.extensions) {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    self.read_names(&names.general_names)?;
                }
                ParsedExtension::BasicConstraints(basic) if basic.ca => return Err(CsrError::Ca),
                ParsedExtension::ParseError { .. } => return Err(CsrError::Malformed),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_names(&mut self, names: &[GeneralName<'_>]) -> Result<(), CsrError> {
        if names.len() > limits::CERTIFICATE_NAMES {
            return Err(CsrError::Names(names.len()));
        }
        for name in names {
            match name {
                GeneralName::DNSName(name) => {
                    let lower = name.to_ascii_lowercase();
                    if !is_dns_name(&lower) {
                        return Err(CsrError::Name(shown(name)));
                    }
                    self.dns.insert(lower);
                }
                GeneralName::IPAddress(octets) => {
                    let address = match octets.len() {
                        4 => <[u8; 4]>::try_from(*octets).ok().map(IpAddr::from),
                        _ => <[u8; 16]>::try_from(*octets).ok().map(IpAddr::from),
                    };
                    self.ips.insert(address.ok_or(CsrError::Malformed)?);
                }
                other => return Err(CsrError::Name(shown(&other.to_string()))),
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

fn key_kind(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, CsrError> {
    let key = build::public_key(spki.raw)
        .ok_or(CsrError::Key("it is of an unknown kind, or oddly encoded"))?;
    let algorithm = key.algorithm();
    if algorithm == &PKCS_ECDSA_P256_SHA256 {
        Ok(KeyKind::P256)
    } else if algorithm == &PKCS_ECDSA_P384_SHA384 {
        Ok(KeyKind::P384)
    } else if algorithm == &PKCS_ED25519 {
        Ok(KeyKind::Ed25519)
    } else if algorithm == &PKCS_RSA_SHA256 {
        match spki.parsed() {
            Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => Err(CsrError::Key(
                "an RSA key of less than 2048 bits is too weak",
            )),
            Ok(PublicKey::RSA(rsa)) if rsa.key_size() > 8192 => Err(CsrError::Key(
                "an RSA key of more than 8192 bits is too slow",
            )),
            Ok(PublicKey::RSA(_)) => Ok(KeyKind::Rsa),
            _ => Err(CsrError::Malformed),
        }
    } else {
        Err(CsrError::Key("browsers don't accept this curve"))
    }
}

const ECDSA_SHA256: Oid<'static> = oid!(1.2.840.10045.4.3.2);
const ECDSA_SHA384: Oid<'static> = oid!(1.2.840.10045.4.3.3);
const RSA_SHA256: Oid<'static> = oid!(1.2.840.113549.1.1.11);
const RSA_SHA384: Oid<'static> = oid!(1.2.840.113549.1.1.12);
const RSA_SHA512: Oid<'static> = oid!(1.2.840.113549.1.1.13);
const ED25519: Oid<'static> = oid!(1.3.101.112);

/// How to check a signature of this algorithm by a key of this kind; SHA-1 and
/// the like are left out on purpose.
fn verifier(kind: KeyKind, oid: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    match kind {
        KeyKind::P256 if *oid == ECDSA_SHA256 => Some(&signature::ECDSA_P256_SHA256_ASN1),
        KeyKind::P256 if *oid == ECDSA_SHA384 => Some(&signature::ECDSA_P256_SHA384_ASN1),
        KeyKind::P384 if *oid == ECDSA_SHA256 => Some(&signature::ECDSA_P384_SHA256_ASN1),
        KeyKind::P384 if *oid == ECDSA_SHA384 => Some(&signature::ECDSA_P384_SHA384_ASN1),
        KeyKind::Ed25519 if *oid == ED25519 => Some(&signature::ED25519),
        KeyKind::Rsa if *oid == RSA_SHA256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        KeyKind::Rsa if *oid == RSA_SHA384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        KeyKind::Rsa if *oid == RSA_SHA512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
