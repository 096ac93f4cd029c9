//! Each kind of certificate that the product makes, at both ends of what it
//! can be.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use innermesh_agent::{
    ca::{Issuer, expiry, random_serial},
    host::keys::{CaKey, Keys, SystemKeys},
};
use innermesh_proto::{certificate::Serial, limits};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize};

use crate::{
    authority::{Authority, issuer, now_ms},
    verifiers::Chain,
};

/// What a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Root,
    Issuer,
    Membership,
    Service,
}

/// One certificate, and who signed it.
pub struct Profile {
    pub title: String,
    pub kind: Kind,
    pub der: Vec<u8>,
    /// Who signed it.
    pub by: Vec<u8>,
    pub root: Vec<u8>,
    /// What clients reach its holder by.
    pub hosts: Vec<String>,
    /// Its private key, PKCS #8 in DER; empty for a CA.
    pub key: Vec<u8>,
}

impl Profile {
    /// What a server shows, and the root that leads to it.
    pub fn chain(&self) -> Chain<'_> {
        Chain {
            leaf: &self.der,
            between: vec![&self.by],
            root: &self.root,
        }
    }
}

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Some day in 2049, from which on a root ends when X.509 writes its times
/// in another way (RFC 5280 §4.1.2.5).
const IN_2049_MS: u64 = 2_500_000_000_000;

pub fn all() -> Vec<Profile> {
    let plain = Authority::new();
    let label = "a".repeat(49);
    let long = Authority::with(&format!("{label}.{label}"), now_ms());
    let mut all = Vec::new();
    for (what, authority) in [
        ("", &plain),
        (" of the longest domain", &long),
        (" in 2049", &Authority::with("home.arpa", IN_2049_MS)),
        (" in 1970", &Authority::with("in.example.org", 0)),
    ] {
        all.push(authority.profile(Kind::Root, &format!("root{what}"), authority.root.der()));
        all.push(authority.under_root(&format!("issuer{what}"), &authority.issuer));
    }
    all.extend(renewed(&plain));
    all.extend(plain.members());
    all.extend(long.members());
    all.extend(plain.services());
    all
}

/// Issuers as `agent ca promote` has the root sign them later on.
fn renewed(plain: &Authority) -> Vec<Profile> {
    let root_end_ms = plain.root.certificate().not_after_ms;
    let first = plain.issuer.certificate();
    let held = [(plain.now_ms, first.not_after_ms)];
    let due = expiry::issuers_due(plain.now_ms, root_end_ms, &held, true);
    let [begin_ms] = due[..] else {
        panic!("one successor: {due:?}")
    };
    vec![
        plain.under_root("issuer's successor", &issuer(&plain.root, begin_ms)),
        plain.under_root(
            "issuer that ends with its root",
            &issuer(&plain.root, root_end_ms - 100 * DAY_MS),
        ),
    ]
}

impl Authority {
    fn profile(&self, kind: Kind, title: &str, der: &[u8]) -> Profile {
        let by = match kind {
            Kind::Root | Kind::Issuer => self.root.der(),
            Kind::Membership | Kind::Service => self.issuer.der(),
        };
        Profile {
            title: title.to_owned(),
            kind,
            der: der.to_vec(),
            by: by.to_vec(),
            root: self.root.der().to_vec(),
            hosts: vec![],
            key: vec![],
        }
    }

    fn under_root(&self, title: &str, issuer: &Issuer) -> Profile {
        self.profile(Kind::Issuer, title, issuer.der())
    }

    fn members(&self) -> Vec<Profile> {
        let domain = &self
            .issuer
            .certificate()
            .constraints
            .as_ref()
            .expect("some")
            .dns[0];
        let name = format!("{}.{domain}", "n".repeat(63));
        let key = SystemKeys.generate_ed25519();
        let plan = self.membership(&*key, &name);
        let mut profile = self.profile(Kind::Membership, "membership", &self.sign(&plan));
        profile.key = key.pkcs8().as_bytes().to_vec();
        profile.hosts = vec![name, "10.77.3.4".into(), self.ipv6().to_string()];
        vec![profile]
    }

    fn services(&self) -> Vec<Profile> {
        let ips = [IpAddr::from([10, 77, 3, 4]), self.ipv6().into()];
        let many: Vec<String> = (0..limits::CERTIFICATE_NAMES)
            .map(|n| format!("s{n}.lab.internal"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let own: &[&str] = &["photos.lab.internal"];
        let p256 = || Key::p256(&*SystemKeys.generate_p256());
        let p384 = Key::generate(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384));
        let rsa = Key::generate(KeyPair::generate_rsa_for(
            &rcgen::PKCS_RSA_SHA256,
            RsaKeySize::_2048,
        ));
        let below: &[&str] = &["*.nas.lab.internal", "nas.lab.internal"];
        let random = || random_serial(&SystemKeys);
        let mut small = [0; 16];
        small[15] = 1;
        let made = [
            ("P-256", own, &[][..], p256(), 90, random()),
            ("P-384", own, &[], p384, 90, random()),
            ("RSA-2048", own, &[], rsa, 90, random()),
            ("wildcard", below, &[], p256(), 90, random()),
            ("addresses", own, &ips, p256(), 90, random()),
            ("addresses only", &[], &ips, p256(), 90, random()),
            ("as many names as may be", &many, &[], p256(), 1, random()),
            (
                "as long as may be",
                own,
                &[],
                p256(),
                limits::LEAF_DAYS,
                random(),
            ),
            ("largest serial", own, &[], p256(), 90, Serial([0xff; 16])),
            ("smallest serial", own, &[], p256(), 90, Serial(small)),
        ];
        made.into_iter()
            .map(|(title, dns, ips, key, days, serial)| {
                let plan = self.service(dns, ips, key.spki, days);
                let signed = self.issuer.sign_leaf(&plan, serial, &SystemKeys);
                let der = signed.expect("a leaf");
                let mut profile = self.profile(Kind::Service, &format!("service, {title}"), &der);
                let dns = dns.iter().map(|name| name.replace('*', "cam"));
                profile.hosts = dns.chain(ips.iter().map(IpAddr::to_string)).collect();
                profile.key = key.pkcs8;
                profile
            })
            .collect()
    }
}

struct Key {
    spki: Vec<u8>,
    pkcs8: Vec<u8>,
}

impl Key {
    fn p256(key: &dyn CaKey) -> Self {
        Self {
            spki: key.spki(),
            pkcs8: key.pkcs8().as_bytes().to_vec(),
        }
    }

    fn generate(pair: Result<KeyPair, rcgen::Error>) -> Self {
        let pair = pair.expect("a key");
        Self {
            spki: pair.subject_public_key_info(),
            pkcs8: pair.serialize_der(),
        }
    }
}
