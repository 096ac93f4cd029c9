//! The engine against gotatun's WireGuard, which was audited: whatever the order of
//! packets, both take the same.

use std::sync::Arc;

use bytes::BytesMut;
use gotatun::{
    noise::{Tunn, TunnResult, index_table::IndexTable, rate_limiter::RateLimiter},
    packet::{Packet, WgKind},
    x25519::{PublicKey, StaticSecret},
};
use innermesh_engine::PeerSettings;
use proptest::prelude::*;

use crate::two::{End, LEFT, RIGHT, Two, packet};

const SECRET: [u8; 32] = [5; 32];

struct Other {
    tunnel: Tunn,
    got: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Other {
    fn new(engine: &End, secret: Option<[u8; 32]>) -> Self {
        let own = StaticSecret::from([RIGHT; 32]);
        let public = PublicKey::from(&own);
        let limiter = Arc::new(RateLimiter::new(&public, 1_000_000));
        let indices = IndexTable::from_os_rng();
        let theirs = PublicKey::from(engine.key());
        Self {
            tunnel: Tunn::new(own, theirs, secret, None, indices, limiter),
            got: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let packet = Packet::from_bytes(BytesMut::from(bytes));
        let Ok(message) = packet.try_into_wg() else {
            return;
        };
        match self.tunnel.handle_incoming_packet(message) {
            TunnResult::WriteToNetwork(message) => self.note(message),
            TunnResult::WriteToTunnel(packet) => {
                if !packet.is_empty() {
                    self.got.push(packet.to_vec());
                }
            }
            TunnResult::Done | TunnResult::Err(_) => {}
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let packet = Packet::from_bytes(BytesMut::from(bytes));
        if let Some(message) = self.tunnel.handle_outgoing_packet(packet, None) {
            self.note(message);
        }
    }

    fn note(&mut self, message: WgKind) {
        let packet: Packet = message.into();
        self.sent.push(packet.to_vec());
    }
}

/// An engine and the other, with a session that `engine` or the other began.
fn connected(secret: Option<[u8; 32]>, by_engine: bool) -> (Two, Other) {
    let mut two = Two::new();
    let mut other = Other::new(&two.left, secret);
    let settings = PeerSettings {
        preshared_key: secret.map(Into::into),
        ..two.right.peer()
    };
    let key = two.right.key();
    two.left.engine.add_peer(key, settings, two.now);
    two.left.flush(two.now);
    if by_engine {
        two.left.send(&packet(LEFT, RIGHT, 1), two.now);
    } else {
        other.send(&packet(RIGHT, LEFT, 1));
    }
    exchange(&mut two, &mut other);
    // gotatun keeps the packet that asked for the session until its queue is asked for.
    if !by_engine {
        other.send(&packet(RIGHT, LEFT, 1));
        exchange(&mut two, &mut other);
    }
    two.left.got.0.clear();
    other.got.clear();
    (two, other)
}

fn exchange(two: &mut Two, other: &mut Other) {
    while !two.left.sent.0.is_empty() || !other.sent.is_empty() {
        for (_, segment, bytes) in std::mem::take(&mut two.left.sent.0) {
            for datagram in bytes.chunks(segment) {
                other.take(datagram);
            }
        }
        for bytes in std::mem::take(&mut other.sent) {
            two.left.take(two.right.at, bytes.len(), &bytes, two.now);
        }
    }
}

#[test]
fn each_begins_and_answers_handshakes_of_the_other_with_and_without_a_secret() {
    for by_engine in [true, false] {
        for secret in [None, Some(SECRET)] {
            let (mut two, mut other) = connected(secret, by_engine);
            two.left.send(&packet(LEFT, RIGHT, 1000), two.now);
            other.send(&packet(RIGHT, LEFT, 1000));
            exchange(&mut two, &mut other);
            // The engine pads, and the other leaves that to whoever reads the packet.
            let got = other.got.pop().expect("it came");
            assert_eq!(got[..1020], packet(LEFT, RIGHT, 1000));
            assert_eq!(two.left.got.0, [packet(RIGHT, LEFT, 1000)]);
        }
    }
}

#[test]
fn a_different_secret_makes_no_session() {
    let (mut two, mut other) = connected(Some(SECRET), true);
    let key = two.right.key();
    two.left
        .engine
        .set_private_key([LEFT; 32], [9; 32], two.now);
    two.left
        .engine
        .set_preshared_key(&key, Some([6; 32].into()), two.now);
    two.left.flush(two.now);
    two.left.send(&packet(LEFT, RIGHT, 100), two.now);
    exchange(&mut two, &mut other);
    assert!(other.got.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn both_take_the_same_packets_of_any_sequence(
        by_engine in any::<bool>(),
        lengths in proptest::collection::vec(1usize..1400, 1..60),
        order in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..120),
    ) {
        let (mut two, mut other) = connected(None, by_engine);
        let mut to_other = Vec::new();
        let mut to_engine = Vec::new();
        for length in &lengths {
            two.left.send(&packet(LEFT, RIGHT, *length), two.now);
            let all = std::mem::take(&mut two.left.sent.0);
            to_other.extend(all.into_iter().map(|(_, _, bytes)| bytes));
            other.send(&packet(RIGHT, LEFT, *length));
            to_engine.append(&mut other.sent);
        }
        prop_assert_eq!(to_other.len(), lengths.len());
        prop_assert_eq!(to_engine.len(), lengths.len());
        // Lost, doubled, swapped and damaged, the same for both.
        for (index, fault) in order {
            let mut a = index.get(&to_other).clone();
            let mut b = index.get(&to_engine).clone();
            if fault == 0 {
                for bytes in [&mut a, &mut b] {
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                }
            }
            let before = (other.got.len(), two.left.got.0.len());
            other.take(&a);
            two.left.take(two.right.at, b.len(), &b, two.now);
            let after = (other.got.len(), two.left.got.0.len());
            prop_assert_eq!(after.0 - before.0, after.1 - before.1);
        }
    }
}
