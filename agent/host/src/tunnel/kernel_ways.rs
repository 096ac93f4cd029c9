//! Relays for the kernel's device: each peer that is reached by one has a socket on
//! loopback, which the device takes for the peer. What it sends there goes by the relay,
//! and what comes by the relay is brought from there. The first message of a handshake, and for
//! some seconds a packet now and then, goes to the peer's own addresses before, from the
//! device's port. Where that arrives the other device sends there from then on, and what
//! comes later by the relay is one that it has.

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

use innermesh_proto::{
    filter::MARK,
    path::{Budget, Fallback, Lead, Report, Seen, Via, Way, WhyNot},
    tunnel::{PeerChange, Step, TunnelKey},
};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, task::JoinHandle};
use wireguard_control::InterfaceName;

use super::{
    PeerState, Reading, WallClock, device, kernel_peers,
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
const PACKET: [u8; 4] = [4, 0, 0, 0];
/// How long after a handshake began packets go straight too, and how often.
const COPIED: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(400);

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
}

struct Peer {
    way: Way,
    fallback: Fallback,
    proxy: Option<Proxy>,
    copies: Copies,
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
        let is_due = datagram.starts_with(&PACKET) && now >= self.next && now < self.until;
        if is_due {
            self.next = now + PAUSE;
        }
        is_due
    }
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
        });
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).watch()),
            tokio::spawn(Arc::clone(&shared).bring()),
        ];
        Self { shared, tasks }
    }

    /// How peers may be reached from now on.
    pub(super) fn set(&self, ways: &BTreeMap<TunnelKey, Way>) {
        let mut peers = self.shared.peers();
        peers.retain(|key, _| ways.contains_key(key));
        for (key, way) in ways {
            match peers.get_mut(key) {
                Some(peer) => peer.way = way.clone(),
                None => {
                    let peer = Peer {
                        way: way.clone(),
                        fallback: Fallback::default(),
                        proxy: None,
                        copies: Copies::default(),
                    };
                    peers.insert(*key, peer);
                }
            }
        }
    }

    /// Tells relays apart from addresses in what the device says. Where an earlier run's
    /// socket stands for a peer nothing is known of where that is.
    pub(super) fn explain(&self, reading: &mut Reading) {
        let peers = self.shared.peers();
        for (key, (installed, state)) in &mut reading.peers {
            let at = state.endpoint;
            let peer = peers.get(key);
            let is_proxy = at.is_some_and(|at| at.ip() == PROXIES);
            let is_ours = peer
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
        let peers = self.shared.peers();
        if let Some(peer) = peers.get(key) {
            self.shared.open_nats(&peer.way.candidates, port, &[0]);
        }
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

    /// Leads peers that nothing comes from to the relay.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.peers().is_empty() {
                continue;
            }
            let Ok(reading) = kernel_peers::read(self.name, (self.clock)()).await else {
                continue;
            };
            let leads = self.look(&reading);
            let mut steps = Vec::new();
            for (key, lead) in leads {
                let endpoint = match lead {
                    Lead::Relay => self.proxy(key, reading.listen_port).await,
                    Lead::Straight => self.first_candidate(&key),
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

    fn look(&self, reading: &Reading) -> Vec<(TunnelKey, Lead)> {
        let now = self.began.elapsed();
        let mut peers = self.peers();
        let looks = peers.iter_mut().filter_map(|(key, peer)| {
            let (_, state) = reading.peers.get(key)?;
            let seen = Seen {
                rx_bytes: state.rx_bytes,
                tx_bytes: state.tx_bytes,
                has_session: state.last_handshake.is_some_and(device::is_session),
                is_relayed: state.endpoint.is_some_and(|at| at.ip() == PROXIES),
            };
            let has_relay = peer.way.relay.is_some();
            Some((*key, peer.fallback.look(seen, has_relay, now)?))
        });
        looks.collect()
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
        let socket = UdpSocket::bind((PROXIES, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        let socket = Arc::new(socket);
        let at = socket.local_addr()?;
        let task = tokio::spawn(Arc::clone(self).send(key, port, Arc::clone(&socket)));
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
                goes.then(|| peer.way.candidates.clone())
            });
            self.open_nats(&straight.unwrap_or_default(), port, datagram);
            self.relayed.send(place, length, datagram);
        }
    }

    /// Sends a datagram from the device's port to each address of IPv4, past the device:
    /// NATs on the way take it for the device's. A peer may announce somebody else's
    /// address, and ask for this as often as it likes (S31). Where it isn't allowed here
    /// the relay has to do.
    fn open_nats(&self, candidates: &[SocketAddr], port: u16, datagram: &[u8]) {
        let now = self.began.elapsed();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = candidates
            .iter()
            .filter(|to| to.is_ipv4() && budget.take(**to, now))
            .try_for_each(|to| send_past(*to, port, datagram));
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
                let candidates = self.peers().get_mut(&key).map(|peer| {
                    peer.copies.begin(now);
                    peer.way.candidates.clone()
                });
                self.open_nats(&candidates.unwrap_or_default(), port, &[0]);
            }
            if let Err(error) = socket.send(&datagram).await {
                tracing::trace!(%error, "the device takes nothing from a relay");
            }
        }
    }
}

/// UDP's header before the datagram (RFC 768), without a checksum as IPv4 allows; the
/// kernel adds IP's.
fn send_past(to: SocketAddr, port: u16, datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len() + 8).map_err(io::Error::other)?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Mark, &MARK)?;
    let mut packet = Vec::with_capacity(usize::from(length));
    for word in [port, to.port(), length, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(datagram);
    match socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into()) {
        // There is no way to that one.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(error) => {
            tracing::trace!(%error, %to, "no way there");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_handshake_some_packets_go_straight_too() {
        let mut copies = Copies::default();
        let at = |ms| Duration::from_millis(1000 + ms);
        assert!(!copies.take(&PACKET, at(0)));
        assert!(copies.take(&INITIATION, at(0)));
        let copied = (0u64..20_000).filter(|ms| copies.take(&PACKET, at(*ms)));
        assert_eq!(copied.count(), 15);
        assert!(!copies.take(&[0], at(0)) && !copies.take(&[], at(0)));
    }
}
