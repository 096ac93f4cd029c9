//! The agents' own engine in a simulated machine: packets that are put into its tunnel
//! are encrypted, go by the simulated network or by relays, and come out at the other
//! end. What it sends where is watched.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use innermesh_agent::{
    host::Network,
    tunnel::{
        PeerState, TunnelSettings,
        engine_device::{Beginning, EngineDevice},
        relayed::{Relayed, is_relay_place},
    },
};
use innermesh_engine::{Inside, Wire};
use innermesh_proto::{
    path::Way,
    tunnel::{InstalledPeer, Step, TunnelKey},
};
use quinn::{
    AsyncUdpSocket,
    udp::{RecvMeta, Transmit},
};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{clock, violation::Seen};

/// Packets that were delivered and that nobody asked for yet.
const DELIVERED: usize = 4096;
/// A message of data this long or longer is no probe and no keepalive (whitepaper,
/// sections 5.4.6 and 6.5): 16 bytes more than a header, an empty packet and a tag.
const DATA: usize = 64;
/// The type of a message of data (whitepaper, section 5.4.6).
const IS_DATA: u8 = 4;
/// What goes in a second to an address that nothing came from, at most (S31).
const UNANSWERED: usize = 5;
/// Bytes of an IPv4 header, and of the number after it.
const HEADER: usize = 20;
const PACKET: usize = HEADER + 64;

/// A device that runs. It ends with this value.
pub(crate) struct PacketDevice {
    inner: Arc<Mutex<Inner>>,
    /// Its timers or peers have changed.
    changed: Arc<Notify>,
    task: AbortHandle,
}

struct Inner {
    device: EngineDevice<Sent, Delivered>,
}

/// Where its datagrams go.
struct Sent {
    socket: Arc<dyn AsyncUdpSocket>,
    relayed: Relayed,
    now: Instant,
    /// Where something came from.
    heard: BTreeSet<SocketAddr>,
    /// When something was last sent to the others.
    unanswered: BTreeMap<SocketAddr, VecDeque<Instant>>,
    violation: Option<Seen>,
}

/// What came out: from whom, and its number.
#[derive(Default)]
struct Delivered(VecDeque<(Ipv4Addr, u64)>);

impl PacketDevice {
    /// Binds the port of `settings` and carries packets until this is dropped.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) fn start(
        settings: &TunnelSettings,
        net: &dyn Network,
        (seed, unix): ([u8; 32], Duration),
    ) -> std::io::Result<Self> {
        let listen = SocketAddr::from(([0u16; 8], settings.listen_port));
        let socket = net.quic_socket(listen)?;
        let now = now();
        let sent = Sent {
            socket: socket.clone(),
            relayed: settings.relayed.clone(),
            now,
            heard: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            violation: None,
        };
        let beginning = Beginning {
            private_key: settings.private_key,
            seed,
            number: u64::from_le_bytes(seed[..8].try_into().expect("eight")),
            unix,
            relayed: settings.relayed.clone(),
        };
        let device = EngineDevice::new(beginning, sent, Delivered::default(), now);
        let inner = Arc::new(Mutex::new(Inner { device }));
        let changed = Arc::new(Notify::new());
        let relayed = settings.relayed.clone();
        let task = tokio::spawn(carry(inner.clone(), changed.clone(), socket, relayed));
        Ok(Self {
            inner,
            changed,
            task: task.abort_handle(),
        })
    }

    pub(crate) fn take_steps(&self, steps: &[Step], ways: &BTreeMap<TunnelKey, Way>) {
        self.work(|device| {
            for step in steps {
                device.take_step(step.clone());
            }
            device.flush();
            device.set_ways(ways);
        });
    }

    pub(crate) fn punch(&self, key: &TunnelKey) {
        self.work(|device| device.punch(key));
    }

    pub(crate) fn set_private_key(&self, private_key: [u8; 32], seed: [u8; 32]) {
        self.work(|device| {
            let now = device.now;
            device.engine.set_private_key(private_key, seed, now);
        });
    }

    pub(crate) fn peers(&self) -> BTreeMap<TunnelKey, (InstalledPeer, PeerState)> {
        lock(&self.inner).at_now().peers()
    }

    /// Puts a packet with this number into it.
    pub(crate) fn send(&self, from: Ipv4Addr, to: Ipv4Addr, number: u64) {
        let mut packet = packet(from, to, number);
        self.work(|device| {
            // One that goes nowhere is missed at the other end.
            let _ = device.take_packet(&mut packet);
        });
    }

    /// What came out since the last call.
    pub(crate) fn delivered(&self) -> VecDeque<(Ipv4Addr, u64)> {
        std::mem::take(&mut lock(&self.inner).device.inside.0)
    }

    /// The first that it sent where it must not.
    pub(crate) fn violation(&self) -> Option<Seen> {
        lock(&self.inner).device.wire.violation.clone()
    }

    fn work(&self, work: impl FnOnce(&mut EngineDevice<Sent, Delivered>)) {
        {
            let mut inner = lock(&self.inner);
            let device = inner.at_now();
            work(device);
            device.flush();
        }
        self.changed.notify_one();
    }
}

impl Drop for PacketDevice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    fn at_now(&mut self) -> &mut EngineDevice<Sent, Delivered> {
        let now = now();
        (self.device.now, self.device.wire.now) = (now, now);
        &mut self.device
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Instant {
    clock::now().into_std()
}

async fn carry(
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    socket: Arc<dyn AsyncUdpSocket>,
    relayed: Relayed,
) {
    loop {
        let due = lock(&inner).device.poll_timeout();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (from, datagram) = receive(&*socket) => {
                let mut inner = lock(&inner);
                let device = inner.at_now();
                device.wire.heard.insert(from);
                device.wire.unanswered.remove(&from);
                device.take_datagrams(from, &datagram, datagram.len());
                device.flush();
            }
            (from, datagram) = relayed.next_incoming() => take(&inner, from, &datagram),
            () = changed.notified() => {}
            () = timer => lock(&inner).at_now().handle_timeout(),
        }
    }
}

fn take(inner: &Mutex<Inner>, from: SocketAddr, datagram: &Bytes) {
    let mut inner = lock(inner);
    let device = inner.at_now();
    device.take_datagrams(from, datagram, datagram.len());
    device.flush();
}

async fn receive(socket: &dyn AsyncUdpSocket) -> (SocketAddr, Vec<u8>) {
    let mut bytes = vec![0; 2048];
    let mut meta = [RecvMeta::default()];
    let received = std::future::poll_fn(|cx| {
        socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)
    });
    if received.await.is_err() {
        return std::future::pending().await;
    }
    let [meta] = meta;
    bytes.truncate(meta.len);
    let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
    (from, bytes)
}

impl Sent {
    /// Looks at a datagram before it goes.
    fn watch(&mut self, to: SocketAddr, datagram: &[u8]) {
        if self.heard.contains(&to) {
            return;
        }
        if datagram.first() == Some(&IS_DATA) && datagram.len() >= DATA {
            let words = format!("a packet goes to {to}, from where nothing came");
            self.violation.get_or_insert(("S30", words));
        }
        let sent = self.unanswered.entry(to).or_default();
        sent.push_back(self.now);
        while sent
            .front()
            .is_some_and(|at| self.now.duration_since(*at) >= Duration::from_secs(1))
        {
            sent.pop_front();
        }
        if sent.len() > UNANSWERED {
            let words = format!(
                "{} datagrams a second go to {to}, which is silent",
                sent.len()
            );
            self.violation.get_or_insert(("S31", words));
        }
    }
}

impl Wire for Sent {
    fn transmit(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]) {
        if is_relay_place(&to) {
            return self.relayed.send(to, segment, bytes);
        }
        for datagram in bytes.chunks(segment.max(1)) {
            self.watch(to, datagram);
            // A host without such an address has lost it.
            let _ = self.socket.try_send(&Transmit {
                destination: to,
                ecn: None,
                contents: datagram,
                segment_size: None,
                src_ip: None,
            });
        }
    }
}

impl Inside for Delivered {
    fn deliver(&mut self, parts: &[IoSlice<'_>]) {
        let parts = parts.get(1..).unwrap_or_default();
        let packet: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if let Some(read) = read(&packet)
            && self.0.len() < DELIVERED
        {
            self.0.push_back(read);
        }
    }

    fn joins_tcp(&self) -> bool {
        false
    }

    fn joins_udp(&self) -> bool {
        false
    }
}

/// An IPv4 packet (RFC 791) that says a number.
fn packet(from: Ipv4Addr, to: Ipv4Addr, number: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = 0x45;
    packet[3] = PACKET as u8;
    // A protocol for experiments (RFC 3692), without checksums.
    (packet[8], packet[9]) = (64, 253);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..HEADER].copy_from_slice(&to.octets());
    packet[HEADER..HEADER + 8].copy_from_slice(&number.to_be_bytes());
    packet
}

fn read(packet: &[u8]) -> Option<(Ipv4Addr, u64)> {
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let number: [u8; 8] = packet.get(HEADER..HEADER + 8)?.try_into().ok()?;
    Some((from.into(), u64::from_be_bytes(number)))
}
