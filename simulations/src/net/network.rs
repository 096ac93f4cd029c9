//! The network as an agent on one host sees it.

use std::{
    any::Any,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use innermesh_agent::{
    host::{Datagrams, Host, Network, Presence, Stream, TcpListener, http_status},
    quic::{Messages, OpenMessages, Settings, Transport, TransportError},
};
use ipnet::IpNet;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{
    datagrams,
    inbox::Inbox,
    message,
    place::{EPHEMERAL, HostId},
    tcp,
    wire::Wire,
};
use crate::profile::Profile;

/// The name of each host's one interface.
const INTERFACE: &str = "sim0";

impl Wire {
    /// The network as an agent on `host` sees it.
    pub fn network(&self, host: HostId) -> Arc<dyn Network> {
        Arc::new(SimNetwork {
            wire: self.clone(),
            host,
        })
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

    fn listen_tcp(
        &self,
        address: SocketAddr,
        presence: Presence,
    ) -> io::Result<Box<dyn TcpListener>> {
        tcp::listen(&self.wire, self.host, address, presence)
    }

    fn dns_socket(
        &self,
        address: SocketAddr,
        presence: Presence,
    ) -> io::Result<Box<dyn Datagrams>> {
        datagrams::bind(&self.wire, self.host, address, presence)
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

#[cfg(test)]
mod tests {
    use std::{io::IoSliceMut, net::Ipv6Addr, time::Duration};

    use super::*;
    use crate::{
        clock,
        net::{address, link},
    };

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
