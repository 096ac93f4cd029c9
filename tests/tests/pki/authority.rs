//! A root and an issuer as the product makes them, and leaves: those that the
//! product makes, and those that a thief of the issuer's key could.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use innermesh_agent::{
    ca::{Issuer, Root, random_serial},
    host::keys::{CaKey, Keys, NodeKey, SystemKeys},
};
use innermesh_proto::{
    certificate::{Certificate, CertificateError, LeafKind, LeafPlan, check_leaf},
    limits,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
};

/// The mesh domain of all certificates here.
pub const DOMAIN: &str = "lab.internal";
/// The mesh's IPv4 range.
pub const IPV4: &str = "10.77.0.0/16";

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    since.as_millis().try_into().expect("within u64")
}

/// A mesh's root and one issuer.
pub struct Authority {
    pub root: Root,
    pub issuer: Issuer,
    pub now_ms: u64,
}

impl Authority {
    pub fn new() -> Self {
        Self::with(DOMAIN, now_ms())
    }

    /// One for this domain, made at this time.
    pub fn with(domain: &str, now_ms: u64) -> Self {
        let keys = SystemKeys;
        let domain = domain.parse().expect("a mesh domain");
        let range = IPV4.parse().expect("a range");
        let root = Root::generate(keys.generate_p256(), &domain, range, now_ms, &keys);
        let root = root.expect("a root");
        let issuer = issuer(&root, now_ms);
        Self {
            root,
            issuer,
            now_ms,
        }
    }

    /// An address in the mesh's IPv6 range.
    pub fn ipv6(&self) -> Ipv6Addr {
        let network = self.root.mesh().ula().network();
        Ipv6Addr::from(u128::from(network) | 9)
    }

    /// What the ledger would have an issuer sign for a service.
    pub fn service(&self, dns: &[&str], ips: &[IpAddr], spki: Vec<u8>, days: u32) -> LeafPlan {
        LeafPlan {
            kind: LeafKind::Service,
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            ips: ips.iter().copied().collect(),
            spki,
            common_name: None,
            days,
            stamp_ms: self.now_ms,
        }
    }

    /// What the ledger would have an issuer sign for a new member.
    pub fn membership(&self, key: &dyn NodeKey, name: &str) -> LeafPlan {
        let key = key.public();
        LeafPlan {
            kind: LeafKind::Membership,
            dns: [name.to_owned()].into(),
            ips: [IpAddr::from([10, 77, 3, 4]), self.ipv6().into()].into(),
            spki: key.spki().to_vec(),
            common_name: Some(key.node_id().to_string()),
            days: limits::MEMBERSHIP_DAYS,
            stamp_ms: self.now_ms,
        }
    }

    /// The leaf of a plan, by the product.
    pub fn sign(&self, plan: &LeafPlan) -> Vec<u8> {
        self.issuer
            .sign_leaf(plan, random_serial(&SystemKeys), &SystemKeys)
            .expect("a leaf")
    }

    /// What the mesh's own code says of a leaf, given a plan for exactly what
    /// stands in it: the plan of a leader that is in league with the thief.
    pub fn check(&self, leaf: &[u8]) -> Result<(), CertificateError> {
        let leaf = Certificate::parse(leaf)?;
        let plan = LeafPlan {
            kind: LeafKind::Service,
            dns: leaf.dns.clone(),
            ips: leaf.ips.clone(),
            spki: leaf.spki.clone(),
            common_name: leaf.common_name.clone(),
            days: 90,
            stamp_ms: self.now_ms,
        };
        check_leaf(&leaf, &plan, self.issuer.certificate(), &SystemKeys)
    }
}

/// An issuer under `root` that begins at `begin_ms`.
pub fn issuer(root: &Root, begin_ms: u64) -> Issuer {
    let key = SystemKeys.generate_p256();
    let der = root
        .issuer(&key.spki(), begin_ms, &SystemKeys)
        .expect("an issuer");
    Issuer::new(key, der).expect("its certificate")
}

/// A leaf as a thief would sign it.
#[derive(Default)]
pub struct Forgery {
    /// The content of the subject alternative name extension.
    pub names: Option<Vec<u8>>,
    pub common_name: Option<&'static str>,
    /// A mail address in the subject.
    pub mail: Option<&'static str>,
    /// Signed by a CA that the thief put below the issuer.
    pub through_ca: bool,
}

/// A forged leaf, and the CA in between where there is one; all in DER.
pub struct Forged {
    pub leaf: Vec<u8>,
    /// The leaf's private key, PKCS #8.
    pub key: Vec<u8>,
    pub between: Option<Vec<u8>>,
}

impl Authority {
    /// Signs with the issuer's key, past all checks.
    pub fn forge(&self, forgery: &Forgery) -> Forged {
        let key = SystemKeys.generate_p256();
        let mut params = self.params();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(name) = forgery.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        if let Some(mail) = forgery.mail {
            let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
            let text = mail.try_into().expect("ASCII");
            params
                .distinguished_name
                .push(email, DnValue::Ia5String(text));
        }
        if let Some(names) = &forgery.names {
            let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], names.clone());
            // RFC 5280 §4.2.1.6.
            extension.set_criticality(forgery.common_name.is_none() && forgery.mail.is_none());
            params.custom_extensions.push(extension);
        }
        if !forgery.through_ca {
            let leaf = sign(&params, &*key, self.issuer.der(), self.issuer.key());
            return Forged {
                leaf,
                key: key.pkcs8().as_bytes().to_vec(),
                between: None,
            };
        }
        let ca_key = SystemKeys.generate_p256();
        let mut ca = self.params();
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name.push(DnType::CommonName, "Thief");
        let between = sign(&ca, &*ca_key, self.issuer.der(), self.issuer.key());
        Forged {
            leaf: sign(&params, &*key, &between, &ca_key),
            key: key.pkcs8().as_bytes().to_vec(),
            between: Some(between),
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(self.now_ms / 1000);
        params.not_before = now - Duration::from_secs(1800);
        params.not_after = now + Duration::from_secs(30 * 24 * 3600);
        let serial = random_serial(&SystemKeys).0;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
        params
    }
}

/// A public key, for rcgen.
struct Subject<'a>(&'a dyn CaKey);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn sign(params: &CertificateParams, key: &dyn CaKey, ca: &[u8], by: &Arc<dyn CaKey>) -> Vec<u8> {
    let by = KeyPair::try_from(by.pkcs8().as_bytes()).expect("a P-256 key");
    let signer = rcgen::Issuer::from_ca_cert_der(&ca.into(), by).expect("a CA");
    let signed = params.signed_by(&Subject(key), &signer);
    signed.expect("a certificate").der().to_vec()
}
