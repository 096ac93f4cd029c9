//! A root, issuers and leaves for tests, here and of the crates above.

#![allow(missing_docs, reason = "made for tests")]
#![allow(clippy::disallowed_methods, reason = "made for tests")]

use std::{collections::BTreeSet, path::Path, sync::Arc};

use innermesh_host::keys::{Keys, NodeKey, SystemKeys};
use innermesh_proto::{
    certificate::{Certificate, CertificateError, LeafKind, LeafPlan, check_leaf},
    limits,
    name::MeshDomain,
};
use ipnet::Ipv4Net;
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose};

use super::{
    CaError, Issuer, Root,
    build::{self, RcgenKey},
    pem, random_serial,
};

/// Some day in 2026, in milliseconds since 1970.
pub const NOW: u64 = 1_790_000_000_123;
pub(crate) const DAY: u64 = 24 * 3600 * 1000;

pub(crate) fn domain() -> MeshDomain {
    "lab.internal".parse().unwrap()
}

pub(crate) fn v4() -> Ipv4Net {
    "10.77.0.0/16".parse().unwrap()
}

pub fn root() -> Root {
    root_at(NOW)
}

pub(crate) fn root_at(now_ms: u64) -> Root {
    let keys = SystemKeys;
    Root::generate(keys.generate_p256(), &domain(), v4(), now_ms, &keys).unwrap()
}

pub fn issuer(root: &Root, now_ms: u64) -> Issuer {
    let keys = SystemKeys;
    let key = keys.generate_p256();
    let der = root.issuer(&key.spki(), now_ms, &keys).unwrap();
    Issuer::new(key, der).unwrap()
}

/// A plan for a node's membership.
pub fn membership(key: &dyn NodeKey) -> LeafPlan {
    let id = key.public().node_id();
    LeafPlan {
        kind: LeafKind::Membership,
        dns: BTreeSet::from(["nas.lab.internal".to_string()]),
        ips: BTreeSet::from(["10.77.3.4".parse().unwrap()]),
        spki: key.public().spki().to_vec(),
        common_name: Some(id.to_string()),
        days: limits::MEMBERSHIP_DAYS,
        stamp_ms: NOW,
    }
}

/// A plan for a service.
pub fn service(spki: Vec<u8>) -> LeafPlan {
    LeafPlan {
        kind: LeafKind::Service,
        dns: BTreeSet::from([
            "photos.lab.internal".to_string(),
            "*.nas.lab.internal".to_string(),
        ]),
        ips: BTreeSet::new(),
        spki,
        common_name: None,
        days: 90,
        stamp_ms: NOW,
    }
}

/// Runs openssl in `folder`: its output, or its error text; `None` when there
/// is no such program.
#[cfg(test)]
pub fn openssl(folder: &Path, arguments: &[&str]) -> Option<Result<String, String>> {
    let run = std::process::Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(std::process::Stdio::null())
        .output();
    match run {
        Err(error) => {
            innermesh_skip::skip(format!("openssl can't be run: {error}"));
            None
        }
        Ok(output) if output.status.success() => {
            Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// A root, an issuer and a node.
pub struct World {
    pub root: Root,
    pub issuer: Issuer,
    pub node: Arc<dyn NodeKey>,
}

impl Default for World {
    fn default() -> Self {
        Self::at(NOW)
    }
}

impl World {
    pub fn new() -> Self {
        Self::default()
    }

    /// A world that began at this time.
    pub fn at(now_ms: u64) -> Self {
        let root = root_at(now_ms);
        let issuer = issuer(&root, now_ms);
        Self {
            root,
            issuer,
            node: SystemKeys.generate_ed25519(),
        }
    }

    pub fn sign(&self, plan: &LeafPlan) -> Result<Vec<u8>, CaError> {
        self.issuer
            .sign_leaf(plan, random_serial(&SystemKeys), &SystemKeys)
    }

    pub fn check(&self, leaf: &[u8], plan: &LeafPlan) -> Result<(), CertificateError> {
        check_leaf(
            &Certificate::parse(leaf)?,
            plan,
            self.issuer.certificate(),
            &SystemKeys,
        )
    }

    /// A leaf made without any of our checks.
    pub fn forge(&self, plan: &LeafPlan, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let end = plan.stamp_ms + u64::from(plan.days) * DAY;
        let mut params = build::params(plan.common_name.as_deref(), plan.stamp_ms, end).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(
            &random_serial(&SystemKeys).0,
        ));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = build::usages(plan.kind == LeafKind::Membership);
        params.subject_alt_names = build::names(&plan.dns, &plan.ips).unwrap();
        change(&mut params);
        let key = RcgenKey(self.issuer.key().clone());
        let signer = rcgen::Issuer::from_ca_cert_der(&self.issuer.der().into(), key).unwrap();
        let subject = build::public_key(&plan.spki).unwrap();
        params.signed_by(&subject, &signer).unwrap().der().to_vec()
    }

    /// Writes root, issuer and `leaf` as PEM files for openssl.
    pub fn write(&self, folder: &Path, leaf: &[u8]) {
        for (name, der) in [
            ("root", self.root.der()),
            ("issuer", self.issuer.der()),
            ("leaf", leaf),
        ] {
            std::fs::write(
                folder.join(format!("{name}.pem")),
                pem::encode(pem::CERTIFICATE, der),
            )
            .unwrap();
        }
    }
}
