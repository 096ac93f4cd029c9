//! Sockets, and what the host knows of its network.

use std::{
    any::Any,
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    datagrams::Datagrams,
    holder::{Holder, Kind},
    port_map::Gateway,
};

/// Sockets and what the host knows of its network.
#[async_trait]
pub trait Network: Send + Sync {
    /// A UDP socket for quinn.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    fn quic_socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>>;
    /// The runtime that drives quinn.
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime>;
    /// What agents here talk over instead of QUIC: a simulation's own, which the
    /// transport knows by its type.
    fn messages(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
    /// A TCP socket that listens, on IPv6 for that alone; port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    fn listen_tcp(
        &self,
        address: SocketAddr,
        presence: Presence,
    ) -> io::Result<Box<dyn TcpListener>> {
        let _ = (address, presence);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// A UDP socket to answer DNS on, on IPv6 for that alone; port 0 takes a free
    /// one.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    fn dns_socket(
        &self,
        address: SocketAddr,
        presence: Presence,
    ) -> io::Result<Box<dyn Datagrams>> {
        let _ = (address, presence);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Takes a UDP port on all addresses of the host and gives it back.
    ///
    /// # Errors
    /// The operating system's, such as a port in use at one of them.
    fn try_udp_port(&self, port: u16) -> io::Result<()> {
        let _ = port;
        Ok(())
    }
    /// Who stands in the way of one that would listen at `address`, as far as
    /// that can be told: for messages to a person.
    fn holder(&self, kind: Kind, address: SocketAddr) -> Option<Holder> {
        let _ = (kind, address);
        None
    }
    /// Global unicast addresses of the host's interfaces that are up.
    async fn local_addresses(&self) -> Vec<(String, IpAddr)>;
    /// The address of this host from which packets go to `to`.
    fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        let _ = to;
        None
    }
    /// The router that packets for the internet go to by IPv4, whatever exit is used.
    async fn gateway(&self) -> Option<Gateway> {
        None
    }
    /// Sends datagrams from this host's address towards a router, and waits without an end
    /// for one that comes back from the router's; where one was sent, from where it went.
    ///
    /// # Errors
    /// Why none can be sent, or that nobody listens there.
    async fn ask_router(
        &self,
        _gateway: &Gateway,
        _packets: &[(SocketAddrV4, Vec<u8>)],
    ) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// A local address or route, other than a default route, that overlaps
    /// `net` on another interface than `except`; as text for a person.
    async fn clash(&self, net: IpNet, except: &str) -> Option<String>;
    /// Name servers that the host uses for other names, best first.
    async fn upstream_resolvers(&self) -> Vec<SocketAddr>;
    /// The addresses of a host name, by the host's own resolver.
    ///
    /// # Errors
    /// The resolver's.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// Opens a TCP connection.
    ///
    /// # Errors
    /// Why it could not be opened.
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>>;
    /// As [`Network::connect`], by this host's own routes also where everything else goes
    /// by an exit, and for packets in small bursts.
    ///
    /// # Errors
    /// Why it could not be opened.
    async fn connect_past_exit(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        self.connect(address).await
    }
    /// Opens a connection to a Unix socket of another program.
    ///
    /// # Errors
    /// Why it could not be opened.
    async fn connect_unix(&self, _path: &Path) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Opens a TCP connection and closes it.
    ///
    /// # Errors
    /// Why it could not be opened.
    async fn probe_tcp(&self, address: SocketAddr) -> io::Result<()>;
    /// Sends a ping in a packet of `bytes` bytes, and waits for its reply, without
    /// an end.
    ///
    /// # Errors
    /// Why none can be sent.
    async fn echo(&self, _address: IpAddr, _bytes: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// As [`Network::echo`], from an address of this host.
    ///
    /// # Errors
    /// Why none can be sent.
    async fn echo_from(&self, _source: IpAddr, _address: IpAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Has the host send to exactly these addresses in packets of 1280 bytes at most.
    ///
    /// # Errors
    /// The operating system's.
    async fn keep_narrow(&self, _to: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Fetches `path` by HTTP/1.1 and returns the status code.
    ///
    /// # Errors
    /// Why there was no answer.
    async fn probe_http(&self, address: SocketAddr, host: &str, path: &str) -> io::Result<u16>;
}

/// Whether an address to listen at is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is: one that no interface has is an error.
    Present,
    /// It may come later: whoever holds its port by then has it.
    Awaited,
}

/// A connection.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// A TCP socket that listens.
#[async_trait]
pub trait TcpListener: Send + Sync {
    /// The next connection.
    ///
    /// # Errors
    /// The operating system's. The socket still listens.
    async fn accept(&self) -> io::Result<Accepted>;
    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The user of this host whose program is at the other end; `None` where it
    /// is no program of this host, or that can't be told.
    fn user_of(&self, accepted: &Accepted) -> Option<u32>;
}

/// A connection that was accepted.
pub struct Accepted {
    /// Its bytes, sent without waiting for more (TCP_NODELAY): answers are written
    /// whole.
    pub stream: Box<dyn Stream>,
    /// Where it comes from.
    pub from: SocketAddr,
    /// The address of this host that it came to, where that is known.
    pub to: Option<SocketAddr>,
}

/// The status code of one HTTP/1.1 GET (RFC 9112 §4) on a connection.
///
/// # Errors
/// The connection's, or the answer isn't HTTP.
pub async fn http_status(mut stream: Box<dyn Stream>, host: &str, path: &str) -> io::Result<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: innermesh\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    // "HTTP/1.1 200" is all that matters, and all that is read.
    stream.take(12).read_to_end(&mut line).await?;
    std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|rest| rest.get(2..5))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))
}
