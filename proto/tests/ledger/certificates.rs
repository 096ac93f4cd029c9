//! What the ledger keeps of certificates, and for how long.

use innermesh_proto::{
    certificate::Serial,
    crypto::Hash,
    ledger::{Content, Outcome, Refusal, State, request::Certify},
    limits,
};

use crate::mesh::{DAY, KEYS, Mesh, NOW, certify, id, key};
use innermesh_testing::host::keys::Keys;

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

/// A mesh in which machine 1 has a service's certificate for 30 days.
fn certified() -> (Mesh, Serial) {
    certified_in(Mesh::new())
}

fn certified_in(mut mesh: Mesh) -> (Mesh, Serial) {
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    done(mesh.ask(&*key(1), certify(&["x.one.lab.internal"], 30)));
    let serial = serial_for(mesh.state(), "x.one.lab.internal");
    (mesh, serial)
}

fn serial_for(state: &State, name: &str) -> Serial {
    let all = state.certificates.iter();
    let mut found = all.filter(|(_, issued)| issued.names == [name]);
    *found.next().expect("it was issued").0
}

fn at(mesh: &mut Mesh, days: u64) {
    mesh.now_ms = NOW + days * DAY;
    mesh.batch(Vec::new());
}

#[test]
fn under_the_first_rules_a_certificate_is_whole_for_a_week_and_known_until_it_is_over() {
    let (mut mesh, serial) = certified_in(Mesh::with_rules(0));
    let membership = mesh.state().members[&id(&*key(1))].certificate.unwrap();
    let issued = mesh.state().certificates[&serial].clone();
    assert!(!issued.der.is_empty());
    at(&mut mesh, 6);
    assert_eq!(mesh.state().certificates[&serial], issued);
    at(&mut mesh, 8);
    let kept = &mesh.state().certificates[&serial];
    assert!(kept.der.is_empty());
    assert_eq!(
        (&kept.names, kept.key_hash),
        (&issued.names, issued.key_hash)
    );
    assert_eq!(kept.not_after_ms, issued.not_after_ms);
    // What a member shows to its peers is always there.
    assert!(!mesh.state().certificates[&membership].der.is_empty());
    at(&mut mesh, 30);
    assert!(mesh.state().certificates.contains_key(&serial));
    at(&mut mesh, 32);
    assert!(!mesh.state().certificates.contains_key(&serial));
    // A membership is known for as long as it may be renewed.
    at(&mut mesh, 90 + u64::from(limits::RENEWAL_GRACE_DAYS));
    assert!(!mesh.state().certificates[&membership].der.is_empty());
    done(mesh.ask(&*key(1), Content::Renew));
    at(&mut mesh, 93 + u64::from(limits::RENEWAL_GRACE_DAYS));
    let late = mesh.request(&*key(2), &Content::Renew);
    mesh.assert_refused(late, Refusal::GraceOver);
}

#[test]
fn a_revoked_certificate_and_its_key_stay_revoked_until_it_is_over() {
    let (mut mesh, serial) = certified();
    let other = mesh.request(&*key(2), &Content::Revoke(serial));
    mesh.assert_refused(other, Refusal::NotYourCertificate);
    let unknown = mesh.request(&*key(1), &Content::Revoke(Serial([9; 16])));
    mesh.assert_refused(unknown, Refusal::NoSuchCertificate(Serial([9; 16])));
    let membership = mesh.state().members[&id(&*key(1))].certificate.unwrap();
    let own = mesh.request(&*key(1), &Content::Revoke(membership));
    mesh.assert_refused(own, Refusal::MembershipSerial(membership));

    done(mesh.ask(&*key(1), Content::Revoke(serial)));
    done(mesh.ask(&*key(0), Content::Revoke(serial)));
    for days in [0, 7, 8, 29, 30] {
        at(&mut mesh, days);
        let state = mesh.state();
        assert!(state.is_revoked(&serial, &state.certificates[&serial]));
        assert!(state.revoked.contains_key(&serial));
    }
    at(&mut mesh, 32);
    assert!(mesh.state().revoked.is_empty() && mesh.state().revoked_keys.is_empty());
    assert!(mesh.state().revocations().is_empty());
}

#[test]
fn a_revoked_key_gets_no_other_certificate() {
    let (mut mesh, _) = certified();
    let spki = KEYS.generate_p256().spki();
    let wish = |names: &[&str]| {
        Content::Certify(Certify {
            spki: spki.clone(),
            names: names.iter().map(ToString::to_string).collect(),
            days: 30,
        })
    };
    done(mesh.ask(&*key(1), wish(&["y.one.lab.internal"])));
    done(mesh.ask(&*key(1), wish(&["z.one.lab.internal"])));
    let (y, z) = (
        serial_for(mesh.state(), "y.one.lab.internal"),
        serial_for(mesh.state(), "z.one.lab.internal"),
    );
    done(mesh.ask(&*key(1), Content::Revoke(y)));
    let state = mesh.state();
    assert!(
        state.is_revoked(&z, &state.certificates[&z]),
        "the same key"
    );
    assert!(state.revoked_keys.contains_key(&Hash::of(&spki)));
    // A list names both, as those who read it know nothing of keys.
    let listed = state.revocations();
    let issuer = state.certificates[&y].issuer;
    let at_ms = state.revoked[&y].at_ms;
    assert_eq!(listed.keys().collect::<Vec<_>>(), [&issuer]);
    assert_eq!(listed[&issuer], [(y, at_ms), (z, at_ms)].into());
    let again = mesh.request(&*key(1), &wish(&["w.one.lab.internal"]));
    mesh.assert_refused(again, Refusal::KeyRevoked);
}

#[test]
fn a_revoked_key_stays_revoked_until_the_last_of_its_certificates_is_over() {
    let (mut mesh, _) = certified();
    let spki = KEYS.generate_p256().spki();
    let wish = |name: &str, days| {
        Content::Certify(Certify {
            spki: spki.clone(),
            names: [name.to_owned()].into(),
            days,
        })
    };
    done(mesh.ask(&*key(1), wish("y.one.lab.internal", 30)));
    done(mesh.ask(&*key(1), wish("z.one.lab.internal", 90)));
    let (y, z) = (
        serial_for(mesh.state(), "y.one.lab.internal"),
        serial_for(mesh.state(), "z.one.lab.internal"),
    );
    done(mesh.ask(&*key(1), Content::Revoke(y)));
    for days in [32, 90] {
        at(&mut mesh, days);
        let state = mesh.state();
        assert!(state.is_revoked(&z, &state.certificates[&z]), "day {days}");
        let listed = &state.revocations()[&state.certificates[&z].issuer];
        assert_eq!(listed.keys().collect::<Vec<_>>(), [&z]);
    }
    at(&mut mesh, 92);
    assert!(mesh.state().revoked_keys.is_empty());
}
