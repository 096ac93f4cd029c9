//! The device: its key, its peers, and what goes out through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sanstun::{Interface, PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    coalesce::{Coalescer, Inside},
    counters::Counters,
    inbound::Initiations,
    limits,
    outgoing::{Outgoing, Wire},
    peer::{Peer, Tunnels},
    routes::{Place, Routes},
    split::{BadFrame, Segments},
    ways::Events,
};

/// A WireGuard device. What it is given is worked off at once; what comes of it is
/// handed over at the latest by [`Engine::flush`], at the end of each batch.
pub struct Engine {
    pub(crate) interface: Interface,
    pub(crate) private_key: Zeroizing<[u8; 32]>,
    pub(crate) began: (Instant, Duration),
    pub(crate) peers: Vec<Option<Peer>>,
    pub(crate) by_key: BTreeMap<[u8; 32], Place>,
    pub(crate) tunnels: Tunnels,
    pub(crate) routes: Routes,
    pub(crate) due: BTreeSet<(Instant, Place)>,
    pub(crate) touched: Vec<Place>,
    pub(crate) outgoing: Outgoing,
    pub(crate) coalescer: Coalescer,
    pub(crate) counters: Counters,
    pub(crate) events: Events,
    pub(crate) initiations: Initiations,
}

impl Engine {
    /// A device without peers. `seed` is what all its randomness comes from, and `unix`
    /// the time since 1970 at `now`: a device that starts again with an earlier one is
    /// taken for a replay of itself.
    pub fn new(private_key: [u8; 32], seed: [u8; 32], now: Instant, unix: Duration) -> Self {
        let private_key = Zeroizing::new(private_key);
        Self {
            interface: interface(&private_key, seed, now, unix),
            private_key,
            began: (now, unix),
            peers: Vec::new(),
            by_key: BTreeMap::new(),
            tunnels: Tunnels::default(),
            routes: Routes::default(),
            due: BTreeSet::new(),
            touched: Vec::new(),
            outgoing: Outgoing::new(),
            coalescer: Coalescer::new(),
            counters: Counters::default(),
            events: Events::default(),
            initiations: Initiations::default(),
        }
    }

    /// Takes a frame from the interface, with the kernel's header before it.
    ///
    /// # Errors
    /// It isn't taken.
    pub fn take_frame(
        &mut self,
        frame: &mut [u8],
        now: Instant,
        wire: &mut impl Wire,
    ) -> Result<(), BadFrame> {
        self.take_segments(Segments::of_frame(frame), now, wire)
    }

    /// Takes a packet from an interface without offloads.
    ///
    /// # Errors
    /// It isn't taken.
    pub fn take_packet(
        &mut self,
        packet: &mut [u8],
        now: Instant,
        wire: &mut impl Wire,
    ) -> Result<(), BadFrame> {
        self.take_segments(Segments::of_packet(packet), now, wire)
    }

    fn take_segments(
        &mut self,
        segments: Result<Segments<'_>, BadFrame>,
        now: Instant,
        wire: &mut impl Wire,
    ) -> Result<(), BadFrame> {
        let mut segments = segments.inspect_err(|_| self.counters.bad_frames += 1)?;
        let Some(place) = self.routes.of(segments.packet().destination) else {
            self.counters.unrouted += 1;
            return Ok(());
        };
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
            while let Some(packet) = segments.next_packet() {
                if !peer.carry(packet, now, &mut self.outgoing, wire) {
                    self.counters.unsent += 1;
                }
            }
        }
        self.touch(place);
        Ok(())
    }

    /// Hands over what the batch left. To be called at the end of each, and after every
    /// change of peers.
    pub fn flush(&mut self, now: Instant, wire: &mut impl Wire, inside: &mut impl Inside) {
        self.coalescer.flush(inside);
        self.outgoing.flush(wire);
        while let Some(place) = self.touched.pop() {
            self.schedule(place, now);
        }
    }

    /// When [`Engine::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant, wire: &mut impl Wire) {
        while let Some((at, place)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, place));
            if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
                peer.wake = None;
                peer.handle_timeout(now, &mut self.outgoing, wire);
            }
            self.drain(place, now, wire);
            self.schedule(place, now);
        }
        self.outgoing.flush(wire);
    }

    /// What was dropped, since it is there.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Does what the peer's tunnels ask for.
    pub(crate) fn drain(&mut self, place: Place, now: Instant, wire: &mut impl Wire) {
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if peer.drain(now, &mut self.tunnels, &mut self.outgoing, wire) {
            peer.renew(place, &mut self.interface, &mut self.tunnels, now);
        }
    }

    /// Remembers that the peer's timers may have changed.
    pub(crate) fn touch(&mut self, place: Place) {
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut)
            && !std::mem::replace(&mut peer.is_touched, true)
        {
            self.touched.push(place);
        }
    }

    fn schedule(&mut self, place: Place, now: Instant) {
        self.tell(place, now);
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        peer.is_touched = false;
        let Some(next) = peer.next_timeout() else {
            return;
        };
        // One that is later is found when the earlier is looked at.
        let next = next.max(now + limits::TIMER_STEP);
        if peer.wake.is_none_or(|wake| next < wake) {
            if let Some(wake) = peer.wake.replace(next) {
                self.due.remove(&(wake, place));
            }
            self.due.insert((next, place));
        }
    }

    /// Gives the device another private key. Its peers stay; their sessions end.
    pub fn set_private_key(&mut self, private_key: [u8; 32], seed: [u8; 32], now: Instant) {
        self.private_key = Zeroizing::new(private_key);
        let (began, unix) = self.began;
        let unix = unix + now.duration_since(began);
        self.interface = interface(&self.private_key, seed, now, unix);
        for place in 0..self.peers.len() {
            if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
                peer.end(&mut self.tunnels);
                peer.renew(place, &mut self.interface, &mut self.tunnels, now);
            }
            self.touch(place);
        }
    }

    /// Its public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.interface.static_public().to_bytes()
    }

    /// Its private key.
    pub fn private_key(&self) -> Zeroizing<[u8; 32]> {
        self.private_key.clone()
    }

    pub(crate) fn place(&self, key: &PublicKey) -> Option<Place> {
        self.by_key.get(key.as_bytes()).copied()
    }
}

fn interface(
    private_key: &Zeroizing<[u8; 32]>,
    seed: [u8; 32],
    now: Instant,
    unix: Duration,
) -> Interface {
    Interface::new(Zeroizing::new(seed), now, unix)
        .with_static_private(StaticSecret::from(private_key.clone()))
        .with_handshake_limit(limits::HANDSHAKES_PER_SECOND)
}
