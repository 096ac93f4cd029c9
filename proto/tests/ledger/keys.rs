//! Whose WireGuard key is whose, by the ledger.

use innermesh_proto::{
    crypto::Sign,
    ledger::{
        Author, Content, Outcome, Refusal,
        request::{Admit, Evict, Join, KeyedAdmit, KeyedJoin},
    },
    tunnel::TunnelKey,
};

use crate::mesh::{MINUTE, Mesh, Token, id, key, label};

fn tunnel(number: u8) -> TunnelKey {
    TunnelKey([number; 32])
}

fn set(number: u8) -> Content {
    Content::TunnelKey(tunnel(number))
}

fn mesh_of_three() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    mesh
}

/// What a machine with a token asks, with a possession over `signed`.
fn keyed(
    mesh: &mut Mesh,
    token: &Token,
    machine: &dyn Sign,
    tunnel: TunnelKey,
    signed: TunnelKey,
) -> innermesh_proto::crypto::Sealed {
    let exporter = [7; 32];
    let public = token.key.public();
    let message = KeyedJoin::possession_message(&mesh.id, &public, &exporter, &signed);
    let join = Join {
        node: machine.public(),
        name: label("new"),
        exporter,
        grant: token.grant.clone(),
        possession: machine.sign(&message),
    };
    let content = Content::KeyedJoin(Box::new(KeyedJoin { join, tunnel }));
    mesh.request_by(&*token.key, Author::Token(public), &content)
}

#[test]
fn a_machine_joins_with_its_key_in_the_entry_that_makes_it_a_member() {
    let mut mesh = mesh_of_three();
    let token = mesh.token(60, |_| {});
    let machine = key(3);
    let request = keyed(&mut mesh, &token, &*machine, tunnel(3), tunnel(4));
    mesh.assert_refused(request, Refusal::Signature);

    assert!(matches!(mesh.ask(&*key(1), set(3)), Outcome::Done(_)));
    let request = keyed(&mut mesh, &token, &*machine, tunnel(3), tunnel(3));
    mesh.assert_refused(request, Refusal::TunnelKey);
    assert!(!mesh.state().members.contains_key(&id(&*machine)));

    // The token isn't spent by that: a new key is all that it costs.
    let request = keyed(&mut mesh, &token, &*machine, tunnel(5), tunnel(5));
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    let keys = mesh.state().tunnel_keys(&id(&*machine)).copied().unwrap();
    assert_eq!((keys.current, keys.previous), (tunnel(5), None));
    assert!(mesh.state().agrees_with_itself());
}

/// What the founder asks to let a machine in by its code, with a possession over
/// `signed`.
fn keyed_admit(mesh: &Mesh, machine: &dyn Sign, tunnel: TunnelKey, signed: TunnelKey) -> Content {
    let (admin, transcript) = (mesh.founder.public(), [5; 32]);
    let message = KeyedAdmit::possession_message(&mesh.id, &admin, &transcript, &signed);
    let admit = Admit {
        node: machine.public(),
        name: label("laptop"),
        roles: Default::default(),
        names: Default::default(),
        routes: Default::default(),
        transcript,
        possession: machine.sign(&message),
    };
    Content::KeyedAdmit(Box::new(KeyedAdmit { admit, tunnel }))
}

#[test]
fn a_machine_that_an_admin_lets_in_by_its_code_comes_with_its_key() {
    let mut mesh = mesh_of_three();
    let (founder, machine) = (mesh.founder.clone(), key(3));
    // Nobody on the way puts another key in its place, and nobody shares one.
    let other = keyed_admit(&mesh, &*machine, tunnel(3), tunnel(4));
    let request = mesh.request(&*founder, &other);
    mesh.assert_refused(request, Refusal::Signature);
    assert!(matches!(mesh.ask(&*key(1), set(3)), Outcome::Done(_)));
    let taken = keyed_admit(&mesh, &*machine, tunnel(3), tunnel(3));
    let request = mesh.request(&*founder, &taken);
    mesh.assert_refused(request, Refusal::TunnelKey);
    let by_another = mesh.request(&*key(1), &taken);
    mesh.assert_refused(by_another, Refusal::NotAdmin);

    let good = keyed_admit(&mesh, &*machine, tunnel(5), tunnel(5));
    assert!(matches!(mesh.ask(&*founder, good), Outcome::Done(_)));
    let keys = mesh.state().tunnel_keys(&id(&*machine)).copied().unwrap();
    assert_eq!((keys.current, keys.previous), (tunnel(5), None));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_key_is_one_nodes_alone_and_the_one_before_stays_its_own_until_the_next_change() {
    let mut mesh = mesh_of_three();
    let (one, two) = (key(1), key(2));
    for number in [10, 11] {
        assert!(matches!(mesh.ask(&*one, set(number)), Outcome::Done(_)));
    }
    let keys = mesh.state().tunnel_keys(&id(&*one)).copied().unwrap();
    assert_eq!(
        (keys.current, keys.previous),
        (tunnel(11), Some(tunnel(10)))
    );
    for number in [10, 11] {
        let request = mesh.request(&*two, &set(number));
        mesh.assert_refused(request, Refusal::TunnelKey);
    }
    let request = mesh.request(&*two, &Content::TunnelKey(TunnelKey([0; 32])));
    mesh.assert_refused(request, Refusal::TunnelKey);
    // Asked again nothing changes; back to the one before is a change.
    assert!(matches!(mesh.ask(&*one, set(11)), Outcome::Done(_)));
    assert_eq!(mesh.state().tunnel_keys(&id(&*one)), Some(&keys));
    assert!(matches!(mesh.ask(&*one, set(10)), Outcome::Done(_)));
    let keys = mesh.state().tunnel_keys(&id(&*one)).copied().unwrap();
    assert_eq!(
        (keys.current, keys.previous),
        (tunnel(10), Some(tunnel(11)))
    );
    assert!(matches!(mesh.ask(&*one, set(12)), Outcome::Done(_)));
    assert!(matches!(mesh.ask(&*two, set(11)), Outcome::Done(_)));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn who_is_no_member_has_no_key() {
    let mut mesh = mesh_of_three();
    mesh.ask(&*key(1), set(10));
    mesh.ask(&*key(2), set(20));
    assert!(matches!(
        mesh.ask(&*key(1), Content::Leave),
        Outcome::Done(_)
    ));
    let evict = Evict {
        node: id(&*key(2)),
        hold: None,
        root: None,
    };
    let founder = mesh.founder.clone();
    assert!(matches!(
        mesh.ask(&*founder, Content::Evict(evict)),
        Outcome::Done(_)
    ));
    for number in [10, 20] {
        assert_eq!(mesh.state().tunnel_key_holder(&tunnel(number)), None);
    }
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn the_first_rules_know_no_keys() {
    let mut mesh = Mesh::with_rules(0);
    mesh.admit(&*key(1), "one");
    let request = mesh.request(&*key(1), &set(10));
    mesh.assert_refused(request, Refusal::NotUnderstood);
    let token = mesh.token(60, |_| {});
    let request = keyed(&mut mesh, &token, &*key(3), tunnel(3), tunnel(3));
    mesh.assert_refused(request, Refusal::NotUnderstood);
    let founder = mesh.founder.clone();
    let admit = keyed_admit(&mesh, &*key(3), tunnel(3), tunnel(3));
    let request = mesh.request(&*founder, &admit);
    mesh.assert_refused(request, Refusal::NotUnderstood);

    mesh.now_ms += MINUTE;
    assert!(matches!(
        mesh.ask(&*founder, Content::Rules(1)),
        Outcome::Done(_)
    ));
    assert!(matches!(mesh.ask(&*key(1), set(10)), Outcome::Done(_)));
}
