//! The policy as a fact of the ledger, from rules 4 on.

use innermesh_proto::{
    crypto::Hash,
    id::NodeId,
    ledger::{
        Batch, BatchError, Content, Entry, Header, Outcome, PolicyText, Refusal, Request, Snapshot,
        State, record::RecordData, request::AddRecord,
    },
    limits,
};

use crate::mesh::{KEYS, Mesh, id, key, signed};

const GOOD: &str =
    "[default]\nmembers = \"closed\"\n[[allow]]\nfrom = [\"n1\"]\nto = [\"n2:22\"]\n";

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn policy(text: impl Into<String>) -> Content {
    Content::Policy(PolicyText(text.into()))
}

/// The founder is the admin; n1 and n2 are members.
fn mesh_with(rules: u32) -> Mesh {
    let mut mesh = Mesh::with_rules(rules);
    for number in [1, 2] {
        mesh.admit(&*key(number), &format!("n{number}"));
    }
    mesh
}

fn mesh() -> Mesh {
    mesh_with(4)
}

#[test]
fn an_admin_sets_the_policy_and_the_newest_is_in_force() {
    let mut mesh = mesh();
    assert_eq!(mesh.state().policy(), None);
    assert!(mesh.state().rules_of_access().default.members_open);
    let by = mesh.founder.clone();
    assert!(matches!(mesh.ask(&*by, policy(GOOD)), Outcome::Done(_)));
    let first = mesh.state().policy().cloned().expect("it is in force");
    assert_eq!((first.text.as_str(), first.number), (GOOD, 1));
    assert_eq!((first.by, first.at_ms), (id(&*by), mesh.state().stamp_ms));
    assert_eq!(mesh.state().rules_of_access().rules.len(), 1);
    // The same again is none more.
    mesh.ask(&*by, policy(GOOD));
    assert_eq!(mesh.state().policy(), Some(&first));
    mesh.ask(&*by, policy(""));
    let second = mesh.state().policy().expect("it is in force");
    assert_eq!((second.text.as_str(), second.number), ("", 2));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn nobody_but_an_admin_sets_it_and_none_that_fails_its_tests() {
    let mut mesh = mesh();
    let request = mesh.request(&*key(1), &policy(GOOD));
    mesh.assert_refused(request, Refusal::NotAdmin);
    let by = mesh.founder.clone();
    mesh.ask(&*by, policy(GOOD));
    let expect = |to: &str, result: &str| {
        format!("{GOOD}[[expect]]\nfrom = \"n1\"\nto = \"{to}\"\nresult = \"{result}\"\n")
    };
    for (text, told) in [
        (
            "[[alow]]".to_owned(),
            "line 1: `alow` is no key of a policy; did you mean allow?",
        ),
        (
            expect("n2:22", "deny"),
            "line 6: the test fails: n1 to n2:tcp/22,udp/22 is allowed, by rule 1 (line 3)",
        ),
        (
            expect("n2:23", "allow"),
            "line 6: the test fails: n1 to n2:tcp/23,udp/23 is not allowed",
        ),
    ] {
        let request = mesh.request(&*by, &policy(text));
        mesh.assert_refused(request, Refusal::Policy(told.into()));
    }
    assert_eq!(mesh.state().policy().map(|held| held.number), Some(1));
    assert!(matches!(
        mesh.ask(&*by, policy(expect("n2:22", "allow"))),
        Outcome::Done(_)
    ));
}

#[test]
fn a_state_with_a_policy_is_read_back_and_one_without_sense_is_none() {
    let mut mesh = mesh();
    let by = mesh.founder.clone();
    mesh.ask(&*by, policy(GOOD));
    let bytes = mesh.state().encode();
    let read = State::decode(&bytes, mesh.state().rules).expect("a state");
    assert_eq!(&read, mesh.state());
    assert_eq!(read.rules_of_access(), mesh.state().rules_of_access());
    assert_eq!(Snapshot::of(&read).bytes, Snapshot::of(mesh.state()).bytes);
    let at = bytes
        .windows(7)
        .position(|it| it == b"members")
        .expect("its text");
    let mut other = bytes;
    other[at] = b'x';
    assert!(State::decode(&other, mesh.state().rules).is_err());
}

/// A policy of so many bytes.
fn of_bytes(bytes: usize) -> String {
    format!("{GOOD}#{}", "x".repeat(bytes - GOOD.len() - 1))
}

#[test]
fn only_a_policy_may_be_as_large_as_that() {
    let mut mesh = mesh();
    let by = mesh.founder.clone();
    let largest = mesh.request(&*by, &policy(of_bytes(limits::POLICY_BYTES)));
    assert!(largest.bytes.len() <= limits::POLICY_REQUEST_BYTES);
    assert!(Request::peek(&largest).is_ok_and(|request| request.sets_policy()));
    assert!(matches!(mesh.decide(largest), Outcome::Done(_)));
    let told = "the policy has 262145 bytes, and may have 262144";
    let larger = mesh.request(&*by, &policy(of_bytes(limits::POLICY_BYTES + 1)));
    mesh.assert_refused(larger, Refusal::Policy(told.into()));
    // Of another kind it isn't even read.
    let record = Content::AddRecord(AddRecord {
        name: "x.lab.internal".parse().unwrap(),
        data: RecordData::Txt(vec![b"x".repeat(255); 200]),
        ttl_s: None,
        public: false,
    });
    let request = mesh.request(&*by, &record);
    assert!(request.bytes.len() > limits::REQUEST_BYTES);
    assert!(Request::peek(&request).is_err());
}

/// A batch with one request, and what its node makes of it.
fn batch(mesh: &Mesh, entry: Entry) -> Batch {
    let state = mesh.state();
    let entries = vec![entry];
    let header = Header {
        mesh: mesh.id,
        epoch: state.epoch,
        index: state.position.index + 1,
        previous: state.position.hash,
        entries: Batch::entries_hash(&entries),
        stamp_ms: mesh.now_ms,
        state: None::<Hash>,
        next: None,
        recovery: None,
        rules: state.rules,
    };
    signed(&header, entries, &*mesh.founder)
}

#[test]
fn an_entry_is_as_large_as_that_for_a_policy_alone_and_from_rules_4_on() {
    for (rules, fits) in [(3, false), (4, true)] {
        let mut mesh = mesh_with(rules);
        let by = mesh.founder.clone();
        let request = mesh.request(&*by, &policy(of_bytes(limits::POLICY_BYTES)));
        let entry = |attachment: usize| Entry {
            request: request.clone(),
            attachment: vec![0; attachment],
        };
        let whole = batch(&mesh, entry(0));
        let next = mesh.state().next(&whole, &KEYS);
        match next {
            Ok((state, _)) => {
                assert!(fits);
                assert_eq!(state.policy().map(|held| held.number), Some(1));
            }
            Err(error) => assert!(!fits && error == BatchError::TooLarge, "{error}"),
        }
        let wider = batch(&mesh, entry(limits::POLICY_ENTRY_BYTES));
        assert_eq!(
            mesh.state().next(&wider, &KEYS).err(),
            Some(BatchError::TooLarge)
        );
    }
    // Under earlier rules a small one is of a kind that isn't known.
    let mut mesh = mesh_with(3);
    let by = mesh.founder.clone();
    let request = mesh.request(&*by, &policy(GOOD));
    mesh.assert_refused(request, Refusal::NotUnderstood);
}

#[test]
fn members_that_the_policy_names_may_add_devices() {
    let mut mesh = mesh();
    let by = mesh.founder.clone();
    assert!(!mesh.state().may_add_devices(node(1)));
    mesh.ask(
        &*by,
        policy("[groups]\ng = [\"n1\"]\n[devices]\nadd = [\"group:g\"]\n"),
    );
    assert!(mesh.state().may_add_devices(node(1)));
    assert!(!mesh.state().may_add_devices(node(2)));
    mesh.ask(&*by, policy("[devices]\nadd = [\"members\"]\n"));
    assert!(mesh.state().may_add_devices(node(2)));
}
