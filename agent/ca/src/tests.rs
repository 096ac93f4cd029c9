use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use innermesh_proto::{
    certificate::{
        Certificate, CertificateError, LeafKind, LeafPlan, Serial, check_issuer, check_root,
    },
    id::MeshId,
    limits,
    name::MeshDomain,
};
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose, SanType};

use super::{
    CaError, Issuer, Root,
    csr::{self, Csr, CsrError},
    pem,
    testing::*,
};
use innermesh_host::keys::{CaKey, Keys, SystemKeys};

mod bounds;
mod requests;

#[test]
fn a_root_and_its_issuer_have_the_shape_that_the_mesh_checks() {
    let world = World::new();
    let (root, issuer) = (world.root.certificate(), world.issuer.certificate());
    let ula = MeshId::of_root(&root.spki).ula();
    assert_eq!(check_root(root, &domain(), v4(), ula, &SystemKeys), Ok(()));
    assert_eq!(check_issuer(issuer, root, &SystemKeys), Ok(()));
    assert_eq!(
        root.common_name.as_deref(),
        Some("Innermesh lab.internal root")
    );
    assert_eq!(root.not_before_ms, (NOW / 1000 - limits::BACKDATE_S) * 1000);
    assert_eq!(issuer.not_after_ms, (NOW + 730 * DAY) / 1000 * 1000);
    let constraints = issuer.constraints.as_ref().unwrap();
    assert!(constraints.critical);
    assert_eq!(constraints.dns, ["lab.internal"]);

    let other = "other.internal".parse().unwrap();
    let range = "10.78.0.0/16".parse().unwrap();
    let wrong = Err(CertificateError::Constraints);
    assert_eq!(check_root(root, &other, v4(), ula, &SystemKeys), wrong);
    assert_eq!(check_root(root, &domain(), range, ula, &SystemKeys), wrong);
    assert_eq!(
        check_root(issuer, &domain(), v4(), ula, &SystemKeys),
        Err(CertificateError::PathLen(1))
    );
    assert_eq!(
        check_issuer(root, root, &SystemKeys),
        Err(CertificateError::PathLen(0))
    );
}

#[test]
fn an_issuer_of_another_root_is_refused_also_under_the_same_name() {
    let (mine, theirs) = (World::new(), World::new());
    let refused = check_issuer(
        theirs.issuer.certificate(),
        mine.root.certificate(),
        &SystemKeys,
    );
    // The other root has another key, so another IPv6 range.
    assert_eq!(refused, Err(CertificateError::Constraints));
    let mut forged = theirs.issuer.certificate().clone();
    forged.constraints = mine.root.certificate().constraints.clone();
    forged.authority_key_id = mine.root.certificate().key_id.clone();
    assert_eq!(
        check_issuer(&forged, mine.root.certificate(), &SystemKeys),
        Err(CertificateError::Signature)
    );
}

#[test]
fn leaves_are_exactly_what_was_planned() {
    let world = World::new();
    for plan in [
        membership(&*world.node),
        service(SystemKeys.generate_p256().spki()),
    ] {
        let der = world.sign(&plan).unwrap();
        assert_eq!(world.check(&der, &plan), Ok(()));
        let leaf = Certificate::parse(&der).unwrap();
        assert_eq!((&leaf.dns, &leaf.ips), (&plan.dns, &plan.ips));
        assert_eq!(leaf.not_before_ms, (NOW / 1000 - limits::BACKDATE_S) * 1000);
        assert_eq!(leaf.not_after_ms, (NOW + 90 * DAY) / 1000 * 1000);
        assert_eq!(leaf.client_auth, plan.kind == LeafKind::Membership);
        assert_eq!(leaf.subject == [0x30, 0], plan.common_name.is_none());
    }
}

#[test]
fn every_difference_between_leaf_and_plan_is_found() {
    use CertificateError as E;
    let world = World::new();
    let plan = membership(&*world.node);
    let name = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let refused = |change: &dyn Fn(&mut CertificateParams)| {
        let der = world.forge(&plan, change);
        world.check(&der, &plan).unwrap_err()
    };
    assert_eq!(world.check(&world.forge(&plan, |_| {}), &plan), Ok(()));

    assert_eq!(
        refused(&|p| p.subject_alt_names.push(name("x.lab.internal"))),
        E::Unplanned("x.lab.internal".into())
    );
    assert_eq!(
        refused(&|p| {
            p.subject_alt_names.pop();
        }),
        E::Missing("10.77.3.4".into())
    );
    assert_eq!(
        refused(&|p| p
            .subject_alt_names
            .push(SanType::URI("https://lab.internal".try_into().unwrap()))),
        E::OtherNames
    );
    assert_eq!(
        refused(&|p| p
            .subject_alt_names
            .push(SanType::Rfc822Name("a@lab.internal".try_into().unwrap()))),
        E::OtherNames
    );
    assert_eq!(
        refused(&|p| p.subject_alt_names.push(name("nas.lab.internal"))),
        E::Twice("DNSName(nas.lab.internal)".into())
    );
    assert_eq!(
        refused(&|p| p.subject_alt_names.push(name("NAS.lab.internal"))),
        E::Name("NAS.lab.internal".into())
    );
    assert_eq!(
        refused(&|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0))),
        E::Ca
    );
    assert_eq!(
        refused(&|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        E::Usage
    );
    assert_eq!(
        refused(&|p| p.key_usages.push(KeyUsagePurpose::KeyEncipherment)),
        E::Usage
    );
    assert_eq!(refused(&|p| p.extended_key_usages.clear()), E::Usage);
    assert_eq!(
        refused(&|p| p
            .extended_key_usages
            .push(rcgen::ExtendedKeyUsagePurpose::CodeSigning)),
        E::Usage
    );
    assert_eq!(
        refused(&|p| p
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "x")),
        E::CommonName
    );
    assert_eq!(
        refused(&|p| p.distinguished_name = rcgen::DistinguishedName::new()),
        E::CommonName
    );
    let hours = |n: u64| std::time::Duration::from_secs(n * 3600);
    assert_eq!(refused(&|p| p.not_before -= hours(3)), E::Begins);
    assert_eq!(refused(&|p| p.not_before += hours(2)), E::Begins);
    assert_eq!(refused(&|p| p.not_after += hours(1)), E::Ends);
    assert_eq!(
        refused(&|p| p.use_authority_key_identifier_extension = false),
        E::Issuer
    );

    let other = SystemKeys.generate_ed25519();
    assert_eq!(
        world.check(&world.sign(&membership(&*other)).unwrap(), &plan),
        Err(E::Key)
    );
    let mut tampered = world.sign(&plan).unwrap();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    assert_eq!(world.check(&tampered, &plan), Err(E::Signature));
    let elsewhere = World::new();
    assert_eq!(
        elsewhere.check(
            &world.sign(&plan).unwrap(),
            &LeafPlan {
                ips: BTreeSet::new(),
                ..plan.clone()
            }
        ),
        Err(E::Unplanned("10.77.3.4".into()))
    );
    assert_eq!(
        elsewhere.check(&world.sign(&plan).unwrap(), &plan),
        Err(E::Issuer)
    );
}

#[test]
fn an_issuer_signs_no_plan_that_goes_beyond_the_mesh() {
    use CertificateError as E;
    let world = World::new();
    let plan = service(SystemKeys.generate_p256().spki());
    let refused = |change: &dyn Fn(&mut LeafPlan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        match world.sign(&plan) {
            Err(CaError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let named = |text: &str| refused(&|p| p.dns = BTreeSet::from([text.to_string()]));
    assert_eq!(named("example.org"), E::Outside("example.org".into()));
    assert_eq!(named("xlab.internal"), E::Outside("xlab.internal".into()));
    assert_eq!(named("*.internal"), E::Outside("*.internal".into()));
    assert_eq!(
        named("*.lab.internal"),
        E::Wildcard("*.lab.internal".into())
    );
    for wild in ["a.*.lab.internal", "a*.lab.internal", "*.*.lab.internal"] {
        // What can't be read isn't signed, whichever check finds it first.
        assert!(matches!(named(wild), E::Name(_) | E::Wildcard(_)), "{wild}");
    }
    assert_eq!(
        refused(&|p| p.ips = BTreeSet::from(["192.168.1.1".parse().unwrap()])),
        E::Outside("192.168.1.1".into())
    );
    assert_eq!(refused(&|p| p.days = 825), E::Days(825));
    assert_eq!(refused(&|p| p.days = 0), E::Days(0));
    assert_eq!(refused(&|p| p.dns.clear()), E::Names(0));
    assert_eq!(
        refused(&|p| p.common_name = Some("bank.example.org".into())),
        E::CommonName
    );
    assert_eq!(refused(&|p| p.spki = vec![1, 2, 3]), E::KeyKind);
    assert_eq!(refused(&|p| p.kind = LeafKind::Membership), E::KeyKind);
    assert_eq!(
        refused(&|p| {
            p.kind = LeafKind::Membership;
            p.spki = SystemKeys.generate_ed25519().public().spki().to_vec();
        }),
        E::CommonName
    );
    assert_eq!(
        refused(&|p| p.stamp_ms = world.issuer.certificate().not_after_ms + 1),
        E::Ends
    );
}

#[test]
fn a_stamp_beyond_all_calendars_is_an_error_and_no_panic() {
    let world = World::new();
    for stamp_ms in [u64::MAX, 253_402_300_799_001] {
        let plan = LeafPlan {
            stamp_ms,
            ..membership(&*world.node)
        };
        assert!(world.sign(&plan).is_err());
        let keys = SystemKeys;
        let root = Root::generate(keys.generate_p256(), &domain(), v4(), stamp_ms, &keys);
        assert_eq!(root.unwrap_err(), CaError::Time);
    }
    let early = LeafPlan {
        stamp_ms: 5,
        ..membership(&*world.node)
    };
    assert_eq!(
        Certificate::parse(&world.sign(&early).unwrap())
            .unwrap()
            .not_before_ms,
        0
    );
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let world = World::new();
    let end = world.issuer.certificate().not_after_ms;
    let plan = LeafPlan {
        stamp_ms: end - 5 * DAY,
        ..membership(&*world.node)
    };
    let leaf = Certificate::parse(&world.sign(&plan).unwrap()).unwrap();
    assert_eq!(leaf.not_after_ms, end);
    let der = world.forge(&plan, |_| {});
    assert_eq!(world.check(&der, &plan), Err(CertificateError::Ends));
}

#[test]
fn serial_numbers_keep_their_sixteen_bytes() {
    let world = World::new();
    let mut small = [0; 16];
    small[15] = 7;
    for bytes in [[0xff; 16], [0x80; 16], [0x7f; 16], small] {
        let plan = membership(&*world.node);
        let der = world
            .issuer
            .sign_leaf(&plan, Serial(bytes), &SystemKeys)
            .unwrap();
        assert_eq!(Certificate::parse(&der).unwrap().serial, Serial(bytes));
    }
    let zero = world
        .issuer
        .sign_leaf(&membership(&*world.node), Serial([0; 16]), &SystemKeys);
    assert_eq!(zero, Err(CaError::Refused(CertificateError::Serial)));
}

#[test]
fn openssl_accepts_the_chain_and_refuses_names_outside_of_the_mesh() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let verify = |leaf: &[u8]| {
        world.write(folder.path(), leaf);
        let at = (NOW / 1000).to_string();
        openssl(
            folder.path(),
            &[
                "verify",
                "-x509_strict",
                "-attime",
                &at,
                "-CAfile",
                "root.pem",
                "-untrusted",
                "issuer.pem",
                "leaf.pem",
            ],
        )
    };
    for plan in [
        membership(&*world.node),
        service(SystemKeys.generate_p256().spki()),
    ] {
        let Some(accepted) = verify(&world.sign(&plan).unwrap()) else {
            return;
        };
        assert_eq!(accepted, Ok("leaf.pem: OK\n".to_string()));
        let name = SanType::DnsName("bank.example.org".try_into().unwrap());
        let outside = verify(&world.forge(&plan, |p| p.subject_alt_names.push(name))).unwrap();
        assert!(outside.unwrap_err().contains("permitted subtree violation"));
        let address = SanType::IpAddress("192.168.1.1".parse().unwrap());
        let outside = verify(&world.forge(&plan, |p| p.subject_alt_names.push(address))).unwrap();
        assert!(outside.unwrap_err().contains("permitted subtree violation"));
    }
}

#[test]
fn openssl_shows_what_was_meant() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    world.write(
        folder.path(),
        &world.sign(&membership(&*world.node)).unwrap(),
    );
    let show =
        |file| Some(openssl(folder.path(), &["x509", "-in", file, "-noout", "-text"])?.unwrap());
    let Some(root) = show("root.pem") else { return };
    let issuer = show("issuer.pem").unwrap();
    for text in [&root, &issuer] {
        assert!(text.contains("X509v3 Name Constraints: critical"), "{text}");
        assert!(text.contains("DNS:lab.internal") && text.contains("email:lab.internal"));
        assert!(text.contains("IP:10.77.0.0/255.255.0.0"));
        assert!(text.contains("Certificate Sign, CRL Sign"));
    }
    assert!(root.contains("CA:TRUE, pathlen:1") && issuer.contains("CA:TRUE, pathlen:0"));
    let leaf = show("leaf.pem").unwrap();
    assert!(
        leaf.contains("CA:FALSE") && leaf.contains("ED25519"),
        "{leaf}"
    );
    assert!(leaf.contains("TLS Web Server Authentication, TLS Web Client Authentication"));
    assert!(leaf.contains("Subject Key Identifier") && leaf.contains("Authority Key Identifier"));
}

#[test]
fn a_key_and_another_keys_certificate_are_told_apart() {
    let world = World::new();
    let key: Arc<dyn CaKey> = SystemKeys.generate_p256();
    assert_eq!(
        Root::new(key.clone(), world.root.der().to_vec()).unwrap_err(),
        CaError::Mismatch
    );
    assert_eq!(
        Issuer::new(key, world.issuer.der().to_vec()).unwrap_err(),
        CaError::Mismatch
    );
}

#[test]
fn only_a_p256_key_becomes_an_issuer() {
    let root = root();
    let ed25519 = SystemKeys.generate_ed25519().public().spki();
    for spki in [&ed25519[..], &[]] {
        assert_eq!(
            root.issuer(spki, NOW, &SystemKeys),
            Err(CaError::Refused(CertificateError::KeyKind))
        );
    }
    assert_eq!(
        root.issuer(&root.certificate().spki, NOW, &SystemKeys),
        Err(CaError::Refused(CertificateError::Key))
    );
}
