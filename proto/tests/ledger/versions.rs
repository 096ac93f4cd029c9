//! The version of the rules, and what it keeps from happening.

use innermesh_proto::ledger::{
    BatchError, Content, GenesisError, Outcome, RULES, Refusal, Snapshot, State,
    batch::STATE_HASH_INTERVAL,
};

use crate::mesh::{KEYS, MINUTE, Mesh, key, label, sign_genesis, signed};

fn claim(name: &str) -> Content {
    Content::Claim(label(name))
}

/// Bytes as the build before there were rules wrote them.
fn is_first_encoding<T: serde::Serialize>(value: &T, bytes: &[u8]) -> bool {
    innermesh_proto::codec::encode(value) == bytes
}

#[test]
fn a_mesh_under_the_first_rules_is_encoded_as_it_was_before_there_were_others() {
    let mut mesh = Mesh::with_rules(0);
    let founder = mesh.founder.clone();
    mesh.ask(&*founder, claim("photos"));
    let genesis = mesh.genesis.peek().unwrap();
    assert!(is_first_encoding(&genesis, &mesh.genesis.bytes));
    let batch = mesh.batches.last().unwrap();
    assert!(is_first_encoding(
        &batch.read_header().unwrap(),
        &batch.header
    ));
    assert!(is_first_encoding(mesh.state(), &mesh.state().encode()));
    // A refusal is remembered by those rules.
    let refused = mesh.ask(&*key(1), claim("mail"));
    assert!(matches!(refused, Outcome::Refused(_)));
}

#[test]
fn an_earlier_build_can_read_nothing_that_newer_rules_decided() {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    mesh.ask(&*founder, claim("photos"));
    let first = |bytes: &[u8]| {
        innermesh_proto::codec::decode::<innermesh_proto::ledger::Header>(bytes, 8192).is_ok()
    };
    assert!(!first(&mesh.batches[0].header));
    assert_eq!(mesh.batches[0].read_header().unwrap().rules, RULES);
}

#[test]
fn the_rules_are_raised_by_a_voter_one_number_at_a_time() {
    let mut mesh = Mesh::with_rules(0);
    let (founder, member) = (mesh.founder.clone(), key(1));
    mesh.admit(&*member, "cedar");
    for (by, rules, refusal) in [
        (&*member, 1, Refusal::NotCa),
        (&*founder, 0, Refusal::Rules),
        (&*founder, RULES + 1, Refusal::Rules),
    ] {
        let outcome = mesh.ask(by, Content::Rules(rules));
        assert_eq!(outcome, Outcome::Refused(refusal));
        assert_eq!(mesh.state().rules, 0);
    }
    mesh.ask(&*founder, claim("photos"));
    let before = mesh.state().clone();
    assert!(matches!(
        mesh.ask(&*founder, Content::Rules(1)),
        Outcome::Done(_)
    ));
    assert_eq!((before.rules, mesh.state().rules), (0, 1));
    assert!(
        mesh.state().agrees_with_itself(),
        "what is there is counted"
    );
    let refused = mesh.ask(&*founder, Content::Rules(1));
    assert_eq!(refused, Outcome::Refused(Refusal::Rules));
}

#[test]
fn a_batch_names_the_rules_that_its_entries_lead_to() {
    let mut mesh = Mesh::with_rules(0);
    let founder = mesh.founder.clone();
    mesh.ask(&*founder, claim("photos"));
    let before = mesh.states[0].clone();
    let batch = &mesh.batches[0];
    let mut header = batch.read_header().unwrap();
    for (rules, error) in [
        (1, BatchError::OtherRules),
        (
            RULES + 1,
            BatchError::Rules {
                needed: RULES + 1,
                known: RULES,
            },
        ),
    ] {
        header.rules = rules;
        let other = signed(&header, batch.entries.clone(), &*founder);
        assert_eq!(before.next(&other, &KEYS).unwrap_err(), error);
    }
}

#[test]
fn a_mesh_of_rules_that_are_not_known_here_is_not_read_by_others() {
    let mesh = Mesh::new();
    let mut genesis = mesh.genesis.peek().unwrap();
    genesis.rules = RULES + 1;
    let error = State::genesis(&sign_genesis(&genesis, &mesh.root), &KEYS).unwrap_err();
    assert_eq!(error, GenesisError::Rules(RULES + 1));
}

#[test]
fn a_snapshot_under_newer_rules_is_the_whole_state() {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    while mesh.state().position.index < STATE_HASH_INTERVAL {
        mesh.now_ms += MINUTE;
        let name = format!("n{}", mesh.state().position.index % 100);
        mesh.ask(&*founder, claim(&name));
    }
    let batch = mesh.batches.last().unwrap();
    let snapshot = Snapshot::of(mesh.state());
    assert_eq!(
        &Snapshot::open(&snapshot.bytes, batch).unwrap(),
        mesh.state()
    );
}
