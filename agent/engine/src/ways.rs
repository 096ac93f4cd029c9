//! Peers whose way is chosen by whoever drives the engine: it is told what was heard by
//! which way, and says where handshakes and probes go.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{engine::Engine, limits, outgoing::Wire, routes::Place};

/// What happened to a peer whose way is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The peer's key.
    pub key: [u8; 32],
    /// What it was.
    pub what: Happened,
}

/// See [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A handshake was begun, to be sent by [`Engine::send_initiation`]; when something
    /// came by the way in use last.
    Initiates(Option<Instant>),
    /// A packet or a handshake came by another way than that in use.
    Heard(SocketAddr),
    /// A probe came, to be answered by [`Engine::send_probe`].
    Probed(SocketAddr, u64),
    /// The answer to a probe came.
    Replied(SocketAddr, u64),
    /// Packets went by the way in use, told now and then: when something came by it last,
    /// and since when nothing has although packets were sent.
    Traffic(Option<Instant>, Option<Instant>),
}

/// A question whether a way works, or the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// To be answered by the way that it came.
    Ask(u64),
    /// The answer, with the question's number.
    Reply(u64),
}

/// The inner packet of a probe: no IP packet begins so, and other devices drop it.
const PROBE_BYTES: usize = 16;
const ASK: u8 = 1;
const REPLY: u8 = 2;

impl Probe {
    fn encode(self) -> [u8; PROBE_BYTES] {
        let (kind, number) = match self {
            Self::Ask(number) => (ASK, number),
            Self::Reply(number) => (REPLY, number),
        };
        let mut bytes = [0; PROBE_BYTES];
        bytes[1] = kind;
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; PROBE_BYTES] = packet.try_into().ok()?;
        let [0, kind, 0, 0, 0, 0, 0, 0, number @ ..] = packet else {
            return None;
        };
        let number = u64::from_be_bytes(*number);
        match *kind {
            ASK => Some(Self::Ask(number)),
            REPLY => Some(Self::Reply(number)),
            _ => None,
        }
    }
}

/// What a peer's way was chosen by.
#[derive(Default)]
pub(crate) struct Chosen {
    /// When something came by the way in use.
    pub(crate) heard: Option<Instant>,
    /// Since when packets were sent with nothing coming.
    pub(crate) unanswered: Option<Instant>,
    /// The handshake that is under way, and whether nobody was told of it yet.
    pub(crate) initiation: Vec<u8>,
    pub(crate) is_begun: bool,
    /// Whether packets passed that nobody was told of yet, and when that was done last.
    pub(crate) has_passed: bool,
    pub(crate) told: Option<Instant>,
}

impl Chosen {
    /// Whether something came by the way in use within `time`.
    pub(crate) fn is_heard(&self, time: Duration, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now < heard + time)
    }
}

/// Events that weren't taken yet.
#[derive(Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    /// The oldest go where nobody takes them.
    pub(crate) fn push(&mut self, event: Event) {
        if self.0.back() == Some(&event) {
            return;
        }
        if self.0.len() >= limits::EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }
}

impl Engine {
    /// Has a peer's way chosen from now on, or again by what comes from it.
    pub fn choose_way(&mut self, key: &[u8; 32], is_chosen: bool) {
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if !is_chosen {
            peer.chosen = None;
        } else if peer.chosen.is_none() {
            peer.chosen = Some(Chosen::default());
        }
    }

    /// What happened next to a peer whose way is chosen.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.0.pop_front()
    }

    /// Sends by that way from now on.
    pub fn use_way(&mut self, key: &[u8; 32], way: SocketAddr, now: Instant) {
        if let Some(peer) = self.peer_mut(key) {
            peer.settings.endpoint = Some(way);
            if let Some(chosen) = &mut peer.chosen {
                (chosen.heard, chosen.unanswered) = (Some(now), None);
            }
        }
    }

    /// By which way a peer is sent to.
    pub fn endpoint(&self, key: &[u8; 32]) -> Option<SocketAddr> {
        let place = self.by_key.get(key)?;
        self.peers.get(*place)?.as_ref()?.settings.endpoint
    }

    /// As [`Engine::endpoint`], where there is a session.
    pub fn way_in_use(&self, key: &[u8; 32], now: Instant) -> Option<SocketAddr> {
        let place = self.by_key.get(key)?;
        let peer = self.peers.get(*place)?.as_ref()?;
        let last = peer.last_handshake()?;
        (now < last + SESSION).then_some(peer.settings.endpoint)?
    }

    /// Begins a handshake, where none is under way and no session is young.
    pub fn begin_handshake(&mut self, key: &[u8; 32], now: Instant, wire: &mut impl Wire) {
        let Some(place) = self.by_key.get(key).copied() else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
            peer.initiate(now, &mut self.outgoing, wire);
        }
        self.touch(place);
    }

    /// Sends the handshake that is under way to a place, once more or for the first time.
    pub fn send_initiation(&mut self, key: &[u8; 32], to: SocketAddr, wire: &mut impl Wire) {
        let Some(place) = self.by_key.get(key).copied() else {
            return;
        };
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if let Some(chosen) = &peer.chosen
            && !chosen.initiation.is_empty()
        {
            peer.tx_bytes += chosen.initiation.len() as u64;
            self.outgoing.send(to, &chosen.initiation, wire);
        }
    }

    /// Sends a probe or its answer within the session; `false` where there is none.
    pub fn send_probe(
        &mut self,
        key: &[u8; 32],
        to: SocketAddr,
        probe: Probe,
        now: Instant,
        wire: &mut impl Wire,
    ) -> bool {
        let Some(place) = self.by_key.get(key).copied() else {
            return false;
        };
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) else {
            return false;
        };
        let is_sent = peer.send_within(to, &probe.encode(), now, &mut self.outgoing, wire);
        self.touch(place);
        is_sent
    }

    /// Whether there is an event.
    pub fn has_events(&self) -> bool {
        !self.events.0.is_empty()
    }

    /// As [`Happened::Traffic`], of this moment.
    pub fn heard_by(&self, key: &[u8; 32]) -> (Option<Instant>, Option<Instant>) {
        let place = self.by_key.get(key);
        let peer = place.and_then(|place| self.peers.get(*place)?.as_ref());
        let chosen = peer.and_then(|peer| peer.chosen.as_ref());
        chosen.map_or((None, None), |chosen| (chosen.heard, chosen.unanswered))
    }

    /// Tells what a batch left.
    pub(crate) fn tell(&mut self, place: Place, now: Instant) {
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let key = *peer.key.as_bytes();
        let Some(chosen) = &mut peer.chosen else {
            return;
        };
        let mut tell = |what| self.events.push(Event { key, what });
        if std::mem::take(&mut chosen.is_begun) {
            tell(Happened::Initiates(chosen.heard));
        }
        let is_due = chosen.told.is_none_or(|told| now >= told + TOLD);
        if is_due && std::mem::take(&mut chosen.has_passed) {
            chosen.told = Some(now);
            tell(Happened::Traffic(chosen.heard, chosen.unanswered));
        }
    }

    /// Tells what came from a peer.
    pub(crate) fn tell_heard(&mut self, place: Place, what: Happened) {
        if let Some(peer) = self.peers.get(place).and_then(Option::as_ref) {
            let key = *peer.key.as_bytes();
            self.events.push(Event { key, what });
        }
    }
}

/// How often it is told that packets pass.
const TOLD: Duration = Duration::from_millis(250);
/// For how long a way that something came by is one that works, where an answer comes by
/// another.
pub(crate) const FRESH: Duration = Duration::from_secs(3);
/// As [`FRESH`], where it is no answer: a session of the other's.
pub(crate) const SESSION: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_as_they_were_written_and_no_packet_is_one() {
        for probe in [Probe::Ask(7), Probe::Reply(u64::MAX)] {
            assert_eq!(Probe::decode(&probe.encode()), Some(probe));
        }
        let mut bytes = Probe::Ask(1).encode();
        for (place, value) in [(0, 0x45), (1, 3), (2, 1)] {
            let before = std::mem::replace(&mut bytes[place], value);
            assert_eq!(Probe::decode(&bytes), None);
            bytes[place] = before;
        }
        assert_eq!(Probe::decode(&bytes[..15]), None);
    }
}
