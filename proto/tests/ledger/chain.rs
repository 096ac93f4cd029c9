use innermesh_proto::{
    crypto::{Hash, Sealed, Sign, Signature},
    ledger::{
        Batch, BatchError, Content, Entry, Header, Outcome, Position, Refusal, Request, RequestId,
        State, batch::STATE_HASH_INTERVAL,
    },
    limits,
};

use crate::mesh::{KEYS, MINUTE, Mesh, NOW, author, facts, id, key, label, owner, signed};

fn claim(name: &str) -> Content {
    Content::Claim(label(name))
}

/// A mesh with three batches: a join and two claims in one, an empty one, and
/// one more claim.
fn chain() -> Mesh {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    let token = mesh.token(100, |_| {});
    let requests = vec![
        mesh.join_request(&token, &*key(1), "one"),
        mesh.request(&*founder, &claim("a")),
        mesh.request(&*founder, &claim("b")),
    ];
    mesh.batch(requests);
    mesh.now_ms += MINUTE;
    mesh.batch(Vec::new());
    let request = mesh.request(&*founder, &claim("c"));
    mesh.batch(vec![request]);
    mesh
}

fn error(state: &State, batch: &Batch) -> BatchError {
    state.next(batch, &KEYS).expect_err("not the next batch")
}

/// `batch` with another header, which the founder signed.
fn resigned(mesh: &Mesh, batch: &Batch, change: impl FnOnce(&mut Header)) -> Batch {
    let mut header = batch.read_header().unwrap();
    change(&mut header);
    signed(&header, batch.entries.clone(), &*mesh.founder)
}

#[test]
fn batches_apply_in_their_order_and_no_other() {
    let mesh = chain();
    let (first, second) = (&mesh.batches[0], &mesh.batches[1]);
    assert_eq!(
        error(&mesh.states[0], second),
        BatchError::Index {
            got: 2,
            expected: 1
        }
    );
    assert_eq!(
        error(&mesh.states[1], first),
        BatchError::Index {
            got: 1,
            expected: 2
        }
    );
    let mut state = mesh.states[0].clone();
    for batch in &mesh.batches {
        state = state.next(batch, &KEYS).unwrap().0;
    }
    assert_eq!(state, mesh.states[3]);
    assert_eq!(state.position, mesh.batches[2].position().unwrap());
}

#[test]
fn a_batch_of_another_history_is_a_fork() {
    let mut one = chain();
    let other = {
        let state = &one.states[1];
        let mut draft = state.draft(NOW + 2 * MINUTE);
        let request = {
            let founder = one.founder.clone();
            one.request(&*founder, &claim("other"))
        };
        let entry = Entry {
            request,
            attachment: Vec::new(),
        };
        draft.add(entry, &KEYS);
        draft.finish().0
    };
    assert_eq!(other.position.index, 2);
    assert_eq!(error(&other, &one.batches[2]), BatchError::Fork(3));
}

#[test]
fn only_the_rosters_signatures_prove_a_batch() {
    let mesh = chain();
    let (state, good) = (&mesh.states[0], &mesh.batches[0]);
    let header = good.read_header().unwrap();
    let strange = key(66);
    let foreign = signed(&header, good.entries.clone(), &*strange);
    assert_eq!(error(state, &foreign), BatchError::Proof);
    let mut none = good.clone();
    none.proof.clear();
    assert_eq!(error(state, &none), BatchError::Proof);
    let mut forged = good.clone();
    let signature = Signature::from_bytes(&[1; 64]);
    forged.proof.insert(id(&*mesh.founder), signature);
    assert_eq!(error(state, &forged), BatchError::Proof);
    // More than the roster's: whoever passes it on could make it too long to keep.
    let mut padded = good.clone();
    padded.proof.extend(foreign.proof);
    assert_eq!(error(state, &padded), BatchError::Proof);
    // A signature over the same bytes for another purpose.
    let mut other = good.clone();
    let sealed = Sealed::new(
        &*mesh.founder,
        innermesh_proto::crypto::Purpose::Head,
        &mesh.id,
        &header,
    );
    other.proof.insert(id(&*mesh.founder), sealed.signature);
    assert_eq!(error(state, &other), BatchError::Proof);
}

#[test]
fn entries_are_those_that_were_signed() {
    let mesh = chain();
    let (state, good) = (&mesh.states[0], &mesh.batches[0]);
    let mut swapped = good.clone();
    swapped.entries.swap(1, 2);
    let mut fewer = good.clone();
    fewer.entries.pop();
    let mut more = good.clone();
    more.entries.push(good.entries[1].clone());
    let mut attached = good.clone();
    attached.entries[1].attachment = vec![1];
    for changed in [swapped, fewer, more, attached] {
        assert_eq!(error(state, &changed), BatchError::Entries);
    }
}

#[test]
fn a_header_says_where_and_when_it_belongs() {
    let mesh = chain();
    let (state, good) = (&mesh.states[1], &mesh.batches[1]);
    let other = resigned(&mesh, good, |header| header.mesh.0[0] ^= 1);
    assert_eq!(error(state, &other), BatchError::Foreign);
    let later = resigned(&mesh, good, |header| header.epoch += 1);
    assert_eq!(error(state, &later), BatchError::Foreign);
    let before = resigned(&mesh, good, |header| header.stamp_ms = NOW - 1);
    assert_eq!(error(state, &before), BatchError::Stamp);
    let elsewhere = resigned(&mesh, good, |header| header.previous = Hash::default());
    assert_eq!(error(state, &elsewhere), BatchError::Fork(2));
    let claimed = resigned(&mesh, good, |header| header.state = Some(Hash::default()));
    assert_eq!(error(state, &claimed), BatchError::State(2));
    let mut malformed = good.clone();
    malformed.header.push(0);
    assert!(matches!(error(state, &malformed), BatchError::Codec(_)));
    assert!(
        resigned(&mesh, good, |_| {}).eq(good),
        "nothing else is new"
    );
}

#[test]
fn a_batch_is_no_larger_than_it_can_be_stored() {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    let request = mesh.request(&*founder, &claim("a"));
    let entry = |attached: usize| Entry {
        request: request.clone(),
        attachment: vec![0; attached],
    };
    let sign = |entries: Vec<Entry>| {
        let state = mesh.state();
        let header = Header {
            mesh: mesh.id,
            epoch: 0,
            index: 1,
            previous: state.position.hash,
            entries: Batch::entries_hash(&entries),
            stamp_ms: NOW,
            state: None,
            next: None,
            recovery: None,
            rules: state.rules,
        };
        signed(&header, entries, &*founder)
    };
    let large = limits::ENTRY_BYTES - entry(0).size();
    for (entries, fits) in [
        (vec![entry(0); limits::BATCH_ENTRIES], true),
        (vec![entry(0); limits::BATCH_ENTRIES + 1], false),
        (vec![entry(large)], true),
        (vec![entry(large + 1)], false),
        (vec![entry(large); 42], true),
        (vec![entry(large); 43], false),
    ] {
        let batch = sign(entries);
        match mesh.state().next(&batch, &KEYS) {
            Ok(_) => {
                assert!(fits);
                let bytes = innermesh_proto::codec::encode(&batch);
                assert!(bytes.len() <= limits::BATCH_BYTES);
            }
            Err(error) => assert!(!fits && error == BatchError::TooLarge, "{error}"),
        }
    }
}

#[test]
fn a_draft_is_full_before_it_is_too_large() {
    let mesh = Mesh::new();
    let mut draft = mesh.state().draft(NOW);
    let request = Sealed {
        bytes: vec![1; limits::REQUEST_BYTES],
        signature: Signature::from_bytes(&[0; 64]),
    };
    while draft.has_room() {
        let entry = Entry {
            request: request.clone(),
            attachment: vec![0; limits::CERTIFICATE_BYTES],
        };
        draft.add(entry, &KEYS);
    }
    assert!(draft.len() < limits::BATCH_ENTRIES);
    let (_, mut batch) = draft.finish();
    let (node, signature) = batch.endorse(&mesh.id, &*mesh.founder);
    batch.proof.insert(node, signature);
    assert!(innermesh_proto::codec::encode(&batch).len() <= limits::BATCH_BYTES);
    assert!(mesh.state().next(&batch, &KEYS).is_ok());
}

#[test]
fn a_request_is_applied_once_however_often_it_is_sent() {
    let mut mesh = Mesh::new();
    let (founder, one) = (mesh.founder.clone(), key(1));
    mesh.admit(&*one, "one");
    let first = mesh.request(&*founder, &claim("photos"));
    let done = mesh.decide(first.clone());
    mesh.ask(&*founder, Content::Release(label("photos")));
    mesh.ask(&*one, claim("photos"));
    // The late copy takes nothing from who has the name by now.
    let before = facts(mesh.state());
    assert_eq!(
        mesh.batch(vec![first.clone(), first.clone()]),
        [done.clone(), done]
    );
    assert_eq!(facts(mesh.state()), before);
    assert_eq!(owner(mesh.state(), "photos"), Some(id(&*one)));

    // Once it is forgotten it has expired.
    mesh.now_ms += 6 * MINUTE;
    mesh.assert_refused(first, Refusal::Expired);
}

#[test]
fn under_the_first_rules_a_refusal_is_remembered_until_its_request_expires() {
    let mut mesh = Mesh::with_rules(0);
    let founder = mesh.founder.clone();
    let request = mesh.request(&*founder, &Content::Release(label("nothing")));
    let read: Request = request.peek(limits::REQUEST_BYTES).unwrap();
    let refused = Outcome::Refused(Refusal::NotOwner(label("nothing")));
    assert_eq!(mesh.decide(request.clone()), refused);
    let by = author(founder.public());
    assert_eq!(mesh.state().outcome_of(by, read.id), Some(&refused));
    // The name is there by now, and the answer is still the first one.
    mesh.ask(&*founder, claim("nothing"));
    assert_eq!(mesh.decide(request), refused);
    mesh.now_ms = read.expires_ms + 1;
    mesh.batch(Vec::new());
    assert_eq!(mesh.state().outcome_of(by, read.id), None);
}

#[test]
fn nobody_can_burn_the_id_of_anothers_request() {
    let mut mesh = Mesh::new();
    let (founder, one) = (mesh.founder.clone(), key(1));
    mesh.admit(&*one, "one");
    let wanted = mesh.request(&*founder, &claim("photos"));
    let read: Request = wanted.peek(limits::REQUEST_BYTES).unwrap();
    let same_id = Request::seal(
        &*one,
        mesh.id,
        RequestId(read.id.0),
        author(one.public()),
        read.expires_ms,
        &claim("mail"),
    );
    assert!(matches!(mesh.decide(same_id), Outcome::Done(_)));
    assert!(matches!(mesh.decide(wanted), Outcome::Done(_)));
    assert_eq!(owner(mesh.state(), "photos"), Some(id(&*founder)));
}

#[test]
fn a_request_of_an_unknown_kind_changes_nothing() {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    let request = Request {
        mesh: mesh.id,
        id: RequestId([1; 16]),
        author: author(founder.public()),
        expires_ms: NOW + MINUTE,
        kind: 60_000,
        content: vec![1, 2, 3],
    };
    let purpose = innermesh_proto::crypto::Purpose::Request;
    let sealed = Sealed::new(&*founder, purpose, &mesh.id, &request);
    mesh.assert_refused(sealed, Refusal::NotUnderstood);
}

#[test]
fn the_state_is_signed_from_time_to_time_and_every_node_has_the_same() {
    let mut mesh = chain();
    while mesh.state().position.index < STATE_HASH_INTERVAL {
        mesh.now_ms += 1;
        mesh.batch(Vec::new());
    }
    let last = mesh.batches.last().unwrap();
    assert!(last.read_header().unwrap().state.is_some());
    // Another state under the same header.
    let at = mesh.states.len() - 2;
    let mut other = mesh.states[at].clone();
    other.names.remove(&label("c"));
    assert_eq!(error(&other, last), BatchError::State(STATE_HASH_INTERVAL));
    let position: Position = mesh.state().position;
    assert_eq!(position.index, STATE_HASH_INTERVAL);
}
