//! What an engine does for its peers, between two of them and against gotatun's.

mod gotatun;
mod safety;
mod two;
mod ways;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use innermesh_engine::{Engine, FirstMac, PeerSettings};

use crate::two::{End, LEFT, RIGHT, Two, packet, packet_v6};

const SECOND: Duration = Duration::from_secs(1);

fn reading(end: &End, other: &End, now: Instant) -> innermesh_engine::PeerReading {
    let key = other.key();
    let mut peers = end.engine.peers(now);
    peers.find(|peer| peer.key == key).unwrap()
}

#[test]
fn a_first_message_tells_whom_it_is_for_and_nothing_else_does() {
    let mut two = Two::new();
    two.left.send(&packet(LEFT, RIGHT, 1), two.now);
    let [(_, _, first)] = two.left.sent.0.as_slice() else {
        panic!("one initiation");
    };
    let first = first.clone();
    let (left, right) = (
        FirstMac::new(&two.left.key()),
        FirstMac::new(&two.right.key()),
    );
    assert!(right.is_of(&first) && !left.is_of(&first));
    for at in [4, 100, 115, 116, 131] {
        let mut changed = first.clone();
        changed[at] ^= 1;
        assert!(!right.is_of(&changed), "byte {at}");
    }
    assert!(!right.is_of(&first[..147]) && !right.is_of(&[first.as_slice(), &[0]].concat()));
}

#[test]
fn the_first_packets_wait_for_the_handshake_and_come_in_their_order() {
    let mut two = Two::new();
    let packets: Vec<Vec<u8>> = (1..100).map(|n| packet(LEFT, RIGHT, n)).collect();
    for packet in &packets {
        two.left.send(packet, two.now);
    }
    assert_eq!(two.left.sent.0.len(), 1, "one initiation");
    two.settle();
    assert_eq!(two.right.got.0, packets);
    assert!(two.answers(&packet_v6(RIGHT, LEFT, 7)));
    for (end, other) in [(&two.left, &two.right), (&two.right, &two.left)] {
        let peer = reading(end, other, two.now + SECOND);
        assert_eq!(peer.last_handshake, Some(SECOND));
        assert!(peer.rx_bytes > 0 && peer.tx_bytes > 0);
    }
    let (left, right) = (
        reading(&two.left, &two.right, two.now),
        reading(&two.right, &two.left, two.now),
    );
    assert_eq!(
        (left.tx_bytes, left.rx_bytes),
        (right.rx_bytes, right.tx_bytes)
    );
}

#[test]
fn the_oldest_of_too_many_that_wait_are_dropped_and_counted() {
    let mut two = Two::new();
    for n in 1..=200 {
        two.left.send(&packet(LEFT, RIGHT, n), two.now);
    }
    assert_eq!(two.left.engine.counters().unsent, 72);
    two.settle();
    assert_eq!(two.right.got.0.len(), 128);
    assert_eq!(two.right.got.0[0], packet(LEFT, RIGHT, 73));
}

#[test]
fn sessions_are_renewed_under_traffic_without_a_loss() {
    let mut two = Two::new();
    for second in 0..600 {
        assert!(two.passes(&packet(LEFT, RIGHT, 100)), "at {second} s");
        assert!(two.answers(&packet(RIGHT, LEFT, 100)), "at {second} s");
        two.pass(SECOND);
        let age = reading(&two.left, &two.right, two.now).last_handshake;
        assert!(age.unwrap() < Duration::from_secs(125), "{age:?}");
    }
    assert_eq!(two.left.engine.counters(), Default::default());
}

#[test]
fn a_peer_without_traffic_and_keepalive_is_silent() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    two.pass(Duration::from_secs(200));
    let before = reading(&two.left, &two.right, two.now).tx_bytes;
    two.pass(Duration::from_secs(3600));
    let after = reading(&two.left, &two.right, two.now).tx_bytes;
    assert_eq!(before, after);
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
}

#[test]
fn a_keepalive_keeps_a_session_that_nobody_uses_and_makes_the_first() {
    let mut two = Two::new();
    let settings = PeerSettings {
        keepalive_s: Some(25),
        ..two.right.peer()
    };
    two.left.engine.add_peer(two.right.key(), settings, two.now);
    two.left.flush(two.now);
    two.pass(SECOND);
    assert!(
        reading(&two.right, &two.left, two.now)
            .last_handshake
            .is_some()
    );
    for _ in 0..20 {
        let before = reading(&two.right, &two.left, two.now).rx_bytes;
        two.pass(Duration::from_secs(60));
        let peer = reading(&two.right, &two.left, two.now);
        assert!(
            peer.rx_bytes >= before + 64,
            "{} after {before}",
            peer.rx_bytes
        );
        assert!(peer.last_handshake.unwrap() < Duration::from_secs(200));
    }
}

#[test]
fn a_keepalive_that_is_set_later_begins_and_ends_without_disturbing_the_session() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    for (seconds, is_alive) in [(Some(25), true), (None, false)] {
        let key = two.right.key();
        two.left.engine.set_keepalive(&key, seconds, two.now);
        two.left.flush(two.now);
        assert!(two.passes(&packet(LEFT, RIGHT, 100)));
        assert!(two.answers(&packet(RIGHT, LEFT, 100)));
        two.pass(Duration::from_secs(300));
        let before = reading(&two.left, &two.right, two.now).tx_bytes;
        two.pass(Duration::from_secs(100));
        let after = reading(&two.left, &two.right, two.now).tx_bytes;
        assert_eq!(after > before, is_alive);
        assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    }
}

#[test]
fn a_secret_at_one_end_keeps_the_session_and_at_both_ends_is_used_by_the_next() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    let secret = Some([7; 32].into());
    let (left, right) = (two.left.key(), two.right.key());
    two.left
        .engine
        .set_preshared_key(&right, secret.clone(), two.now);
    two.left.flush(two.now);
    for _ in 0..60 {
        assert!(two.passes(&packet(LEFT, RIGHT, 100)));
        assert!(two.answers(&packet(RIGHT, LEFT, 100)));
        two.pass(SECOND);
    }
    two.right.engine.set_preshared_key(&left, secret, two.now);
    two.right.flush(two.now);
    for _ in 0..200 {
        assert!(two.passes(&packet(LEFT, RIGHT, 100)));
        assert!(two.answers(&packet(RIGHT, LEFT, 100)));
        two.pass(SECOND);
    }
    // By that secret alone: without it no handshake comes about.
    two.left.engine.set_preshared_key(&right, None, two.now);
    two.left.flush(two.now);
    two.pass(Duration::from_secs(300));
    assert!(!two.passes(&packet(LEFT, RIGHT, 100)));
}

#[test]
fn a_new_secret_at_one_end_after_the_other_costs_no_packet_and_is_used_within_seconds() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    let (left, right) = (two.left.key(), two.right.key());
    let step = Duration::from_millis(20);
    for day in 1..=3_u8 {
        let secret = Some([day; 32].into());
        two.right
            .engine
            .set_preshared_key(&left, secret.clone(), two.now);
        two.right.flush(two.now);
        let changed = two.now;
        for n in 0..500 {
            if n == 5 {
                two.left
                    .engine
                    .set_preshared_key(&right, secret.clone(), two.now);
                two.left.flush(two.now);
            }
            assert!(two.passes(&packet(LEFT, RIGHT, 100)), "{day} {n}");
            assert!(two.answers(&packet(RIGHT, LEFT, 100)), "{day} {n}");
            two.pass(step);
        }
        let age = reading(&two.left, &two.right, two.now).last_handshake;
        let shook = two.now - age.unwrap();
        assert!(shook > changed && shook < changed + 3 * SECOND, "{day}");
        two.pass(Duration::from_secs(200));
        assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    }
}

#[test]
fn another_private_key_ends_the_sessions_and_the_next_packet_makes_new_ones() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    let old = two.left.key();
    two.left.engine.set_private_key([9; 32], [77; 32], two.now);
    two.left.flush(two.now);
    assert_ne!(two.left.key(), old);
    assert!(!two.passes(&packet(LEFT, RIGHT, 100)), "unknown there");
    let (key, peer) = (two.left.key(), two.left.peer());
    two.right.engine.add_peer(key, peer, two.now);
    two.right.flush(two.now);
    two.pass(Duration::from_secs(6));
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    assert!(two.answers(&packet(RIGHT, LEFT, 100)));
}

#[test]
fn who_roams_is_found_at_its_new_address_and_nobody_else_is() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    two.left.at = ([198, 51, 100, 1], 7).into();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    let endpoint = reading(&two.right, &two.left, two.now).settings.endpoint;
    assert_eq!(endpoint, Some(two.left.at));
    assert!(two.answers(&packet(RIGHT, LEFT, 100)));

    // What somebody sends again from elsewhere moves nothing.
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    let (_, segment, bytes) = two.left.sent.0.pop().unwrap();
    two.right.take(two.left.at, segment, &bytes, two.now);
    let elsewhere = ([203, 0, 113, 1], 9).into();
    two.right.take(elsewhere, segment, &bytes, two.now);
    let endpoint = reading(&two.right, &two.left, two.now).settings.endpoint;
    assert_eq!(endpoint, Some(two.left.at));
}

#[test]
fn a_peer_whose_address_is_not_known_is_reached_once_it_has_called() {
    let mut two = Two::new();
    let settings = PeerSettings {
        endpoint: None,
        ..two.left.peer()
    };
    let key = two.left.key();
    two.right.engine.add_peer(key, settings, two.now);
    two.right.flush(two.now);
    two.pass(Duration::from_secs(400));
    assert!(!two.answers(&packet(RIGHT, LEFT, 100)));
    assert_eq!(two.right.engine.counters().unsent, 1);
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    assert!(two.answers(&packet(RIGHT, LEFT, 100)));
    let age = reading(&two.right, &two.left, two.now).last_handshake;
    assert_eq!(age, Some(Duration::ZERO));
}

#[test]
fn networks_that_are_taken_or_given_count_at_once_and_sessions_stay() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    let key = two.left.key();
    two.right.engine.set_allowed(&key, BTreeSet::new());
    assert!(!two.passes(&packet(LEFT, RIGHT, 100)));
    assert_eq!(two.right.engine.counters().spoofed, 1);
    let nets = two.left.peer().allowed_ips;
    two.right.engine.allow(&key, nets.clone());
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    // Another gets them: they are that one's alone.
    let heir = PeerSettings {
        allowed_ips: nets,
        ..PeerSettings::default()
    };
    two.right.engine.add_peer([8; 32], heir, two.now);
    assert!(!two.passes(&packet(LEFT, RIGHT, 100)));
    let left = reading(&two.right, &two.left, two.now);
    assert!(left.settings.allowed_ips.is_empty());
    assert!(two.right.engine.remove_peer(&[8; 32]));
    assert!(!two.right.engine.remove_peer(&[8; 32]));
}

#[test]
fn a_peer_that_was_away_for_long_is_reached_again() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    let at = two.right.at;
    two.right.at = ([203, 0, 113, 5], 5).into();
    for _ in 0..400 {
        two.left.send(&packet(LEFT, RIGHT, 100), two.now);
        two.pass(SECOND);
    }
    two.right.at = at;
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    two.pass(Duration::from_secs(6));
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
}

#[test]
fn a_key_that_no_handshake_can_be_made_with_harms_nobody() {
    let mut two = Two::new();
    let settings = PeerSettings {
        allowed_ips: ["10.0.0.9/32".parse().unwrap()].into(),
        endpoint: Some(two.right.at),
        keepalive_s: Some(1),
        preshared_key: None,
    };
    two.left.engine.add_peer([0; 32], settings, two.now);
    two.left.flush(two.now);
    two.left.send(&packet(LEFT, 9, 100), two.now);
    two.pass(Duration::from_secs(10));
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    assert_eq!(two.left.engine.counters().unsent, 1);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut two = Two::new();
        two.left.send(&packet(LEFT, RIGHT, 100), two.now);
        let initiation = two.left.sent.0.clone();
        two.settle();
        two.left.send(&packet(LEFT, RIGHT, 100), two.now);
        (initiation, two.left.sent.0)
    };
    assert_eq!(run(), run());
}

#[test]
fn one_of_a_thousand_peers_changes_without_the_others() {
    let mut two = Two::new();
    for n in 0..1000u32 {
        let mut key = [3; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let [_, _, high, low] = n.to_be_bytes();
        let settings = PeerSettings {
            allowed_ips: [format!("10.1.{high}.{low}/32").parse().unwrap()].into(),
            endpoint: Some(([198, 51, 100, low], 1).into()),
            ..PeerSettings::default()
        };
        two.left.engine.add_peer(key, settings, two.now);
    }
    two.left.flush(two.now);
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    for n in 0..1000u32 {
        let mut key = [3; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        assert!(two.left.engine.remove_peer(&key));
        assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    }
    assert_eq!(two.left.engine.peers(two.now).count(), 1);
    fn is_send<T: Send>() {}
    is_send::<Engine>();
}
