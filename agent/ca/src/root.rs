//! The root of a mesh: it signs issuers, the genesis of the ledger and little
//! else, and its key is in use for moments only.

use std::{fmt, sync::Arc};

use innermesh_proto::{
    certificate::{Certificate, CertificateError, NameConstraints, check_issuer, check_root},
    crypto::Hash,
    id::MeshId,
    limits,
    name::MeshDomain,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rcgen::SerialNumber;

use super::{
    CaError,
    build::{self, RcgenKey, encoding},
    random_serial,
};
use innermesh_host::keys::{CaKey, KeyError, Keys};

const MS_PER_DAY: u64 = 24 * 3600 * 1000;

/// The root's key and certificate.
#[derive(Clone)]
pub struct Root {
    key: Arc<dyn CaKey>,
    der: Vec<u8>,
    certificate: Certificate,
}

impl Root {
    /// A new root for the mesh of `domain` and the IPv4 range `v4`, valid from
    /// `now_ms` (milliseconds since 1970) for [`limits::ROOT_DAYS`]. The key
    /// comes from [`Keys::generate_p256`]; the mesh id, from which `v4` may be
    /// chosen, is [`MeshId::of_root`] of it.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn generate(
        key: Arc<dyn CaKey>,
        domain: &MeshDomain,
        v4: Ipv4Net,
        now_ms: u64,
        keys: &dyn Keys,
    ) -> Result<Self, CaError> {
        let ula = MeshId::of_root(&key.spki()).ula();
        let name = build::ca_name(domain.as_str(), "root");
        let end = now_ms.saturating_add(u64::from(limits::ROOT_DAYS) * MS_PER_DAY);
        let mut params = build::params(Some(&name), now_ms, end)?;
        params.serial_number = Some(SerialNumber::from_slice(&random_serial(keys).0));
        build::make_ca(&mut params, 1, &constraints(domain, v4, ula));
        let der = params
            .self_signed(&RcgenKey(key.clone()))
            .map_err(encoding)?
            .der()
            .to_vec();
        let root = Self::new(key, der)?;
        check_root(&root.certificate, domain, v4, ula, keys)?;
        Ok(root)
    }

    /// From a stored key and certificate.
    ///
    /// # Errors
    /// [`CaError::Refused`] when it isn't a certificate, [`CaError::Mismatch`]
    /// when it is another key's.
    pub fn new(key: Arc<dyn CaKey>, der: Vec<u8>) -> Result<Self, CaError> {
        let certificate = Certificate::parse(&der)?;
        if certificate.spki != key.spki() {
            return Err(CaError::Mismatch);
        }
        Ok(Self {
            key,
            der,
            certificate,
        })
    }

    /// Signs a certificate that makes the P-256 key `spki` (DER) an issuer of
    /// this mesh, from `begin_ms` (milliseconds since 1970) for
    /// [`limits::ISSUER_DAYS`], or until the root ends.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issuer(&self, spki: &[u8], begin_ms: u64, keys: &dyn Keys) -> Result<Vec<u8>, CaError> {
        let subject = build::public_key(spki).ok_or(CertificateError::KeyKind)?;
        let constraints = self
            .certificate
            .constraints
            .as_ref()
            .ok_or(CertificateError::Constraints)?;
        let end = begin_ms
            .saturating_add(u64::from(limits::ISSUER_DAYS) * MS_PER_DAY)
            .min(self.certificate.not_after_ms);
        // The name tells issuers apart where a client looks for one by name.
        let hash = Hash::of(spki).to_string();
        let domain = constraints.dns.first().map_or("", String::as_str);
        let name = build::ca_name(domain, &format!("issuer {hash:.8}"));
        let mut params = build::params(Some(&name), begin_ms, end)?;
        params.serial_number = Some(SerialNumber::from_slice(&random_serial(keys).0));
        build::make_ca(&mut params, 0, constraints);
        params.extended_key_usages = build::usages(true);
        let signer = rcgen::Issuer::from_ca_cert_der(
            &self.der.as_slice().into(),
            RcgenKey(self.key.clone()),
        )
        .map_err(encoding)?;
        let der = params
            .signed_by(&subject, &signer)
            .map_err(encoding)?
            .der()
            .to_vec();
        check_issuer(&Certificate::parse(&der)?, &self.certificate, keys)?;
        Ok(der)
    }

    /// Signs `message` with the root's key: ECDSA P-256 with SHA-256, ASN.1 DER.
    ///
    /// # Errors
    /// [`KeyError::Signing`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(message)
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate, read.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The mesh that this is the root of.
    pub fn mesh(&self) -> MeshId {
        MeshId::of_root(&self.certificate.spki)
    }

    /// The private key.
    pub fn key(&self) -> &Arc<dyn CaKey> {
        &self.key
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root of {:?}", self.mesh())
    }
}

/// What may be named in a mesh. The domain stands without a leading dot, which
/// all of OpenSSL, GnuTLS, Go, Chromium and Firefox read as "it, and below".
fn constraints(domain: &MeshDomain, v4: Ipv4Net, ula: Ipv6Net) -> NameConstraints {
    NameConstraints {
        dns: vec![domain.to_string()],
        mail: vec![domain.to_string()],
        ips: vec![IpNet::V4(v4), IpNet::V6(ula)],
        others: 0,
        critical: true,
    }
}
