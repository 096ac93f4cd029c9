//! An issuer: a CA node's own signing key, and the root-signed certificate
//! that lets it sign leaves.

use std::{fmt, sync::Arc};

use innermesh_proto::certificate::{
    Certificate, CertificateError, LeafKind, LeafPlan, Serial, check_leaf, is_rsa,
};
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose, SerialNumber};

use super::{
    CaError,
    build::{self, RcgenKey, encoding},
};
use innermesh_host::keys::{CaKey, Keys};

const MS_PER_DAY: u64 = 24 * 3600 * 1000;

/// An issuer's key and certificate.
#[derive(Clone)]
pub struct Issuer {
    key: Arc<dyn CaKey>,
    der: Vec<u8>,
    certificate: Certificate,
}

impl Issuer {
    /// From a stored key and certificate. That the certificate is one of this
    /// mesh is for [`innermesh_proto::certificate::check_issuer`].
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

    /// Makes the leaf that `plan` describes: from an hour before the plan's
    /// stamp until its days are over or the issuer ends, whichever is first.
    ///
    /// # Errors
    /// [`CaError::Refused`] for a plan that [`check_leaf`] refuses.
    pub fn sign_leaf(
        &self,
        plan: &LeafPlan,
        serial: Serial,
        keys: &dyn Keys,
    ) -> Result<Vec<u8>, CaError> {
        let subject = build::public_key(&plan.spki).ok_or(CertificateError::KeyKind)?;
        let end = plan
            .stamp_ms
            .saturating_add(u64::from(plan.days) * MS_PER_DAY)
            .min(self.certificate.not_after_ms);
        let params = leaf_params(plan, serial, end)?;
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
        check_leaf(&Certificate::parse(&der)?, plan, &self.certificate, keys)?;
        Ok(der)
    }

    /// The issuer's certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's certificate, read.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The private key.
    pub fn key(&self) -> &Arc<dyn CaKey> {
        &self.key
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuer {:?}", self.certificate.key_hash)
    }
}

fn leaf_params(plan: &LeafPlan, serial: Serial, end_ms: u64) -> Result<CertificateParams, CaError> {
    let mut params = build::params(plan.common_name.as_deref(), plan.stamp_ms, end_ms)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    // Basic constraints of a leaf: "not a CA", and with them its key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if is_rsa(&plan.spki) {
        // NSS takes no RSA key for a server's without it.
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = build::usages(plan.kind == LeafKind::Membership);
    params.subject_alt_names = build::names(&plan.dns, &plan.ips)?;
    Ok(params)
}
