//! A ledger that begins with a state: taken from any peer, checked from the
//! genesis on, and no liar's.

use std::{path::Path, time::Duration};

use crate::ledgers::Mesh;
use innermesh_agent::{
    host::Disk,
    ledger::{InstallError, history, loading, start::Start},
};
use innermesh_proto::{
    crypto::Verify,
    ledger::{Content, SnapshotError},
    limits,
};
use simulations::{
    World,
    mesh::{found_with_root, join, promote, start, until, write_batches},
};

/// A mesh in which the second machine leads since an epoch ended, with a state
/// that others may start from, and batches behind it.
async fn begun(seed: u64) -> (Mesh, Start) {
    let mut mesh = Mesh::new(seed).await;
    mesh.spread(&[0]).await;
    let signed = mesh.signed(0, 1, &mesh.root).await;
    let leader = &mesh.others[0].ledger;
    leader.recover(signed).await.unwrap();
    mesh.claim_at(0, "photos").await;
    let start = mesh.others[0].ledger.start_for(u64::MAX).await.unwrap();
    let start = (*start.expect("a state")).clone();
    (mesh, start)
}

#[tokio::test(start_paused = true)]
async fn a_new_node_begins_with_a_state_and_goes_on_as_any_other() {
    let (mut mesh, start) = begun(1).await;
    let wanted = mesh.others[0].ledger.state();
    let batches = mesh.others[0].batches().await;
    let node = &mut mesh.others[2];
    let position = node.ledger.install(start.clone()).await.unwrap();
    assert_eq!(position.index + 1, wanted.position.index);
    assert_eq!(*node.ledger.durable().borrow(), position);
    node.ledger.take(batches).await.unwrap();
    for _ in 0..2 {
        assert_eq!(*node.ledger.state(), *wanted);
        assert_eq!(node.ledger.base(), position.index);
        assert_eq!(node.ledger.hash_at(position.index), Some(position.hash));
        assert!(node.ledger.range(1, 1 << 20).await.unwrap().is_empty());
        assert_eq!(
            node.ledger
                .range(position.index + 1, 1)
                .await
                .unwrap()
                .len(),
            1
        );
        // It is as good for others.
        let again = node.ledger.start_for(u64::MAX).await.unwrap().unwrap();
        assert_eq!(*again, start);
        assert!(node.ledger.start_for(1).await.unwrap().is_none());
        assert_eq!(node.ledger.recoveries_from(0).await.unwrap().len(), 1);
        node.restart().await;
    }
    let loaded = loading::load(&*node.machine.host.disk).await.unwrap();
    let mut told = Vec::new();
    let checked = history::check(&[loaded], &*node.machine.host.keys, |s| told.push(s.text));
    assert_eq!(
        (checked.problem, checked.base, checked.batches),
        (None, position.index, 1)
    );
    assert!(told.last().unwrap().contains("photos"), "{told:?}");

    // It isn't taken twice, nor by one that decides.
    assert_eq!(
        node.ledger.install(start.clone()).await,
        Err(InstallError::Old)
    );
    mesh.ask(Content::Claim("films".parse().unwrap())).await;
    let decides = mesh.founder.ledger.install(start).await;
    assert!(decides.is_err(), "{decides:?}");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_not_the_rosters_is_refused() {
    let (mut mesh, start) = begun(2).await;
    let foreign = begun(3).await.1;
    let mut changed = start.clone();
    changed.bytes[100] ^= 1;
    let mut longer = start.clone();
    longer.bytes.push(0);
    let mut unproved = start.clone();
    unproved.at.proof.clear();
    unproved.ends.iter_mut().for_each(|end| end.proof.clear());
    let mut skipped = start.clone();
    skipped.ends.clear();
    let mut twice = start.clone();
    twice.ends.push(start.ends[0].clone());
    for (what, liar) in [
        ("another mesh", foreign),
        ("a flipped bit", changed),
        ("more bytes", longer),
        ("no signature", unproved),
        ("no epochs", skipped),
        ("an epoch twice", twice),
    ] {
        let node = &mut mesh.others[2];
        let refused = node.ledger.install(liar).await;
        assert!(
            matches!(refused, Err(InstallError::Start(_))),
            "{what}: {refused:?}"
        );
        assert_eq!(node.ledger.state().position.index, 0, "{what}");
        node.restart().await;
        assert_eq!(node.ledger.state().position.index, 0, "{what}");
    }
    let error = start
        .open(mesh.founder.ledger.genesis(), &Nobody)
        .unwrap_err();
    assert!(!matches!(
        error,
        innermesh_agent::ledger::start::StartError::Snapshot(SnapshotError::Hash)
    ));
}

struct Nobody;

impl Verify for Nobody {
    fn ed25519(
        &self,
        _: &innermesh_proto::crypto::PublicKey,
        _: &[u8],
        _: &innermesh_proto::crypto::Signature,
    ) -> bool {
        false
    }
    fn p256(&self, _: &[u8], _: &[u8], _: &[u8]) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_knows_of_more_than_the_state_keeps_to_its_own_history() {
    let (mut mesh, start) = begun(4).await;
    // The lost roster evicted a machine, which the new one doesn't know.
    let evict = mesh.evict_four();
    mesh.ask(evict).await;
    mesh.spread(&[1]).await;
    let node = &mesh.others[1];
    let before = node.ledger.state();
    let mut later = start;
    for name in ["a", "b", "c"] {
        mesh.claim_at(0, name).await;
    }
    let signed = mesh.signed(0, 2, &mesh.root).await;
    mesh.others[0].ledger.recover(signed).await.unwrap();
    if let Some(start) = mesh.others[0].ledger.start_for(u64::MAX).await.unwrap() {
        later = (*start).clone();
    }
    let refused = mesh.others[1].ledger.install(later).await;
    assert_eq!(refused, Err(InstallError::Fork));
    assert_eq!(*mesh.others[1].ledger.state(), *before);
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_a_state_is_taken_leaves_a_ledger_either_way() {
    let mut crashes = 0;
    for writes in 0..8 {
        let (mut mesh, start) = begun(5).await;
        let wanted = mesh.others[0].ledger.state();
        let batches = mesh.others[0].batches().await;
        let some = mesh.founder.batches().await[..2].to_vec();
        let node = &mut mesh.others[2];
        node.ledger.take(some).await.unwrap();
        node.machine.disk.stop_after(writes);
        let taken = node.ledger.install(start.clone());
        let taken = tokio::time::timeout(Duration::from_secs(5), taken).await;
        crashes += usize::from(taken.is_err());
        node.machine.disk.stop_never();
        node.restart().await;
        assert!(
            node.ledger.state().position.index >= 2,
            "after {writes} writes"
        );
        let _ = node.ledger.install(start).await;
        node.ledger.take(batches).await.unwrap();
        assert_eq!(*node.ledger.state(), *wanted, "after {writes} writes");
    }
    assert!(crashes > 1, "{crashes}");
}

/// As many batches as make a state worth its while: claims of a name that is
/// reserved are refused, and written down.
#[tokio::test(start_paused = true)]
async fn a_machine_that_joins_late_and_one_that_was_away_begin_with_a_state() {
    let mut world = World::new(6);
    let names = ["one", "two", "three", "four", "five", "six"];
    let mut machines = names.map(|name| world.machine(name));
    let (first, root) = found_with_root(&machines[0]).await;
    let mut agents = Vec::new();
    for machine in &machines[1..4] {
        agents.push(join(machine, "one", &first).await);
    }
    let away = agents.pop().unwrap();
    until("they have met", Duration::from_secs(10), async || {
        away.view().borrow().nodes.len() == 4
    })
    .await;
    drop(away);
    machines[3].crash().await;
    let disks = machines.each_ref().map(|machine| machine.disk.clone());
    let held = async |machine: usize| {
        let file = disks[machine].read(Path::new("ledger.snapshot"));
        file.await.unwrap().is_some()
    };
    write_batches(&[&first, &agents[0]], limits::SNAPSHOT_SPARES + 8).await;
    // With three that decide another epoch begins.
    for machine in &machines[1..3] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    until("three decide", Duration::from_secs(30), async || {
        first.view().borrow().ledger.roster.len() == 3
    })
    .await;
    let last = join(&machines[4], "one", &first).await;
    let back = start(&machines[3]).await;
    until(
        "all are at one place",
        Duration::from_secs(30),
        async || {
            let wanted = first.view().borrow().ledger.position;
            [&last, &back]
                .iter()
                .all(|agent| agent.view().borrow().ledger.position == wanted)
        },
    )
    .await;
    assert!(held(4).await, "it joined with a state");
    assert!(held(3).await, "it came back to a state");
    assert!(!held(1).await, "a CA node has every batch");
    // Whoever began with a state lets others in as well.
    let next = join(&machines[5], "five", &first).await;
    let position = next.view().borrow().ledger.position;
    assert!(held(5).await && position.index > limits::SNAPSHOT_SPARES);
}
