use innermesh_proto::{
    crypto::Sign,
    id::resolver_v4,
    ledger::{Content, Outcome, Refusal, request::Share},
    limits,
};

use crate::mesh::{DAY, Mesh, NOW, certify, id, key, label, owner};

fn claim(name: &str) -> Content {
    Content::Claim(label(name))
}

fn release(name: &str) -> Content {
    Content::Release(label(name))
}

fn share(name: &str, with: &dyn Sign) -> Content {
    Content::Share(Share {
        name: label(name),
        with: id(with),
    })
}

fn taken(name: &str, owner: &str) -> Refusal {
    Refusal::NameTaken {
        name: label(name),
        owner: label(owner),
    }
}

/// A mesh with two more members.
fn three() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    mesh
}

#[test]
fn the_first_who_claims_a_name_has_it_until_it_gives_it_back() {
    let mut mesh = three();
    let (one, two) = (key(1), key(2));
    assert!(matches!(mesh.ask(&*one, claim("photos")), Outcome::Done(_)));
    let request = mesh.request(&*two, &claim("photos"));
    mesh.assert_refused(request, taken("photos", "one"));
    let request = mesh.request(&*two, &release("photos"));
    mesh.assert_refused(request, Refusal::NotOwner(label("photos")));
    // Claiming what one has changes nothing.
    let since = mesh.state().names[&label("photos")].since;
    assert!(matches!(mesh.ask(&*one, claim("photos")), Outcome::Done(_)));
    assert_eq!(mesh.state().names[&label("photos")].since, since);

    assert!(matches!(
        mesh.ask(&*one, release("photos")),
        Outcome::Done(_)
    ));
    assert_eq!(owner(mesh.state(), "photos"), None);
    assert!(matches!(mesh.ask(&*two, claim("photos")), Outcome::Done(_)));
    assert_eq!(owner(mesh.state(), "photos"), Some(id(&*two)));
    let request = mesh.request(&*one, &release("nothing"));
    mesh.assert_refused(request, Refusal::NotOwner(label("nothing")));
}

#[test]
fn nodes_and_services_have_one_namespace() {
    let mut mesh = three();
    let (one, two) = (key(1), key(2));
    let request = mesh.request(&*one, &claim("two"));
    mesh.assert_refused(request, taken("two", "two"));
    for content in [claim("one"), release("one"), share("one", &*two)] {
        let request = mesh.request(&*one, &content);
        mesh.assert_refused(request, Refusal::NodeName(label("one")));
    }
    assert!(matches!(mesh.ask(&*one, claim("photos")), Outcome::Done(_)));
    let token = mesh.token(100, |_| {});
    let request = mesh.join_request(&token, &*key(3), "photos");
    mesh.assert_refused(request, taken("photos", "one"));
}

#[test]
fn only_the_owner_shares_and_only_with_members() {
    let mut mesh = three();
    let (one, two) = (key(1), key(2));
    mesh.ask(&*one, claim("photos"));
    let request = mesh.request(&*two, &share("photos", &*two));
    mesh.assert_refused(request, Refusal::NotOwner(label("photos")));
    let request = mesh.request(&*one, &share("photos", &*key(66)));
    mesh.assert_refused(request, Refusal::NoSuchNode);
    assert!(matches!(
        mesh.ask(&*one, share("photos", &*two)),
        Outcome::Done(_)
    ));
    assert_eq!(
        mesh.state().names[&label("photos")].shared,
        [id(&*two)].into()
    );
    // Who shares a name may use it and not give it away.
    assert!(matches!(mesh.ask(&*two, claim("photos")), Outcome::Done(_)));
    let request = mesh.request(&*two, &release("photos"));
    mesh.assert_refused(request, Refusal::NotOwner(label("photos")));
    assert_eq!(owner(mesh.state(), "photos"), Some(id(&*one)));
}

#[test]
fn a_member_claims_only_what_its_invite_covers() {
    let mut mesh = Mesh::new();
    let one = key(1);
    let token = mesh.token(100, |grant| grant.names = ["web-*".parse().unwrap()].into());
    let request = mesh.join_request(&token, &*one, "web-one");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    let request = mesh.request(&*one, &claim("photos"));
    mesh.assert_refused(request, Refusal::NameNotAllowed(label("photos")));
    assert!(matches!(mesh.ask(&*one, claim("web-2")), Outcome::Done(_)));
}

#[test]
fn what_a_node_may_claim_is_known_without_asking() {
    let mut mesh = three();
    let (one, two) = (key(1), key(2));
    mesh.ask(&*one, claim("photos"));
    let state = mesh.state();
    assert_eq!(state.may_claim(id(&*one), &label("photos")), Ok(()));
    assert_eq!(state.may_claim(id(&*two), &label("free")), Ok(()));
    assert_eq!(
        state.may_claim(id(&*two), &label("photos")),
        Err(taken("photos", "one"))
    );
    assert_eq!(
        state.may_claim(id(&*key(66)), &label("free")),
        Err(Refusal::NotMember)
    );
}

#[test]
fn a_certificate_names_what_its_owner_holds_and_nothing_else() {
    let mut mesh = three();
    let (one, two) = (key(1), key(2));
    mesh.ask(&*one, claim("photos"));
    mesh.ask(&*two, claim("mail"));
    mesh.ask(&*two, share("mail", &*one));
    mesh.ask(&*two, claim("shop"));
    let address = |node: &dyn Sign| {
        let member = &mesh.state().members[&id(node)];
        (member.ipv4.to_string(), member.ipv6.to_string())
    };
    let ((v4, v6), (other, _)) = (address(&*one), address(&*two));
    let padded = format!("0{v4}");
    let resolvers = resolvers(&mesh);
    for good in [
        &["one.lab.internal"][..],
        &["photos.lab.internal", "anything.one.lab.internal"],
        &["mail.lab.internal"],
        &["x.photos.lab.internal", "*.photos.lab.internal"],
        &["*.one.lab.internal"],
        // Every agent shows a certificate for it.
        &["acme.lab.internal"],
        &["ns.lab.internal", &resolvers[0], &resolvers[1]],
        &[&v4, &v6],
    ] {
        let outcome = mesh.ask(&*one, certify(good, 90));
        let Outcome::Done(_) = outcome else {
            panic!("{good:?}: {outcome:?}")
        };
    }
    for bad in [
        "two.lab.internal",
        "shop.lab.internal",
        "x.two.lab.internal",
        "x.shop.lab.internal",
        "*.shop.lab.internal",
        "*.free.lab.internal",
        "*.x.photos.lab.internal",
        "x.acme.lab.internal",
        "*.acme.lab.internal",
        "x.ns.lab.internal",
        "*.ns.lab.internal",
        "a.b.one.lab.internal",
        "lab.internal",
        "free.lab.internal",
        "ca.lab.internal",
        "one.example.com",
        "onelab.internal",
        "One.lab.internal",
        "*.lab.internal",
        "one.lab.internal.",
        "",
        "192.0.2.1",
        &other,
        &padded,
        "127.0.0.1",
        "\u{0}.one.lab.internal",
    ] {
        let with = certify(&["one.lab.internal", bad], 90);
        let request = mesh.request(&*one, &with);
        mesh.assert_refused(request, Refusal::NotCertifiable(bad.into()));
    }
}

/// Where every agent answers DNS.
fn resolvers(mesh: &Mesh) -> [String; 2] {
    let state = mesh.state();
    [
        resolver_v4(state.ipv4).to_string(),
        state.mesh.resolver_v6().to_string(),
    ]
}

#[test]
fn certificates_for_the_resolver_are_had_from_rules_6_on() {
    let mut mesh = Mesh::with_rules(5);
    let founder = mesh.founder.clone();
    let [v4, v6] = resolvers(&mesh);
    let all = ["ns.lab.internal", &v4, &v6];
    for name in all {
        let request = mesh.request(&*founder, &certify(&[name], 90));
        mesh.assert_refused(request, Refusal::NotCertifiable(name.into()));
    }
    mesh.ask(&*founder, Content::Rules(6));
    let outcome = mesh.ask(&*founder, certify(&all, 90));
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

#[test]
fn certificates_have_bounds() {
    let mut mesh = three();
    let one = key(1);
    let many: Vec<String> = (0..=limits::CERTIFICATE_NAMES)
        .map(|n| format!("n{n}.one.lab.internal"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (names, days) in [
        (&many[..], 90),
        (&[], 90),
        (&["one.lab.internal"], 0),
        (&["one.lab.internal"], limits::LEAF_DAYS + 1),
    ] {
        let request = mesh.request(&*one, &certify(names, days));
        mesh.assert_refused(request, Refusal::CertificateBounds);
    }
    let most = certify(&many[1..], limits::LEAF_DAYS);
    assert!(matches!(mesh.ask(&*one, most), Outcome::Done(_)));
}

#[test]
fn a_membership_is_renewed_until_its_grace_is_over() {
    let mut mesh = three();
    let one = key(1);
    let serial = |mesh: &Mesh| mesh.state().members[&id(&*one)].certificate.unwrap();
    let first = serial(&mesh);
    mesh.now_ms = NOW + 45 * DAY;
    assert!(matches!(mesh.ask(&*one, Content::Renew), Outcome::Done(_)));
    let second = serial(&mesh);
    assert_ne!(first, second);
    let issued = &mesh.state().certificates[&second];
    assert!(issued.not_after_ms <= NOW + (45 + u64::from(limits::MEMBERSHIP_DAYS)) * DAY);
    let grace = issued.not_after_ms + u64::from(limits::RENEWAL_GRACE_DAYS) * DAY;

    mesh.now_ms = grace;
    let request = mesh.request(&*one, &Content::Renew);
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    // The other didn't, and its time was shorter.
    let request = mesh.request(&*key(2), &Content::Renew);
    mesh.assert_refused(request, Refusal::GraceOver);
}

#[test]
fn a_shared_name_goes_to_who_has_had_a_part_in_it_for_longest_when_its_owner_leaves() {
    let mut mesh = three();
    let (one, two) = (key(1), key(2));
    mesh.admit(&*key(4), "four");
    for name in ["wiki", "photos"] {
        mesh.ask(&*one, claim(name));
    }
    for with in [&key(4), &two] {
        mesh.ask(&*one, share("wiki", &**with));
    }
    let left = mesh.state().names_left_by(id(&*one));
    assert_eq!(left[&label("wiki")], Some(id(&*two)));
    assert_eq!(left[&label("photos")], None);
    assert_eq!(left[&label("one")], None);
    assert!(matches!(mesh.ask(&*one, Content::Leave), Outcome::Done(_)));
    assert_eq!(owner(mesh.state(), "wiki"), Some(id(&*two)));
    assert_eq!(owner(mesh.state(), "photos"), None);
    let shared = &mesh.state().names[&label("wiki")].shared;
    assert_eq!(*shared, [id(&*key(4))].into());
    assert!(mesh.state().agrees_with_itself());
}
