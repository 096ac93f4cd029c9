//! Peers as somebody asks for them.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use sanstun::PublicKey;
use zeroize::Zeroizing;

use crate::{
    engine::Engine,
    peer::{Peer, PeerSettings},
    routes::Place,
};

/// A peer as it is.
#[derive(Clone)]
pub struct PeerReading {
    /// Its public key.
    pub key: [u8; 32],
    /// What it was told to be, with the place that it was last heard from.
    pub settings: PeerSettings,
    /// How long ago its last handshake was.
    pub last_handshake: Option<Duration>,
    /// Bytes of its authentic messages.
    pub rx_bytes: u64,
    /// Bytes of messages to it.
    pub tx_bytes: u64,
}

impl Engine {
    /// Its peers, in the order of their keys.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerReading> {
        self.by_key.iter().filter_map(move |(key, place)| {
            let peer = self.peers.get(*place)?.as_ref()?;
            Some(PeerReading {
                key: *key,
                settings: peer.settings.clone(),
                last_handshake: peer.last_handshake().map(|at| now.duration_since(at)),
                rx_bytes: peer.rx_bytes,
                tx_bytes: peer.tx_bytes,
            })
        })
    }

    /// Whether there is a peer with this key.
    pub fn has_peer(&self, key: &[u8; 32]) -> bool {
        self.by_key.contains_key(key)
    }

    /// Adds a peer, in place of one with the same key. Networks that another had are
    /// taken from that.
    pub fn add_peer(&mut self, key: [u8; 32], settings: PeerSettings, now: Instant) {
        self.remove_peer(&key);
        let free = self.peers.iter().position(Option::is_none);
        let place = free.unwrap_or(self.peers.len());
        let nets = settings.allowed_ips.clone();
        let settings = PeerSettings {
            allowed_ips: BTreeSet::new(),
            ..settings
        };
        let mut peer = Peer::new(PublicKey::from(key), settings, now);
        peer.renew(place, &mut self.interface, &mut self.tunnels, now);
        match self.peers.get_mut(place) {
            Some(free) => *free = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        self.by_key.insert(key, place);
        self.give(place, nets);
        self.touch(place);
    }

    /// Takes a peer away with everything it has. Returns whether there was one.
    pub fn remove_peer(&mut self, key: &[u8; 32]) -> bool {
        let Some(place) = self.by_key.remove(key) else {
            return false;
        };
        if let Some(mut peer) = self.peers.get_mut(place).and_then(Option::take) {
            for net in &peer.settings.allowed_ips {
                self.routes.take(*net, place);
            }
            peer.end(&mut self.tunnels);
            if let Some(wake) = peer.wake {
                self.due.remove(&(wake, place));
            }
            self.touched.retain(|touched| *touched != place);
        }
        true
    }

    /// Gives networks to a peer beside those it has.
    pub fn allow(&mut self, key: &[u8; 32], nets: BTreeSet<IpNet>) {
        if let Some(place) = self.by_key.get(key).copied() {
            self.give(place, nets);
        }
    }

    /// Makes `nets` the networks of a peer.
    pub fn set_allowed(&mut self, key: &[u8; 32], nets: BTreeSet<IpNet>) {
        let Some(place) = self.by_key.get(key).copied() else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
            for net in std::mem::take(&mut peer.settings.allowed_ips) {
                self.routes.take(net, place);
            }
        }
        self.give(place, nets);
    }

    /// Takes networks from a peer, where it has them.
    pub fn deny(&mut self, key: &[u8; 32], nets: &BTreeSet<IpNet>) {
        let Some(place) = self.by_key.get(key).copied() else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
            for net in nets {
                self.routes.take(*net, place);
                peer.settings.allowed_ips.remove(net);
            }
        }
    }

    fn give(&mut self, place: Place, nets: BTreeSet<IpNet>) {
        for net in nets {
            let net = net.trunc();
            let before = self.routes.give(net, place);
            let loser = before.and_then(|before| self.peers.get_mut(before));
            if let Some(loser) = loser.and_then(Option::as_mut) {
                loser.settings.allowed_ips.remove(&net);
            }
            if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
                peer.settings.allowed_ips.insert(net);
            }
        }
    }

    /// Says where a peer is to be reached from now on.
    pub fn set_endpoint(&mut self, key: &[u8; 32], endpoint: SocketAddr) {
        if let Some(peer) = self.peer_mut(key) {
            peer.settings.endpoint = Some(endpoint);
        }
    }

    /// Sets a peer's keepalive, by a handshake that doesn't disturb its session.
    pub fn set_keepalive(&mut self, key: &[u8; 32], seconds: Option<u16>, now: Instant) {
        let seconds = seconds.filter(|seconds| *seconds > 0);
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if peer.settings.keepalive_s != seconds {
            peer.set_keepalive(seconds, now);
            self.renew(key, now);
        }
    }

    /// Sets what is mixed into a peer's handshakes from the next on, which comes soon where
    /// there is a session: that stays until the next is there.
    pub fn set_preshared_key(
        &mut self,
        key: &[u8; 32],
        secret: Option<Zeroizing<[u8; 32]>>,
        now: Instant,
    ) {
        let secret = secret.filter(|secret| **secret != [0; 32]);
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if peer.settings.preshared_key != secret {
            peer.settings.preshared_key = secret;
            peer.shake_hands_soon(now);
            self.renew(key, now);
        }
    }

    fn renew(&mut self, key: &[u8; 32], now: Instant) {
        let Some(place) = self.by_key.get(key).copied() else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
            peer.renew(place, &mut self.interface, &mut self.tunnels, now);
        }
        self.touch(place);
    }

    pub(crate) fn peer_mut(&mut self, key: &[u8; 32]) -> Option<&mut Peer> {
        let place = self.by_key.get(key).copied()?;
        self.peers.get_mut(place)?.as_mut()
    }
}
