//! What strangers and hostile peers send: dropped, counted, and nothing changes.

use std::{net::SocketAddr, time::Duration};

use innermesh_engine::PeerSettings;
use proptest::prelude::*;

use crate::two::{End, LEFT, RIGHT, Two, packet};

#[test]
fn what_was_seen_is_not_taken_again() {
    let mut two = Two::new();
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    let (_, segment, initiation) = two.left.sent.0[0].clone();
    two.settle();
    two.right.got.0.clear();
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    let (_, length, data) = two.left.sent.0.pop().unwrap();
    two.right.take(two.left.at, length, &data, two.now);
    assert_eq!(two.right.got.0.len(), 1);
    for n in 1..=5 {
        two.right.take(two.left.at, length, &data, two.now);
        two.right.take(two.left.at, segment, &initiation, two.now);
        assert_eq!(two.right.engine.counters().replayed, 2 * n);
    }
    assert_eq!(two.right.got.0.len(), 1);
    assert!(two.right.sent.0.is_empty(), "no answer to a replay");
}

#[test]
fn copies_of_a_first_message_are_no_load() {
    let mut two = Two::new();
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    let (_, segment, initiation) = two.left.sent.0[0].clone();
    two.settle();
    for port in 1..=500 {
        let from = SocketAddr::new(two.left.at.ip(), port);
        two.right.take(from, segment, &initiation, two.now);
    }
    let counters = two.right.engine.counters();
    assert_eq!((counters.replayed, counters.cookies), (500, 0));
    // One that differs is another.
    let mut other = initiation.clone();
    other[50] ^= 1;
    two.right.take(two.left.at, segment, &other, two.now);
    assert_eq!(two.right.engine.counters().replayed, 500);
}

#[test]
fn packets_that_overtake_each_other_are_all_taken_once() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 1)));
    let mut sent = Vec::new();
    for n in 0..1000 {
        two.left.send(&packet(LEFT, RIGHT, n), two.now);
        sent.append(&mut two.left.sent.0);
    }
    for (_, segment, bytes) in sent.iter().rev().chain(&sent) {
        two.right.take(two.left.at, *segment, bytes, two.now);
    }
    assert_eq!(two.right.got.0.len(), 1000);
    assert_eq!(two.right.engine.counters().replayed, 1000);
}

#[test]
fn a_peer_speaks_for_its_own_addresses_alone() {
    let mut two = Two::new();
    let key = two.right.key();
    let others: PeerSettings = PeerSettings {
        allowed_ips: ["10.0.0.0/8".parse().unwrap()].into(),
        ..two.right.peer()
    };
    two.left.engine.add_peer(key, others, two.now);
    two.left.flush(two.now);
    for (n, from) in [RIGHT, 9, 0].into_iter().enumerate() {
        assert!(!two.passes(&packet(from, RIGHT, 100)));
        assert_eq!(two.right.engine.counters().spoofed, n as u64 + 1);
    }
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
}

#[test]
fn what_is_no_packet_is_dropped_though_it_is_authentic() {
    let mut two = Two::new();
    assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    // Longer than it is, in its own words.
    let mut long = packet(LEFT, RIGHT, 100);
    long[3] += 100;
    let mut taken = long.clone();
    taken.extend([0; 100]);
    two.left.send(&taken, two.now);
    two.settle();
    assert_eq!(two.right.got.0.pop(), Some(taken));
    let refused = two
        .left
        .engine
        .take_packet(&mut long, two.now, &mut two.left.sent);
    assert!(refused.is_err());
    assert_eq!(two.left.engine.counters().bad_frames, 1);
}

#[test]
fn strangers_get_no_answer_and_leave_nothing() {
    let mut two = Two::new();
    let mut stranger = End::new(77, two.now);
    let (key, peer) = (two.right.key(), two.right.peer());
    stranger.engine.add_peer(key, peer, two.now);
    stranger.flush(two.now);
    stranger.send(&packet(77, RIGHT, 100), two.now);
    let (_, segment, bytes) = stranger.sent.0.pop().unwrap();
    two.right.take(stranger.at, segment, &bytes, two.now);
    assert!(two.right.sent.0.is_empty());
    assert_eq!(two.right.engine.counters().unknown, 1);
    assert_eq!(two.right.engine.peers(two.now).count(), 1);
}

#[test]
fn a_flood_of_handshakes_is_answered_by_cookies_and_a_member_still_gets_through() {
    let mut two = Two::new();
    let mut strangers: Vec<End> = (0..50).map(|n| End::new(100 + n, two.now)).collect();
    let mut messages = Vec::new();
    for stranger in &mut strangers {
        let (key, peer) = (two.right.key(), two.right.peer());
        stranger.engine.add_peer(key, peer, two.now);
        stranger.flush(two.now);
        stranger.send(&packet(1, RIGHT, 100), two.now);
        messages.append(&mut stranger.sent.0);
    }
    let mut answered = 0;
    for n in 0..10_000u32 {
        let (_, segment, bytes) = &messages[n as usize % messages.len()];
        let [_, _, high, low] = n.to_be_bytes();
        let from: SocketAddr = ([203, 0, high, low], 9).into();
        two.right.take(from, *segment, bytes, two.now);
        answered += std::mem::take(&mut two.right.sent.0)
            .iter()
            .map(|(_, _, bytes)| bytes.len())
            .sum::<usize>();
    }
    let counters = two.right.engine.counters();
    assert_eq!(counters.cookies + counters.unknown, 10_000);
    assert!(counters.cookies >= 9_900, "{counters:?}");
    assert!(
        answered <= 148 * 10_000 / 2,
        "it answers more than half of it"
    );

    // Whoever is at the address that it says comes through by its cookie.
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    two.settle();
    assert!(two.right.got.0.is_empty(), "no cookie was asked for");
    let soon = two.now + Duration::from_secs(6);
    while two.now < soon && two.right.got.0.is_empty() {
        let (_, segment, bytes) = &messages[0];
        for _ in 0..200 {
            two.right
                .take(([203, 0, 113, 1], 9).into(), *segment, bytes, two.now);
        }
        two.right.sent.0.retain(|(to, _, _)| *to == two.left.at);
        two.pass(Duration::from_millis(500));
    }
    assert_eq!(two.right.got.0, [packet(LEFT, RIGHT, 100)]);
}

#[test]
fn one_source_gets_no_more_handshakes_under_load_than_its_share() {
    let mut two = Two::new();
    let mut member = 0;
    for n in 0..400 {
        let mut again = End::later(LEFT, two.now, Duration::from_millis(n * 20));
        let (key, peer) = (two.right.key(), two.right.peer());
        again.engine.add_peer(key, peer, two.now);
        again.flush(two.now);
        again.send(&packet(LEFT, RIGHT, 100), two.now);
        for (_, segment, bytes) in again.sent.0 {
            two.right.take(two.left.at, segment, &bytes, two.now);
        }
        member += two
            .right
            .sent
            .0
            .iter()
            .filter(|(_, _, b)| b.len() == 92)
            .count();
        two.right.sent.0.clear();
    }
    let cookies = two.right.engine.counters().cookies;
    assert_eq!((member, cookies), (100, 300));
}

proptest! {
    #[test]
    fn no_datagrams_make_it_panic_or_change_a_peer(
        datagrams in proptest::collection::vec(
            (0u8..6, proptest::collection::vec(any::<u8>(), 0..200)), 1..50),
        segment in 0usize..200,
    ) {
        let mut two = Two::new();
        prop_assert!(two.passes(&packet(LEFT, RIGHT, 100)));
        for (kind, mut bytes) in datagrams {
            if kind > 0 {
                let length = bytes.len().min(4);
                bytes.splice(0..length, [kind, 0, 0, 0]).for_each(drop);
            }
            two.right.take(([203, 0, 113, 1], 9).into(), segment, &bytes, two.now);
        }
        two.right.sent.0.clear();
        let peer = two.right.engine.peers(two.now).next().unwrap();
        prop_assert_eq!(peer.settings.endpoint, Some(two.left.at));
        prop_assert!(two.right.got.0.is_empty());
        prop_assert!(two.passes(&packet(LEFT, RIGHT, 100)));
    }

    #[test]
    fn a_changed_datagram_is_not_taken(at in 0usize..148, bit in 0u8..8) {
        let mut two = Two::new();
        prop_assert!(two.passes(&packet(LEFT, RIGHT, 1)));
        two.left.send(&packet(LEFT, RIGHT, 96), two.now);
        let (_, segment, mut bytes) = two.left.sent.0.pop().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        two.right.take(two.left.at, segment, &bytes, two.now);
        prop_assert!(two.right.got.0.is_empty());
        let counters = two.right.engine.counters();
        let all = counters.malformed + counters.unknown + counters.replayed + counters.forged;
        prop_assert_eq!(all, 1);
    }
}
