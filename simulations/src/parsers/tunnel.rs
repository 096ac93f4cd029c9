//! What reaches the tunnel's engine: datagrams of anybody, frames of this host's own
//! interface, and what `wg` asks.

use std::{
    io::IoSlice,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use innermesh_agent::host::tunnel::uapi::Request;
use innermesh_engine::{Engine, Inside, PeerSettings, Wire};

/// Any moment: the engine's time is given.
static NOW: LazyLock<Instant> = LazyLock::new(now);

#[allow(clippy::disallowed_methods, reason = "only differences are looked at")]
fn now() -> Instant {
    Instant::now()
}

#[derive(Default)]
struct Sent(Vec<(usize, Vec<u8>)>);

impl Wire for Sent {
    fn transmit(&mut self, _: SocketAddr, segment: usize, bytes: &[u8]) {
        self.0.push((segment, bytes.to_vec()));
    }
}

#[derive(Default)]
struct Got(Vec<Vec<u8>>);

impl Inside for Got {
    fn deliver(&mut self, parts: &[IoSlice<'_>]) {
        self.0
            .push(parts.iter().flat_map(|part| part.to_vec()).collect());
    }
}

/// An engine, and one beside it that is its peer.
struct Pair {
    engines: [Engine; 2],
    sent: Sent,
    got: Got,
}

const PLACES: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 51820), ([192, 0, 2, 2], 51820)];

impl Pair {
    fn new() -> Self {
        let unix = Duration::from_secs(1_700_000_000);
        let engine = |byte: u8| Engine::new([byte; 32], [byte + 50; 32], *NOW, unix);
        let mut engines = [engine(1), engine(2)];
        let keys = [engines[0].public_key(), engines[1].public_key()];
        for (engine, other) in engines.iter_mut().zip([1, 0]) {
            let net = format!("10.0.0.{}/32", other + 1);
            let settings = PeerSettings {
                allowed_ips: net.parse().into_iter().collect(),
                endpoint: Some(PLACES[other].into()),
                ..PeerSettings::default()
            };
            engine.add_peer(keys[other], settings, *NOW);
        }
        Self {
            engines,
            sent: Sent::default(),
            got: Got::default(),
        }
    }

    /// Has one send a packet to the other; what it sent.
    fn send(&mut self, from: usize) -> Vec<(usize, Vec<u8>)> {
        let mut packet = [0; 28];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17]);
        let (a, b) = if from == 0 { (1, 2) } else { (2, 1) };
        packet[12..20].copy_from_slice(&[10, 0, 0, a, 10, 0, 0, b]);
        let engine = &mut self.engines[from];
        let taken = engine.take_packet(&mut packet, *NOW, &mut self.sent);
        taken.expect("it is a packet");
        engine.flush(*NOW, &mut self.sent, &mut self.got);
        std::mem::take(&mut self.sent.0)
    }

    fn take(&mut self, to: usize, segment: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let from = PLACES[1 - to].into();
        let engine = &mut self.engines[to];
        engine.take_datagrams(from, bytes, segment, *NOW, &mut self.sent, &mut self.got);
        engine.flush(*NOW, &mut self.sent, &mut self.got);
        std::mem::take(&mut self.sent.0)
    }
}

/// What a peer sends first to the engine that [`datagram`] feeds, and its answer to what
/// that says: the seed.
pub fn recorded() -> Vec<u8> {
    let mut pair = Pair::new();
    let mut bytes = Vec::new();
    let mut note = |datagrams: &[(usize, Vec<u8>)]| {
        for (_, datagram) in datagrams {
            let length = u16::try_from(datagram.len()).unwrap_or(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(datagram);
        }
    };
    let initiation = pair.send(0);
    note(&initiation);
    for (segment, datagram) in initiation {
        for (segment, answer) in pair.take(1, segment, &datagram) {
            let data = pair.take(0, segment, &answer);
            note(&data);
        }
    }
    bytes
}

/// Datagrams, each with its length before it. Nothing comes through that a peer didn't
/// send.
pub fn datagram(mut bytes: &[u8]) {
    let mut pair = Pair::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (datagram, rest) = rest.split_at(length);
        let _ = pair.take(1, length.max(1), datagram);
        bytes = rest;
    }
    for frame in &pair.got.0 {
        let source = frame.get(22..26);
        assert_eq!(source, Some(&[10, 0, 0, 1][..]), "spoofed: {frame:?}");
    }
    assert_eq!(pair.engines[1].peers(*NOW).count(), 1);
}

/// A frame of the interface, with the kernel's header before it.
pub fn frame(bytes: &[u8]) {
    let mut pair = Pair::new();
    for (segment, datagram) in pair.send(0) {
        for (segment, answer) in pair.take(1, segment, &datagram) {
            let _ = pair.take(0, segment, &answer);
        }
    }
    let engine = &mut pair.engines[0];
    let _ = engine.take_frame(&mut bytes.to_vec(), *NOW, &mut pair.sent);
    let _ = engine.take_packet(&mut bytes.to_vec(), *NOW, &mut pair.sent);
    engine.flush(*NOW, &mut pair.sent, &mut pair.got);
    pair.got.0.clear();
    for (segment, burst) in std::mem::take(&mut pair.sent.0) {
        let _ = pair.take(1, segment, &burst);
    }
    assert_eq!(pair.engines[1].counters().forged, 0);
}

/// A request of `wg`.
pub fn wg(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Request>();
    }
}
