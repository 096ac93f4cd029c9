//! X.509 certificates, read: one certificate's DER becomes a [`Certificate`],
//! and [`check_root`], [`check_issuer`] and [`check_leaf`] say whether it is
//! what this mesh may hold. Making certificates is the shell's work; this
//! module knows no private key and no clock.
//!
//! Names follow RFC 5280. What isn't understood is refused and not skipped:
//! our certificates are made by one program, so anything unusual is a mistake
//! or an attack.

mod kept;
mod key;
mod profile;
mod revocations;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use x509_parser::{
    asn1_rs::{Oid, oid},
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree, ParsedExtension, X509Extension},
    prelude::FromDer,
    time::ASN1Time,
    x509::{AlgorithmIdentifier, X509Version},
};

pub use self::{
    kept::KeptCertificate,
    key::{is_rsa, p256_point, p256_spki},
    profile::{LeafKind, LeafPlan, check_issuer, check_leaf, check_root},
    revocations::{RevocationList, RevocationListError},
};
use crate::{
    crypto::{Hash, PublicKey, Verify},
    limits,
    name::Label,
};

/// A certificate's serial number: 128 bits, not all zero (RFC 5280 §4.1.2.2;
/// the DER integer has a zero octet in front where the top bit is set).
/// Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial(pub [u8; 16]);

/// What a certificate says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number.
    pub serial: Serial,
    /// The subject's public key: SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// SHA-256 of `spki`: what revocations are keyed on, with the serial.
    pub key_hash: Hash,
    /// The subject's name in DER; `30 00` when empty.
    pub subject: Vec<u8>,
    /// The subject's common name, where there is one.
    pub common_name: Option<String>,
    /// The issuer's name in DER.
    pub issuer: Vec<u8>,
    /// The subject key identifier.
    pub key_id: Option<Vec<u8>>,
    /// The issuer's key identifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// Valid from, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// Valid until, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// DNS names, lower case, perhaps with `*` as the first label.
    pub dns: BTreeSet<String>,
    /// IP addresses.
    pub ips: BTreeSet<IpAddr>,
    /// How many subject alternative names of other kinds there are.
    pub other_names: usize,
    /// Whether the subject may sign certificates.
    pub is_ca: bool,
    /// How many more CA certificates may follow.
    pub path_len: Option<u32>,
    /// Which names may follow.
    pub constraints: Option<NameConstraints>,
    /// What the key is for.
    pub key_usage: KeyUsage,
    /// For TLS servers.
    pub server_auth: bool,
    /// For TLS clients.
    pub client_auth: bool,
    /// For anything else as well.
    pub other_usage: bool,
    subject_attributes: usize,
    tbs: Vec<u8>,
    signature: Vec<u8>,
}

/// Permitted names (RFC 5280 §4.2.1.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameConstraints {
    /// DNS subtrees.
    pub dns: Vec<String>,
    /// Mail hosts.
    pub mail: Vec<String>,
    /// Address ranges.
    pub ips: Vec<IpNet>,
    /// Subtrees of other kinds, and all excluded ones.
    pub others: usize,
    /// Whether software that doesn't know constraints must refuse.
    pub critical: bool,
}

/// What a key is for (RFC 5280 §4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUsage {
    /// Signing handshakes.
    pub digital_signature: bool,
    /// Carrying the secrets of old handshakes, with RSA.
    pub key_encipherment: bool,
    /// Signing certificates.
    pub cert_sign: bool,
    /// Signing revocation lists.
    pub crl_sign: bool,
    /// Anything else.
    pub others: bool,
}

/// Why a certificate was not accepted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than [`limits::CERTIFICATE_BYTES`].
    #[error("a certificate of {0} bytes; at most {max} are accepted", max = limits::CERTIFICATE_BYTES)]
    TooLong(usize),
    /// Not DER of a certificate.
    #[error("not a certificate: {0}")]
    Malformed(String),
    /// A certificate, then more bytes.
    #[error("{0} bytes after the certificate")]
    Trailing(usize),
    /// Not version 3, or with unique identifiers.
    #[error("not a version 3 certificate")]
    Version,
    /// Zero, negative, or longer than 128 bits.
    #[error("the serial number is not a positive number of at most 128 bits")]
    Serial,
    /// Before 1970, or it ends before it begins.
    #[error("the certificate's validity makes no sense")]
    Validity,
    /// The signature is not ECDSA with SHA-256, or the two places that name
    /// its algorithm differ.
    #[error("the certificate is not signed with ECDSA and SHA-256")]
    Algorithm,
    /// A critical extension that isn't known here.
    #[error("unknown critical extension {0}")]
    Critical(String),
    /// An extension whose content can't be read.
    #[error("malformed extension {0}")]
    Extension(String),
    /// An extension or a name that stands twice.
    #[error("{0} stands twice in the certificate")]
    Twice(String),
    /// A subject with several common names, or with one that isn't text.
    #[error("the certificate's subject can't be read")]
    Subject,
    /// An alternative name that is no host name in lower case, or no address.
    #[error("\"{0}\" is not a host name or an address")]
    Name(String),
    /// No name in a plan, or more than [`limits::CERTIFICATE_NAMES`] names.
    #[error("{0} names in one certificate; between 1 and {max} are possible", max = limits::CERTIFICATE_NAMES)]
    Names(usize),
    /// A root's or an issuer's key is not P-256; a member's is not Ed25519.
    #[error("the certificate's key is of the wrong kind")]
    KeyKind,
    /// The key is not the one that was asked for.
    #[error("the certificate is for another key")]
    Key,
    /// Not signed by the stated issuer's key.
    #[error("the certificate's signature is not its issuer's")]
    Signature,
    /// It names another issuer, by name or by key identifier.
    #[error("the certificate names another issuer")]
    Issuer,
    /// A CA certificate where a leaf belongs, or the other way round.
    #[error("the certificate is a CA's where it must not be one, or is none where it must be")]
    Ca,
    /// A root without path length 1, an issuer without path length 0.
    #[error("the CA certificate's path length is not {0}")]
    PathLen(u32),
    /// Name constraints are missing, not critical, or other than the mesh's.
    #[error("the CA certificate's name constraints are not the mesh's")]
    Constraints,
    /// Key usage or extended key usage is more or less than it should be.
    #[error("the certificate is for more, or for less, than it should be")]
    Usage,
    /// A name that the plan doesn't have.
    #[error("the certificate names {0}, which was not asked for")]
    Unplanned(String),
    /// A name that the plan has and the certificate doesn't.
    #[error("the certificate lacks {0}, which was asked for")]
    Missing(String),
    /// A URI, a mail address or another kind of name.
    #[error("the certificate has names other than host names and addresses")]
    OtherNames,
    /// A name outside of the issuer's constraints.
    #[error("{0} is outside of what the issuer may name")]
    Outside(String),
    /// A wildcard other than the whole first label of a name below a node or service.
    #[error("the wildcard {0} covers more than one node or service")]
    Wildcard(String),
    /// The subject is not the planned one.
    #[error("the certificate's subject is not the planned one")]
    CommonName,
    /// It begins earlier than backdating allows, or later than its stamp.
    #[error("the certificate begins too early or too late")]
    Begins,
    /// It ends later than the plan, or its issuer, allows.
    #[error("the certificate ends later than it may")]
    Ends,
    /// A plan for no day, or for more than [`limits::LEAF_DAYS`].
    #[error("a certificate of {0} days; between 1 and {max} are possible", max = limits::LEAF_DAYS)]
    Days(u32),
}

/// ecdsa-with-SHA256 (RFC 5758 §3.2).
const ECDSA_SHA256: Oid<'static> = oid!(1.2.840.10045.4.3.2);

impl Certificate {
    /// Reads one certificate from DER.
    ///
    /// # Errors
    /// [`CertificateError`], up to [`CertificateError::Names`]: whether the
    /// certificate is one that this mesh wants is checked elsewhere.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > limits::CERTIFICATE_BYTES {
            return Err(CertificateError::TooLong(der.len()));
        }
        let (rest, x509) = X509Certificate::from_der(der)
            .map_err(|e| CertificateError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(CertificateError::Trailing(rest.len()));
        }
        let tbs = &x509.tbs_certificate;
        if tbs.version != X509Version::V3 || tbs.issuer_uid.is_some() || tbs.subject_uid.is_some() {
            return Err(CertificateError::Version);
        }
        if !is_ecdsa_sha256(&x509.signature_algorithm) || x509.signature_algorithm != tbs.signature
        {
            return Err(CertificateError::Algorithm);
        }
        let not_before_ms = milliseconds(tbs.validity.not_before)?;
        let not_after_ms = milliseconds(tbs.validity.not_after)?;
        if not_after_ms <= not_before_ms {
            return Err(CertificateError::Validity);
        }
        let spki = tbs.subject_pki.raw.to_vec();
        let mut certificate = Self {
            serial: serial(tbs.raw_serial())?,
            key_hash: Hash::of(&spki),
            spki,
            subject: tbs.subject.as_raw().to_vec(),
            common_name: common_name(&x509)?,
            issuer: tbs.issuer.as_raw().to_vec(),
            key_id: None,
            authority_key_id: None,
            not_before_ms,
            not_after_ms,
            dns: BTreeSet::new(),
            ips: BTreeSet::new(),
            other_names: 0,
            is_ca: false,
            path_len: None,
            constraints: None,
            key_usage: KeyUsage::default(),
            server_auth: false,
            client_auth: false,
            other_usage: false,
            subject_attributes: tbs.subject.iter_attributes().count(),
            tbs: tbs.as_ref().to_vec(),
            signature: x509.signature_value.data.to_vec(),
        };
        let mut seen = BTreeSet::new();
        for extension in tbs.extensions() {
            let id = extension.oid.to_id_string();
            certificate.read_extension(extension, &id)?;
            if !seen.insert(id.clone()) {
                return Err(CertificateError::Twice(id));
            }
        }
        Ok(certificate)
    }

    /// Whether the P-256 key in `issuer_spki` (DER) signed this certificate.
    pub fn is_signed_by(&self, issuer_spki: &[u8], verify: &dyn Verify) -> bool {
        verify.p256(issuer_spki, &self.tbs, &self.signature)
    }

    /// The subject's key, where that is an Ed25519 key: the identity of a member.
    pub fn ed25519(&self) -> Option<PublicKey> {
        PublicKey::from_spki(&self.spki)
    }

    /// Whether `time_ms` is within the certificate's validity.
    pub fn is_valid_at(&self, time_ms: u64) -> bool {
        (self.not_before_ms..=self.not_after_ms).contains(&time_ms)
    }

    fn read_extension(
        &mut self,
        extension: &X509Extension<'_>,
        id: &str,
    ) -> Result<(), CertificateError> {
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => {
                return Err(CertificateError::Extension(id.to_string()));
            }
            ParsedExtension::SubjectKeyIdentifier(key) => self.key_id = Some(key.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                self.authority_key_id = authority.key_identifier.as_ref().map(|key| key.0.to_vec());
            }
            ParsedExtension::BasicConstraints(basic) => {
                self.is_ca = basic.ca;
                self.path_len = basic.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = KeyUsage {
                    digital_signature: usage.digital_signature(),
                    key_encipherment: usage.key_encipherment(),
                    cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                    // Bits 0, 2, 5 and 6 are the four above.
                    others: usage.flags & !0b110_0101 != 0,
                };
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.server_auth = usage.server_auth;
                self.client_auth = usage.client_auth;
                self.other_usage = usage.any
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing
                    || !usage.other.is_empty();
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.read_names(&names.general_names)?;
            }
            ParsedExtension::NameConstraints(constraints) => {
                self.constraints = Some(read_constraints(
                    constraints
                        .permitted_subtrees
                        .as_deref()
                        .unwrap_or_default(),
                    constraints.excluded_subtrees.as_deref().unwrap_or_default(),
                    extension.critical,
                )?);
            }
            _ if extension.critical => return Err(CertificateError::Critical(id.to_string())),
            _ => {}
        }
        Ok(())
    }

    fn read_names(&mut self, names: &[GeneralName<'_>]) -> Result<(), CertificateError> {
        if names.len() > limits::CERTIFICATE_NAMES {
            return Err(CertificateError::Names(names.len()));
        }
        for name in names {
            let new = match name {
                GeneralName::DNSName(dns) if is_dns_name(dns) => self.dns.insert(dns.to_string()),
                GeneralName::DNSName(other) => return Err(CertificateError::Name(shown(other))),
                GeneralName::IPAddress(octets) => {
                    self.ips.insert(address(octets).ok_or_else(|| {
                        CertificateError::Name(data_encoding::HEXLOWER.encode(octets))
                    })?)
                }
                _ => {
                    self.other_names += 1;
                    true
                }
            };
            if !new {
                return Err(CertificateError::Twice(name.to_string()));
            }
        }
        Ok(())
    }
}

/// Whether `name` is a host name in lower case (RFC 1123 §2.1), or one with
/// `*` as its whole first label.
pub fn is_dns_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253
        && host.split('.').all(|label| {
            label
                .parse::<Label>()
                .is_ok_and(|parsed| parsed.as_str() == label)
        })
}

fn is_ecdsa_sha256(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    // RFC 5758 §3.2: the parameters are absent.
    algorithm.algorithm == ECDSA_SHA256 && algorithm.parameters.is_none()
}

fn milliseconds(time: ASN1Time) -> Result<u64, CertificateError> {
    u64::try_from(time.timestamp())
        .ok()
        .and_then(|seconds| seconds.checked_mul(1000))
        .ok_or(CertificateError::Validity)
}

/// The content octets of a DER integer as 128 bits.
fn serial(octets: &[u8]) -> Result<Serial, CertificateError> {
    let magnitude = match octets {
        [first, ..] if *first >= 0x80 => return Err(CertificateError::Serial),
        [0, rest @ ..] => rest,
        all => all,
    };
    let mut out = [0; 16];
    let start = out
        .len()
        .checked_sub(magnitude.len())
        .ok_or(CertificateError::Serial)?;
    out[start..].copy_from_slice(magnitude);
    if out == [0; 16] {
        return Err(CertificateError::Serial);
    }
    Ok(Serial(out))
}

fn common_name(x509: &X509Certificate<'_>) -> Result<Option<String>, CertificateError> {
    let mut names = x509.subject().iter_common_name();
    match (names.next(), names.next()) {
        (None, _) => Ok(None),
        (Some(name), None) => name
            .as_str()
            .map(|text| Some(text.to_string()))
            .map_err(|_| CertificateError::Subject),
        _ => Err(CertificateError::Subject),
    }
}

fn read_constraints(
    permitted: &[GeneralSubtree<'_>],
    excluded: &[GeneralSubtree<'_>],
    critical: bool,
) -> Result<NameConstraints, CertificateError> {
    let mut out = NameConstraints {
        dns: vec![],
        mail: vec![],
        ips: vec![],
        others: excluded.len(),
        critical,
    };
    for subtree in permitted {
        match &subtree.base {
            GeneralName::DNSName(name) => out.dns.push(name.to_string()),
            GeneralName::RFC822Name(name) => out.mail.push(name.to_string()),
            GeneralName::IPAddress(octets) => {
                out.ips
                    .push(range(octets).ok_or(CertificateError::Constraints)?);
            }
            _ => out.others += 1,
        }
    }
    Ok(out)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
        _ => None,
    }
}

/// Address, then mask (RFC 5280 §4.2.1.10).
fn range(octets: &[u8]) -> Option<IpNet> {
    let (network, mask) = octets.split_at_checked(octets.len() / 2)?;
    IpNet::with_netmask(address(network)?, address(mask)?).ok()
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Not 32 hexadecimal digits, or zero.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a serial number: 32 hexadecimal digits were expected, as `agent cert list` shows them"
)]
pub struct SerialError;

impl FromStr for Serial {
    type Err = SerialError;

    /// Also takes upper case and colons, as openssl and browsers write them.
    fn from_str(s: &str) -> Result<Self, SerialError> {
        let digits: String = s.chars().filter(|c| *c != ':').collect();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_| SerialError)?;
        let serial: [u8; 16] = bytes.try_into().map_err(|_| SerialError)?;
        if serial == [0; 16] {
            return Err(SerialError);
        }
        Ok(Self(serial))
    }
}

#[cfg(test)]
mod tests;
