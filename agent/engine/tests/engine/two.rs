//! Two engines and the network between them, as values.

use std::{
    io::IoSlice,
    net::SocketAddr,
    time::{Duration, Instant},
};

use innermesh_engine::{Engine, Inside, PeerSettings, Wire};

/// Datagrams that were sent.
#[derive(Default)]
pub struct Sent(pub Vec<(SocketAddr, usize, Vec<u8>)>);

impl Wire for Sent {
    fn transmit(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]) {
        self.0.push((to, segment, bytes.to_vec()));
    }
}

/// Packets that came out, each by itself.
#[derive(Default)]
pub struct Got(pub Vec<Vec<u8>>);

impl Inside for Got {
    fn deliver(&mut self, parts: &[IoSlice<'_>]) {
        let packet = parts.iter().skip(1).flat_map(|part| part.to_vec());
        self.0.push(packet.collect());
    }

    fn joins_tcp(&self) -> bool {
        false
    }

    fn joins_udp(&self) -> bool {
        false
    }
}

pub struct End {
    pub engine: Engine,
    pub at: SocketAddr,
    pub sent: Sent,
    pub got: Got,
}

pub struct Two {
    pub now: Instant,
    pub left: End,
    pub right: End,
}

pub const LEFT: u8 = 1;
pub const RIGHT: u8 = 2;

impl End {
    #[allow(
        clippy::disallowed_methods,
        reason = "any moment will do to begin with"
    )]
    pub fn new(byte: u8, now: Instant) -> Self {
        Self::later(byte, now, Duration::ZERO)
    }

    /// One that was started that much later.
    pub fn later(byte: u8, now: Instant, later: Duration) -> Self {
        let unix = Duration::from_secs(1_700_000_000) + later;
        Self {
            engine: Engine::new([byte; 32], [byte ^ 0x55; 32], now, unix),
            at: ([192, 0, 2, byte], 51820).into(),
            sent: Sent::default(),
            got: Got::default(),
        }
    }

    /// The settings by which others reach it.
    pub fn peer(&self) -> PeerSettings {
        let byte = self.byte();
        PeerSettings {
            allowed_ips: [
                format!("10.0.0.{byte}/32").parse().unwrap(),
                format!("fd00::{byte}/128").parse().unwrap(),
            ]
            .into(),
            endpoint: Some(self.at),
            ..PeerSettings::default()
        }
    }

    fn byte(&self) -> u8 {
        match self.at.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        }
    }

    pub fn key(&self) -> [u8; 32] {
        self.engine.public_key()
    }

    pub fn send(&mut self, packet: &[u8], now: Instant) {
        let mut packet = packet.to_vec();
        self.engine
            .take_packet(&mut packet, now, &mut self.sent)
            .unwrap();
        self.flush(now);
    }

    pub fn flush(&mut self, now: Instant) {
        self.engine.flush(now, &mut self.sent, &mut self.got);
    }

    pub fn take(&mut self, from: SocketAddr, segment: usize, bytes: &[u8], now: Instant) {
        self.engine
            .take_datagrams(from, bytes, segment, now, &mut self.sent, &mut self.got);
        self.flush(now);
    }

    pub fn tick(&mut self, now: Instant) {
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now, &mut self.sent);
        }
    }
}

impl Two {
    /// Each has the other as its only peer.
    pub fn new() -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "any moment will do to begin with"
        )]
        let now = Instant::now();
        let (mut left, mut right) = (End::new(LEFT, now), End::new(RIGHT, now));
        left.engine.add_peer(right.key(), right.peer(), now);
        right.engine.add_peer(left.key(), left.peer(), now);
        left.flush(now);
        right.flush(now);
        Self { now, left, right }
    }

    /// Brings over what was sent until nothing is.
    pub fn settle(&mut self) {
        while !self.left.sent.0.is_empty() || !self.right.sent.0.is_empty() {
            for (to, segment, bytes) in std::mem::take(&mut self.left.sent.0) {
                if to == self.right.at {
                    self.right.take(self.left.at, segment, &bytes, self.now);
                }
            }
            for (to, segment, bytes) in std::mem::take(&mut self.right.sent.0) {
                if to == self.left.at {
                    self.left.take(self.right.at, segment, &bytes, self.now);
                }
            }
        }
    }

    /// Lets time pass, with the timers at theirs.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = [&self.left.engine, &self.right.engine]
                .into_iter()
                .filter_map(Engine::poll_timeout)
                .min()
                .filter(|at| *at < end);
            self.now = next.unwrap_or(end).max(self.now);
            self.left.tick(self.now);
            self.right.tick(self.now);
            self.settle();
            if next.is_none() {
                return;
            }
        }
    }

    /// Sends a packet from left to right; whether it came.
    pub fn passes(&mut self, packet: &[u8]) -> bool {
        self.left.send(packet, self.now);
        self.settle();
        std::mem::take(&mut self.right.got.0).contains(&packet.to_vec())
    }

    /// Sends one from right to left; whether it came.
    pub fn answers(&mut self, packet: &[u8]) -> bool {
        self.right.send(packet, self.now);
        self.settle();
        std::mem::take(&mut self.left.got.0).contains(&packet.to_vec())
    }
}

/// An IPv4 packet between two of the addresses, `length` bytes of payload.
pub fn packet(from: u8, to: u8, length: usize) -> Vec<u8> {
    let total = u16::try_from(20 + length).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 253, 0, 0];
    bytes.extend([10, 0, 0, from, 10, 0, 0, to]);
    bytes.extend((0..length).map(|n| n as u8));
    bytes
}

/// An IPv6 packet between two of the addresses.
pub fn packet_v6(from: u8, to: u8, length: usize) -> Vec<u8> {
    let total = u16::try_from(length).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, total[0], total[1], 253, 64];
    for byte in [from, to] {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte]);
    }
    bytes.extend((0..length).map(|n| n as u8));
    bytes
}
