//! Has the engine send by the ways that selectors choose: brings them what the engine
//! heard, and does what they want within the node's budget.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use innermesh_engine::{Engine, Event, Happened, Probe, Wire};
use innermesh_proto::{
    path::{Budget, Heard, Output, Report, Selector, Via, Way},
    tunnel::TunnelKey,
};

use super::relayed::{Relayed, is_relay_place, relay_place};

type Key = [u8; 32];

/// The ways of all peers that choose theirs.
pub(super) struct Paths {
    began: Instant,
    peers: HashMap<Key, Peer>,
    /// When selectors are to be looked at.
    due: BTreeSet<(Duration, Key)>,
    budget: Budget,
    relayed: Relayed,
    /// Probes of the next peer are numbered from here on.
    numbers: u64,
}

struct Peer {
    selector: Selector,
    wake: Option<Duration>,
}

impl Paths {
    /// `numbers` is a random number.
    pub(super) fn new(relayed: Relayed, numbers: u64, now: Instant) -> Self {
        Self {
            began: now,
            peers: HashMap::new(),
            due: BTreeSet::new(),
            budget: Budget::new(Duration::ZERO),
            relayed,
            numbers,
        }
    }

    /// Whether a peer's way is chosen here.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.peers.contains_key(key)
    }

    /// How a peer's way stands.
    pub(super) fn report(&self, key: &Key, now: Instant) -> Option<Report> {
        let peer = self.peers.get(key)?;
        Some(peer.selector.report(self.time(now)))
    }

    /// How peers may be reached from now on.
    pub(super) fn set(
        &mut self,
        ways: &BTreeMap<TunnelKey, Way>,
        engine: &mut Engine,
        wire: &mut impl Wire,
        now: Instant,
    ) {
        let gone: Vec<Key> = self
            .peers
            .keys()
            .filter(|key| !ways.contains_key(&TunnelKey(**key)) || !engine.has_peer(key))
            .copied()
            .collect();
        for key in gone {
            engine.choose_way(&key, false);
            if let Some(Peer { wake: Some(at), .. }) = self.peers.remove(&key) {
                self.due.remove(&(at, key));
            }
        }
        let time = self.time(now);
        for (TunnelKey(key), way) in ways {
            if !engine.has_peer(key) {
                continue;
            }
            engine.choose_way(key, true);
            if !self.peers.contains_key(key) {
                self.numbers = self.numbers.wrapping_add(1 << 32);
                let mut selector = Selector::new(self.numbers);
                // What worked until now is where it begins.
                if let Some(at) = engine.way_in_use(key, now) {
                    selector.heard(via(at), Heard::Traffic, time);
                }
                let peer = Peer {
                    selector,
                    wake: None,
                };
                self.peers.insert(*key, peer);
            }
            if let Some(peer) = self.peers.get_mut(key) {
                let selector = &mut peer.selector;
                selector.set_remote(&way.candidates, way.relay.is_some(), time);
            }
            self.carry_out(key, engine, wire, now);
        }
    }

    /// The peer looks for this node.
    pub(super) fn punch(
        &mut self,
        key: &Key,
        engine: &mut Engine,
        wire: &mut impl Wire,
        now: Instant,
    ) {
        let time = self.time(now);
        let peer = self.peers.get_mut(key);
        if peer.is_some_and(|peer| peer.selector.punch(time)) {
            engine.begin_handshake(key, now, wire);
        }
    }

    /// Takes in what the engine heard; whether that was anything.
    pub(super) fn follow(
        &mut self,
        engine: &mut Engine,
        wire: &mut impl Wire,
        now: Instant,
    ) -> bool {
        let mut is_any = false;
        while let Some(Event { key, what }) = engine.poll_event() {
            self.take(&key, what, engine, wire, now);
            self.carry_out(&key, engine, wire, now);
            is_any = true;
        }
        is_any
    }

    fn take(
        &mut self,
        key: &Key,
        what: Happened,
        engine: &mut Engine,
        wire: &mut impl Wire,
        now: Instant,
    ) {
        let time = self.time(now);
        let began = self.began;
        let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(began));
        let Some(peer) = self.peers.get_mut(key) else {
            // The other end chooses; this one follows what it hears.
            if let Happened::Probed(from, number) = what {
                engine.send_probe(key, from, Probe::Reply(number), now, wire);
            }
            return;
        };
        let selector = &mut peer.selector;
        let heard = match what {
            Happened::Initiates(heard) => {
                selector.handshake(since(heard), time);
                return;
            }
            Happened::Traffic(heard, unanswered) => {
                // A handshake that was under way before this was here.
                let at = engine.way_in_use(key, now);
                if let Some(at) = at.filter(|_| selector.in_use().is_none()) {
                    selector.heard(via(at), Heard::Traffic, time);
                }
                selector.traffic(since(heard), since(unanswered), time);
                return;
            }
            Happened::Heard(from) => (from, Heard::Traffic),
            Happened::Probed(from, number) => (from, Heard::Probe(number)),
            Happened::Replied(from, number) => (from, Heard::Reply(number)),
        };
        let (from, what) = heard;
        if !is_relay_place(&from) {
            self.budget.answered(from);
        }
        selector.heard(via(from), what, time);
        // The engine goes by itself where it has no better idea.
        if let Some(in_use) = selector.in_use() {
            let place = place(key, in_use);
            if engine.endpoint(key) != Some(place) {
                engine.use_way(key, place, now);
            }
        }
    }

    /// Does what a selector wants.
    fn carry_out(&mut self, key: &Key, engine: &mut Engine, wire: &mut impl Wire, now: Instant) {
        let time = self.time(now);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        while let Some(output) = peer.selector.poll_output() {
            let budget = &mut self.budget;
            let mut may = |via| match via {
                Via::Direct(to) => budget.take(to, time),
                Via::Relay => true,
            };
            match output {
                Output::Handshake(via) if may(via) => {
                    engine.send_initiation(key, place(key, via), wire);
                }
                Output::Probe(via, number) if may(via) => {
                    engine.send_probe(key, place(key, via), Probe::Ask(number), now, wire);
                }
                Output::Handshake(_) | Output::Probe(..) => {}
                Output::Reply(via, number) => {
                    engine.send_probe(key, place(key, via), Probe::Reply(number), now, wire);
                }
                Output::Use(via) => engine.use_way(key, place(key, via), now),
                Output::AskPunch => self.relayed.ask_punch(TunnelKey(*key)),
            }
        }
        let next = peer.selector.poll_timeout();
        if next != peer.wake {
            if let Some(at) = std::mem::replace(&mut peer.wake, next) {
                self.due.remove(&(at, *key));
            }
            self.due.extend(next.map(|at| (at, *key)));
        }
    }

    /// When [`Paths::handle_timeout`] is to be called at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| self.began + *at)
    }

    /// Does what is due; whether anything was.
    pub(super) fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        wire: &mut impl Wire,
        now: Instant,
    ) -> bool {
        let time = self.time(now);
        let mut is_any = false;
        while let Some((at, key)) = self.due.first().copied().filter(|(at, _)| *at <= time) {
            self.due.remove(&(at, key));
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.wake = None;
                let since = |at: Instant| at.saturating_duration_since(self.began);
                let (heard, unanswered) = engine.heard_by(&key);
                let selector = &mut peer.selector;
                selector.refresh(heard.map(since), unanswered.map(since));
                selector.handle_timeout(time);
            }
            self.carry_out(&key, engine, wire, now);
            is_any = true;
        }
        is_any
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

fn via(place: SocketAddr) -> Via {
    if is_relay_place(&place) {
        Via::Relay
    } else {
        Via::Direct(SocketAddr::new(place.ip().to_canonical(), place.port()))
    }
}

fn place(key: &Key, via: Via) -> SocketAddr {
    match via {
        Via::Direct(to) => to,
        Via::Relay => relay_place(&TunnelKey(*key)),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any moment to begin with")]
mod tests {
    use innermesh_engine::{Inside, PeerSettings};
    use innermesh_proto::id::NodeId;

    use super::*;

    #[derive(Default)]
    struct Sent(Vec<(SocketAddr, Vec<u8>)>);

    impl Wire for Sent {
        fn transmit(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]) {
            for datagram in bytes.chunks(segment) {
                self.0.push((to, datagram.to_vec()));
            }
        }
    }

    struct Nothing;

    impl Inside for Nothing {
        fn deliver(&mut self, _parts: &[std::io::IoSlice<'_>]) {}

        fn joins_tcp(&self) -> bool {
            false
        }

        fn joins_udp(&self) -> bool {
            false
        }
    }

    /// An end with its peer at the other's address.
    struct End {
        engine: Engine,
        paths: Paths,
        sent: Sent,
        at: SocketAddr,
        peer: Key,
    }

    impl End {
        fn new(byte: u8, other: u8, now: Instant) -> Self {
            let unix = Duration::from_secs(1_700_000_000);
            let at = |byte: u8| SocketAddr::from(([192, 0, 2, byte], 51820));
            let mut engine = Engine::new([byte; 32], [byte; 32], now, unix);
            let peer = Engine::new([other; 32], [other; 32], now, unix).public_key();
            let settings = PeerSettings {
                allowed_ips: [format!("10.0.0.{other}/32").parse().unwrap()].into(),
                endpoint: Some(at(other)),
                ..PeerSettings::default()
            };
            engine.add_peer(peer, settings, now);
            Self {
                engine,
                paths: Paths::new(Relayed::default(), 0, now),
                sent: Sent::default(),
                at: at(byte),
                peer,
            }
        }

        fn choose(&mut self, now: Instant) {
            let way = Way {
                node: NodeId([1; 16]),
                candidates: Vec::new(),
                relay: None,
            };
            let ways = [(TunnelKey(self.peer), way)].into();
            self.paths.set(&ways, &mut self.engine, &mut self.sent, now);
        }

        fn flush(&mut self, now: Instant) {
            self.engine.flush(now, &mut self.sent, &mut Nothing);
            self.paths.follow(&mut self.engine, &mut self.sent, now);
            self.engine.flush(now, &mut self.sent, &mut Nothing);
        }

        fn send(&mut self, from: u8, to: u8, now: Instant) {
            let mut packet = [0; 20];
            (packet[0], packet[3]) = (0x45, 20);
            packet[12..].copy_from_slice(&[10, 0, 0, from, 10, 0, 0, to]);
            let taken = self.engine.take_packet(&mut packet, now, &mut self.sent);
            taken.unwrap();
            self.flush(now);
        }
    }

    fn settle(ends: &mut [End; 2], now: Instant) {
        while ends.iter().any(|end| !end.sent.0.is_empty()) {
            for n in 0..2 {
                let from = ends[n].at;
                for (to, datagram) in std::mem::take(&mut ends[n].sent.0) {
                    let other = &mut ends[1 - n];
                    assert_eq!(to, other.at);
                    other.engine.take_datagrams(
                        from,
                        &datagram,
                        datagram.len(),
                        now,
                        &mut other.sent,
                        &mut Nothing,
                    );
                    other.flush(now);
                }
            }
        }
    }

    #[test]
    fn a_way_that_was_there_before_it_was_chosen_is_the_one_in_use() {
        let now = Instant::now();
        for chosen_before in [false, true] {
            let mut ends = [End::new(1, 2, now), End::new(2, 1, now)];
            // The handshake is under way, or done.
            ends[0].send(1, 2, now);
            if !chosen_before {
                settle(&mut ends, now);
            }
            for end in &mut ends {
                end.choose(now);
            }
            settle(&mut ends, now);
            for (n, from, to) in [(0, 1, 2), (1, 2, 1)] {
                ends[n].send(from, to, now);
                settle(&mut ends, now);
            }
            for n in 0..2 {
                let report = ends[n].paths.report(&ends[n].peer, now).unwrap();
                let via = Some(Via::Direct(ends[1 - n].at));
                assert_eq!(report.via, via, "{chosen_before}");
            }
        }
    }
}
