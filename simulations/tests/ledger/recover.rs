//! A roster that is lost, and what the root puts in its place: whoever held
//! more goes back, keeps out whom that had evicted, and forgets nothing of it
//! by a crash; nobody but the root can bring that about.

use std::{collections::BTreeSet, time::Duration};

use crate::ledgers::Mesh;
use innermesh_agent::{host::Disk, ledger::TakeError};
use innermesh_proto::{
    codec,
    crypto::Purpose,
    ledger::{Author, Batch, BatchError, Outcome, Recovery, Request, RequestId, SignedRecovery},
};
use simulations::world::START_MS;

#[tokio::test(start_paused = true)]
async fn who_held_more_goes_back_and_keeps_out_whom_that_evicted() {
    let mut mesh = Mesh::new(1).await;
    let batch = mesh.lose().await;
    let (four, roster) = (mesh.others[2].id(), BTreeSet::from([mesh.others[0].id()]));
    let follower = &mut mesh.others[1];
    let before = follower.ledger.state().position.index;
    follower.ledger.take(vec![batch.clone()]).await.unwrap();
    for _ in 0..2 {
        let state = follower.ledger.state();
        assert_eq!((state.recovery, &state.roster), (1, &roster));
        assert!(state.position.index < before);
        assert!(state.members.contains_key(&four) && state.names.len() == 4);
        assert_eq!(follower.ledger.kept_out(), [four].into());
        let lost = follower.ledger.lost();
        assert_eq!((lost[0].to, lost[0].entries), (before, 2));
        let copy = follower.machine.disk.read(lost[0].copy().as_ref()).await;
        let copy = innermesh_agent::ledger::file::parse(copy.unwrap().unwrap()).unwrap();
        assert_eq!(copy.batches.len() as u64, before);
        follower.restart().await;
    }
    // Once more, and nothing happens.
    follower.ledger.take(vec![batch]).await.unwrap();
    assert_eq!(follower.ledger.lost().len(), 1);

    // The new roster goes on, and may decide about four again.
    let survivor = &mesh.others[0];
    let request = Request::seal(
        &*mesh.founder.key,
        survivor.ledger.state().mesh,
        RequestId([99; 16]),
        Author::Node(mesh.founder.id()),
        START_MS + 500_000,
        &mesh.evict_four(),
    );
    let outcome = survivor.ledger.propose(request).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let batches = survivor.batches().await;
    mesh.others[1].ledger.take(batches).await.unwrap();
    assert_eq!(
        *mesh.others[1].ledger.state(),
        *mesh.others[0].ledger.state()
    );
    assert!(mesh.others[1].ledger.kept_out().is_empty());
    // And one that was in the lost roster.
    let batches = mesh.others[0].batches().await;
    let recovery = batches.iter().position(|batch| {
        let header = batch.read_header().unwrap();
        header.recovery.is_some()
    });
    let from = recovery.unwrap();
    mesh.founder
        .ledger
        .take(batches[from..].to_vec())
        .await
        .unwrap();
    assert_eq!(*mesh.founder.ledger.state(), *mesh.others[0].ledger.state());
    let told = mesh.founder.ledger.raft_status().borrow().clone();
    assert!(!told.votes && !told.leads, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn only_the_root_can_take_a_ledger_back() {
    let mut mesh = Mesh::new(2).await;
    let batch = mesh.lose().await;
    let before = mesh.others[1].ledger.state();
    let survivor = mesh.others[0].ledger.state();

    // Signed by somebody else's root, or for a place that isn't here.
    let foreign = Mesh::new(3).await.root;
    let mut header = batch.read_header().unwrap();
    let signed = header.recovery.clone().unwrap();
    let mut recovery: Recovery = codec::decode(&signed.bytes, 8192).unwrap();
    let mut forged = Vec::new();
    for (number, hash) in [(7, recovery.position.hash), (8, survivor.position.hash)] {
        (recovery.number, recovery.position.hash) = (number, hash);
        let bytes = codec::encode(&recovery);
        let message = Purpose::Recovery.message(&survivor.mesh, &bytes);
        let root = if number == 7 { &foreign } else { &mesh.root };
        let signature = root.sign(&message).unwrap();
        header.recovery = Some(SignedRecovery { bytes, signature });
        let mut other = Batch::unproved(&header, Vec::new());
        let (node, signature) = other.endorse(&survivor.mesh, &*mesh.others[0].key);
        other.proof.insert(node, signature);
        forged.push(other);
    }
    // By the root, and nobody of the new roster signed it.
    let mut unproved = batch.clone();
    unproved.proof.clear();
    forged.push(unproved);
    for batch in forged {
        let refused = mesh.others[1].ledger.take(vec![batch]).await;
        assert!(matches!(refused, Err(TakeError::Batch(_))), "{refused:?}");
        assert_eq!(*mesh.others[1].ledger.state(), *before);
    }
    assert!(mesh.others[1].ledger.lost().is_empty());
    // Nor does the survivor take what isn't for it.
    let signed = mesh.signed(1, 2, &mesh.root).await;
    let refused = mesh.others[0].ledger.recover(signed).await;
    assert_eq!(refused, Err(TakeError::Batch(BatchError::Recovery)));
}

#[tokio::test(start_paused = true)]
async fn the_highest_recovery_wins_and_two_of_one_number_are_told() {
    let mut mesh = Mesh::new(4).await;
    let first = mesh.lose().await;
    // Somebody recovers on the other machine too, from further on.
    let signed = mesh.signed(1, 1, &mesh.root).await;
    mesh.others[1].ledger.recover(signed).await.unwrap();
    let refused = mesh.others[1].ledger.take(vec![first.clone()]).await;
    let index = first.position().unwrap().index;
    assert_eq!(refused, Err(TakeError::Batch(BatchError::Fork(index))));
    // Again where it is to go on, with a higher number.
    let signed = mesh.signed(0, 2, &mesh.root).await;
    mesh.others[0].ledger.recover(signed).await.unwrap();
    let led = mesh.others[0].ledger.recoveries_from(1).await.unwrap();
    assert_eq!(led.len(), 2);
    mesh.others[1].ledger.take(led).await.unwrap();
    assert_eq!(
        *mesh.others[1].ledger.state(),
        *mesh.others[0].ledger.state()
    );
    assert_eq!(mesh.others[1].ledger.state().recovery, 2);
    // What is over by then leads nobody back.
    let other = mesh.others[0].ledger.state();
    let _ = mesh.others[0].ledger.take(vec![first]).await;
    assert_eq!(*mesh.others[0].ledger.state(), *other);
}

#[tokio::test(start_paused = true)]
async fn a_crash_on_the_way_back_loses_nothing_of_it() {
    let mut crashes = 0;
    for writes in 0..12 {
        let mut mesh = Mesh::new(5).await;
        let batch = mesh.lose().await;
        let four = mesh.others[2].id();
        let wanted = mesh.others[0].ledger.state();
        let follower = &mut mesh.others[1];
        follower.machine.disk.stop_after(writes);
        let taken = follower.ledger.take(vec![batch.clone()]);
        let taken = tokio::time::timeout(Duration::from_secs(5), taken).await;
        crashes += usize::from(taken.is_err());
        follower.machine.disk.stop_never();
        follower.restart().await;
        follower.ledger.take(vec![batch]).await.unwrap();
        assert_eq!(*follower.ledger.state(), *wanted, "after {writes} writes");
        assert_eq!(follower.ledger.kept_out(), [four].into(), "{writes}");
    }
    assert!(crashes > 3, "{crashes}");
}
