//! What is published, as facts of the ledger from rules 5 on.

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, Outcome, Refusal, Snapshot, State,
        publish::{PublicPort, Publish, PublishKey},
        request::{Evict, Share},
    },
    limits,
    tunnel::TunnelKey,
};

use crate::mesh::{Mesh, id, key, label};

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn at(number: u8, port: u16) -> PublicPort {
    PublicPort {
        on: node(number),
        port,
    }
}

fn publish(name: &str, at: PublicPort) -> Content {
    Content::Publish(Box::new(Publish {
        name: label(name),
        at,
        to_port: 25,
        proxy_protocol: false,
    }))
}

fn with_header(name: &str, at: PublicPort) -> Content {
    Content::Publish(Box::new(Publish {
        name: label(name),
        at,
        to_port: 25,
        proxy_protocol: true,
    }))
}

fn own_key(on: u8, key: u8) -> Content {
    Content::PublishKey(PublishKey {
        on: node(on),
        key: TunnelKey([key; 32]),
    })
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn refused(mesh: &mut Mesh, by: u8, content: &Content, refusal: Refusal) {
    let all = |mesh: &Mesh| {
        let state = mesh.state();
        (state.publications().count(), state.publish_links().count())
    };
    let before = all(mesh);
    let request = mesh.request(&*key(by), content);
    mesh.assert_refused(request, refusal);
    assert_eq!(all(mesh), before);
}

/// The founder is the admin, 1 the public node; 2 has the service `mail`, whose
/// WireGuard key is 20.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new();
    for number in 1..=3 {
        mesh.admit(&*key(number), &format!("n{number}"));
    }
    done(mesh.ask(&*key(2), Content::Claim(label("mail"))));
    done(mesh.ask(&*key(2), Content::TunnelKey(TunnelKey([20; 32]))));
    mesh
}

fn published() -> Mesh {
    let mut mesh = mesh();
    done(mesh.ask(&*key(0), publish("mail", at(1, 25))));
    done(mesh.ask(&*key(2), own_key(1, 21)));
    mesh
}

#[test]
fn only_an_admin_publishes_and_only_what_is_a_node_or_a_service_elsewhere() {
    let mut mesh = mesh();
    refused(&mut mesh, 2, &publish("mail", at(1, 25)), Refusal::NotAdmin);
    for (name, at, refusal) in [
        ("mial", at(1, 25), Refusal::PublishName(label("mial"))),
        ("mail", at(9, 25), Refusal::NoSuchNode),
        ("mail", at(1, 0), Refusal::PublishPort),
        (
            "mail",
            at(2, 25),
            Refusal::PublishToItself(label("mail"), label("n2")),
        ),
        (
            "n1",
            at(1, 25),
            Refusal::PublishToItself(label("n1"), label("n1")),
        ),
    ] {
        refused(&mut mesh, 0, &publish(name, at), refusal);
    }
    done(mesh.ask(&*key(0), publish("mail", at(1, 25))));
    // Again is the same, and another is another's.
    done(mesh.ask(&*key(0), publish("mail", at(1, 25))));
    let taken = Refusal::PortPublished {
        port: 25,
        on: label("n1"),
        name: label("mail"),
    };
    refused(&mut mesh, 0, &publish("n3", at(1, 25)), taken.clone());
    refused(&mut mesh, 0, &with_header("mail", at(1, 25)), taken);
    done(mesh.ask(&*key(0), publish("n3", at(1, 26))));
    assert_eq!(mesh.state().publications().count(), 2);
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_link_is_of_who_may_run_what_is_published_with_a_key_and_addresses_of_its_own() {
    let mut mesh = mesh();
    refused(&mut mesh, 2, &own_key(1, 21), Refusal::NothingPublished);
    done(mesh.ask(&*key(0), with_header("mail", at(1, 587))));
    // The public node's agent connects by itself then.
    refused(&mut mesh, 2, &own_key(1, 21), Refusal::NothingPublished);
    done(mesh.ask(&*key(0), publish("mail", at(1, 25))));
    refused(&mut mesh, 3, &own_key(1, 21), Refusal::NothingPublished);
    for taken in [0, 20] {
        refused(&mut mesh, 2, &own_key(1, taken), Refusal::DeviceKey);
    }
    done(mesh.ask(&*key(2), own_key(1, 21)));
    let link = *mesh.state().publish_link(node(2), node(1)).unwrap();
    assert!(mesh.state().ipv4.contains(&link.ipv4));
    for address in link.addresses() {
        assert_eq!(mesh.state().holder_of_address(address), None);
        assert!(mesh.state().is_given(address));
    }
    // S26: the key is nobody else's from now on.
    refused(
        &mut mesh,
        3,
        &Content::TunnelKey(TunnelKey([21; 32])),
        Refusal::TunnelKey,
    );
    done(mesh.ask(&*key(0), publish("n3", at(1, 26))));
    refused(&mut mesh, 3, &own_key(1, 21), Refusal::DeviceKey);
    // Another key, and the same addresses.
    done(mesh.ask(&*key(2), own_key(1, 22)));
    let changed = mesh.state().publish_link(node(2), node(1)).unwrap();
    assert_eq!(changed.key, TunnelKey([22; 32]));
    assert_eq!(changed.addresses(), link.addresses());
    done(mesh.ask(&*key(3), Content::TunnelKey(TunnelKey([21; 32]))));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn what_is_published_ends_with_the_public_node_the_name_and_by_an_admins_word() {
    let all = |mesh: &Mesh| {
        let state = mesh.state();
        assert!(state.agrees_with_itself());
        (state.publications().count(), state.publish_links().count())
    };
    let mut mesh = published();
    assert_eq!(all(&mesh), (1, 1));
    let end = Content::Unpublish(at(1, 25));
    refused(&mut mesh, 2, &end, Refusal::NotAdmin);
    refused(
        &mut mesh,
        0,
        &Content::Unpublish(at(1, 26)),
        Refusal::NotPublished(26),
    );
    // The public node itself may always close it.
    done(mesh.ask(&*key(1), end));
    assert_eq!(all(&mesh), (0, 0));

    let evict = |number: u8| {
        Content::Evict(Evict {
            node: node(number),
            hold: None,
            root: None,
        })
    };
    for gone in [1, 2] {
        let mut mesh = published();
        done(mesh.ask(&*key(0), evict(gone)));
        assert_eq!(all(&mesh), (0, 0), "{gone}");
    }
    // Whoever has the name later isn't published by it.
    let mut mesh = published();
    done(mesh.ask(&*key(2), Content::Release(label("mail"))));
    done(mesh.ask(&*key(3), Content::Claim(label("mail"))));
    assert_eq!(all(&mesh), (0, 0));
}

#[test]
fn a_link_ends_when_its_node_may_no_longer_run_the_service() {
    let mut mesh = published();
    let share = Share {
        name: label("mail"),
        with: node(3),
    };
    done(mesh.ask(&*key(2), Content::Share(share.clone())));
    done(mesh.ask(&*key(3), own_key(1, 31)));
    assert_eq!(mesh.state().publish_links().count(), 2);
    done(mesh.ask(&*key(2), Content::Unshare(share)));
    assert_eq!(mesh.state().publish_links().count(), 1);
    assert_eq!(mesh.state().publish_link(node(3), node(1)), None);
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_node_publishes_a_bounded_number_of_ports() {
    let mut mesh = mesh();
    for port in 1..=limits::PUBLICATIONS_PER_NODE as u16 {
        done(mesh.ask(&*key(0), publish("mail", at(1, port))));
    }
    refused(
        &mut mesh,
        0,
        &publish("mail", at(1, 1000)),
        Refusal::TooManyPublications,
    );
    done(mesh.ask(&*key(0), publish("mail", at(3, 1000))));
}

#[test]
fn what_is_published_is_in_the_snapshot_and_earlier_rules_know_none_of_it() {
    let mesh = published();
    let state = mesh.state();
    let bytes = Snapshot::of(state).bytes;
    let read = State::decode(&bytes, state.rules).expect("a state");
    assert!(read.publications().eq(state.publications()));
    assert!(read.publish_links().eq(state.publish_links()));
    assert!(State::decode(&bytes, 4).is_err());

    let mut earlier = Mesh::with_rules(4);
    earlier.admit(&*key(1), "n1");
    earlier.admit(&*key(2), "n2");
    let request = earlier.request(&*key(0), &publish("n2", at(1, 25)));
    earlier.assert_refused(request, Refusal::NotUnderstood);
    let state = earlier.state();
    let read = State::decode(&Snapshot::of(state).bytes, 4).expect("a state");
    assert_eq!(Snapshot::of(&read).bytes, Snapshot::of(state).bytes);
}
