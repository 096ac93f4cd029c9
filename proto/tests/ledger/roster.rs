use std::collections::{BTreeMap, BTreeSet};

use innermesh_proto::{
    crypto::Sign,
    id::NodeId,
    ledger::{
        Batch, BatchError, Content, Entry, Outcome, Refusal, Role, State,
        evidence::equivocation,
        request::{Promote, RosterChange},
    },
};
use innermesh_testing::host::keys::Ed25519;

use crate::mesh::{DAY, KEYS, Mesh, NOW, facts, id, key, label, owner};

fn roster(numbers: &[u8]) -> BTreeSet<NodeId> {
    numbers.iter().map(|number| id(&*key(*number))).collect()
}

fn change(numbers: &[u8]) -> Content {
    Content::Roster(RosterChange {
        voters: roster(numbers),
    })
}

/// A mesh with members one to five, none of them a CA node.
fn six() -> Mesh {
    let mut mesh = Mesh::new();
    for number in 1..=5 {
        mesh.admit(&*key(number), &format!("n{number}"));
    }
    mesh
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

#[test]
fn promoted_nodes_wait_until_two_of_them_make_three() {
    let mut mesh = six();
    let founder = mesh.founder.clone();
    assert_eq!(mesh.state().wanted_roster(), None);
    mesh.promote(1);
    let one = id(&*key(1));
    assert_eq!(mesh.state().waiting(), [one]);
    assert_eq!(mesh.state().voters[&one], 2, "the founder is 1");
    assert!(mesh.state().members[&one].roles.contains(&Role::Ca));
    assert_eq!(mesh.state().wanted_roster(), None);
    let early = mesh.request(&*founder, &change(&[0, 1]));
    mesh.assert_refused(early, Refusal::Roster);

    mesh.promote(2);
    assert_eq!(mesh.state().wanted_roster(), Some(roster(&[0, 1, 2])));
    mesh.become_roster(&[0, 1, 2]);
    assert_eq!((mesh.state().epoch, mesh.state().roster.len()), (1, 3));
    assert_eq!(mesh.state().wanted_roster(), None);
    mesh.promote(3);
    mesh.promote(4);
    mesh.promote(5);
    assert_eq!(mesh.state().wanted_roster(), Some(roster(&[0, 1, 2, 3, 4])));
    // Whoever leads may take those that have caught up.
    mesh.become_roster(&[0, 1, 2, 4, 5]);
    assert_eq!(mesh.state().waiting(), [id(&*key(3))]);
    assert_eq!(mesh.state().wanted_roster(), None);
    assert_eq!(mesh.state().voters.len(), 6);
}

#[test]
fn a_change_of_the_roster_needs_both_majorities() {
    let mut mesh = six();
    mesh.promote(1);
    mesh.promote(2);
    let state = mesh.state().clone();
    let batch = mesh.unproved(&change(&[0, 1, 2]));
    let needed = state.proof_needed(&batch).unwrap();
    assert_eq!(needed.signers().len(), 3);
    let with = |numbers: &[u8]| {
        let mut batch = batch.clone();
        for number in numbers {
            let (node, signature) = batch.endorse(&state.mesh, &*key(*number));
            batch.proof.insert(node, signature);
        }
        state.next(&batch, &KEYS).map(|(state, _)| state.epoch)
    };
    assert_eq!(with(&[0]), Err(BatchError::Proof));
    assert_eq!(
        with(&[1, 2]),
        Err(BatchError::Proof),
        "not the old roster's"
    );
    assert_eq!(with(&[0, 2]), Ok(1));
    assert_eq!(with(&[0, 1, 2]), Ok(1));
    let (state, _) = state.apply(&batch, &KEYS).unwrap();
    assert_eq!(state.roster, roster(&[0, 1, 2]));
}

#[test]
fn a_change_of_the_roster_stands_alone_and_ends_its_batch() {
    let mut mesh = six();
    mesh.promote(1);
    mesh.promote(2);
    let founder = mesh.founder.clone();
    let claim = |name: &str| Content::Claim(label(name));
    let requests = vec![
        mesh.request(&*founder, &claim("a")),
        mesh.request(&*founder, &change(&[0, 1, 2])),
    ];
    assert_eq!(mesh.batch(requests)[1], Outcome::Refused(Refusal::NotAlone));
    let late = mesh.request(&*founder, &claim("late"));
    let requests = [mesh.request(&*founder, &change(&[0, 1, 2])), late.clone()];
    let outcomes = mesh.batch_by(requests.to_vec(), &[0, 1, 2]);
    assert_eq!(outcomes[1], Outcome::Refused(Refusal::EpochEnded));
    assert_eq!(owner(mesh.state(), "late"), None);
    // The same request again, in the next epoch.
    done(mesh.batch_by(vec![late], &[0, 1]).remove(0));
    let mut draft = mesh.states[mesh.states.len() - 3].draft(mesh.now_ms);
    let request = mesh.batches[mesh.batches.len() - 2].entries[0].clone();
    draft.add(request, &KEYS);
    assert!(draft.is_ended() && !draft.has_room());
}

#[test]
fn a_batch_says_where_an_epoch_ends_and_what_the_state_is_there() {
    let mut mesh = six();
    mesh.promote(1);
    mesh.promote(2);
    let before = mesh.state().clone();
    let batch = mesh.unproved(&change(&[0, 1, 2]));
    let header = batch.read_header().unwrap();
    assert_eq!(
        header.next.as_ref().map(BTreeSet::len),
        Some(3),
        "its header names the next roster"
    );
    for change in [
        |header: &mut innermesh_proto::ledger::Header| header.next = None,
        |header: &mut innermesh_proto::ledger::Header| {
            header.next.as_mut().unwrap().pop_first();
        },
        |header: &mut innermesh_proto::ledger::Header| header.state = None,
    ] {
        let mut header = header.clone();
        change(&mut header);
        let other = Batch::unproved(&header, batch.entries.clone());
        assert!(before.apply(&other, &KEYS).is_err());
    }
}

#[test]
fn who_is_no_ca_node_any_more_leaves_the_roster_and_never_returns_with_its_number() {
    let mut mesh = six();
    for number in [1, 2] {
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 1, 2]);
    let founder = mesh.founder.clone();
    let alive = mesh.request(&*founder, &change(&[0, 1]));
    mesh.assert_refused(alive, Refusal::Roster);
    mesh.demote(2);
    assert_eq!(mesh.state().wanted_roster(), Some(roster(&[0, 1])));
    // Until then it counts, and issues nothing.
    assert!(mesh.state().roster.contains(&id(&*key(2))));
    assert!(!mesh.state().leader_order(7).contains(&id(&*key(2))));
    mesh.become_roster(&[0, 1]);
    let number = |state: &State, who: u8| state.voters.get(&id(&*key(who))).copied();
    assert_eq!(number(mesh.state(), 2), None);
    mesh.promote(2);
    assert_eq!(
        number(mesh.state(), 2),
        Some(4),
        "2 and 3 were given before"
    );
    assert_eq!(mesh.state().wanted_roster(), Some(roster(&[0, 1, 2])));
}

#[test]
fn the_last_ca_node_stays_one() {
    let mut mesh = six();
    let founder = mesh.founder.clone();
    let demote = mesh.request(&*founder, &Content::Demote(id(&*founder)));
    mesh.assert_refused(demote, Refusal::LastCa);
    let leave = mesh.request(&*founder, &Content::Leave);
    mesh.assert_refused(leave, Refusal::LastCa);
    mesh.promote(1);
    // Who waits decides nothing yet.
    let demote = mesh.request(&*founder, &Content::Demote(id(&*founder)));
    mesh.assert_refused(demote, Refusal::LastCa);
    done(mesh.ask(&*key(1), Content::Leave));
    assert_eq!(mesh.state().voters.len(), 1);
    let demote = mesh.request(&*founder, &Content::Demote(id(&*key(2))));
    mesh.assert_refused(demote, Refusal::NotCa);
}

#[test]
fn only_the_roots_signature_makes_an_issuer_and_no_key_is_in_two_places() {
    let mut mesh = six();
    let founder = mesh.founder.clone();
    let der = mesh.issuer_der();
    let promote = |node: u8, issuers: Vec<Vec<u8>>| {
        Content::Promote(Promote {
            node: id(&*key(node)),
            issuers,
        })
    };
    let other = Mesh::new().issuer_der();
    let refused = |mesh: &mut Mesh, by: &Ed25519, content: &Content| {
        let before = facts(mesh.state());
        let request = mesh.request(by, content);
        let outcome = mesh.decide(request);
        assert_eq!(facts(mesh.state()), before);
        let Outcome::Refused(refusal) = outcome else {
            panic!("{outcome:?}");
        };
        refusal
    };
    for issuers in [
        vec![],
        vec![other],
        vec![vec![1, 2, 3]],
        vec![der.clone(); 2],
    ] {
        let refusal = refused(&mut mesh, &founder, &promote(1, issuers));
        assert!(matches!(refusal, Refusal::Issuer(_)), "{refusal}");
    }
    let refusal = refused(&mut mesh, &key(2), &promote(2, vec![der.clone()]));
    assert_eq!(refusal, Refusal::NotAdmin);
    let next = mesh.issuer_der();
    done(mesh.ask(&*founder, promote(1, vec![der.clone(), next])));
    let refusal = refused(&mut mesh, &founder, &promote(2, vec![der]));
    assert!(matches!(refusal, Refusal::Issuer(_)), "{refusal}");
    // A CA node brings its own successor.
    let successor = mesh.issuer_der();
    done(mesh.ask(&*key(1), promote(1, vec![successor])));
    assert_eq!(mesh.state().issuers_of(id(&*key(1))).count(), 3);
}

#[test]
fn leadership_goes_round_among_those_that_can_issue() {
    let mut mesh = six();
    for number in [1, 2] {
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 1, 2]);
    let mut first: BTreeMap<NodeId, u32> = BTreeMap::new();
    for slot in 0..300 {
        let order = mesh.state().leader_order(slot);
        assert_eq!(
            order.iter().copied().collect::<BTreeSet<_>>(),
            roster(&[0, 1, 2])
        );
        assert_eq!(order, mesh.state().leader_order(slot));
        *first.entry(order[0]).or_default() += 1;
    }
    assert!(first.values().all(|count| *count > 60), "{first:?}");
    mesh.now_ms = NOW + 800 * DAY;
    mesh.batch_by(Vec::new(), &[0, 1]);
    assert!(mesh.state().leader_order(1).is_empty(), "all have expired");
}

#[test]
fn two_batches_for_one_index_are_evidence_against_who_signed_both() {
    let mut mesh = six();
    for number in [1, 2] {
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 1, 2]);
    let state = mesh.state().clone();
    let by = |stamp_ms: u64, numbers: &[u8]| {
        let (_, mut batch) = state.draft(stamp_ms).finish();
        for number in numbers {
            let (node, signature) = batch.endorse(&state.mesh, &*key(*number));
            batch.proof.insert(node, signature);
        }
        batch
    };
    let found = |one: &Batch, other: &Batch| {
        let found = equivocation(&state.mesh, state.roster_keys(), one, other, &KEYS);
        found.map(|found| found.nodes)
    };
    let (one, other) = (by(NOW + 1, &[0, 1]), by(NOW + 2, &[1, 2]));
    assert_eq!(found(&one, &other), Some(roster(&[1])));
    assert_eq!(found(&one, &one), None);
    assert_eq!(found(&one, &by(NOW + 2, &[2])), None);
    assert_eq!(found(&one, &by(NOW + 2, &[2, 5])), None, "5 has no say");
    let mut forged = other.clone();
    let signature = one.proof[&id(&*key(0))];
    forged.proof.insert(id(&*key(0)), signature);
    assert_eq!(found(&one, &forged), Some(roster(&[1])));
}

#[test]
fn the_root_gives_a_lost_ledger_a_new_roster() {
    let mut mesh = six();
    for number in [1, 2] {
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 1, 2]);
    let at = mesh.state().position;
    let stamp_ms = mesh.now_ms;
    let signed = mesh.recovery(1, at, &[1]);
    let (state, mut batch) = mesh.state().recovered(&signed, stamp_ms, &KEYS).unwrap();
    let prove = |batch: &mut Batch, by: u8| {
        batch.proof.clear();
        let (node, signature) = batch.endorse(&state.mesh, &*key(by));
        batch.proof.insert(node, signature);
    };
    prove(&mut batch, 0);
    let refused = mesh.state().next(&batch, &KEYS).map(|_| ());
    assert_eq!(refused, Err(BatchError::Proof), "the old roster is lost");
    prove(&mut batch, 1);
    let (followed, _) = mesh.state().next(&batch, &KEYS).unwrap();
    assert_eq!(followed, state);
    assert_eq!(state.roster, roster(&[1]));
    assert_eq!((state.epoch, state.recovery), (2, 1));
    assert_eq!(
        state.voters.into_iter().collect::<Vec<_>>(),
        [(id(&*key(1)), 4)]
    );
    assert!(!state.members[&id(&*key(0))].roles.contains(&Role::Ca));

    // Not by another root, for another place, with a number that was there,
    // with a node that can't issue, or beside entries.
    let elsewhere = innermesh_proto::ledger::Position {
        index: at.index + 1,
        ..at
    };
    for signed in [
        Mesh::new().recovery(1, at, &[1]),
        mesh.recovery(1, elsewhere, &[1]),
        mesh.recovery(0, at, &[1]),
        mesh.recovery(1, at, &[5]),
        mesh.recovery(1, at, &[]),
    ] {
        let error = mesh
            .state()
            .recovered(&signed, stamp_ms, &KEYS)
            .unwrap_err();
        assert_eq!(error, BatchError::Recovery);
        let mut header = batch.read_header().unwrap();
        header.recovery = Some(signed);
        let mut other = Batch::unproved(&header, Vec::new());
        prove(&mut other, 1);
        let error = mesh.state().next(&other, &KEYS).unwrap_err();
        assert_eq!(error, BatchError::Recovery);
    }
    let mut header = batch.read_header().unwrap();
    let entries: Vec<Entry> = mesh.batches[0].entries.clone();
    header.entries = Batch::entries_hash(&entries);
    let mut other = Batch::unproved(&header, entries);
    prove(&mut other, 1);
    assert_eq!(
        mesh.state().next(&other, &KEYS).unwrap_err(),
        BatchError::Recovery
    );
    assert_eq!(key(1).public().node_id(), id(&*key(1)));
}

#[test]
fn where_no_ca_node_is_left_the_root_makes_a_member_one() {
    let mesh = six();
    let (at, stamp_ms) = (mesh.state().position, mesh.now_ms);
    let with = |roster: &[u8], issuers| {
        let signed = mesh.recovery_with(1, at, roster, issuers);
        mesh.state().recovered(&signed, stamp_ms, &KEYS)
    };
    let (node, other) = (id(&*key(5)), id(&*key(4)));
    let (state, mut batch) = with(&[5], vec![(node, mesh.issuer_der())]).unwrap();
    let (by, signature) = batch.endorse(&state.mesh, &*key(5));
    batch.proof.insert(by, signature);
    assert_eq!(mesh.state().next(&batch, &KEYS).unwrap().0, state);
    assert!(state.can_issue(node) && state.members[&node].roles.contains(&Role::Ca));
    assert!(state.agrees_with_itself());
    // For nobody else, and only by the root.
    let foreign = Mesh::new().issuer_der();
    for issuers in [
        vec![(other, mesh.issuer_der())],
        vec![(node, mesh.issuer_der()), (other, mesh.issuer_der())],
        vec![(node, foreign)],
        Vec::new(),
    ] {
        assert_eq!(with(&[5], issuers).unwrap_err(), BatchError::Recovery);
    }
}
