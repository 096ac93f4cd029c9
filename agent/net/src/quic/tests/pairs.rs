//! One connection for each pair: dialed by both at once, restarted, lost.

use std::time::Duration;

use innermesh_proto::{limits, rpc::close};

use super::{
    super::{DialError, Membership, PeerEvent, TransportBackend},
    world::{Identity, Node, WAIT, World, all},
};

const SECOND: Duration = Duration::from_secs(1);

/// Calls the other node without a pause for `time`; how often it worked.
async fn call_on_and_on(from: &Node, to: &Node, time: Duration) -> usize {
    let end = tokio::time::Instant::now() + time;
    let mut done = 0;
    while tokio::time::Instant::now() < end {
        let answer = from.echo(to, "").await;
        assert_eq!(answer, Ok(from.id.to_string().into_bytes()), "call {done}");
        done += 1;
    }
    done
}

#[tokio::test(start_paused = true)]
async fn simultaneous_dials_leave_one_connection_and_fail_no_call() {
    for apart in [0, 1, 2, 5, 1500] {
        let world = World::new();
        let (small, large) = world.two();
        for (first, second) in [(&small, &large), (&large, &small)] {
            let (a, b) = (world.start(first), world.start(second));
            let late = async {
                tokio::time::sleep(Duration::from_millis(apart)).await;
                b.transport.dial(a.address, None).await
            };
            let (at_a, at_b) = tokio::join!(a.transport.dial(b.address, None), late);
            assert_eq!((at_a, at_b), (Ok(b.id), Ok(a.id)));
            b.until(|b| b.transport.is_connected(a.id)).await;
            let (there, back) = tokio::join!(
                call_on_and_on(&a, &b, 3 * SECOND),
                call_on_and_on(&b, &a, 3 * SECOND),
            );
            assert!(there > 100 && back > 100, "{there} {back}");

            a.until(|a| a.links() == 1).await;
            b.until(|b| b.links() == 1).await;
            for node in [&a, &b] {
                let peer = &node.transport.connected()[0];
                assert_eq!(peer.dialed_by_us, node.id == small.id, "{apart}");
                let up = PeerEvent::Up(peer.node);
                assert_eq!(node.events(), [up], "it was never down");
            }
            for node in [a, b] {
                node.transport.close().await;
                world.net.kill(node.address);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_on_the_losing_connection_is_answered_there_and_carried_out_once() {
    let world = World::new();
    let (small, large) = world.two();
    let (small, large) = (world.start(&small), world.start(&large));
    for (from, to) in [(&small, &large), (&large, &small)] {
        large.transport.dial(small.address, None).await.unwrap();
        small
            .until(|s| s.transport.is_connected(large.id) && large.transport.is_connected(s.id))
            .await;
        let wait = from.transport.call(to.id, WAIT, "8000".into(), 10 * SECOND);
        let dial = async {
            tokio::time::sleep(SECOND).await;
            let dialed = small.transport.dial(large.address, None).await;
            tokio::time::sleep(4 * SECOND).await;
            assert_eq!(large.links(), 2, "the call holds it open");
            dialed
        };
        assert_eq!(tokio::join!(wait, dial), (Ok(Vec::new()), Ok(large.id)));
        assert_eq!(to.seen.callers.lock().unwrap().len(), 1);
        small.until(|s| s.links() == 1).await;
        large.until(|l| l.links() == 1).await;
        assert!(small.transport.connected()[0].dialed_by_us);
        large.transport.disconnect(small.id, "");
        small.until(|s| s.links() == 0).await;
        large.until(|l| l.links() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_peer_left_unread_moves_to_the_other_connection() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    for _ in 0..2 {
        a.transport.dial(b.address, None).await.unwrap();
    }
    b.until(|b| b.links() == 2).await;
    let wait = a.transport.call(b.id, WAIT, "100".into(), 5 * SECOND);
    let close = async {
        let left = b
            .transport
            .0
            .registry
            .active(&b.transport.connected()[0].node);
        left.unwrap().link().close(close::DUPLICATE, "");
    };
    assert_eq!(tokio::join!(wait, close).0, Ok(Vec::new()));
    assert_eq!((a.links(), b.links()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_opens_connections_without_end_is_stopped() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    let mut held = Vec::new();
    for _ in 0..limits::LINKS_PER_MEMBER + 5 {
        held.push(
            a.transport
                .dial_unregistered(b.address, None)
                .await
                .unwrap(),
        );
    }
    b.until(|b| b.transport.counters().handshakes_refused == 5)
        .await;
    assert_eq!(b.links(), limits::LINKS_PER_MEMBER);
}

#[tokio::test(start_paused = true)]
async fn many_dials_by_both_leave_one_connection() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    let dials = (0..12).map(|n| if n % 2 == 0 { (&a, &b) } else { (&b, &a) });
    let dials = dials.map(|(from, to)| from.transport.dial(to.address, None));
    // Those over the limit may be turned away at the end of their handshake.
    let done = all(dials).await.into_iter().filter(Result::is_ok).count();
    assert!(done >= 4, "{done}");
    call_on_and_on(&a, &b, SECOND).await;
    a.until(|a| a.links() == 1).await;
    b.until(|b| b.links() == 1).await;
    call_on_and_on(&b, &a, SECOND).await;
}

async fn restart(world: &World, stays: &Identity, falls: &Identity) {
    let there = world.start(stays);
    let former = world.start(falls);
    there.transport.dial(former.address, None).await.unwrap();
    former.until(|f| f.transport.is_connected(there.id)).await;
    former.transport.dial(there.address, None).await.unwrap();
    assert_eq!(there.events(), [PeerEvent::Up(falls.id)]);
    world.net.kill(falls.address);

    let begin = tokio::time::Instant::now();
    let anew = world.start(falls);
    anew.transport
        .dial(there.address, Some(there.id))
        .await
        .unwrap();
    assert!(begin.elapsed() < SECOND);
    assert_eq!(
        there.events(),
        [PeerEvent::Down(falls.id), PeerEvent::Up(falls.id)]
    );
    assert_eq!(
        there.links(),
        1,
        "the connections to its former self are gone"
    );
    call_on_and_on(&there, &anew, SECOND).await;
    call_on_and_on(&anew, &there, SECOND).await;
    for node in [there, anew] {
        node.transport.close().await;
        world.net.kill(node.address);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_starts_anew_replaces_its_former_connections_at_once() {
    let world = World::new();
    let (small, large) = world.two();
    restart(&world, &small, &large).await;
    restart(&world, &large, &small).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_down_within_the_idle_timeout() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    a.transport.dial(b.address, None).await.unwrap();
    b.until(|b| b.transport.is_connected(a.id)).await;
    world.net.cut(b.address);
    let begin = tokio::time::Instant::now();
    a.until(|a| !a.transport.is_connected(b.id)).await;
    b.until(|b| !b.transport.is_connected(a.id)).await;
    assert!(begin.elapsed() < 25 * SECOND);
    assert_eq!(a.events(), [PeerEvent::Up(b.id), PeerEvent::Down(b.id)]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_or_parts_is_down_at_once() {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    a.transport.dial(b.address, None).await.unwrap();
    b.until(|b| b.transport.is_connected(a.id)).await;
    let begin = tokio::time::Instant::now();
    b.transport.disconnect(a.id, "evicted");
    a.until(|a| !a.transport.is_connected(b.id)).await;
    b.until(|b| b.links() == 0).await;
    a.transport.dial(b.address, None).await.unwrap();
    b.transport.close().await;
    a.until(|a| !a.transport.is_connected(b.id)).await;
    assert!(begin.elapsed() < SECOND);
    assert_eq!(
        b.transport.dial(a.address, None).await,
        Err(DialError::Closed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_meets_another_node_or_nobody_says_so() {
    let world = World::new();
    let (a, b) = world.two();
    let elsewhere = world.member(9);
    let (a, b) = (world.start(&a), world.start(&b));
    assert_eq!(
        a.transport.dial(b.address, Some(elsewhere.id)).await,
        Err(DialError::WrongNode(b.id))
    );
    assert_eq!(
        a.transport.dial(elsewhere.address, None).await,
        Err(DialError::Timeout)
    );
    assert_eq!(
        a.transport.dial(a.address, None).await,
        Err(DialError::Myself)
    );
    assert!(a.events().is_empty(), "a node that meets itself is no twin");
    assert_eq!(a.links(), 0);
    assert_eq!(a.transport.counters().dials_failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_this_node_is_told_of_and_not_registered() {
    let world = World::new();
    let (original, _) = world.two();
    let copy = Identity {
        address: "10.0.0.77:51819".parse().unwrap(),
        ..original.clone()
    };
    let (original, copy) = (world.start(&original), world.start(&copy));
    assert_eq!(
        copy.transport.dial(original.address, None).await,
        Err(DialError::Myself)
    );
    original.until(|o| o.links() == 0).await;
    assert_eq!(original.events(), [PeerEvent::Twin(copy.address)]);
    assert!(original.transport.connected().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_bites_at_the_next_request_and_at_once_after_a_review() {
    let world = World::new();
    let (a, b) = world.two();
    let (at_a, at_b) = (world.start(&a), world.start(&b));
    for reviewed in [false, true] {
        world.set(&a, Membership::Member);
        at_a.transport.dial(b.address, None).await.unwrap();
        at_b.until(|n| n.transport.is_connected(a.id)).await;
        world.set(&a, Membership::Revoked);
        if reviewed {
            at_b.transport.review();
        } else {
            assert!(at_a.echo(&at_b, "").await.is_err());
        }
        at_b.until(|n| n.links() == 0).await;
        at_a.until(|n| n.links() == 0).await;
    }
    assert!(at_b.seen.callers.lock().unwrap().is_empty());
    let refused = at_a.transport.dial(b.address, None).await;
    assert_eq!(refused, Err(DialError::Evicted));
    assert_eq!(
        at_b.transport.dial(a.address, None).await,
        Err(DialError::Revoked(a.id))
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_sends_the_same_packets() {
    let mut world = World::new();
    let (a, b) = world.two();
    let mut traces = Vec::new();
    for seed in [1, 1, 2] {
        world = world.again(seed);
        let (a, b) = (world.start(&a), world.start(&b));
        let both = tokio::join!(
            a.transport.dial(b.address, None),
            b.transport.dial(a.address, None)
        );
        assert_eq!(both, (Ok(b.id), Ok(a.id)));
        call_on_and_on(&a, &b, 3 * SECOND).await;
        a.transport.notify(b.id, 2, vec![1; 100_000]);
        tokio::time::sleep(30 * SECOND).await;
        traces.push(world.net.sent());
        a.transport.close().await;
        b.transport.close().await;
    }
    assert!(traces[0].len() > 1000);
    assert!(
        traces[0] == traces[1],
        "time, source, destination and length of every packet"
    );
}
