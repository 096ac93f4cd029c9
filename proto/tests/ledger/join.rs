use std::sync::Arc;

use innermesh_proto::{
    crypto::{Purpose, Sealed, Sign},
    id::MeshId,
    ledger::{
        Author, Content, Grant, Outcome, Refusal, Request, RequestId, Role,
        request::{Admit, Join, RevokeInvite},
    },
    limits,
};
use innermesh_testing::host::keys::Ed25519;

use crate::mesh::{DAY, MINUTE, Mesh, NOW, Token, id, key, label, owner};

/// A grant as its inviter signed it.
fn said(token: &Token) -> Grant {
    Grant::peek(&token.grant).unwrap()
}

#[test]
fn a_machine_with_a_token_becomes_a_member_with_name_addresses_and_certificate() {
    let mut mesh = Mesh::new();
    let (machine, token) = (key(1), mesh.token(100, |_| {}));
    let request = mesh.join_request(&token, &*machine, "laptop");
    assert_eq!(mesh.decide(request), Outcome::Done(1));
    let state = mesh.state();
    let (node, member) = state.member_by_key(&machine.public()).unwrap();
    assert_eq!((member.name.as_str(), member.joined), ("laptop", 1));
    assert_eq!(member.invited_by, Some(id(&*mesh.founder)));
    assert_eq!(member.ipv6, node.ipv6(&mesh.id));
    assert_eq!(owner(state, "laptop"), Some(node));
    let issued = &state.certificates[&member.certificate.unwrap()];
    assert_eq!(issued.names, ["laptop.lab.internal"]);
    assert_eq!(state.tokens[&token.key.public()].uses, 1);
}

#[test]
fn a_token_admits_as_many_as_it_says_and_no_more() {
    let mut mesh = Mesh::new();
    let token = mesh.token(100, |grant| grant.uses = 2);
    let requests = [1, 2, 3].map(|n| mesh.join_request(&token, &*key(n), &format!("n{n}")));
    // Also within one batch (S18).
    let outcomes = mesh.batch(requests.to_vec());
    assert_eq!(
        outcomes,
        [
            Outcome::Done(1),
            Outcome::Done(1),
            Outcome::Refused(Refusal::TokenUsedUp)
        ]
    );
    assert_eq!(mesh.state().members.len(), 3);
    let late = mesh.join_request(&token, &*key(4), "n4");
    mesh.assert_refused(late, Refusal::TokenUsedUp);
}

#[test]
fn a_refused_join_spends_nothing_of_its_token() {
    let mut mesh = Mesh::new();
    let token = mesh.token(100, |_| {});
    let taken = mesh.join_request(&token, &*key(1), "founder");
    let expected = Refusal::NameTaken {
        name: label("founder"),
        owner: label("founder"),
    };
    mesh.assert_refused(taken, expected);
    let request = mesh.join_request(&token, &*key(1), "free");
    assert_eq!(mesh.decide(request), Outcome::Done(2));
}

#[test]
fn uses_are_counted_by_the_tokens_key_until_the_longest_of_its_grants_ends() {
    let mut mesh = Mesh::new();
    let short = mesh.token(100, |grant| grant.expires_ms = NOW + MINUTE);
    let long = mesh.token(100, |grant| grant.expires_ms = NOW + DAY);
    for (token, number) in [(&short, 1), (&long, 2)] {
        let request = mesh.join_request(token, &*key(number), &format!("n{number}"));
        let spent = mesh.decide(request);
        assert_eq!(matches!(spent, Outcome::Done(_)), number == 1, "{spent:?}");
    }
    let two = mesh.token(100, |grant| {
        grant.uses = 2;
        grant.expires_ms = NOW + DAY;
    });
    let second = mesh.join_request(&two, &*key(2), "n2");
    assert!(matches!(mesh.decide(second), Outcome::Done(_)));
    mesh.now_ms = NOW + 2 * MINUTE;
    let third = mesh.join_request(&long, &*key(3), "n3");
    mesh.assert_refused(third, Refusal::TokenUsedUp);
}

#[test]
fn an_expired_token_admits_nobody_and_is_forgotten() {
    let mut mesh = Mesh::new();
    let token = mesh.token(100, |grant| {
        grant.uses = 2;
        grant.expires_ms = NOW + 10 * MINUTE;
    });
    let request = mesh.join_request(&token, &*key(1), "one");
    assert_eq!(mesh.decide(request), Outcome::Done(1));
    mesh.now_ms = NOW + 10 * MINUTE;
    mesh.batch(Vec::new());
    assert_eq!(mesh.state().tokens.len(), 1, "until then it counts");
    mesh.now_ms += 1;
    let late = mesh.join_request(&token, &*key(2), "two");
    assert_eq!(mesh.decide(late), Outcome::Refused(Refusal::TokenExpired));
    mesh.now_ms += MINUTE;
    mesh.batch(Vec::new());
    assert!(mesh.state().tokens.is_empty());
    let endless = mesh.token(101, |grant| grant.expires_ms = u64::MAX);
    let request = mesh.join_request(&endless, &*key(2), "two");
    mesh.assert_refused(request, Refusal::TokenExpired);
}

#[test]
fn only_an_admins_grant_counts_and_only_for_what_the_admin_has() {
    let mut mesh = Mesh::new();
    let (plain, narrow) = (key(1), key(2));
    mesh.admit(&*plain, "plain");
    let token = mesh.token(100, |grant| {
        grant.roles = [Role::Admin].into();
        grant.names = ["lab-*".parse().unwrap()].into();
    });
    let request = mesh.join_request(&token, &*narrow, "lab-one");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));

    for (inviter, number) in [(&plain, 101), (&key(9), 102)] {
        let token = mesh.token_by(&**inviter, number, |_| {});
        let request = mesh.join_request(&token, &*key(3), "three");
        mesh.assert_refused(request, Refusal::Inviter);
    }
    type Change = fn(&mut Grant);
    let wider: [Change; 4] = [
        |grant| grant.roles = [Role::Ca].into(),
        |_| {},
        |grant| grant.names = ["la*".parse().unwrap()].into(),
        |grant| {
            grant.names = ["lab-*".parse().unwrap()].into();
            grant.uses = limits::TOKEN_USES + 1;
        },
    ];
    for (change, number) in wider.into_iter().zip(103..) {
        let token = mesh.token_by(&*narrow, number, change);
        let request = mesh.join_request(&token, &*key(3), "lab-three");
        mesh.assert_refused(request, Refusal::GrantTooWide);
    }
    let within = mesh.token_by(&*narrow, 110, |grant| {
        grant.names = ["lab-3*".parse().unwrap()].into();
    });
    let outside = mesh.join_request(&within, &*key(3), "lab-4");
    mesh.assert_refused(outside, Refusal::NameNotAllowed(label("lab-4")));
    let request = mesh.join_request(&within, &*key(3), "lab-3");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
}

#[test]
fn a_grant_that_somebody_else_signed_or_that_was_changed_is_worth_nothing() {
    let mut mesh = Mesh::new();
    let token = mesh.token(100, |_| {});
    let forger = key(66);
    // Signed by a stranger in the founder's name.
    let forged = Token {
        grant: Sealed::new(&*forger, Purpose::Grant, &mesh.id, &said(&token)),
        ..token.clone()
    };
    // Another token's key.
    let stolen = Token {
        key: forger,
        ..token.clone()
    };
    // The founder's own words, signed for another purpose and another mesh.
    let other = MeshId([9; 32]);
    let founder = mesh.founder.clone();
    let purposes = [
        Sealed::new(&*founder, Purpose::Request, &mesh.id, &said(&token)),
        Sealed::new(&*founder, Purpose::Grant, &other, &said(&token)),
    ];
    let mut bad = vec![forged, stolen];
    bad.extend(purposes.map(|grant| Token {
        grant,
        ..token.clone()
    }));
    bad.push(mesh.token(100, |grant| grant.mesh = other));
    for token in bad {
        let request = mesh.join_request(&token, &*key(1), "one");
        mesh.assert_refused(request, Refusal::Grant);
    }
}

#[test]
fn a_machine_joins_with_a_key_that_it_holds_and_only_once() {
    let mut mesh = Mesh::new();
    let (token, thief) = (mesh.token(100, |grant| grant.uses = 3), key(66));
    let exporter = [7; 32];
    let message = Join::possession_message(&mesh.id, &token.key.public(), &exporter);
    let join = Join {
        node: key(1).public(),
        name: label("one"),
        exporter,
        grant: token.grant.clone(),
        possession: thief.sign(&message),
    };
    let author = Author::Token(token.key.public());
    let request = mesh.request_by(&*token.key, author, &Content::Join(Box::new(join)));
    mesh.assert_refused(request, Refusal::Signature);

    let request = mesh.join_request(&token, &*key(1), "one");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    let again = mesh.join_request(&token, &*key(1), "two");
    mesh.assert_refused(again, Refusal::AlreadyMember);
}

#[test]
fn reserved_names_are_granted_to_nobody() {
    let mut mesh = Mesh::new();
    let token = mesh.token(100, |_| {});
    for name in ["acme", "ca", "mesh", "wpad", "isatap"] {
        let request = mesh.join_request(&token, &*key(1), name);
        mesh.assert_refused(request, Refusal::NameReserved(label(name)));
        let founder = mesh.founder.clone();
        let claim = mesh.request(&*founder, &Content::Claim(label(name)));
        mesh.assert_refused(claim, Refusal::NameReserved(label(name)));
    }
}

#[test]
fn two_machines_whose_ids_point_at_one_address_get_two() {
    // A /22 has 512 places: among a few hundred keys some meet in one.
    let mut mesh = Mesh::with_overlay("10.77.0.0/22");
    let place = |key: &Ed25519| {
        let id = key.public().node_id().0;
        u32::from_be_bytes([id[12], id[13], id[14], id[15]]) % 512
    };
    let keys: Vec<Arc<Ed25519>> = (1..=250).map(key).collect();
    let (first, second) = keys
        .iter()
        .enumerate()
        .find_map(|(n, one)| {
            let other = keys[..n].iter().find(|other| place(other) == place(one))?;
            Some((one.clone(), other.clone()))
        })
        .expect("two keys with one place");
    mesh.admit(&*first, "first");
    mesh.admit(&*second, "second");
    let members = &mesh.state().members;
    let [a, b] = [&first, &second].map(|key| members[&id(&**key)].ipv4);
    assert_ne!(a, b);
    assert!([a, b].iter().all(|ip| mesh.state().ipv4.contains(ip)));
}

#[test]
fn a_token_can_ask_for_nothing_but_to_join_and_a_member_can_not_join() {
    let mut mesh = Mesh::new();
    let token = mesh.token(100, |_| {});
    let author = Author::Token(token.key.public());
    let claim = mesh.request_by(&*token.key, author, &Content::Claim(label("x")));
    mesh.assert_refused(claim, Refusal::NotMember);
    let founder = mesh.founder.clone();
    let request = mesh.join_request(&token, &*key(1), "one");
    let content: Request = request.peek(limits::REQUEST_BYTES).unwrap();
    let join = Content::decode(content.kind, &content.content).unwrap();
    let request = mesh.request(&*founder, &join);
    mesh.assert_refused(request, Refusal::NotUnderstood);
}

#[test]
fn requests_of_strangers_and_for_other_meshes_and_times_are_refused() {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    let claim = Content::Claim(label("x"));
    let stranger = mesh.request(&*key(66), &claim);
    mesh.assert_refused(stranger, Refusal::NotMember);
    let author = Author::Node(id(&*founder));
    let forged = mesh.request_by(&*key(66), author, &claim);
    mesh.assert_refused(forged, Refusal::Signature);
    let at = |expires_ms, mesh_id| {
        let id = RequestId([1; 16]);
        Request::seal(&*founder, mesh_id, id, author, expires_ms, &claim)
    };
    let elsewhere = at(NOW + MINUTE, MeshId([9; 32]));
    mesh.assert_refused(elsewhere, Refusal::Mesh);
    mesh.assert_refused(at(NOW - 1, mesh.id), Refusal::Expired);
    mesh.assert_refused(at(NOW + DAY, mesh.id), Refusal::TooFarAhead);
    mesh.assert_refused(at(u64::MAX, mesh.id), Refusal::TooFarAhead);
    let garbage = Sealed {
        bytes: vec![1, 2, 3],
        ..at(NOW, mesh.id)
    };
    mesh.assert_refused(garbage, Refusal::NotUnderstood);
    // None of them is remembered: anybody could have sent it.
    let state = mesh.state();
    assert_eq!(state.outcome_of(author, RequestId([1; 16])), None);
    assert!(matches!(mesh.decide(at(NOW, mesh.id)), Outcome::Done(_)));
}

/// What an admin asks for a machine whose code it was given.
fn admit(
    mesh: &Mesh,
    admin: &Ed25519,
    machine: &Ed25519,
    change: impl FnOnce(&mut Admit),
) -> Admit {
    let transcript = [5; 32];
    let message = Admit::possession_message(&mesh.id, &admin.public(), &transcript);
    let mut admit = Admit {
        node: machine.public(),
        name: label("laptop"),
        roles: [Role::Relay].into(),
        names: Default::default(),
        routes: ["192.0.2.0/24".parse().unwrap()].into(),
        transcript,
        possession: machine.sign(&message),
    };
    change(&mut admit);
    admit
}

#[test]
fn an_admin_lets_a_machine_in_without_a_token_and_nobody_else_does() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    let (founder, machine) = (mesh.founder.clone(), key(2));
    let ask = |mesh: &mut Mesh, by: &Ed25519, admit: Admit| {
        let content = Content::Admit(Box::new(admit));
        mesh.request(by, &content)
    };
    let by_one = admit(&mesh, &key(1), &machine, |_| {});
    let request = ask(&mut mesh, &key(1), by_one.clone());
    mesh.assert_refused(request, Refusal::NotAdmin);
    // What the machine signed for one admin is of no use to another.
    let request = ask(&mut mesh, &founder, by_one);
    mesh.assert_refused(request, Refusal::Signature);
    let overlay: ipnet::IpNet = "10.77.4.0/24".parse().unwrap();
    let host: ipnet::IpNet = "192.0.2.1/24".parse().unwrap();
    for (route, refusal) in [
        (overlay, Refusal::Route(overlay)),
        (host, Refusal::Route(host)),
    ] {
        let wrong = admit(&mesh, &founder, &machine, |admit| {
            admit.routes = [route].into();
        });
        let request = ask(&mut mesh, &founder, wrong);
        mesh.assert_refused(request, refusal);
    }
    let good = admit(&mesh, &founder, &machine, |_| {});
    let request = ask(&mut mesh, &founder, good.clone());
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    let member = &mesh.state().members[&id(&*machine)];
    assert_eq!(member.invited_by, Some(id(&*founder)));
    assert_eq!((&member.roles, &member.routes), (&good.roles, &good.routes));
    assert!(member.certificate.is_some() && mesh.state().tokens.len() == 1);
}

#[test]
fn nobody_grants_a_route_that_it_may_not_bring_itself() {
    let mut mesh = Mesh::new();
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    mesh.admit_as(&*key(1), "one", &*key(0), |grant| {
        grant.roles = [Role::Admin].into();
        grant.routes = [net("192.0.2.0/24")].into();
    });
    let wide = mesh.token_by(&*key(1), 100, |grant| {
        grant.routes = [net("192.0.0.0/16")].into();
    });
    let request = mesh.join_request(&wide, &*key(2), "two");
    mesh.assert_refused(request, Refusal::GrantTooWide);
    let within = mesh.token_by(&*key(1), 101, |grant| {
        grant.routes = [net("192.0.2.128/25")].into();
        grant.roles = [Role::Gateway, Role::Sinkhole].into();
    });
    let request = mesh.join_request(&within, &*key(2), "two");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    let ca = mesh.token_by(&*key(1), 102, |grant| grant.roles = [Role::Ca].into());
    let request = mesh.join_request(&ca, &*key(3), "three");
    mesh.assert_refused(request, Refusal::GrantTooWide);
}

#[test]
fn a_token_that_an_admin_revoked_lets_nobody_in_any_more() {
    let mut mesh = Mesh::new();
    let (founder, member) = (mesh.founder.clone(), key(1));
    mesh.admit(&*member, "one");
    let token = mesh.token(100, |grant| grant.uses = 5);
    let request = mesh.join_request(&token, &*key(2), "two");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    let revoke = |expires_ms: u64| {
        Content::RevokeInvite(RevokeInvite {
            token: token.key.public(),
            expires_ms,
        })
    };
    let expires_ms = mesh.now_ms + 60 * MINUTE;
    let request = mesh.request(&*member, &revoke(expires_ms));
    mesh.assert_refused(request, Refusal::NotAdmin);
    let request = mesh.request(&*founder, &revoke(u64::MAX));
    mesh.assert_refused(request, Refusal::TokenExpired);
    assert!(matches!(
        mesh.ask(&*founder, revoke(expires_ms)),
        Outcome::Done(_)
    ));
    assert!(mesh.state().agrees_with_itself());
    let request = mesh.join_request(&token, &*key(3), "three");
    mesh.assert_refused(request, Refusal::TokenUsedUp);
    // It is forgotten once it would have expired anyway.
    mesh.now_ms = expires_ms + 24 * 60 * MINUTE;
    mesh.batch(Vec::new());
    assert!(!mesh.state().tokens.contains_key(&token.key.public()));
    assert!(mesh.state().agrees_with_itself());
}
