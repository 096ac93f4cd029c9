//! How a node that comes late gets to the state that all others have.

use innermesh_proto::{
    ledger::{
        Batch, Content, EpochError, Epochs, Position, Snapshot, SnapshotError, State,
        batch::STATE_HASH_INTERVAL, snapshot::may_drop,
    },
    limits,
};
use proptest::prelude::*;

use crate::mesh::{KEYS, MINUTE, Mesh, certify, key, label};

/// A mesh of three CA nodes in its second epoch, with a bit of everything.
fn grown() -> Mesh {
    let mut mesh = Mesh::new();
    for number in 1..=4 {
        mesh.admit(&*key(number), &format!("n{number}"));
    }
    mesh.promote(1);
    mesh.promote(2);
    mesh.ask(&*key(3), Content::Claim(label("photos")));
    mesh.ask(&*key(3), certify(&["photos.lab.internal"], 30));
    mesh.become_roster(&[0, 1, 2]);
    mesh.ask(&*key(3), Content::Claim(label("mail")));
    mesh
}

fn ends(mesh: &Mesh) -> Vec<Batch> {
    let ends = |batch: &&Batch| batch.read_header().unwrap().next.is_some();
    mesh.batches.iter().filter(ends).cloned().collect()
}

fn followed(mesh: &Mesh) -> Epochs {
    let mut epochs = Epochs::genesis(&mesh.genesis, &KEYS).unwrap();
    for end in ends(mesh) {
        epochs.follow(&end, &KEYS).unwrap();
    }
    epochs
}

/// What a node that had nothing concludes from the genesis, the ends of
/// epochs, one snapshot and the batches after it.
fn caught_up(mesh: &Mesh, snapshot: &[u8], at: &Batch) -> State {
    followed(mesh).check(at, &KEYS).unwrap();
    let mut state = Snapshot::open(snapshot, at).unwrap();
    let after = at.position().unwrap().index as usize;
    for batch in &mesh.batches[after..] {
        state = state.next(batch, &KEYS).unwrap().0;
    }
    state
}

/// The state after a batch.
fn state_at<'m>(mesh: &'m Mesh, batch: &Batch) -> &'m State {
    let index = batch.position().unwrap().index;
    &mesh.states[index as usize]
}

#[test]
fn a_late_node_comes_to_the_same_state_without_every_batch() {
    let mesh = grown();
    let end = ends(&mesh).pop().unwrap();
    let snapshot = Snapshot::of(state_at(&mesh, &end));
    assert!(snapshot.bytes.len() < limits::SNAPSHOT_BYTES);
    assert_eq!(caught_up(&mesh, &snapshot.bytes, &end), *mesh.state());
    // The state itself, its issuers read again, is whole.
    let mut mesh = mesh;
    *mesh.states.last_mut().unwrap() = caught_up(&mesh, &snapshot.bytes, &end);
    mesh.admit(&*key(9), "nine");
}

#[test]
fn a_snapshot_within_an_epoch_is_vouched_for_by_its_roster() {
    let mut mesh = grown();
    while mesh.state().position.index < STATE_HASH_INTERVAL {
        mesh.now_ms += 1;
        mesh.batch_by(Vec::new(), &[0, 1]);
        // Only the newest are looked at.
        if let Some(old) = mesh.states.len().checked_sub(20) {
            mesh.states[old] = mesh.states[0].clone();
        }
    }
    let at = mesh.batches.last().unwrap().clone();
    let snapshot = Snapshot::of(mesh.state());
    mesh.now_ms += MINUTE;
    mesh.ask(&*key(4), Content::Claim(label("late")));
    assert_eq!(caught_up(&mesh, &snapshot.bytes, &at), *mesh.state());

    // The first roster alone can't vouch for it, nor a batch without a hash.
    let early = Epochs::genesis(&mesh.genesis, &KEYS).unwrap();
    assert_eq!(early.check(&at, &KEYS), Err(EpochError::Foreign));
    let plain = mesh.batches.last().unwrap();
    assert_eq!(
        Snapshot::open(&snapshot.bytes, plain),
        Err(SnapshotError::NoHash)
    );
    let mut few = at.clone();
    few.proof.pop_first();
    assert_eq!(followed(&mesh).check(&few, &KEYS), Err(EpochError::Proof));
    let header = |batch: &Batch| batch.read_header().unwrap();
    let kept: Vec<u64> = mesh
        .batches
        .iter()
        .map(header)
        .filter(|header| !may_drop(header, STATE_HASH_INTERVAL))
        .map(|header| header.index)
        .collect();
    let end = ends(&mesh)[0].position().unwrap().index;
    assert_eq!(kept, [end, STATE_HASH_INTERVAL, STATE_HASH_INTERVAL + 1]);
}

#[test]
fn epochs_are_followed_one_by_one_and_only_by_who_was_in_them() {
    let mut mesh = grown();
    mesh.demote(2);
    mesh.become_roster(&[0, 1]);
    let ends = ends(&mesh);
    assert_eq!(ends.len(), 2);
    let start = Epochs::genesis(&mesh.genesis, &KEYS).unwrap();
    let follow = |from: &Epochs, batch: &Batch| {
        let mut epochs = from.clone();
        epochs.follow(batch, &KEYS).map(|()| epochs)
    };
    assert_eq!(follow(&start, &ends[1]), Err(EpochError::Foreign));
    assert_eq!(follow(&start, &mesh.batches[0]), Err(EpochError::NoEnd));
    let first = follow(&start, &ends[0]).unwrap();
    assert_eq!(follow(&first, &ends[0]), Err(EpochError::Foreign));
    assert_eq!(follow(&first, &ends[1]).unwrap().epoch(), 2);
    for node in [0, 1, 2] {
        let mut lacking = ends[0].clone();
        let other = crate::mesh::id(&*key(node));
        lacking.proof.retain(|node, _| *node == other);
        assert_eq!(follow(&start, &lacking), Err(EpochError::Proof));
    }
    let mut forged = ends[0].clone();
    let mut header = forged.read_header().unwrap();
    header.next = Some([innermesh_proto::crypto::Sign::public(&*key(66))].into());
    forged.header = header.encode();
    let (node, signature) = forged.endorse(&mesh.id, &*key(66));
    forged.proof.insert(node, signature);
    assert_eq!(follow(&start, &forged), Err(EpochError::Proof));
}

#[test]
fn a_late_node_follows_a_recovery_by_the_root() {
    let mut mesh = grown();
    let position: Position = mesh.state().position;
    let signed = mesh.recovery(1, position, &[1]);
    let (state, mut batch) = mesh.state().recovered(&signed, mesh.now_ms, &KEYS).unwrap();
    let (node, signature) = batch.endorse(&mesh.id, &*key(1));
    batch.proof.insert(node, signature);
    let before = followed(&mesh);
    assert_eq!(before.check(&batch, &KEYS), Err(EpochError::Recovery));
    mesh.states.push(state);
    mesh.batches.push(batch.clone());
    let snapshot = Snapshot::of(mesh.state());
    assert_eq!(caught_up(&mesh, &snapshot.bytes, &batch), *mesh.state());

    let other = Mesh::new().recovery(1, position, &[1]);
    let mut header = batch.read_header().unwrap();
    header.recovery = Some(other);
    let mut forged = Batch::unproved(&header, Vec::new());
    let (node, signature) = forged.endorse(&mesh.id, &*key(1));
    forged.proof.insert(node, signature);
    let mut epochs = before;
    assert_eq!(epochs.follow(&forged, &KEYS), Err(EpochError::Recovery));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_snapshot_that_was_changed_anywhere_is_refused(
        damage in prop::collection::vec((any::<usize>(), 1..=255u8), 1..64),
        cut in any::<usize>(),
    ) {
        let mesh = grown();
        let end = ends(&mesh).pop().unwrap();
        let whole = Snapshot::of(state_at(&mesh, &end)).bytes;
        for (at, with) in damage {
            let mut bytes = whole.clone();
            let at = at % bytes.len();
            bytes[at] ^= with;
            prop_assert_eq!(Snapshot::open(&bytes, &end), Err(SnapshotError::Hash));
        }
        let cut = cut % whole.len();
        prop_assert_eq!(Snapshot::open(&whole[..cut], &end), Err(SnapshotError::Hash));
    }
}
