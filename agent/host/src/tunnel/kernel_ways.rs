//! Ways for the kernel's device, which knows one address of a peer.
//!
//! Each peer that is reached by a relay has a socket on loopback, which the device takes
//! for the peer. What it sends there goes by the relay, and what comes by the relay is
//! brought from there. The first message of a handshake, and for some seconds a packet now
//! and then, goes to the peer's own addresses before, from the device's port. Where that
//! arrives the other device sends there from then on, and what comes later by the relay is
//! one that it has.
//!
//! A peer without a session that has more than one way is where the lobby is: what the
//! device sends there can only be the first message of a handshake, whose MAC tells the
//! peer, and it goes by all ways at once. Whatever answers first is where the device sends
//! from then on, by itself.

#![allow(
    clippy::disallowed_methods,
    reason = "sockets and tasks of the device itself, which the simulation replaces as a whole"
)]

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use innermesh_engine::FirstMac;
use innermesh_proto::{
    path::{Budget, Fallback, Lead, Report, Seen, Via, Way, WhyNot},
    tunnel::{PeerChange, Step, TunnelKey},
};
use tokio::{net::UdpSocket, sync::Notify, task::JoinHandle};
use wireguard_control::InterfaceName;

use super::{
    PeerState, Reading, WallClock, device, kernel_peers, past,
    relayed::{Relayed, relay_place},
};

/// Where the sockets are: no peer is there, so that what an earlier run left is known.
const PROXIES: Ipv4Addr = Ipv4Addr::new(127, 83, 77, 1);
/// How often the device's counters are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Sockets at once.
const MOST: usize = 1024;
/// Largest datagram of the device.
const DATAGRAM: usize = 1 << 16;
/// The first message of a handshake begins so (whitepaper §5.4.2), and packets do
/// (§5.4.6).
const INITIATION: [u8; 4] = [1, 0, 0, 0];
const INITIATION_LENGTH: usize = 148;
const PACKET: [u8; 4] = [4, 0, 0, 0];
/// How long the device waits before it begins a handshake again (§6.4).
const AGAIN: Duration = Duration::from_secs(5);
/// How long after a handshake began packets go straight too, how often, and how often
/// later: often enough for what one end's opens in its NAT to be open still when the
/// other's comes.
const COPIED: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(400);
const LATER: Duration = Duration::from_secs(10);

/// The ways of one device. Its tasks end with it.
pub(super) struct KernelWays {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    name: InterfaceName,
    clock: WallClock,
    relayed: Relayed,
    began: Instant,
    peers: Mutex<BTreeMap<TunnelKey, Peer>>,
    /// What is sent past the device.
    budget: Mutex<Budget>,
    /// Where this host lets it send past the device.
    lobby: Mutex<Option<Proxy>>,
    has_changed: Notify,
}

struct Peer {
    way: Way,
    fallback: Fallback,
    proxy: Option<Proxy>,
    copies: Copies,
    first_mac: FirstMac,
    /// Where it was heard last, by itself.
    last: Option<SocketAddr>,
    /// The last first message that came to the lobby, and when.
    begun: Option<(Duration, Vec<u8>)>,
}

impl Peer {
    fn new(key: &TunnelKey, way: Way) -> Self {
        Self {
            way,
            fallback: Fallback::default(),
            proxy: None,
            copies: Copies::default(),
            first_mac: FirstMac::new(&key.0),
            last: None,
            begun: None,
        }
    }

    /// Its own addresses.
    fn places(&self) -> Vec<SocketAddr> {
        let last = self.last.filter(|at| !self.way.candidates.contains(at));
        self.way.candidates.iter().copied().chain(last).collect()
    }

    fn has_more_than_one_way(&self) -> bool {
        self.way.relay.is_some() || self.way.candidates.len() > 1
    }
}

/// Which of the packets for the relay go straight too: both ends begin with the same
/// handshake, so that what one sends meets what opened the other's NAT.
#[derive(Default)]
struct Copies {
    until: Duration,
    next: Duration,
}

impl Copies {
    /// A handshake is begun by either end.
    fn begin(&mut self, now: Duration) {
        self.until = now + COPIED;
    }

    /// Whether this datagram goes straight too.
    fn take(&mut self, datagram: &[u8], now: Duration) -> bool {
        if datagram.starts_with(&INITIATION) {
            self.begin(now);
            return true;
        }
        let is_due = datagram.starts_with(&PACKET) && now >= self.next;
        if is_due {
            self.next = now + if now < self.until { PAUSE } else { LATER };
        }
        is_due
    }
}

/// Where a peer is led.
enum Led {
    ToLobby(SocketAddr),
    By(Lead),
}

struct Proxy {
    socket: Arc<UdpSocket>,
    at: SocketAddr,
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for KernelWays {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        *self.shared.lobby() = None;
        self.shared.peers().clear();
    }
}

impl KernelWays {
    pub(super) fn start(name: InterfaceName, clock: WallClock, relayed: Relayed) -> Self {
        let shared = Arc::new(Shared {
            name,
            clock,
            relayed,
            began: Instant::now(),
            peers: Mutex::default(),
            budget: Mutex::new(Budget::new(Duration::ZERO)),
            lobby: Mutex::default(),
            has_changed: Notify::new(),
        });
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).watch()),
            tokio::spawn(Arc::clone(&shared).bring()),
        ];
        Self { shared, tasks }
    }

    /// How peers may be reached from now on.
    pub(super) fn set(&self, ways: &BTreeMap<TunnelKey, Way>) {
        let now = self.shared.began.elapsed();
        let mut peers = self.shared.peers();
        peers.retain(|key, _| ways.contains_key(key));
        for (key, way) in ways {
            let peer = peers
                .entry(*key)
                .or_insert_with(|| Peer::new(key, way.clone()));
            let gets_relay = way.relay.is_some() && peer.way.relay.is_none();
            peer.way = way.clone();
            // Its next one comes seconds later.
            let begun = peer.begun.as_ref().filter(|_| gets_relay);
            if let Some((at, datagram)) = begun.filter(|(at, _)| now < *at + AGAIN) {
                tracing::trace!(?at, "a handshake that was begun goes by the relay too");
                let relay = relay_place(key);
                self.shared.relayed.send(relay, datagram.len(), datagram);
            }
        }
        drop(peers);
        self.shared.has_changed.notify_one();
    }

    /// Tells relays apart from addresses in what the device says. Where an earlier run's
    /// socket stands for a peer nothing is known of where that is.
    pub(super) fn explain(&self, reading: &mut Reading) {
        let peers = self.shared.peers();
        for (key, (installed, state)) in &mut reading.peers {
            let at = state.endpoint;
            let peer = peers.get(key);
            let is_proxy = at.is_some_and(|at| at.ip() == PROXIES);
            let is_waiting = is_proxy && self.shared.lobby_at() == at;
            let is_ours = is_waiting
                || peer
                    .and_then(|peer| peer.proxy.as_ref())
                    .is_some_and(|proxy| Some(proxy.at) == at);
            if is_proxy {
                let place = is_ours.then(|| relay_place(key));
                (installed.endpoint, state.endpoint) = (place, place);
                installed.alive &= is_ours;
            }
            state.way = peer.map(|peer| report(peer, state, is_proxy));
        }
    }

    /// The peer looks for this node: its NAT is answered by this host's.
    pub(super) fn punch(&self, key: &TunnelKey, port: u16) {
        let places = self.shared.places(key);
        self.shared.open_nats(&places, port, &[0]);
    }
}

fn report(peer: &Peer, state: &PeerState, is_relayed: bool) -> Report {
    let is_open = state.last_handshake.is_some_and(device::is_session);
    let via = match state.endpoint {
        Some(at) if !is_relayed && is_open => Some(Via::Direct(at)),
        Some(_) if is_relayed && is_open => Some(Via::Relay),
        _ => None,
    };
    let is_tried = state.tx_bytes > 0 && !matches!(via, Some(Via::Direct(_)));
    Report {
        via,
        rtt: None,
        is_announced: matches!(via, Some(Via::Direct(at)) if peer.way.candidates.contains(&at)),
        why_not: is_tried.then_some(match peer.way.candidates.len() {
            0 => WhyNot::NoPlace,
            places => WhyNot::NoAnswer {
                places,
                times: 1,
                again: Duration::ZERO,
            },
        }),
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<TunnelKey, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads peers without a session to the lobby, and those that nothing comes from to
    /// the relay.
    async fn watch(self: Arc<Self>) {
        let may_send_past = past::is_allowed();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.has_changed.notified() => {}
            }
            if self.peers().is_empty() {
                continue;
            }
            let Ok(reading) = kernel_peers::read(self.name, (self.clock)()).await else {
                continue;
            };
            let lobby = if may_send_past {
                self.open_lobby(reading.listen_port).await
            } else {
                None
            };
            let mut steps = Vec::new();
            for (key, lead) in self.look(&reading, lobby) {
                let endpoint = match lead {
                    Led::ToLobby(at) => Some(at),
                    Led::By(Lead::Relay) => self.proxy(key, reading.listen_port).await,
                    Led::By(Lead::Straight) => self.first_candidate(&key),
                };
                if let Some(endpoint) = endpoint {
                    let change = PeerChange {
                        endpoint: Some(endpoint),
                        ..PeerChange::default()
                    };
                    steps.push(Step::Change(key, change));
                }
            }
            if let Err(error) = kernel_peers::take_steps(self.name, &steps).await {
                tracing::debug!(%error, "peers aren't led to their relays");
            }
        }
    }

    fn look(&self, reading: &Reading, lobby: Option<SocketAddr>) -> Vec<(TunnelKey, Led)> {
        let now = self.began.elapsed();
        let mut peers = self.peers();
        let looks = peers.iter_mut().filter_map(|(key, peer)| {
            let (_, state) = reading.peers.get(key)?;
            let has_session = state.last_handshake.is_some_and(device::is_session);
            let is_proxy = state.endpoint.is_some_and(|at| at.ip() == PROXIES);
            if has_session && !is_proxy {
                peer.last = state.endpoint;
            }
            if let Some(lobby) = lobby.filter(|_| !has_session && peer.has_more_than_one_way()) {
                // A socket of an earlier port or run leads nowhere.
                let own = peer.proxy.as_ref().map(|proxy| proxy.at);
                let is_there = state
                    .endpoint
                    .is_some_and(|at| at == lobby || Some(at) == own);
                return (!is_there).then_some((*key, Led::ToLobby(lobby)));
            }
            let seen = Seen {
                rx_bytes: state.rx_bytes,
                tx_bytes: state.tx_bytes,
                has_session,
                is_relayed: is_proxy,
            };
            let has_relay = peer.way.relay.is_some();
            Some((*key, Led::By(peer.fallback.look(seen, has_relay, now)?)))
        });
        looks.collect()
    }

    /// A peer's own addresses.
    fn places(&self, key: &TunnelKey) -> Vec<SocketAddr> {
        self.peers().get(key).map(Peer::places).unwrap_or_default()
    }

    fn lobby(&self) -> MutexGuard<'_, Option<Proxy>> {
        self.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lobby_at(&self) -> Option<SocketAddr> {
        self.lobby().as_ref().map(|lobby| lobby.at)
    }

    /// The lobby's address for a device at this port.
    async fn open_lobby(self: &Arc<Self>, port: u16) -> Option<SocketAddr> {
        if let Some(lobby) = &*self.lobby()
            && lobby.port == port
        {
            return Some(lobby.at);
        }
        let opened = self.open(port, |socket| Arc::clone(self).receive(port, socket));
        let lobby = opened.await.inspect_err(|error| {
            tracing::debug!(%error, "handshakes are begun by one way");
        });
        let lobby = lobby.ok()?;
        let at = lobby.at;
        *self.lobby() = Some(lobby);
        Some(at)
    }

    /// Sends what the device has for peers without a session, by all ways.
    async fn receive(self: Arc<Self>, port: u16, socket: Arc<UdpSocket>) {
        let mut buffer = [0; INITIATION_LENGTH + 1];
        loop {
            // A refusal is of an earlier datagram, as while the interface is down.
            let Ok(length) = socket.recv(&mut buffer).await else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let datagram = buffer.get(..length).unwrap_or_default();
            let Some(key) = self.meant(datagram) else {
                continue;
            };
            // Answers come from there.
            self.proxy(key, port).await;
            let now = self.began.elapsed();
            let ways = self.peers().get_mut(&key).map(|peer| {
                peer.copies.begin(now);
                peer.begun = Some((now, datagram.to_vec()));
                (peer.places(), peer.way.relay.is_some())
            });
            let Some((places, has_relay)) = ways else {
                continue;
            };
            self.open_nats(&places, port, datagram);
            if has_relay {
                self.relayed.send(relay_place(&key), length, datagram);
            }
        }
    }

    /// The peer that a first message is for.
    fn meant(&self, datagram: &[u8]) -> Option<TunnelKey> {
        let peers = self.peers();
        let mut meant = peers
            .iter()
            .filter(|(_, peer)| peer.first_mac.is_of(datagram));
        meant.next().map(|(key, _)| *key)
    }

    fn first_candidate(&self, key: &TunnelKey) -> Option<SocketAddr> {
        self.peers().get(key)?.way.candidates.first().copied()
    }

    /// The socket that stands for a peer, by its address.
    async fn proxy(self: &Arc<Self>, key: TunnelKey, port: u16) -> Option<SocketAddr> {
        {
            let mut peers = self.peers();
            let open = peers.values().filter(|peer| peer.proxy.is_some()).count();
            let peer = peers.get_mut(&key)?;
            match &peer.proxy {
                Some(proxy) if proxy.port == port => return Some(proxy.at),
                None if open >= MOST => return None,
                _ => peer.proxy = None,
            }
        }
        let made = self.make(key, port).await;
        let proxy = made.inspect_err(|error| {
            tracing::debug!(%error, "there is no socket for a peer behind a relay");
        });
        let proxy = proxy.ok()?;
        let at = proxy.at;
        self.peers().get_mut(&key)?.proxy = Some(proxy);
        Some(at)
    }

    async fn make(self: &Arc<Self>, key: TunnelKey, port: u16) -> io::Result<Proxy> {
        self.open(port, |socket| Arc::clone(self).send(key, port, socket))
            .await
    }

    /// A socket that the device at this port may send to.
    async fn open<F>(&self, port: u16, serve: impl FnOnce(Arc<UdpSocket>) -> F) -> io::Result<Proxy>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = UdpSocket::bind((PROXIES, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        let socket = Arc::new(socket);
        let at = socket.local_addr()?;
        let task = tokio::spawn(serve(Arc::clone(&socket)));
        Ok(Proxy {
            socket,
            at,
            port,
            task,
        })
    }

    /// Sends on what the device has for a peer.
    async fn send(self: Arc<Self>, key: TunnelKey, port: u16, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM];
        let place = relay_place(&key);
        loop {
            // A refusal is of an earlier datagram, as while the interface is down.
            let Ok(length) = socket.recv(&mut buffer).await else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let datagram = buffer.get(..length).unwrap_or_default();
            let now = self.began.elapsed();
            let straight = self.peers().get_mut(&key).and_then(|peer| {
                let goes = peer.copies.take(datagram, now);
                goes.then(|| peer.places())
            });
            self.open_nats(&straight.unwrap_or_default(), port, datagram);
            self.relayed.send(place, length, datagram);
        }
    }

    /// Sends a datagram from the device's port to each address, past the device: NATs on
    /// the way take it for the device's. A peer may announce somebody else's address, and
    /// ask for this as often as it likes (S31). Where it isn't allowed here the relay has
    /// to do.
    fn open_nats(&self, places: &[SocketAddr], port: u16, datagram: &[u8]) {
        let now = self.began.elapsed();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = places
            .iter()
            .filter(|to| budget.take(**to, now))
            .try_for_each(|to| past::send(*to, port, datagram));
        if let Err(error) = sent {
            tracing::debug!(%error, "nothing is sent from the tunnel's port past its device");
        }
    }

    /// Brings what came by relays.
    async fn bring(self: Arc<Self>) {
        loop {
            let (from, datagram) = self.relayed.next_incoming().await;
            let known = {
                let peers = self.peers();
                let mut known = peers.iter();
                let known = known.find(|(key, _)| relay_place(key) == from);
                known.map(|(key, peer)| {
                    let proxy = peer.proxy.as_ref();
                    (*key, proxy.map(|proxy| (proxy.socket.clone(), proxy.port)))
                })
            };
            let Some((key, socket)) = known else { continue };
            let (socket, port) = match socket {
                Some(open) => open,
                None => {
                    let Ok(reading) = kernel_peers::read(self.name, 0).await else {
                        continue;
                    };
                    let port = reading.listen_port;
                    if self.proxy(key, port).await.is_none() {
                        continue;
                    }
                    let peers = self.peers();
                    let proxy = peers.get(&key).and_then(|peer| peer.proxy.as_ref());
                    let Some(proxy) = proxy else { continue };
                    (proxy.socket.clone(), port)
                }
            };
            if datagram.starts_with(&INITIATION) {
                let now = self.began.elapsed();
                let places = self.peers().get_mut(&key).map(|peer| {
                    peer.copies.begin(now);
                    peer.places()
                });
                self.open_nats(&places.unwrap_or_default(), port, &[0]);
            }
            if let Err(error) = socket.send(&datagram).await {
                tracing::trace!(%error, "the device takes nothing from a relay");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_handshake_some_packets_go_straight_too_and_later_few() {
        let mut copies = Copies::default();
        let at = |ms| Duration::from_millis(1000 + ms);
        assert!(copies.take(&INITIATION, at(0)));
        let mut copied = |from: u64, to: u64| {
            let times = (from..to).filter(|ms| copies.take(&PACKET, at(*ms)));
            times.count()
        };
        assert_eq!(copied(0, 6_000), 15);
        assert_eq!(copied(6_000, 66_000), 6);
        assert!(!copies.take(&[0], at(0)) && !copies.take(&[], at(0)));
    }
}
