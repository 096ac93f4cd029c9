//! Which certificates a mesh accepts: the shape of its root, of its issuers,
//! and of each leaf that an issuer may sign.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{
    Certificate, CertificateError, KeyUsage, NameConstraints, is_dns_name, is_rsa, p256_point,
};
use crate::{
    crypto::{PublicKey, Verify},
    limits,
    name::MeshDomain,
};

/// What a leaf certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeafKind {
    /// A node's membership: its Ed25519 identity key, TLS server and client,
    /// the node id as the common name.
    Membership,
    /// A service's name: TLS server only.
    Service,
}

/// The leaf certificate that was decided on: the signer makes exactly this,
/// and everybody else checks for exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafPlan {
    /// What for.
    pub kind: LeafKind,
    /// DNS names, lower case, perhaps with `*` as the first label.
    pub dns: BTreeSet<String>,
    /// IP addresses.
    pub ips: BTreeSet<IpAddr>,
    /// The subject's key: SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// The common name: a member's id, or one of the names; none leaves the subject
    /// empty.
    pub common_name: Option<String>,
    /// Days from `stamp_ms` to the end, unless the issuer ends earlier.
    pub days: u32,
    /// The ledger's time at signing, in milliseconds since 1970; a check may
    /// be made at a stamp that is up to [`limits::STAMP_SLACK_S`] later.
    pub stamp_ms: u64,
}

const MS_PER_DAY: u64 = 24 * 3600 * 1000;

/// Whether `leaf` is what `plan` allows and `issuer` signed: same names, no
/// more and no fewer, same key, within time. The issuer's own certificate must
/// have passed [`check_issuer`].
///
/// Wildcards and kinds of names that name constraints don't reach are judged
/// here as well (SAFETY S16).
///
/// # Errors
/// [`CertificateError`] names the first difference.
pub fn check_leaf(
    leaf: &Certificate,
    plan: &LeafPlan,
    issuer: &Certificate,
    verify: &dyn Verify,
) -> Result<(), CertificateError> {
    check_plan(plan, issuer)?;
    if leaf.is_ca || leaf.path_len.is_some() || leaf.constraints.is_some() {
        return Err(CertificateError::Ca);
    }
    let usage = KeyUsage {
        digital_signature: true,
        // Other keys can't.
        key_encipherment: leaf.key_usage.key_encipherment && is_rsa(&leaf.spki),
        ..KeyUsage::default()
    };
    let client = plan.kind == LeafKind::Membership;
    if leaf.key_usage != usage
        || !leaf.server_auth
        || leaf.client_auth != client
        || leaf.other_usage
    {
        return Err(CertificateError::Usage);
    }
    if leaf.spki != plan.spki {
        return Err(CertificateError::Key);
    }
    check_names(leaf, plan)?;
    let attributes = usize::from(plan.common_name.is_some());
    if leaf.common_name != plan.common_name || leaf.subject_attributes != attributes {
        return Err(CertificateError::CommonName);
    }
    let earliest = (limits::BACKDATE_S + limits::STAMP_SLACK_S) * 1000;
    // A certificate counts in whole seconds.
    if leaf.not_before_ms > plan.stamp_ms
        || leaf.not_before_ms / 1000 < plan.stamp_ms.saturating_sub(earliest) / 1000
    {
        return Err(CertificateError::Begins);
    }
    let latest = plan
        .stamp_ms
        .saturating_add(u64::from(plan.days) * MS_PER_DAY)
        .min(issuer.not_after_ms);
    if leaf.not_after_ms > latest || leaf.not_after_ms <= plan.stamp_ms {
        return Err(CertificateError::Ends);
    }
    check_signed(leaf, issuer, verify)
}

/// Whether `plan` is one that `issuer` may sign at all.
fn check_plan(plan: &LeafPlan, issuer: &Certificate) -> Result<(), CertificateError> {
    if plan.days == 0 || plan.days > limits::LEAF_DAYS {
        return Err(CertificateError::Days(plan.days));
    }
    let constraints = issuer
        .constraints
        .as_ref()
        .ok_or(CertificateError::Constraints)?;
    let names = plan.dns.len() + plan.ips.len();
    if names == 0 || names > limits::CERTIFICATE_NAMES {
        return Err(CertificateError::Names(names));
    }
    for name in &plan.dns {
        check_dns_name(name, constraints)?;
    }
    for address in &plan.ips {
        if !constraints.ips.iter().any(|range| range.contains(address)) {
            return Err(CertificateError::Outside(address.to_string()));
        }
    }
    let named = match plan.kind {
        LeafKind::Membership => {
            let key = PublicKey::from_spki(&plan.spki).ok_or(CertificateError::KeyKind)?;
            plan.common_name == Some(key.node_id().to_string())
        }
        // Name constraints don't reach a common name beside alternative names,
        // and some clients still take it for a host's: it may be one of those only.
        LeafKind::Service => {
            let name = plan.common_name.as_ref();
            name.is_none_or(|name| plan.dns.contains(name))
        }
    };
    if !named {
        return Err(CertificateError::CommonName);
    }
    Ok(())
}

/// Name constraints say nothing of how far a wildcard reaches: `*.<domain>`
/// would stand for every node and service.
fn check_dns_name(name: &str, constraints: &NameConstraints) -> Result<(), CertificateError> {
    if !is_dns_name(name) {
        return Err(if name.contains('*') {
            CertificateError::Wildcard(name.to_string())
        } else {
            CertificateError::Name(name.to_string())
        });
    }
    let host = name.strip_prefix("*.");
    let inside = constraints.dns.iter().any(|domain| {
        host.unwrap_or(name)
            .strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if !inside {
        return Err(CertificateError::Outside(name.to_string()));
    }
    if host.is_some_and(|host| constraints.dns.iter().any(|domain| domain == host)) {
        return Err(CertificateError::Wildcard(name.to_string()));
    }
    Ok(())
}

fn check_names(leaf: &Certificate, plan: &LeafPlan) -> Result<(), CertificateError> {
    if leaf.other_names > 0 {
        return Err(CertificateError::OtherNames);
    }
    if let Some(name) = leaf.dns.difference(&plan.dns).next() {
        return Err(CertificateError::Unplanned(name.clone()));
    }
    if let Some(address) = leaf.ips.difference(&plan.ips).next() {
        return Err(CertificateError::Unplanned(address.to_string()));
    }
    if let Some(name) = plan.dns.difference(&leaf.dns).next() {
        return Err(CertificateError::Missing(name.clone()));
    }
    if let Some(address) = plan.ips.difference(&leaf.ips).next() {
        return Err(CertificateError::Missing(address.to_string()));
    }
    Ok(())
}

/// Whether `root` is a root of the mesh with this domain and these overlay
/// ranges: a P-256 key that signed itself, path length 1, critical name
/// constraints of exactly the domain and the ranges. Which mesh it is, its
/// key says: [`crate::id::MeshId::of_root`].
///
/// # Errors
/// [`CertificateError`] names the first difference.
pub fn check_root(
    root: &Certificate,
    domain: &MeshDomain,
    v4: Ipv4Net,
    ula: Ipv6Net,
    verify: &dyn Verify,
) -> Result<(), CertificateError> {
    check_ca(root, 1)?;
    let expected = NameConstraints {
        dns: vec![domain.as_str().to_string()],
        mail: vec![domain.as_str().to_string()],
        ips: vec![IpNet::V4(v4), IpNet::V6(ula)],
        others: 0,
        critical: true,
    };
    if root.constraints.as_ref() != Some(&expected) {
        return Err(CertificateError::Constraints);
    }
    if root.server_auth || root.client_auth || root.other_usage {
        return Err(CertificateError::Usage);
    }
    if root.issuer != root.subject {
        return Err(CertificateError::Issuer);
    }
    if !root.is_signed_by(&root.spki, verify) {
        return Err(CertificateError::Signature);
    }
    Ok(())
}

/// Whether `issuer` is an issuer under `root`, which must have passed
/// [`check_root`]: a P-256 key of its own, path length 0, the root's name
/// constraints, for TLS servers and clients, and not beyond the root's end.
///
/// # Errors
/// [`CertificateError`] names the first difference.
pub fn check_issuer(
    issuer: &Certificate,
    root: &Certificate,
    verify: &dyn Verify,
) -> Result<(), CertificateError> {
    check_ca(issuer, 0)?;
    if issuer.constraints.is_none() || issuer.constraints != root.constraints {
        return Err(CertificateError::Constraints);
    }
    if !issuer.server_auth || !issuer.client_auth || issuer.other_usage {
        return Err(CertificateError::Usage);
    }
    if issuer.spki == root.spki {
        return Err(CertificateError::Key);
    }
    if issuer.not_after_ms > root.not_after_ms {
        return Err(CertificateError::Ends);
    }
    check_signed(issuer, root, verify)
}

/// What root and issuers have in common.
fn check_ca(ca: &Certificate, path_len: u32) -> Result<(), CertificateError> {
    if !ca.is_ca {
        return Err(CertificateError::Ca);
    }
    if ca.path_len != Some(path_len) {
        return Err(CertificateError::PathLen(path_len));
    }
    if p256_point(&ca.spki).is_none() {
        return Err(CertificateError::KeyKind);
    }
    let usage = KeyUsage {
        cert_sign: true,
        crl_sign: true,
        ..KeyUsage::default()
    };
    if ca.key_usage != usage {
        return Err(CertificateError::Usage);
    }
    if !ca.dns.is_empty() || !ca.ips.is_empty() || ca.other_names > 0 {
        return Err(CertificateError::OtherNames);
    }
    Ok(())
}

fn check_signed(
    certificate: &Certificate,
    by: &Certificate,
    verify: &dyn Verify,
) -> Result<(), CertificateError> {
    if certificate.issuer != by.subject
        || by.key_id.is_none()
        || certificate.authority_key_id != by.key_id
    {
        return Err(CertificateError::Issuer);
    }
    if !certificate.is_signed_by(&by.spki, verify) {
        return Err(CertificateError::Signature);
    }
    Ok(())
}
