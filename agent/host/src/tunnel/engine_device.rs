//! The engine with the ways of its peers: what came goes in, what is to be sent comes
//! out, and time is given. The embedded device drives one with sockets and a TUN
//! interface, the simulation one with its own network.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use innermesh_engine::{BadFrame, Engine, Inside, PeerReading, PeerSettings, Wire};
use innermesh_proto::{
    path::{Report, Way},
    tunnel::{InstalledPeer, PresharedKey, Step, TunnelKey, TunnelPeer},
};

use super::{PeerState, device, paths::Paths, relayed::Relayed};

/// What an [`EngineDevice`] begins with.
pub struct Beginning {
    /// The device's WireGuard key.
    pub private_key: [u8; 32],
    /// What all its randomness comes from.
    pub seed: [u8; 32],
    /// The first number of its probes.
    pub number: u64,
    /// The time since 1970.
    pub unix: Duration,
    /// What goes by relays.
    pub relayed: Relayed,
}

/// See the module.
pub struct EngineDevice<W, I> {
    /// Its peers and sessions.
    pub engine: Engine,
    /// Where its datagrams go.
    pub wire: W,
    /// Where its packets go.
    pub inside: I,
    /// The time of what is worked off.
    pub now: Instant,
    paths: Paths,
}

impl<W: Wire, I: Inside> EngineDevice<W, I> {
    /// One without peers.
    pub fn new(beginning: Beginning, wire: W, inside: I, now: Instant) -> Self {
        let Beginning {
            private_key,
            seed,
            number,
            unix,
            relayed,
        } = beginning;
        Self {
            engine: Engine::new(private_key, seed, now, unix),
            wire,
            inside,
            now,
            paths: Paths::new(relayed, number, now),
        }
    }

    /// Takes datagrams of one length from one place; the last may be shorter. What
    /// comes of them is handed over by [`EngineDevice::flush`].
    pub fn take_datagrams(&mut self, from: SocketAddr, bytes: &[u8], segment: usize) {
        let (wire, inside) = (&mut self.wire, &mut self.inside);
        self.engine
            .take_datagrams(from, bytes, segment, self.now, wire, inside);
    }

    /// Takes a packet from inside, as [`EngineDevice::take_datagrams`] does.
    ///
    /// # Errors
    /// It isn't taken.
    pub fn take_packet(&mut self, packet: &mut [u8]) -> Result<(), BadFrame> {
        self.engine.take_packet(packet, self.now, &mut self.wire)
    }

    /// Hands over what came of a batch, and has the ways follow it.
    pub fn flush(&mut self) {
        let (engine, wire) = (&mut self.engine, &mut self.wire);
        engine.flush(self.now, wire, &mut self.inside);
        if self.paths.follow(engine, wire, self.now) {
            engine.flush(self.now, wire, &mut self.inside);
        }
    }

    /// When [`EngineDevice::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [self.engine.poll_timeout(), self.paths.poll_timeout()];
        timeouts.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self) {
        let (engine, wire) = (&mut self.engine, &mut self.wire);
        engine.handle_timeout(self.now, wire);
        if self.paths.handle_timeout(engine, wire, self.now) || engine.has_events() {
            self.flush();
        }
    }

    /// As [`super::Device::take_steps`].
    pub fn take_step(&mut self, step: Step) {
        let key = step.key().0;
        let is_chosen = self.paths.has(&key);
        let (engine, now) = (&mut self.engine, self.now);
        match step {
            Step::Remove(_) => {
                engine.remove_peer(&key);
            }
            Step::Add(_, peer) => engine.add_peer(key, settings(peer), now),
            Step::Narrow(_, keep) => engine.set_allowed(&key, keep),
            Step::Change(_, change) => {
                engine.allow(&key, change.allow);
                // What chooses among ways knows of it too.
                if let Some(endpoint) = change.endpoint.filter(|_| !is_chosen) {
                    engine.set_endpoint(&key, endpoint);
                }
                if let Some(seconds) = change.keepalive_s {
                    engine.set_keepalive(&key, seconds, now);
                }
                if let Some(secret) = change.preshared_key {
                    engine.set_preshared_key(&key, secret.map(|secret| secret.0.into()), now);
                }
            }
        }
    }

    /// As [`super::Device::set_ways`].
    pub fn set_ways(&mut self, ways: &BTreeMap<TunnelKey, Way>) {
        let (engine, wire) = (&mut self.engine, &mut self.wire);
        self.paths.set(ways, engine, wire, self.now);
    }

    /// As [`super::Device::punch`].
    pub fn punch(&mut self, key: &TunnelKey) {
        let (engine, wire) = (&mut self.engine, &mut self.wire);
        self.paths.punch(&key.0, engine, wire, self.now);
    }

    /// Its peers: what they were told to be, and what is seen of them.
    pub fn peers(&self) -> BTreeMap<TunnelKey, (InstalledPeer, PeerState)> {
        let peers = self.engine.peers(self.now);
        peers
            .map(|peer| {
                let way = self.paths.report(&peer.key, self.now);
                seen(peer, way)
            })
            .collect()
    }
}

fn settings(peer: TunnelPeer) -> PeerSettings {
    PeerSettings {
        allowed_ips: peer.allowed_ips,
        endpoint: peer.endpoint,
        keepalive_s: peer.keepalive_s,
        preshared_key: peer.preshared_key.map(|secret| secret.0.into()),
    }
}

fn seen(peer: PeerReading, way: Option<Report>) -> (TunnelKey, (InstalledPeer, PeerState)) {
    let settings = peer.settings;
    let installed = InstalledPeer {
        allowed_ips: settings.allowed_ips,
        endpoint: settings.endpoint,
        keepalive_s: settings.keepalive_s,
        preshared_key: settings.preshared_key.map(|secret| PresharedKey(*secret)),
        alive: peer.last_handshake.is_some_and(device::is_session),
    };
    let state = PeerState {
        endpoint: settings.endpoint,
        last_handshake: peer.last_handshake,
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        way,
    };
    (TunnelKey(peer.key), (installed, state))
}
