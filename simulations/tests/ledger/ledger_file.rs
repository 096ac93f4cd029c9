//! The ledger's file and its one writer, on a disk that fails.

use std::{path::Path, sync::Arc, time::Duration};

use innermesh_agent::{
    ca::{self, Issuer, Root},
    enroll::{self, InitOptions},
    host::{Disk, key_files as keys, keys::NodeKey},
    ledger::{
        Ledger, LedgerError, ProposeError, TakeError, VotingDisabled,
        file::{self, LEDGER},
    },
};
use innermesh_proto::{
    codec,
    crypto::{Purpose, Sealed},
    id::NodeId,
    ledger::{Author, Batch, Content, Entry, Genesis, Outcome, Request, RequestId, SignedGenesis},
    limits,
};
use simulations::{Machine, World, disk::Fault, mesh::DOMAIN, world::START_MS};

/// A machine with a mesh of its own, and nothing running.
async fn founder(world: &mut World) -> (Machine, Arc<dyn NodeKey>) {
    let machine = world.machine("one");
    let options = InitOptions {
        domain: DOMAIN.parse().unwrap(),
        name: "one".parse().unwrap(),
        ipv4: None,
        interface: "im0".into(),
        rules: machine.rules,
    };
    enroll::init(&machine.host, options).await.unwrap();
    let key = keys::require_identity(&machine.host).await.unwrap();
    (machine, key)
}

/// Opens the ledger as the node that decides.
async fn lead(machine: &Machine, key: &Arc<dyn NodeKey>) -> Result<Ledger, LedgerError> {
    Ledger::open(&machine.host, key.clone()).await
}

fn claim(ledger: &Ledger, key: &dyn NodeKey, name: &str) -> Sealed {
    let id = name
        .bytes()
        .fold(1, |id: u128, byte| id << 8 | u128::from(byte));
    Request::seal(
        key,
        ledger.state().mesh,
        RequestId(id.to_le_bytes()),
        Author::Node(key.public().node_id()),
        START_MS + 300_000,
        &Content::Claim(name.parse().unwrap()),
    )
}

fn holds(ledger: &Ledger, name: &str) -> bool {
    let name = name.parse().unwrap();
    ledger.state().names.contains_key(&name)
}

async fn bytes(machine: &Machine) -> Vec<u8> {
    machine.disk.read(Path::new(LEDGER)).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_made_durable_is_not_acknowledged_and_the_writer_stops() {
    for fault in [Fault::Sync, Fault::Full] {
        let (machine, key) = founder(&mut World::new(1)).await;
        let ledger = lead(&machine, &key).await.unwrap();
        let propose = |name| ledger.propose(claim(&ledger, &*key, name));
        assert_eq!(propose("kept").await, Ok(Outcome::Done(1)));
        machine.disk.set_fault(Some(fault));
        let refused = propose("lost").await;
        assert!(
            matches!(refused, Err(ProposeError::Stopped(_))),
            "{refused:?}"
        );
        assert!(!holds(&ledger, "lost"), "nobody was told of it");
        assert_eq!(ledger.state().position.index, 1);
        // What such a disk kept is not known, so it isn't tried again.
        machine.disk.set_fault(None);
        let refused = propose("late").await;
        assert!(matches!(refused, Err(ProposeError::Stopped(_))));
        assert_eq!(ledger.take(Vec::new()).await, Err(TakeError::Stopped));

        machine.disk.crash();
        let ledger = lead(&machine, &key).await.unwrap();
        assert!(holds(&ledger, "kept") && !holds(&ledger, "lost"));
        let again = ledger.propose(claim(&ledger, &*key, "lost")).await;
        assert_eq!(again, Ok(Outcome::Done(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_byte_leaves_what_was_acknowledged_before() {
    let (mut machine, key) = founder(&mut World::new(2)).await;
    let ledger = lead(&machine, &key).await.unwrap();
    let mut lengths = vec![bytes(&machine).await.len()];
    for name in ["a", "b", "c"] {
        ledger.propose(claim(&ledger, &*key, name)).await.unwrap();
        lengths.push(bytes(&machine).await.len());
    }
    let whole = bytes(&machine).await;
    for cut in (lengths[0]..=whole.len()).step_by(7) {
        let path = Path::new(LEDGER);
        machine.crash().await;
        machine.disk.replace(path, &whole[..cut]).await.unwrap();
        let ledger = lead(&machine, &key).await.unwrap();
        let kept = lengths.iter().filter(|length| **length <= cut).count() - 1;
        assert_eq!(ledger.state().position.index, kept as u64, "cut at {cut}");
        // The torn tail is gone, and the file goes on from there.
        assert_eq!(bytes(&machine).await.len(), lengths[kept]);
        ledger.propose(claim(&ledger, &*key, "next")).await.unwrap();
        // What the file lost stands in raft.log.
        for name in ["a", "b", "c"] {
            assert!(holds(&ledger, name), "{name}, cut at {cut}");
        }
        machine.crash().await;
        let again = lead(&machine, &key).await.unwrap();
        assert_eq!(again.state(), ledger.state());
        assert!(holds(&again, "next"));
    }
}

/// The file of a mesh with `count` batches.
async fn history(count: u8) -> (SignedGenesis, Vec<Batch>) {
    let (machine, key) = founder(&mut World::new(3)).await;
    let ledger = lead(&machine, &key).await.unwrap();
    for n in 0..count {
        let request = claim(&ledger, &*key, &format!("s{n}"));
        ledger.propose(request).await.unwrap();
    }
    let batches = ledger.range(1, usize::MAX).await.unwrap();
    assert_eq!(batches.len(), usize::from(count));
    (ledger.genesis().clone(), batches)
}

/// A machine that decides alone, with three batches of which the first is
/// damaged, and the ledger as it was.
async fn damaged_alone(seed: u64) -> (Machine, Arc<dyn NodeKey>, Ledger) {
    let (mut machine, key) = founder(&mut World::new(seed)).await;
    let ledger = lead(&machine, &key).await.unwrap();
    let before = bytes(&machine).await.len();
    for name in ["a", "b", "c"] {
        ledger.propose(claim(&ledger, &*key, name)).await.unwrap();
    }
    machine.crash().await;
    machine.disk.flip(LEDGER, before + 40);
    (machine, key, ledger)
}

#[tokio::test(start_paused = true)]
async fn who_decides_alone_has_what_its_ledger_lost_from_its_own_log() {
    let (machine, key, before) = damaged_alone(4).await;
    let damaged = bytes(&machine).await;
    let ledger = lead(&machine, &key).await.unwrap();
    let kept = machine.disk.read(Path::new("ledger.damaged")).await;
    assert_eq!(kept.unwrap().unwrap(), damaged, "for a person to look at");
    let next = ledger.propose(claim(&ledger, &*key, "d")).await;
    assert_eq!(next, Ok(Outcome::Done(4)));
    assert!(["a", "b", "c", "d"].iter().all(|name| holds(&ledger, name)));
    let position = before.state().position;
    assert_eq!(ledger.hash_at(position.index), Some(position.hash));
}

#[tokio::test(start_paused = true)]
async fn who_decided_alone_and_lost_ledger_and_log_follows_and_decides_nothing_more() {
    let (mut machine, key, before) = damaged_alone(10).await;
    let batches = before.state();
    machine.disk.remove(Path::new("raft.log")).await.unwrap();
    for round in 0..3 {
        let ledger = lead(&machine, &key).await.unwrap();
        let refused = ledger.propose(claim(&ledger, &*key, "late")).await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader(_))),
            "{round}: {refused:?}"
        );
        let council = ledger.raft_status().borrow().clone();
        assert_eq!(
            council.disabled,
            Some(VotingDisabled::LostAlone),
            "round {round}"
        );
        assert!(!council.votes && !council.leads);
        assert!(ledger.state().position.index < batches.position.index);
        // A log that can't be read is no better than none.
        machine.crash().await;
        machine
            .disk
            .replace(Path::new("raft.log"), &[7; 99])
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_with_damage_in_the_middle_takes_the_rest_again() {
    let (genesis, batches) = history(5).await;
    let machine = World::new(5).machine("two");
    let key = keys::identity_or_new(&machine.host).await.unwrap();
    let path = Path::new(LEDGER);
    let whole = file::encode(&genesis, &batches);
    let start = file::encode(&genesis, &batches[..2]).len();
    machine.disk.replace(path, &whole).await.unwrap();
    machine.disk.flip(LEDGER, start + 40);
    let damaged = bytes(&machine).await;

    let ledger = Ledger::open(&machine.host, key.clone()).await.unwrap();
    assert_eq!(ledger.state().position.index, 2);
    let kept = machine.disk.read(Path::new("ledger.damaged")).await;
    assert_eq!(kept.unwrap().unwrap(), damaged, "for a person to look at");
    let request = claim(&ledger, &*key, "x");
    assert_eq!(
        ledger.propose(request).await,
        Err(ProposeError::NotLeader(None))
    );

    // Those it has are passed over; what doesn't follow is refused.
    let refused = ledger.take(batches[3..].to_vec()).await;
    assert!(matches!(refused, Err(TakeError::Batch(_))), "{refused:?}");
    let position = ledger.take(batches[1..].to_vec()).await.unwrap();
    assert_eq!(position.index, 5);
    assert_eq!(bytes(&machine).await, whole);
    assert_eq!(ledger.range(2, 1).await.unwrap(), batches[1..2]);
    assert_eq!(ledger.hash_at(5), Some(position.hash));
    assert_eq!(ledger.hash_at(6), None);
}

#[tokio::test(start_paused = true)]
async fn a_followers_disk_that_fails_tells_others_of_nothing_that_is_not_kept() {
    let (genesis, batches) = history(3).await;
    let machine = World::new(6).machine("two");
    let key = keys::identity_or_new(&machine.host).await.unwrap();
    let file = file::encode(&genesis, &batches[..1]);
    machine
        .disk
        .replace(Path::new(LEDGER), &file)
        .await
        .unwrap();
    let ledger = Ledger::open(&machine.host, key).await.unwrap();
    let mut pushed = ledger.batches();
    machine.disk.set_fault(Some(Fault::Sync));
    assert_eq!(
        ledger.take(batches[1..].to_vec()).await,
        Err(TakeError::Stopped)
    );
    // This is the position that its heads announce (S20).
    assert_eq!(ledger.durable().borrow().index, 1);
    assert_eq!(
        ledger.hash_at(2),
        None,
        "nor does it hand it to those who ask"
    );
    assert!(pushed.try_recv().is_err(), "nor passes it on");
}

#[tokio::test(start_paused = true)]
async fn many_large_requests_at_once_make_batches_that_can_be_read_again() {
    let (machine, key) = founder(&mut World::new(7)).await;
    let ledger = lead(&machine, &key).await.unwrap();
    // Each is nearly as large as a request may be.
    let request = |n: u8| {
        let names = (0..450).map(|m| format!("{}{n}-{m}", "x".repeat(50)));
        let content = Content::Certify(innermesh_proto::ledger::request::Certify {
            spki: Vec::new(),
            names: names.collect(),
            days: 1,
        });
        Request::seal(
            &*key,
            ledger.state().mesh,
            RequestId([n; 16]),
            Author::Node(key.public().node_id()),
            START_MS + 300_000,
            &content,
        )
    };
    let state = ledger.state();
    let mut draft = state.draft(state.stamp_ms);
    let mut left = (0..100).map(request);
    while draft.has_room()
        && let Some(request) = left.next()
    {
        let entry = Entry {
            request,
            attachment: Vec::new(),
        };
        let outcome = draft.add(entry, &*machine.host.keys);
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    assert!((10..100).contains(&draft.len()), "{}", draft.len());
    let (_, batch) = draft.finish();
    let bytes = codec::encode(&batch);
    assert_eq!(codec::decode(&bytes, limits::BATCH_BYTES), Ok(batch));
}

/// A founder of a mesh that began before there were newer rules.
async fn earlier_founder(world: &mut World) -> (Machine, Arc<dyn NodeKey>) {
    let machine = world.machine("old");
    let host = &machine.host;
    let root_key = host.keys.generate_p256();
    let (domain, ipv4) = (DOMAIN.parse().unwrap(), "10.77.0.0/16".parse().unwrap());
    let root = Root::generate(root_key, &domain, ipv4, START_MS, &*host.keys).unwrap();
    let key = keys::identity_or_new(host).await.unwrap();
    let issuer_key = host.keys.generate_p256();
    keys::store_issuer(host, &*issuer_key).await.unwrap();
    let der = root.issuer(&issuer_key.spki(), START_MS, &*host.keys);
    let issuer = Issuer::new(issuer_key, der.unwrap()).unwrap();
    let mut genesis = Genesis {
        domain,
        ipv4,
        root: root.der().to_vec(),
        founder: key.public(),
        name: "old".parse().unwrap(),
        issuer: issuer.der().to_vec(),
        membership: Vec::new(),
        stamp_ms: START_MS,
        rules: 0,
    };
    let plan = genesis.membership_plan(&root.mesh()).unwrap();
    let serial = ca::random_serial(&*host.keys);
    genesis.membership = issuer.sign_leaf(&plan, serial, &*host.keys).unwrap();
    let bytes = genesis.encode();
    let message = Purpose::Genesis.message(&root.mesh(), &bytes);
    let signature = root.sign(&message).unwrap();
    let signed = SignedGenesis { bytes, signature };
    Ledger::create(host, &signed).await.unwrap();
    (machine, key)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_written_down_for_an_earlier_version_as_long_as_rules_0_are_in_force() {
    for rules in [0, 1] {
        let mut world = World::new(9);
        let (machine, key) = match rules {
            0 => earlier_founder(&mut world).await,
            _ => founder(&mut world).await,
        };
        let ledger = lead(&machine, &key).await.unwrap();
        let release = |id: u8| {
            Request::seal(
                &*key,
                ledger.state().mesh,
                RequestId([id; 16]),
                Author::Node(key.public().node_id()),
                START_MS + 300_000,
                &Content::Release("unknown".parse().unwrap()),
            )
        };
        let by = Some(NodeId([7; 16]));
        let before = ledger.state().position.index;
        let first = ledger.propose_by(by, release(1), true).await;
        assert!(matches!(first, Ok(Outcome::Refused(_))), "{first:?}");
        let written = u64::from(rules == 0);
        assert_eq!(ledger.state().position.index, before + written);
        assert_eq!(ledger.propose(release(1)).await, first);
        let later = ledger.propose(release(2)).await;
        assert!(matches!(later, Ok(Outcome::Refused(_))), "{later:?}");
        assert_eq!(ledger.state().position.index, before + written);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_starts_after_a_long_time_sets_ledger_time_right_at_once() {
    let (machine, key) = founder(&mut World::new(8)).await;
    tokio::time::sleep(Duration::from_secs(7200)).await;
    let ledger = lead(&machine, &key).await.unwrap();
    let mut states = ledger.subscribe();
    let changed = tokio::time::timeout(Duration::from_secs(1), states.changed());
    changed.await.expect("within a second").unwrap();
    assert_eq!(ledger.state().stamp_ms, START_MS + 7_200_000);
}
