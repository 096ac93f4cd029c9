//! Peers that are not members, or not yet.

use std::time::Duration;

use innermesh_proto::{
    limits,
    rpc::{Failure, method},
};

use super::{
    super::{
        CallError, DialError, EnrolConnection, Membership, TransportBackend,
        over_quinn::QuinnEnrolConnection,
    },
    world::{ECHO, LARGE, Node, PROOF, World, all},
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_joiner_may_call_what_is_open_and_nothing_else() {
    let world = World::new();
    let seed = world.member(1);
    let node = world.start(&seed);
    let joiner = world.joiner(50);
    let channel = joiner.dial_unregistered(node.address, None).await.unwrap();
    assert_eq!(channel.peer_key(), Some(seed.key.public()));
    assert_eq!(channel.peer_chain().len(), 3);
    assert_eq!(
        channel
            .call(method::JOIN, b"let me in".to_vec(), SECOND)
            .await,
        Ok(b"let me in".to_vec())
    );
    for shut in [method::PING, method::LEDGER, ECHO, 999] {
        assert_eq!(
            channel.call(shut, Vec::new(), SECOND).await,
            Err(Failure::NotMember.into())
        );
    }
    let callers = node.seen.callers.lock().unwrap().clone();
    assert_eq!(callers.len(), 1);
    assert_eq!((callers[0].node, callers[0].key), (None, None));
    assert_eq!(callers[0].exporter, channel.exporter());
    assert_eq!(node.transport.counters().not_member, 4);
    assert!(node.transport.connected().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_small_frames_few_streams_and_little_time() {
    let world = World::new();
    let node = world.start(&world.member(1));
    let joiner = world.joiner(50);
    let begin = tokio::time::Instant::now();
    let channel = joiner.dial_unregistered(node.address, None).await.unwrap();
    let large = vec![0; limits::STRANGER_RPC_BYTES];
    assert!(matches!(
        channel.call(method::JOIN, large, SECOND).await,
        Err(CallError::TooLong(_))
    ));
    assert_eq!(node.transport.counters().frames_too_long, 1);

    let mut open = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SECOND, channel.connection.open_bi()).await {
        open.push(stream.unwrap());
        assert!(open.len() <= limits::STREAMS_PER_STRANGER as usize);
    }
    assert_eq!(open.len(), limits::STREAMS_PER_STRANGER as usize);

    let mut stream = channel.connection.open_uni().await.unwrap();
    let gossip = innermesh_proto::rpc::RequestFrame::new(method::GOSSIP, 0, None, b"lies".to_vec());
    stream.write_all(&gossip.encode()).await.unwrap();
    stream.finish().unwrap();
    channel.connection.send_datagram("lies".into()).unwrap();
    node.until(|n| {
        n.transport.counters().not_member == 1 && n.transport.counters().datagrams_dropped == 1
    })
    .await;
    assert!(node.seen.notices.lock().unwrap().is_empty());
    assert!(node.seen.datagrams.lock().unwrap().is_empty());

    channel.connection.closed().await;
    assert_eq!(begin.elapsed().as_secs(), limits::STRANGER_MS / 1000);
    assert_eq!(node.transport.counters().strangers_expired, 1);
}

/// As many connections by each of five addresses as it likes.
async fn crowd(world: &World, node: &Node) -> Vec<QuinnEnrolConnection> {
    let mut held = Vec::new();
    for host in 100..105 {
        let joiner = world.joiner(host);
        let dials = (0..30).map(|_| joiner.dial_unregistered(node.address, None));
        held.extend(all(dials).await.into_iter().flatten());
    }
    held
}

#[tokio::test(start_paused = true)]
async fn five_addresses_that_hold_all_places_keep_neither_a_joiner_nor_a_member_out() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    let held = crowd(&world, &a).await;
    a.until(|a| a.transport.counters().strangers_refused > 0)
        .await;
    assert!(a.links() <= limits::STRANGERS);
    assert!(
        a.transport.counters().retries_sent > 0,
        "the crowd had to prove its addresses"
    );
    let joined = async {
        let again = world.joiner(120);
        let channel = again.dial_unregistered(a.address, None).await.unwrap();
        channel.call(method::JOIN, Vec::new(), 3 * SECOND).await
    };
    let joined = tokio::time::timeout(3 * SECOND, joined).await;
    assert_eq!(joined, Ok(Ok(Vec::new())));
    let reconnected = tokio::time::timeout(3 * SECOND, b.transport.dial(a.address, None));
    assert_eq!(reconnected.await, Ok(Ok(a.id)));
    assert!(b.echo(&a, "").await.is_ok());
    assert!(a.transport.counters().strangers_displaced > 0);
    drop(held);
    a.until(|a| a.links() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_proved_a_membership_or_an_invite_keeps_its_place_in_a_crowd() {
    let world = World::new();
    let node = world.start(&world.member(1));
    let channel = world
        .joiner(120)
        .dial_unregistered(node.address, None)
        .await
        .unwrap();
    let proved = channel.call(method::JOIN, PROOF.to_vec(), SECOND).await;
    assert_eq!(proved, Ok(PROOF.to_vec()));
    let _held = crowd(&world, &node).await;
    node.until(|node| node.transport.counters().strangers_displaced >= 32)
        .await;
    assert_eq!(channel.connection.close_reason(), None);
    assert!(channel.call(method::JOIN, Vec::new(), SECOND).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_asks_on_and_on_is_closed() {
    let world = World::new();
    let node = world.start(&world.member(1));
    let joiner = world.joiner(50);
    let channel = joiner.dial_unregistered(node.address, None).await.unwrap();
    for _ in 0..limits::STRANGER_REQUESTS {
        assert!(channel.call(method::JOIN, Vec::new(), SECOND).await.is_ok());
    }
    let next = channel.call(method::JOIN, Vec::new(), SECOND).await;
    assert!(matches!(next, Err(CallError::Lost(_))), "{next:?}");
    assert!(channel.connection.close_reason().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_member_asks_for_and_does_not_take_is_bounded() {
    const MIB: usize = 1 << 20;
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    b.transport.dial(a.address, None).await.unwrap();
    let link = b.transport.0.registry.active(&a.id).unwrap();
    let mut unread = Vec::new();
    for _ in 0..40 {
        let (mut send, receive) = link.link().connection.open_bi().await.unwrap();
        let size = MIB.to_string().into_bytes();
        let frame = innermesh_proto::rpc::RequestFrame::new(LARGE, 10_000, None, size);
        send.write_all(&frame.encode()).await.unwrap();
        send.finish().unwrap();
        unread.push(receive);
    }
    let over = 40 - limits::ANSWER_BYTES_PER_PEER / MIB;
    a.until(|a| a.transport.counters().busy >= over as u64)
        .await;
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_byte_each_few_seconds_end_and_others_are_served_meanwhile() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    b.transport.dial(a.address, None).await.unwrap();
    let link = b.transport.0.registry.active(&a.id).unwrap();
    let mut slow = Vec::new();
    for _ in 0..limits::STREAMS_PER_PEER {
        let (mut send, receive) = link.link().connection.open_bi().await.unwrap();
        send.write_all(&[1]).await.unwrap();
        slow.push((send, receive));
    }
    let other = world.start(&world.member(9));
    other.transport.dial(a.address, None).await.unwrap();
    assert!(other.echo(&a, "meanwhile").await.is_ok());
    let begin = tokio::time::Instant::now();
    for _ in 0..8 {
        tokio::time::sleep(2 * SECOND).await;
        for (send, _) in &mut slow {
            let _ = send.write_all(&[1]).await;
        }
    }
    a.until(|a| a.transport.counters().frames_too_slow >= u64::from(limits::STREAMS_PER_PEER))
        .await;
    assert!(begin.elapsed() < Duration::from_millis(2 * limits::FRAME_READ_MS));
    drop(slow);
    assert!(
        b.echo(&a, "again").await.is_ok(),
        "its streams are free again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_join_that_just_committed_works_without_a_new_connection() {
    let world = World::new();
    let (node, late) = (world.start(&world.member(1)), world.stranger(2));
    let joined = world.start(&late);
    assert_eq!(joined.transport.dial(node.address, None).await, Ok(node.id));
    assert!(joined.transport.is_connected(node.id));
    assert!(!node.transport.is_connected(late.id));
    assert_eq!(joined.echo(&node, "").await, Err(Failure::NotMember.into()));
    world.set(&late, Membership::Member);
    assert_eq!(
        joined.echo(&node, "").await,
        Ok(late.id.to_string().into_bytes())
    );
    assert!(node.transport.is_connected(late.id));
    node.until(|node| node.transport.0.strangers.served() == 0)
        .await;
    assert!(node.echo(&joined, "").await.is_ok());
    tokio::time::sleep(2 * Duration::from_millis(limits::STRANGER_MS)).await;
    assert_eq!(
        (node.links(), joined.links()),
        (1, 1),
        "a member's time is not limited"
    );
}

#[tokio::test(start_paused = true)]
async fn a_review_registers_new_members_and_drops_former_ones() {
    let world = World::new();
    let (node, late) = (world.start(&world.member(1)), world.stranger(2));
    let joined = world.start(&late);
    joined.transport.dial(node.address, None).await.unwrap();
    world.set(&late, Membership::Member);
    node.transport.review();
    assert!(node.transport.is_connected(late.id));
    world.set(&late, Membership::Unknown);
    node.transport.review();
    node.until(|n| n.links() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_dialed_stranger_is_kept_for_a_while_and_asked_nothing() {
    let world = World::new();
    let (node, unknown) = (world.start(&world.member(1)), world.stranger(2));
    let there = world.start(&unknown);
    assert_eq!(
        node.transport.dial(there.address, Some(unknown.id)).await,
        Ok(unknown.id)
    );
    assert!(matches!(
        node.echo(&there, "").await,
        Err(CallError::NotConnected(_))
    ));
    assert_eq!(node.links(), 1);
    node.until(|n| n.links() == 0).await;
    assert_eq!(node.transport.counters().strangers_expired, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ended_certificate_is_named_as_the_reason_and_renewing_stays_open() {
    let world = World::new();
    let (a, b) = world.two();
    let far = |stamp: &std::sync::atomic::AtomicU64| {
        let year = 365 * 24 * 3600 * 1000;
        stamp.fetch_add(year, std::sync::atomic::Ordering::AcqRel);
    };
    let (at_a, at_b) = (world.start(&a), world.start(&b));
    far(&b.stamp);
    assert_eq!(
        at_a.transport.dial(at_b.address, None).await,
        Err(DialError::Expired)
    );
    let bare = a.tls().client_without_certificate().unwrap();
    let channel = at_a
        .transport
        .dial_unregistered(at_b.address, Some(bare))
        .await
        .unwrap();
    assert!(channel.call(method::JOIN, Vec::new(), SECOND).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_joiner_becomes_a_member_on_the_same_transport() {
    let world = World::new();
    let (node, member) = (world.start(&world.member(1)), world.member(2));
    let joiner = world.joiner_as(member.id, 50);
    let unable = joiner.dial(node.address, None).await;
    assert_eq!(unable, Ok(node.id), "it is connected, and a stranger there");
    let tls = member.tls();
    joiner.set_tls(tls.server().unwrap(), tls.client().unwrap());
    assert_eq!(joiner.dial(node.address, None).await, Ok(node.id));
    node.until(|n| n.transport.is_connected(member.id)).await;
}
