//! Certificate signing requests (PKCS #10, RFC 2986): made for `cert issue`,
//! and read from ACME clients. A request proves that who asks holds the key;
//! what it may be granted is decided elsewhere.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use innermesh_proto::{certificate::is_dns_name, limits};
use rcgen::{CertificateParams, DistinguishedName};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    x509::X509Version,
};

use super::{
    CaError,
    build::{self, RcgenKey, encoding},
    signature::KeyKind,
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
    /// A key that TLS clients refuse, or that is too weak.
    #[error("the key can't be certified: {0}; use P-256, P-384, or RSA with 2048 to 8192 bits")]
    Key(&'static str),
    /// An algorithm that isn't accepted with that key.
    #[error("the request is signed by {is}; with this key {accepted} is accepted")]
    Algorithm {
        /// What it is signed by.
        is: String,
        /// What could have signed it.
        accepted: &'static str,
    },
    /// Not signed with that key.
    #[error("the request is not signed with the key that it is for")]
    Signature,
    /// No name at all.
    #[error("the request names nothing, neither as subject alternative name nor as common name")]
    NoName,
    /// More than [`limits::CERTIFICATE_NAMES`] names.
    #[error("{0} names in one request; at most {max} are accepted", max = limits::CERTIFICATE_NAMES)]
    Names(usize),
    /// A name that is no host name or address.
    #[error("\"{0}\" is not a host name or an address")]
    Name(String),
    /// An address that stands for a DNS name.
    #[error(
        "\"{0}\" is an address, which a request names as one (iPAddress) and not as a DNS name"
    )]
    Address(String),
    /// A common name that is neither a host name nor among the alternative names.
    #[error(
        "the common name \"{0}\" is not a host name, nor an address among the alternative names"
    )]
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
        KeyKind::of(&info.subject_pki)?.check(&csr)?;
        let mut out = Self {
            spki: info.subject_pki.raw.to_vec(),
            dns: BTreeSet::new(),
            ips: BTreeSet::new(),
        };
        out.read_extensions(&csr)?;
        out.read_common_names(&csr)?;
        match out.dns.len() + out.ips.len() {
            0 => Err(CsrError::NoName),
            names if names > limits::CERTIFICATE_NAMES => Err(CsrError::Names(names)),
            _ => Ok(out),
        }
    }

    /// A DNS name may stand there alone (RFC 8555 §7.4), an address only beside
    /// itself as an alternative name (RFC 8738 §4).
    fn read_common_names(&mut self, csr: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
        let subject = &csr.certification_request_info.subject;
        for name in subject.iter_common_name() {
            let name = name.as_str().map_err(|_| CsrError::Malformed)?;
            let lower = name.to_ascii_lowercase();
            match lower.parse::<IpAddr>() {
                Ok(address) if self.ips.contains(&address) => {}
                Err(_) if is_dns_name(&lower) => {
                    self.dns.insert(lower);
                }
                _ => return Err(CsrError::CommonName(shown(name))),
            }
        }
        Ok(())
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
                    if lower.parse::<IpAddr>().is_ok() {
                        return Err(CsrError::Address(shown(name)));
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

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
