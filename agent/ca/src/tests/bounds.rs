//! What other programs put a bound on.

use super::*;

#[test]
fn no_leaf_is_valid_for_longer_than_apple_accepts() {
    let world = World::new();
    let plan = LeafPlan {
        days: limits::LEAF_DAYS,
        ..service(SystemKeys.generate_p256().spki())
    };
    let leaf = Certificate::parse(&world.sign(&plan).unwrap()).unwrap();
    assert!(leaf.not_after_ms - leaf.not_before_ms <= 825 * DAY);
    // Also if issuers lived for longer, and a plan's stamp were an old one.
    let longest = u64::from(limits::LEAF_DAYS) * DAY;
    let slack = (limits::BACKDATE_S + limits::STAMP_SLACK_S) * 1000;
    assert!(longest + slack <= 825 * DAY);
}

#[test]
fn the_names_of_root_and_issuers_fit_whatever_the_domain() {
    for labels in 1..=16 {
        let domain = vec!["abcde"; labels].join(".") + ".internal";
        let Ok(domain) = domain.parse::<MeshDomain>() else {
            continue;
        };
        let keys = SystemKeys;
        let root = Root::generate(keys.generate_p256(), &domain, v4(), NOW, &keys).unwrap();
        let issuer = issuer(&root, NOW);
        for certificate in [root.certificate(), issuer.certificate()] {
            let name = certificate.common_name.as_deref().unwrap();
            assert!(name.len() <= 64, "{name}");
            assert!(name.starts_with("Innermesh "), "{name}");
            assert!(name.contains("abcde.internal "), "{name}");
        }
    }
}

#[test]
fn only_an_rsa_key_is_also_for_key_encipherment() {
    let world = World::new();
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let rsa = rcgen::PublicKeyData::subject_public_key_info(&rsa.unwrap());
    for (spki, expected) in [(rsa, true), (SystemKeys.generate_p256().spki(), false)] {
        let leaf = Certificate::parse(&world.sign(&service(spki)).unwrap()).unwrap();
        assert!(leaf.key_usage.digital_signature);
        assert_eq!(leaf.key_usage.key_encipherment, expected);
    }
}
