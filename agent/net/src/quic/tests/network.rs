//! A host for tests: its clock is tokio's, which a test may pause, and its
//! network is in memory, where packets take a millisecond, or loopback.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::crypto::{Hash, PublicKey, Signature, Verify};
use ipnet::IpNet;
use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use crate::host::{
    Host, Network,
    keys::{CaKey, KeyError, Keys, NodeKey, SystemKeys},
    system,
};

const LATENCY: Duration = Duration::from_millis(1);

/// One datagram: microseconds since the network began, from, to, length.
pub type Sent = (u128, SocketAddr, SocketAddr, usize);

/// Links in memory.
#[derive(Debug)]
pub struct Net {
    start: tokio::time::Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sockets: BTreeMap<SocketAddr, Arc<Inbox>>,
    /// Addresses whose packets, either way, are lost.
    cut: Vec<SocketAddr>,
    sent: Vec<Sent>,
}

#[derive(Debug, Default)]
struct Inbox(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Net {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: tokio::time::Instant::now(),
            state: Mutex::default(),
        })
    }

    /// Loses every packet from and to `address` from now on.
    pub fn cut(&self, address: SocketAddr) {
        self.state.lock().unwrap().cut.push(address);
    }

    /// Takes the socket at `address` away, as a killed process leaves it, so
    /// that another can take its place.
    pub fn kill(&self, address: SocketAddr) {
        self.state.lock().unwrap().sockets.remove(&address);
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().sent.clone()
    }

    fn send(
        self: &Arc<Self>,
        from: &Arc<Inbox>,
        source: SocketAddr,
        to: SocketAddr,
        datagram: Vec<u8>,
    ) {
        let mut state = self.state.lock().unwrap();
        // A killed process' socket sends nothing.
        let alive = state
            .sockets
            .get(&source)
            .is_some_and(|s| Arc::ptr_eq(s, from));
        if !alive || state.cut.contains(&source) || state.cut.contains(&to) {
            return;
        }
        let at = self.start.elapsed().as_micros();
        state.sent.push((at, source, to, datagram.len()));
        drop(state);
        let net = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LATENCY).await;
            let inbox = net.state.lock().unwrap().sockets.get(&to).cloned();
            if let Some(inbox) = inbox {
                let mut inbox = inbox.0.lock().unwrap();
                inbox.datagrams.push_back((source, datagram));
                if let Some(waker) = inbox.reader.take() {
                    waker.wake();
                }
            }
        });
    }
}

#[derive(Debug)]
struct Socket {
    net: Arc<Net>,
    address: SocketAddr,
    inbox: Arc<Inbox>,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Always)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for datagram in transmit.contents.chunks(size.max(1)) {
            self.net.send(
                &self.inbox,
                self.address,
                transmit.destination,
                datagram.to_vec(),
            );
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.0.lock().unwrap();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((from, datagram)) = inbox.datagrams.pop_front() else {
                break;
            };
            buf[..datagram.len()].copy_from_slice(&datagram);
            *meta = RecvMeta {
                addr: from,
                len: datagram.len(),
                stride: datagram.len(),
                ..RecvMeta::default()
            };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A host on `net`, or on loopback where there is none. With a `seed`, its
/// randomness is a function of it.
pub fn host(net: Option<Arc<Net>>, seed: Option<u64>) -> Host {
    let mut host = system::host(PathBuf::new());
    if let Some(net) = net {
        host.net = Arc::new(Memory(net));
    }
    if let Some(seed) = seed {
        host.keys = Arc::new(Seeded(Mutex::new((seed, 0))));
    }
    host
}

struct Memory(Arc<Net>);

#[async_trait]
impl Network for Memory {
    fn quic_socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inbox = Arc::new(Inbox::default());
        let sockets = &mut self.0.state.lock().unwrap().sockets;
        assert!(
            sockets.insert(listen, inbox.clone()).is_none(),
            "{listen} is taken"
        );
        Ok(Arc::new(Socket {
            net: self.0.clone(),
            address: listen,
            inbox,
        }))
    }

    fn quic_runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime)
    }

    async fn local_addresses(&self) -> Vec<(String, IpAddr)> {
        unreachable!("the transport asks for no addresses")
    }

    async fn clash(&self, _: IpNet, _: &str) -> Option<String> {
        unreachable!("the transport looks at no routes")
    }

    async fn upstream_resolvers(&self) -> Vec<SocketAddr> {
        unreachable!("the transport resolves nothing")
    }

    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        unreachable!("the transport resolves nothing")
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Box<dyn crate::host::Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn probe_tcp(&self, _: SocketAddr) -> io::Result<()> {
        unreachable!("the transport probes nothing")
    }

    async fn probe_http(&self, _: SocketAddr, _: &str, _: &str) -> io::Result<u16> {
        unreachable!("the transport probes nothing")
    }
}

struct Seeded(Mutex<(u64, u64)>);

impl Keys for Seeded {
    fn random(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let mut random = self.0.lock().unwrap();
            random.1 += 1;
            let block = Hash::of(format!("{random:?}").as_bytes()).0;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }

    fn generate_ed25519(&self) -> Arc<dyn NodeKey> {
        SystemKeys.generate_ed25519()
    }

    fn load_ed25519(&self, pkcs8: &[u8]) -> Result<Arc<dyn NodeKey>, KeyError> {
        SystemKeys.load_ed25519(pkcs8)
    }

    fn generate_p256(&self) -> Arc<dyn CaKey> {
        SystemKeys.generate_p256()
    }

    fn load_p256(&self, pkcs8: &[u8]) -> Result<Arc<dyn CaKey>, KeyError> {
        SystemKeys.load_p256(pkcs8)
    }
}

impl Verify for Seeded {
    fn ed25519(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        SystemKeys.ed25519(key, message, signature)
    }

    fn p256(&self, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        SystemKeys.p256(spki, message, signature)
    }
}
