//! Peers whose way is chosen by who drives the engine.

use std::{net::SocketAddr, time::Duration};

use innermesh_engine::{Event, Happened, PeerSettings, Probe};

use crate::{
    SECOND, reading,
    two::{End, LEFT, RIGHT, Two, packet},
};

const NOBODY: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)),
    7,
);

fn events(end: &mut End) -> Vec<Happened> {
    let all = std::iter::from_fn(|| end.engine.poll_event());
    all.map(|Event { what, .. }| what).collect()
}

/// Neither knows where the other is.
fn strangers() -> Two {
    let mut two = Two::new();
    let (left, right) = (two.left.peer(), two.right.peer());
    let keys = (two.left.key(), two.right.key());
    for (end, key, peer) in [
        (&mut two.left, keys.1, right),
        (&mut two.right, keys.0, left),
    ] {
        let settings = PeerSettings {
            endpoint: None,
            ..peer
        };
        end.engine.add_peer(key, settings, two.now);
        end.engine.choose_way(&key, true);
        end.flush(two.now);
    }
    two
}

fn endpoint(end: &End, other: &End, two: &Two) -> Option<SocketAddr> {
    reading(end, other, two.now).settings.endpoint
}

#[test]
fn the_first_packets_wait_and_go_where_the_handshake_was_answered() {
    let mut two = strangers();
    let packets: Vec<Vec<u8>> = (1..20).map(|n| packet(LEFT, RIGHT, n)).collect();
    for packet in &packets {
        two.left.send(packet, two.now);
    }
    assert!(two.left.sent.0.is_empty());
    assert_eq!(events(&mut two.left), [Happened::Initiates(None)]);
    assert_eq!(two.left.engine.counters().unsent, 0);
    let key = two.right.key();
    for to in [NOBODY, two.right.at] {
        two.left
            .engine
            .send_initiation(&key, to, &mut two.left.sent);
    }
    two.left.flush(two.now);
    two.settle();
    assert_eq!(two.right.got.0, packets);
    let at = two.right.at;
    assert_eq!(endpoint(&two.left, &two.right, &two), Some(at));
    assert!(events(&mut two.left).contains(&Happened::Heard(at)));
    assert!(two.answers(&packet(RIGHT, LEFT, 9)));
}

#[test]
fn a_packet_has_the_handshake_sent_again_that_is_under_way() {
    let mut two = strangers();
    let key = two.right.key();
    let sent = &mut two.left.sent;
    two.left.engine.begin_handshake(&key, two.now, sent);
    two.left.flush(two.now);
    assert_eq!(events(&mut two.left), [Happened::Initiates(None)]);
    two.now += SECOND;
    two.left.send(&packet(LEFT, RIGHT, 1), two.now);
    two.left.send(&packet(LEFT, RIGHT, 2), two.now);
    assert_eq!(events(&mut two.left), [Happened::Initiates(None)]);
}

/// With a session, and nothing left to tell.
fn acquainted() -> Two {
    let mut two = strangers();
    two.left.send(&packet(LEFT, RIGHT, 1), two.now);
    let (key, at) = (two.right.key(), two.right.at);
    two.left
        .engine
        .send_initiation(&key, at, &mut two.left.sent);
    two.left.flush(two.now);
    two.settle();
    events(&mut two.left);
    events(&mut two.right);
    two
}

#[test]
fn what_comes_by_another_way_is_told_and_moves_nothing_until_that_way_is_chosen() {
    let mut two = acquainted();
    let (key, before) = (two.left.key(), two.left.at);
    two.left.at = ([198, 51, 100, 1], 7).into();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    assert_eq!(endpoint(&two.right, &two.left, &two), Some(before));
    assert_eq!(events(&mut two.right)[0], Happened::Heard(two.left.at));
    two.right.engine.use_way(&key, two.left.at, two.now);
    assert!(two.answers(&packet(RIGHT, LEFT, 100)));
    // Whose way isn't chosen is where it was heard from.
    two.right.engine.choose_way(&key, false);
    two.left.at = before;
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    assert_eq!(endpoint(&two.right, &two.left, &two), Some(before));
}

#[test]
fn probes_go_within_the_session_by_any_way_and_reach_no_interface() {
    let mut two = acquainted();
    let (left, right) = (two.left.key(), two.right.key());
    let (from, at) = (two.left.at, two.right.at);
    let sent = &mut two.left.sent;
    let ask = Probe::Ask(77);
    assert!(two.left.engine.send_probe(&right, at, ask, two.now, sent));
    two.left.flush(two.now);
    assert!(
        two.left
            .sent
            .0
            .iter()
            .all(|(_, _, bytes)| bytes.len() <= 64)
    );
    let got = two.right.got.0.len();
    two.settle();
    assert_eq!(two.right.got.0.len(), got);
    assert_eq!(events(&mut two.right), [Happened::Probed(from, 77)]);
    assert_eq!(two.right.engine.counters(), Default::default());
    let reply = Probe::Reply(77);
    let sent = &mut two.right.sent;
    assert!(
        two.right
            .engine
            .send_probe(&left, from, reply, two.now, sent)
    );
    two.right.flush(two.now);
    two.settle();
    assert_eq!(events(&mut two.left), [Happened::Replied(at, 77)]);
    // They ask for no new session, and without one there are none.
    two.pass(Duration::from_secs(400));
    let sent = &mut two.left.sent;
    assert!(!two.left.engine.send_probe(&right, at, ask, two.now, sent));
}

#[test]
fn since_when_nothing_comes_is_told_now_and_then() {
    let mut two = acquainted();
    let heard = two.now;
    // Nobody has answered the first packet.
    two.now += SECOND;
    let began = two.now;
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    two.left.sent.0.clear();
    let traffic = |end: &mut End| match events(end)[..] {
        [.., Happened::Traffic(heard, unanswered)] => (heard, unanswered),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(traffic(&mut two.left), (Some(heard), Some(heard)));
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    assert_eq!(events(&mut two.left), []);
    two.now += SECOND;
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    assert_eq!(traffic(&mut two.left), (Some(heard), Some(heard)));
    two.settle();
    two.right.send(&packet(RIGHT, LEFT, 100), two.now);
    two.settle();
    let key = two.right.key();
    let now = two.left.engine.heard_by(&key);
    assert_eq!(now, (Some(began + SECOND), None));
}
