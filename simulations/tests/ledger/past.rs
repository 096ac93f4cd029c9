//! A ledger's file that has grown begins anew with a state, and nothing of it
//! is lost: not by a failure of the disk at any moment, and not to those who
//! were away.

use std::{collections::BTreeSet, path::Path, time::Duration};

use crate::ledgers::{Mesh, Node};
use innermesh_agent::ledger::{Ledger, Sizes, TakeError, file, history, loading, past};
use innermesh_proto::{
    ledger::{Content, batch::STATE_HASH_INTERVAL},
    limits,
    name::Label,
};

fn name() -> Label {
    "photos".parse().unwrap()
}

/// Has the founder decide, one batch each, until its ledger is so far.
async fn grow(mesh: &mut Mesh, to: u64) {
    while mesh.founder.ledger.state().position.index < to {
        // No faster than one author may.
        if mesh.requests.is_multiple_of(100) {
            tokio::time::sleep(Duration::from_secs(900)).await;
        }
        let has = mesh.founder.ledger.state().names.contains_key(&name());
        mesh.ask(if has {
            Content::Release(name())
        } else {
            Content::Claim(name())
        })
        .await;
    }
}

/// Where a file begins that has just been made shorter.
const BASE: u64 = STATE_HASH_INTERVAL.next_multiple_of(limits::LEDGER_KEPT);
/// The batch with which it is.
const GROWN: u64 = BASE + limits::LEDGER_KEPT;

/// How much a file holds, the past's first, and that all of it is right.
async fn checked(node: &Node) -> (u64, u64) {
    let disk = &*node.machine.host.disk;
    let own = disk.read(Path::new(file::LEDGER)).await.unwrap().unwrap();
    let start = loading::load(disk).await.unwrap().start;
    let files = past::load(disk).await.unwrap();
    let files = past::whole(files, file::parse(own).unwrap(), start);
    let checked = history::check(&files, &*node.machine.host.keys, |_| {});
    assert_eq!(checked.problem, None);
    assert_eq!(checked.position, node.ledger.state().position);
    (checked.base, checked.batches)
}

#[tokio::test(start_paused = true)]
async fn a_file_that_has_grown_begins_with_a_state() {
    let mut mesh = Mesh::new(1).await;
    grow(&mut mesh, GROWN - 1).await;
    assert_eq!(mesh.founder.ledger.base(), 0);
    let early = mesh.founder.ledger.range(1, usize::MAX).await.unwrap();
    grow(&mut mesh, GROWN + 3).await;
    assert_eq!(mesh.founder.ledger.base(), BASE);

    // A CA node still has every batch, for whoever asks and for the log.
    for _ in 0..2 {
        let node = &mesh.founder;
        for from in [1, 2, BASE] {
            let some = node.ledger.range(from, 1 << 20).await.unwrap();
            assert_eq!(some[..], early[from as usize - 1..][..some.len()]);
            let most = node.ledger.range(from, usize::MAX).await.unwrap();
            assert_eq!(most.len() as u64, BASE + 1 - from);
        }
        let kept = node.ledger.range(BASE + 1, usize::MAX).await.unwrap();
        assert_eq!(kept.len() as u64, limits::LEDGER_KEPT + 3);
        assert_eq!(checked(node).await, (0, GROWN + 3));
        let state = node.ledger.state();
        mesh.founder.restart().await;
        assert_eq!(*mesh.founder.ledger.state(), *state);
    }
    grow(&mut mesh, GROWN + 5).await;

    // One that follows drops what it need not keep.
    let wanted = mesh.founder.ledger.state();
    let follower = &mut mesh.others[0];
    while follower.ledger.state().position != wanted.position {
        let next = follower.ledger.state().position.index + 1;
        let some = mesh.founder.ledger.range(next, 1 << 20).await.unwrap();
        follower.ledger.take(some).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(*follower.ledger.state(), *wanted);
        assert_eq!(follower.ledger.base(), BASE);
        assert!(follower.ledger.range(1, 1).await.unwrap().is_empty());
        assert_eq!(checked(follower).await, (BASE, limits::LEDGER_KEPT + 5));
        follower.restart().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_while_the_file_is_made_shorter_loses_nothing() {
    let mut mesh = Mesh::new(2).await;
    grow(&mut mesh, GROWN - 1).await;
    let state = mesh.founder.ledger.state();
    mesh.founder.machine.disk.snapshot();
    let mut bases = BTreeSet::new();
    // The first writes are those of the batch itself.
    for writes in 1..=12 {
        mesh.founder.machine.disk.stop_after(writes);
        let request = mesh.request(&Content::Claim(name()));
        let mut stopped = mesh.founder.machine.disk.stopped();
        tokio::select! {
            _ = mesh.founder.ledger.propose(request) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        mesh.founder.machine.disk.stop_never();
        mesh.founder.restart().await;
        let index = mesh.founder.ledger.state().position.index;
        assert!(
            (GROWN - 1..=GROWN).contains(&index),
            "{index} after {writes} writes"
        );
        assert_eq!(checked(&mesh.founder).await, (0, index));
        bases.insert((
            index,
            past_files(&mesh.founder).await,
            mesh.founder.ledger.base(),
        ));
        grow(&mut mesh, GROWN + 1).await;
        assert_eq!(mesh.founder.ledger.base(), BASE, "after {writes} writes");
        assert_eq!(checked(&mesh.founder).await, (0, GROWN + 1));

        let founder = &mut mesh.founder;
        founder.machine.crash().await;
        founder.machine.disk.restore();
        founder.ledger = Ledger::open(&founder.machine.host, founder.key.clone())
            .await
            .unwrap();
        assert_eq!(*founder.ledger.state(), *state);
    }
    // Before the batch, after it, with the past written, and in the end.
    let all = [
        (GROWN - 1, 0, 0),
        (GROWN, 0, 0),
        (GROWN, 1, 0),
        (GROWN, 1, BASE),
    ];
    assert_eq!(bases, all.into());
}

async fn past_files(node: &Node) -> usize {
    let disk = &*node.machine.host.disk;
    disk.list(Path::new(past::FOLDER)).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_damaged_is_made_anew_from_the_past() {
    let mut mesh = Mesh::new(4).await;
    grow(&mut mesh, GROWN + 2).await;
    assert_eq!(mesh.founder.ledger.base(), BASE);
    let state = mesh.founder.ledger.state();
    mesh.founder.machine.disk.flip("ledger.snapshot", 5000);
    mesh.founder.restart().await;
    assert_eq!(*mesh.founder.ledger.state(), *state);
    grow(&mut mesh, GROWN + 4).await;
    assert_eq!(mesh.founder.ledger.base(), BASE);
    assert_eq!(checked(&mesh.founder).await, (0, GROWN + 4));
}

#[tokio::test(start_paused = true)]
async fn one_that_follows_starts_with_a_damaged_state_from_its_copy() {
    let mut mesh = Mesh::new(6).await;
    grow(&mut mesh, GROWN + 2).await;
    let wanted = mesh.founder.ledger.state();
    let follower = &mut mesh.others[0];
    while follower.ledger.state().position != wanted.position {
        let next = follower.ledger.state().position.index + 1;
        let some = mesh.founder.ledger.range(next, 1 << 20).await.unwrap();
        follower.ledger.take(some).await.unwrap();
    }
    assert_eq!(follower.ledger.base(), BASE);
    follower.machine.disk.flip("ledger.snapshot", 500);
    for _ in 0..2 {
        follower.restart().await;
        assert_eq!(*follower.ledger.state(), *wanted);
        assert_eq!(follower.ledger.base(), BASE);
    }
    let kept = follower
        .machine
        .host
        .disk
        .read(Path::new("ledger.snapshot.damaged"));
    assert!(kept.await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_some_of_the_past_has_no_more_read_than_that() {
    const ASKED: usize = 16 * 1024;
    let mut mesh = Mesh::new(7).await;
    grow(&mut mesh, GROWN + 2).await;
    let node = &mesh.founder;
    let disk = &*node.machine.host.disk;
    let files = disk.list(Path::new(past::FOLDER)).await.unwrap();
    let whole = disk.reader(&files[0]).length().await.unwrap();
    node.ledger.encoded_range(1, 1).await.unwrap();
    node.machine.disk.take_read();
    let queries = (0..32).map(|n| node.ledger.encoded_range(1 + n * 30, ASKED));
    let answers = futures_util::future::join_all(queries).await;
    let read = node.machine.disk.take_read();
    for (n, answer) in answers.into_iter().enumerate() {
        let from = 1 + n as u64 * 30;
        let answer = answer.unwrap();
        assert!(answer.len() > 1);
        let wanted = node.ledger.range(from, ASKED).await.unwrap();
        let encoded: Vec<_> = wanted.iter().map(innermesh_proto::codec::encode).collect();
        assert_eq!(answer, encoded);
        assert_eq!(wanted[0].read_header().unwrap().index, from);
        let batches = innermesh_proto::message::Batches { batches: wanted };
        let sent = innermesh_proto::codec::encode_list(&answer);
        assert_eq!(sent, innermesh_proto::codec::encode(&batches));
    }
    let most = 32 * 3 * ASKED as u64;
    assert!(read < most && read < 32 * whole / 4, "{read} of {whole}");
}

/// Bytes of a node's own file, and of all that it keeps of the past.
async fn sizes(node: &Node) -> (u64, u64) {
    let disk = &*node.machine.host.disk;
    let own = disk.reader(Path::new(file::LEDGER)).length().await.unwrap();
    let mut past = 0;
    for path in disk.list(Path::new(past::FOLDER)).await.unwrap() {
        past += disk.reader(&path).length().await.unwrap();
    }
    (own, past)
}

#[tokio::test(start_paused = true)]
async fn a_file_with_many_bytes_and_few_batches_begins_with_a_state_and_so_does_the_past_end() {
    const LIMITS: Sizes = Sizes {
        file: 48 * 1024,
        unhashed: 16 * 1024,
        past: 128 * 1024,
    };
    // Beyond a limit by what lies between two hashes of the state, and by what
    // the voters' log may still need, which is written anew each so many entries.
    const SLACK: u64 = 2 * LIMITS.unhashed + 512 * limits::RAFT_LOG_ENTRIES as u64;
    let mut mesh = Mesh::new(8).await;
    let founder = &mut mesh.founder;
    founder.machine.crash().await;
    let reopened = Ledger::open_with(&founder.machine.host, founder.key.clone(), LIMITS).await;
    founder.ledger = reopened.unwrap();
    let mut shortened = BTreeSet::new();
    let (mut longest, mut most) = (0, 0);
    for to in (10..limits::LEDGER_KEPT).step_by(10) {
        grow(&mut mesh, to).await;
        let (own, past) = sizes(&mesh.founder).await;
        (longest, most) = (longest.max(own), most.max(past));
        shortened.insert(mesh.founder.ledger.base());
    }
    // With fewer batches than are kept where a file grows by their number.
    assert!(shortened.len() > 4, "{shortened:?}");
    assert!(longest <= LIMITS.file + SLACK, "{longest}");
    assert!(most > LIMITS.past / 2 && most <= LIMITS.past, "{most}");

    // The oldest is gone, and what is there is whole and goes on.
    let node = &mesh.founder;
    assert!(node.ledger.range(1, 1 << 20).await.unwrap().is_empty());
    let disk = &*node.machine.host.disk;
    let kept = past::load(disk).await.unwrap();
    let first = kept.first().and_then(|file| file.first()).unwrap();
    assert!(first > 1, "{first}");
    let some = node.ledger.range(first, 1 << 20).await.unwrap();
    assert_eq!(some[0].read_header().unwrap().index, first);
    let (base, batches) = checked(node).await;
    assert_eq!(base, node.ledger.base());
    let index = node.ledger.state().position.index;
    assert_eq!(base + batches, index);
    let state = node.ledger.state();
    mesh.founder.restart().await;
    assert_eq!(*mesh.founder.ledger.state(), *state);
    grow(&mut mesh, index + 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_with_little_room_keeps_its_file_and_goes_on() {
    let mut mesh = Mesh::new(3).await;
    grow(&mut mesh, GROWN - 1).await;
    // Enough to decide with.
    let room = innermesh_agent::ledger::ROOM + (64 << 10);
    mesh.founder.machine.disk.set_free(Some(room));
    grow(&mut mesh, GROWN + 2).await;
    assert_eq!(mesh.founder.ledger.base(), 0);
    mesh.founder.machine.disk.set_free(None);
    grow(&mut mesh, GROWN + 2 * limits::LEDGER_KEPT).await;
    assert!(mesh.founder.ledger.base() > BASE);
    let all = mesh.founder.ledger.state().position.index;
    assert_eq!(checked(&mesh.founder).await, (0, all));
}

#[tokio::test(start_paused = true)]
async fn who_follows_with_a_full_disk_goes_on_once_there_is_room() {
    let mut mesh = Mesh::new(5).await;
    grow(&mut mesh, 5).await;
    let wanted = mesh.founder.ledger.state();
    let batches = mesh.founder.ledger.range(1, usize::MAX).await.unwrap();
    let follower = &mesh.others[0];
    let before = follower.ledger.state();
    follower.machine.disk.set_free(Some(1000));
    let taken = follower.ledger.take(batches.clone()).await;
    assert_eq!(taken, Err(TakeError::Full));
    assert_eq!(*follower.ledger.state(), *before);
    follower.machine.disk.set_free(None);
    follower.ledger.take(batches).await.unwrap();
    assert_eq!(*follower.ledger.state(), *wanted);
}
