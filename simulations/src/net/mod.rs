//! The network: UDP between simulated hosts, or whole messages (`message`), and
//! TCP (`tcp`).
//! [`link`] decides what becomes of a datagram; those that arrive do so in the
//! order of (time, sequence). A host
//! may be behind a NAT ([`nat`]), move to another address, and stand still. It
//! has this network and nothing else: no name server but the world's hosts.

pub mod link;
mod message;
pub mod nat;
mod tcp;

use std::{
    any::Any,
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use innermesh_agent::{
    host::{Host, Network, Stream, TcpListener, http_status},
    quic::{Messages, OpenMessages, Settings, Transport, TransportError},
};
use ipnet::IpNet;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep, sleep_until};

use self::{
    link::{Fate, Link, Links},
    message::Talk,
    nat::{Class, Nat},
    tcp::Tcp,
};
use crate::{clock, schedule::Profile, tunnel::SimTunnels};

/// Datagrams that wait for one socket; what comes beyond is lost.
const WAITING: usize = 4096;
/// The first port that is given to a socket that asked for any.
const EPHEMERAL: u16 = 49152;
/// The name of each host's one interface.
const INTERFACE: &str = "sim0";

/// A host's number in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(usize);

/// The network of one world. Clones are the same network.
#[derive(Clone)]
pub struct Wire {
    profile: Profile,
    state: Arc<Mutex<State>>,
}

struct State {
    sequence: u64,
    hosts: Vec<Place>,
    /// The host with each address, its NAT's public one included.
    whose: BTreeMap<IpAddr, HostId>,
    bound: BTreeMap<SocketAddr, Arc<Inbox>>,
    links: Links,
    talk: Talk,
    tcp: Tcp,
    observer: Option<Observer>,
}

/// Where a host is.
struct Place {
    name: String,
    addresses: Vec<IpAddr>,
    nat: Option<Nat>,
    /// Until when nothing goes in or out.
    still_until: Option<Instant>,
}

/// Is told of each datagram, when it is sent.
pub type Observer = Box<dyn FnMut(&Passing) + Send>;

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// By whom, as the receiver sees it.
    pub from: SocketAddr,
    /// To whom, as the sender named it.
    pub to: SocketAddr,
    /// Bytes of UDP payload. What they say differs from run to run, as TLS
    /// draws its own randomness.
    pub length: usize,
    /// What becomes of it.
    pub fate: Fate,
}

impl Wire {
    /// A network whose accidents are `seed`'s.
    pub fn new(seed: u64, profile: Profile) -> Self {
        let state = State {
            sequence: 0,
            hosts: Vec::new(),
            whose: BTreeMap::new(),
            bound: BTreeMap::new(),
            links: Links::new(seed),
            talk: Talk::new(seed),
            tcp: Tcp::default(),
            observer: None,
        };
        Self {
            profile,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Has `observer` told of each datagram from now on.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Makes `link` what lies between any two hosts that have no link of their
    /// own.
    pub fn set_usual(&self, link: Link) {
        let mut state = self.lock();
        state.links.set_usual(link);
        state.trouble();
    }

    /// Makes `link` what lies in the way from one host to another.
    pub fn set_link(&self, from: HostId, to: HostId, link: Link) {
        let mut state = self.lock();
        state.links.set(from, to, link);
        state.trouble();
    }

    /// Takes the way from one host to another down.
    pub fn cut(&self, from: HostId, to: HostId) {
        let mut state = self.lock();
        state.links.cut(from, to);
        state.trouble();
    }

    /// Makes all links good again.
    pub fn heal(&self) {
        self.lock().links.heal();
    }

    /// Takes all sockets of a host from it, as when its power fails: what they
    /// still send goes nowhere.
    pub fn unplug(&self, host: HostId) {
        let mut state = self.lock();
        let addresses = state.hosts[host.0].addresses.clone();
        state.bound.retain(|at, _| !addresses.contains(&at.ip()));
        let gone = state.talk.unplug(host);
        state.tcp.unplug(host);
        state.trouble();
        drop(state);
        drop(gone);
    }

    /// A new host's place in the network.
    pub fn plug(&self, name: &str, addresses: &[IpAddr]) -> HostId {
        let mut state = self.lock();
        state.hosts.push(Place {
            name: name.into(),
            addresses: addresses.to_vec(),
            nat: None,
            still_until: None,
        });
        let host = HostId(state.hosts.len() - 1);
        state.whose.extend(addresses.iter().map(|ip| (*ip, host)));
        host
    }

    /// Has the overlay addresses of a host be those of its tunnel.
    pub fn set_tunnels(&self, host: HostId, tunnels: SimTunnels) {
        self.lock().tcp.set_tunnels(host, tunnels);
    }

    /// The network as an agent on `host` sees it.
    pub fn network(&self, host: HostId) -> Arc<dyn Network> {
        Arc::new(SimNetwork {
            wire: self.clone(),
            host,
        })
    }

    /// Puts a host behind a NAT whose public address is `public`.
    pub fn set_nat(&self, host: HostId, class: Class, public: IpAddr) {
        let mut state = self.lock();
        state.hosts[host.0].nat = Some(Nat::new(class, public));
        state.whose.insert(public, host);
        state.trouble();
    }

    /// Restarts a host's NAT; `false` where it has none.
    pub fn rebind_nat(&self, host: HostId) -> bool {
        let mut state = self.lock();
        let nat = state.hosts[host.0].nat.as_mut();
        nat.map(Nat::rebind).is_some()
    }

    /// Gives a host the address `to` instead of `from`; its sockets stay, as
    /// those that are bound to any address do.
    pub fn roam(&self, host: HostId, from: IpAddr, to: IpAddr) {
        let mut state = self.lock();
        for address in &mut state.hosts[host.0].addresses {
            if *address == from {
                *address = to;
            }
        }
        state.whose.remove(&from);
        state.whose.insert(to, host);
        state.trouble();
        let moved: Vec<SocketAddr> = state.bound.keys().copied().collect();
        for old in moved.into_iter().filter(|at| at.ip() == from) {
            if let Some(inbox) = state.bound.remove(&old) {
                state.bound.insert(SocketAddr::new(to, old.port()), inbox);
            }
        }
    }

    /// Lets nothing in or out of a host before `until`; what is sent
    /// meanwhile, by it and to it, passes then.
    pub fn still(&self, host: HostId, until: Instant) {
        let mut state = self.lock();
        state.hosts[host.0].still_until = Some(until);
        state.trouble();
        let addresses = state.hosts[host.0].addresses.clone();
        for (_, inbox) in state
            .bound
            .iter()
            .filter(|(at, _)| addresses.contains(&at.ip()))
        {
            inbox.hold(until);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, host: HostId, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = clock::now();
        let mut state = self.lock();
        let length = bytes.len();
        let from = match &mut state.hosts[host.0].nat {
            Some(nat) => nat.outward(from, to, now),
            None => from,
        };
        let target = state.target(from, to, now);
        let mut times = Vec::new();
        // Lost without a word where nobody is, as behind most firewalls.
        let fate = match &target {
            Err(fate) => *fate,
            Ok((receiver, _)) => {
                let (fate, passed) = state.links.pass(host, *receiver, length);
                let begin = state.ready(host, now);
                let arrivals = passed.into_iter().map(|time| begin + time);
                times = arrivals.map(|at| state.ready(*receiver, at)).collect();
                fate
            }
        };
        if let Some(observer) = &mut state.observer {
            observer(&Passing {
                from,
                to,
                length,
                fate,
            });
        }
        let first = state.sequence;
        state.sequence += times.len() as u64;
        drop(state);
        let Ok((_, inbox)) = target else { return };
        for place in times.into_iter().zip(first..) {
            let bytes = bytes.to_vec();
            inbox.put(place, Datagram { from, to, bytes });
        }
    }
}

impl State {
    /// Who gets a datagram to this address, or why nobody does.
    fn target(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Result<(HostId, Arc<Inbox>), Fate> {
        let (host, inside) = self.inside(from, to, now)?;
        let inbox = self.bound.get(&inside).ok_or(Fate::Nowhere)?;
        Ok((host, inbox.clone()))
    }

    /// Where what a host sends from a port seems to come from, and which host
    /// gets it at which of its own addresses.
    fn route(
        &mut self,
        host: HostId,
        port: u16,
        to: SocketAddr,
    ) -> (SocketAddr, Result<(HostId, SocketAddr), Fate>) {
        let now = clock::now();
        let place = &mut self.hosts[host.0];
        let mut addresses = place.addresses.iter();
        let own = addresses.find(|ip| ip.is_ipv4() == to.is_ipv4());
        let Some(own) = own else {
            return (to, Err(Fate::Nowhere));
        };
        let from = SocketAddr::new(*own, port);
        let from = match &mut place.nat {
            Some(nat) => nat.outward(from, to, now),
            None => from,
        };
        (from, self.inside(from, to, now))
    }

    /// Which host has this address, and the address inside of its NAT.
    fn inside(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Result<(HostId, SocketAddr), Fate> {
        let host = *self.whose.get(&to.ip()).ok_or(Fate::Nowhere)?;
        let inside = match &self.hosts[host.0].nat {
            Some(nat) if nat.public() == to.ip() => {
                nat.inward(to.port(), from, now).ok_or(Fate::Filtered)?
            }
            // An address behind a NAT means nothing outside.
            Some(_) => return Err(Fate::Nowhere),
            None => to,
        };
        Ok((host, inside))
    }

    /// When a host that may stand still takes part again, if not at `at`.
    fn ready(&self, host: HostId, at: Instant) -> Instant {
        let still = self.hosts[host.0].still_until;
        still.map_or(at, |until| until.max(at))
    }
}

#[derive(Clone)]
struct SimNetwork {
    wire: Wire,
    host: HostId,
}

impl SimNetwork {
    fn addresses(&self) -> Vec<IpAddr> {
        self.wire.lock().hosts[self.host.0].addresses.clone()
    }
}

impl OpenMessages for SimNetwork {
    fn open(&self, host: &Host, settings: Settings) -> Result<Transport, TransportError> {
        message::open(&self.wire, self.host, host, settings)
    }
}

#[async_trait]
impl Network for SimNetwork {
    fn quic_socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let addresses = self.addresses();
        let ips: Vec<IpAddr> = match listen.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => addresses,
            IpAddr::V4(ip) if ip.is_unspecified() => {
                addresses.into_iter().filter(IpAddr::is_ipv4).collect()
            }
            ip if addresses.contains(&ip) => vec![ip],
            _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let mut state = self.wire.lock();
        let is_free = |port: u16| {
            ips.iter()
                .all(|ip| !state.bound.contains_key(&SocketAddr::new(*ip, port)))
        };
        let port = match listen.port() {
            0 => (EPHEMERAL..u16::MAX).find(|port| is_free(*port)),
            port => Some(port).filter(|port| is_free(*port)),
        };
        let port = port.ok_or(io::ErrorKind::AddrInUse)?;
        let inbox = Arc::new(Inbox::default());
        for ip in &ips {
            let address = SocketAddr::new(*ip, port);
            state.bound.insert(address, inbox.clone());
        }
        drop(state);
        Ok(Arc::new(Socket {
            wire: self.wire.clone(),
            host: self.host,
            local: SocketAddr::new(listen.ip(), port),
            inbox,
        }))
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn messages(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        match self.wire.profile {
            Profile::Wire => None,
            Profile::Message => Some(Arc::new(Messages(Box::new(self.clone())))),
        }
    }

    fn listen_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListener>> {
        tcp::listen(&self.wire, self.host, address)
    }

    async fn local_addresses(&self) -> Vec<(String, IpAddr)> {
        let here = self.addresses().into_iter();
        here.map(|ip| (INTERFACE.to_owned(), ip)).collect()
    }

    async fn clash(&self, _: IpNet, _: &str) -> Option<String> {
        None
    }

    async fn upstream_resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = match name.parse() {
            Ok(ip) => Some(vec![ip]),
            Err(_) => {
                let state = self.wire.lock();
                let named = state.hosts.iter().find(|place| place.name == name);
                named.map(|place| place.addresses.clone())
            }
        };
        let addresses = addresses.ok_or_else(|| io::Error::other("no such host"))?;
        Ok(addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        tcp::connect(&self.wire, self.host, address).await
    }

    async fn probe_tcp(&self, address: SocketAddr) -> io::Result<()> {
        self.connect(address).await.map(drop)
    }

    async fn probe_http(&self, address: SocketAddr, host: &str, path: &str) -> io::Result<u16> {
        http_status(self.connect(address).await?, host, path).await
    }
}

/// A UDP socket, as quinn wants one.
struct Socket {
    wire: Wire,
    host: HostId,
    local: SocketAddr,
    inbox: Arc<Inbox>,
}

impl Socket {
    /// An address as this socket shows it: one of both families shows IPv4
    /// addresses as mapped ones (RFC 4291 §2.5.5.2).
    fn shown(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.local.is_ipv6() => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let to = SocketAddr::new(
            transmit.destination.ip().to_canonical(),
            transmit.destination.port(),
        );
        // The first of its addresses that is of the same family.
        let from = {
            let state = self.wire.lock();
            let addresses = state.hosts[self.host.0].addresses.iter();
            let mine = addresses
                .map(|ip| SocketAddr::new(*ip, self.local.port()))
                .filter(|at| {
                    let bound = state.bound.get(at);
                    bound.is_some_and(|bound| Arc::ptr_eq(bound, &self.inbox))
                });
            let mut fit = mine.filter(|at| at.is_ipv4() == to.is_ipv4());
            match transmit.src_ip.map(|ip| ip.to_canonical()) {
                Some(ip) => fit.find(|at| at.ip() == ip),
                None => fit.next(),
            }
        };
        // Its address is gone, or it was unplugged.
        let Some(from) = from else { return Ok(()) };
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(size.max(1)) {
            self.wire.send(self.host, from, to, bytes);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Poll::Ready(datagram) = self.inbox.poll_take(cx) else {
                break;
            };
            let length = datagram.bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&datagram.bytes[..length]);
            *meta = RecvMeta {
                addr: self.shown(datagram.from),
                len: length,
                stride: length,
                ecn: None,
                dst_ip: Some(self.shown(datagram.to).ip()),
            };
            taken += 1;
        }
        match taken {
            0 => Poll::Pending,
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.wire.lock();
        state
            .bound
            .retain(|_, inbox| !Arc::ptr_eq(inbox, &self.inbox));
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated UDP at {}", self.local)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// When a datagram arrives, and its number of all that were sent.
type Arrival = (Instant, u64);

/// What is under way to one socket.
#[derive(Default)]
struct Inbox(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    datagrams: BTreeMap<Arrival, Datagram>,
    reader: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Inbox {
    fn put(&self, place: Arrival, datagram: Datagram) {
        let mut queue = self.lock();
        if queue.datagrams.len() >= WAITING {
            return;
        }
        queue.datagrams.insert(place, datagram);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Has everything that would arrive before `until` arrive then.
    fn hold(&self, until: Instant) {
        let mut queue = self.lock();
        let later = queue.datagrams.split_off(&(until, 0));
        let held = std::mem::replace(&mut queue.datagrams, later);
        let held = held
            .into_iter()
            .map(|((_, number), one)| ((until, number), one));
        queue.datagrams.extend(held);
    }

    /// The next datagram that has arrived.
    fn poll_take(&self, cx: &mut Context) -> Poll<Datagram> {
        let mut queue = self.lock();
        while let Some((&(due, _), _)) = queue.datagrams.first_key_value() {
            if due <= clock::now() {
                let (_, datagram) = queue.datagrams.pop_first().expect("it was there");
                return Poll::Ready(datagram);
            }
            let timer = queue
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            if Future::poll(timer.as_mut(), cx).is_pending() {
                break;
            }
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a host of a world is, by its number.
pub fn address(number: u32) -> IpAddr {
    // The documentation's prefix (RFC 3849).
    let host = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    IpAddr::V6(Ipv6Addr::from(u128::from(host) + u128::from(number)))
}

/// Another address for the host that has `home`, its `number`th.
pub fn elsewhere(home: IpAddr, number: u32) -> IpAddr {
    let IpAddr::V6(home) = home else { return home };
    let mut segments = home.segments();
    segments[2] = number as u16;
    segments[3] = (number >> 16) as u16;
    IpAddr::V6(segments.into())
}

#[cfg(test)]
mod tests {
    use std::{io::IoSliceMut, time::Duration};

    use super::*;

    fn transmit(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        }
    }

    async fn receive(socket: &Arc<dyn AsyncUdpSocket>) -> (SocketAddr, Vec<u8>) {
        let mut bytes = vec![0; 2000];
        let mut meta = [RecvMeta::default()];
        std::future::poll_fn(|cx| {
            socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)
        })
        .await
        .unwrap();
        bytes.truncate(meta[0].len);
        (meta[0].addr, bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_arrive_in_order_after_the_latency() {
        let wire = Wire::new(1, Profile::Wire);
        let (a, b) = (address(1), address(2));
        let listen = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let sender = wire
            .network(wire.plug("a", &[a]))
            .quic_socket(listen(0))
            .unwrap();
        let receiver = wire
            .network(wire.plug("b", &[b]))
            .quic_socket(listen(9))
            .unwrap();
        let start = clock::now();
        for text in [&b"one"[..], b"two", &[0; link::LARGEST + 1], b"three"] {
            sender
                .try_send(&transmit(SocketAddr::new(b, 9), text))
                .unwrap();
        }
        let from = SocketAddr::new(a, sender.local_addr().unwrap().port());
        for text in [&b"one"[..], b"two", b"three"] {
            assert_eq!(receive(&receiver).await, (from, text.to_vec()));
        }
        assert_eq!(clock::now() - start, Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_of_both_families_shows_ipv4_as_mapped() {
        let wire = Wire::new(1, Profile::Wire);
        let v4 = |last| IpAddr::from([192, 0, 2, last]);
        let sender = wire.network(wire.plug("a", &[v4(1)]));
        let sender = sender.quic_socket("0.0.0.0:7".parse().unwrap()).unwrap();
        let receiver = wire.network(wire.plug("b", &[v4(2), address(2)]));
        let receiver = receiver.quic_socket("[::]:9".parse().unwrap()).unwrap();
        sender
            .try_send(&transmit("192.0.2.2:9".parse().unwrap(), b"x"))
            .unwrap();
        let (from, _) = receive(&receiver).await;
        assert_eq!(from, "[::ffff:192.0.2.1]:7".parse().unwrap());
    }

    #[tokio::test]
    async fn a_port_is_free_again_when_its_socket_is_gone() {
        let wire = Wire::new(1, Profile::Wire);
        let host = wire.network(wire.plug("a", &[address(1)]));
        let listen = "[::]:5".parse().unwrap();
        let socket = host.quic_socket(listen).unwrap();
        let refused = host.quic_socket(listen).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(host.quic_socket(listen).is_ok());
        let elsewhere = SocketAddr::new(address(2), 5);
        assert!(host.quic_socket(elsewhere).is_err());
    }
}
