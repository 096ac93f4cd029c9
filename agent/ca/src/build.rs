//! Between our types and rcgen's.

use std::{net::IpAddr, sync::Arc, time::Duration};

use innermesh_proto::{certificate::NameConstraints, limits};
use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo,
};

use super::CaError;
use innermesh_host::keys::CaKey;

/// A key of the host, as rcgen wants one.
pub struct RcgenKey(pub Arc<dyn CaKey>);

impl PublicKeyData for RcgenKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for RcgenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .sign(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A public key, as rcgen wants one. `None` for a kind of key that it doesn't
/// know, or in an encoding that it would write otherwise: the certificate
/// would then be for other bytes than those asked for.
pub fn public_key(spki: &[u8]) -> Option<SubjectPublicKeyInfo> {
    let key = SubjectPublicKeyInfo::from_der(spki).ok()?;
    (key.subject_public_key_info() == spki).then_some(key)
}

/// Parameters with nothing in them but a name and times. `begin_ms` is set
/// back by [`limits::BACKDATE_S`] (SAFETY S19).
pub fn params(
    common_name: Option<&str>,
    begin_ms: u64,
    end_ms: u64,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.use_authority_key_identifier_extension = true;
    params.not_before = moment(begin_ms.saturating_sub(limits::BACKDATE_S * 1000))?;
    params.not_after = moment(end_ms)?;
    Ok(params)
}

/// A time in milliseconds since 1970, in whole seconds.
///
/// # Errors
/// [`CaError::Time`].
pub fn moment(ms: u64) -> Result<time::OffsetDateTime, CaError> {
    if ms > LAST_MS {
        Err(CaError::Time)
    } else {
        Ok(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(ms / 1000))
    }
}

/// The end of 9999, the last moment that X.509 can write (RFC 5280 §4.1.2.5).
const LAST_MS: u64 = 253_402_300_799_000;

/// Most characters of a common name (RFC 5280 appendix A.1, ub-common-name).
const COMMON_NAME: usize = 64;

/// The common name of the mesh's root or of an issuer: `what`. A long domain
/// loses its beginning.
pub fn ca_name(domain: &str, what: &str) -> String {
    let whole = format!("Innermesh {domain} {what}");
    let Some(excess @ 1..) = whole.len().checked_sub(COMMON_NAME) else {
        return whole;
    };
    // A domain is ASCII, so it can be cut anywhere.
    let left = domain.get(excess + CUT.len()..).unwrap_or_default();
    format!("Innermesh {CUT}{left} {what}")
}

/// Stands for what was cut.
const CUT: &str = "...";

/// What makes `params` those of a CA.
pub fn make_ca(params: &mut CertificateParams, path_len: u8, constraints: &NameConstraints) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let dns = constraints.dns.iter().cloned().map(GeneralSubtree::DnsName);
    let mail = constraints
        .mail
        .iter()
        .cloned()
        .map(GeneralSubtree::Rfc822Name);
    let ips = constraints
        .ips
        .iter()
        .map(|net| GeneralSubtree::IpAddress(subnet(*net)));
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: dns.chain(mail).chain(ips).collect(),
        excluded_subtrees: vec![],
    });
}

/// TLS server, and perhaps client.
pub fn usages(client: bool) -> Vec<ExtendedKeyUsagePurpose> {
    let mut out = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if client {
        out.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    out
}

/// Alternative names.
pub fn names<'a>(
    dns: impl IntoIterator<Item = &'a String>,
    ips: impl IntoIterator<Item = &'a IpAddr>,
) -> Result<Vec<SanType>, CaError> {
    let mut out = Vec::new();
    for name in dns {
        let name = name.as_str().try_into().map_err(encoding)?;
        out.push(SanType::DnsName(name));
    }
    out.extend(ips.into_iter().copied().map(SanType::IpAddress));
    Ok(out)
}

/// An error of rcgen's, as ours.
pub fn encoding(error: rcgen::Error) -> CaError {
    CaError::Encoding(error.to_string())
}

fn subnet(net: IpNet) -> CidrSubnet {
    match net {
        IpNet::V4(net) => CidrSubnet::V4(net.network().octets(), net.netmask().octets()),
        IpNet::V6(net) => CidrSubnet::V6(net.network().octets(), net.netmask().octets()),
    }
}
