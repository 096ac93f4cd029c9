//! TCP between simulated hosts: ordered bytes, as late as the links between them
//! are, over the tunnel too. What is lost is sent again, which costs time; a
//! link that is cut ends the connections over it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::host::{Accepted, Presence, Stream, TcpListener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    pipe::{Connection, Flow, Pipe},
    place::{EPHEMERAL, HostId},
    tcp_table::unspecified,
    wire::{State, Wire},
};
use crate::clock;

/// Connections that wait to be accepted at one socket.
const BACKLOG: usize = 128;
/// Bytes under way in one direction of a connection.
const WINDOW: usize = 64 * 1024;
/// Bytes that are lost or arrive as one: a packet that every link takes.
const SEGMENT: usize = 1200;
/// How much later bytes arrive that were lost once.
const AGAIN: Duration = Duration::from_millis(200);
/// How often bytes are sent before the connection is given up (tcp_retries2 of
/// tcp(7)).
const PATIENCE: u32 = 15;
/// How often the first packets of a connection are sent, and how far apart
/// (RFC 6298, section 2.1).
const TRIES: usize = 3;
const FIRST_AGAIN: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn has_address(&self, host: HostId, ip: IpAddr) -> bool {
        ip.is_loopback()
            || self.hosts[host.0].addresses.contains(&ip)
            || self.tcp.overlay(host).contains(&ip)
    }

    /// The way of a connection: whom it reaches, and where it seems to come from.
    fn tcp_way(
        &mut self,
        host: HostId,
        to: SocketAddr,
    ) -> Option<(HostId, SocketAddr, SocketAddr)> {
        self.tcp.port = self
            .tcp
            .port
            .checked_add(1)
            .unwrap_or(EPHEMERAL)
            .max(EPHEMERAL);
        let port = self.tcp.port;
        if self.has_address(host, to.ip()) {
            return Some((host, SocketAddr::new(to.ip(), port), to));
        }
        if let Some((from, there)) = self.tcp.through_tunnel(host, to.ip()) {
            return Some((there, SocketAddr::new(from, port), to));
        }
        let (from, reached) = self.route(host, port, to);
        let (there, inside) = reached.ok()?;
        Some((there, from, inside))
    }

    /// How long so many bytes are under way; `None` over a link that is cut.
    fn delay(&mut self, from: HostId, to: HostId, length: usize) -> Option<Duration> {
        if from == to {
            return Some(Duration::ZERO);
        }
        if !self.links.is_up(from, to) || !self.links.is_up(to, from) {
            return None;
        }
        let mut tries = (0..PATIENCE).map(|n| (AGAIN * n, self.links.pass_all(from, to, length).1));
        tries.find_map(|(late, passed)| Some(late + passed.ok()?))
    }
}

/// Listens at an address of a host.
pub(super) fn listen(
    wire: &Wire,
    host: HostId,
    address: SocketAddr,
    presence: Presence,
) -> io::Result<Box<dyn TcpListener>> {
    let mut state = wire.lock();
    let is_there = address.ip().is_unspecified() || state.has_address(host, address.ip());
    if !is_there && presence == Presence::Present {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let listening = &mut state.tcp.listening;
    let is_free = |port: u16| {
        let mut taken = listening.keys().filter(|(at, _)| *at == host);
        !taken.any(|(_, other)| {
            let any = unspecified(other.ip());
            let same = other.ip() == address.ip()
                || address.ip() == any
                || other.ip() == any && other.is_ipv4() == address.is_ipv4();
            same && other.port() == port
        })
    };
    let port = match address.port() {
        0 => (EPHEMERAL..u16::MAX).find(|port| is_free(*port)),
        port => Some(port).filter(|port| is_free(*port)),
    };
    let port = port.ok_or(io::ErrorKind::AddrInUse)?;
    let local = SocketAddr::new(address.ip(), port);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    listening.insert((host, local), sender);
    Ok(Box::new(SimListener {
        wire: wire.clone(),
        host,
        local,
        waiting: tokio::sync::Mutex::new(receiver),
    }))
}

/// Connects a host to an address.
pub(super) async fn connect(
    wire: &Wire,
    host: HostId,
    to: SocketAddr,
) -> io::Result<Box<dyn Stream>> {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    for _ in 0..TRIES {
        let way = {
            let mut state = wire.lock();
            let way = state.tcp_way(host, to);
            way.and_then(|(there, from, at)| {
                let there_and_back = state.delay(host, there, 1)? + state.delay(there, host, 1)?;
                Some((there, from, at, there_and_back))
            })
        };
        // Nobody is there, or nothing passes: that isn't said to be told apart.
        let Some((there, from, at, time)) = way else {
            sleep(FIRST_AGAIN).await;
            continue;
        };
        sleep(time).await;
        let mut state = wire.lock();
        let Some(listener) = state.tcp.listener(there, at).cloned() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let connection = Arc::new(Connection {
            hosts: [host, there],
            pipes: [Pipe::default(), Pipe::default()],
        });
        let end = |side: usize| End {
            wire: wire.clone(),
            connection: connection.clone(),
            side,
        };
        let accepted = Accepted {
            stream: Box::new(end(1)),
            from,
            to: Some(at),
        };
        return match listener.try_send(accepted) {
            Ok(()) => {
                let connections = &mut state.tcp.connections;
                connections.retain(|connection| connection.strong_count() > 0);
                connections.push(Arc::downgrade(&connection));
                Ok(Box::new(end(0)))
            }
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        };
    }
    Err(io::ErrorKind::TimedOut.into())
}

struct SimListener {
    wire: Wire,
    host: HostId,
    local: SocketAddr,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

#[async_trait]
impl TcpListener for SimListener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self.waiting.lock().await.recv().await {
            Some(accepted) => Ok(accepted),
            // The host has lost its power: its tasks end.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn user_of(&self, _: &Accepted) -> Option<u32> {
        None
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.wire.lock();
        state.tcp.listening.remove(&(self.host, self.local));
    }
}

/// One end of a connection.
struct End {
    wire: Wire,
    connection: Arc<Connection>,
    side: usize,
}

impl End {
    fn outgoing(&self) -> MutexGuard<'_, Flow> {
        self.connection.pipes[self.side].lock()
    }

    fn incoming(&self) -> MutexGuard<'_, Flow> {
        self.connection.pipes[1 - self.side].lock()
    }

    /// When bytes that are sent now arrive.
    fn arrival(&self, length: usize) -> Option<Instant> {
        let (from, to) = (
            self.connection.hosts[self.side],
            self.connection.hosts[1 - self.side],
        );
        let mut state = self.wire.lock();
        let delay = state.delay(from, to, length)?;
        let begin = state.ready(from, clock::now());
        Some(state.ready(to, begin + delay))
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        self.incoming().poll_read(cx, buffer)
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = {
            let mut flow = self.outgoing();
            if flow.is_broken || flow.is_closed || flow.is_ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if flow.bytes >= WINDOW {
                flow.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            WINDOW - flow.bytes
        };
        let count = bytes.len().min(room).min(SEGMENT);
        let Some(arrival) = self.arrival(count) else {
            self.connection.break_off();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        let mut flow = self.outgoing();
        let arrival = flow.newest.map_or(arrival, |newest| newest.max(arrival));
        flow.newest = Some(arrival);
        flow.segments.push_back((arrival, bytes[..count].to_vec()));
        flow.bytes += count;
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        let arrival = self.arrival(1);
        let mut flow = self.outgoing();
        flow.is_ended = true;
        flow.newest = flow.newest.max(arrival);
        flow.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        {
            let mut flow = self.outgoing();
            flow.is_ended = true;
            flow.wake();
        }
        let mut flow = self.incoming();
        flow.is_closed = true;
        flow.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        net::{address, link::Link},
        profile::Profile,
    };

    /// Two hosts, and what the second one listens at.
    fn hosts(link: Link) -> (Wire, [HostId; 2], SocketAddr, Box<dyn TcpListener>) {
        let wire = Wire::new(1, Profile::Wire);
        wire.set_usual(link);
        let [a, b] = [1, 2].map(|n| wire.plug(&n.to_string(), &[address(n)]));
        let at = SocketAddr::new(address(2), 80);
        let listener = listen(&wire, b, at, Presence::Present).expect("a free address");
        (wire, [a, b], at, listener)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_whole_and_in_order_over_a_lossy_link() {
        let lossy = Link {
            loss: 0.2,
            jitter_ms: 30,
            ..Link::default()
        };
        let (wire, [a, _], at, listener) = hosts(lossy);
        let mut client = connect(&wire, a, at).await.expect("it listens");
        let Accepted {
            stream: mut server,
            from,
            ..
        } = listener.accept().await.expect("a connection");
        assert_eq!(from.ip(), address(1));
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let begin = clock::now();
        let (written, read) = tokio::join!(
            async {
                client.write_all(&sent).await?;
                client.shutdown().await
            },
            async {
                let mut read = Vec::new();
                server.read_to_end(&mut read).await.map(|_| read)
            }
        );
        written.expect("somebody reads");
        assert!(read.expect("nothing breaks it") == sent);
        assert!(clock::now() > begin + AGAIN, "something was lost");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_listens_a_connection_is_refused() {
        let (wire, [a, b], at, listener) = hosts(Link::default());
        let elsewhere = SocketAddr::new(at.ip(), 81);
        let refused = connect(&wire, a, elsewhere).await.err().expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let taken = listen(&wire, b, at, Presence::Present)
            .err()
            .expect("it is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let refused = connect(&wire, a, at).await.err().expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        listen(&wire, b, at, Presence::Present).expect("it is free again");
        let foreign = listen(&wire, a, at, Presence::Present)
            .err()
            .expect("another's address");
        assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_without_power_and_a_link_that_is_cut_break_connections() {
        let (wire, [a, b], at, listener) = hosts(Link::default());
        let mut client = connect(&wire, a, at).await.expect("it listens");
        let mut server = listener.accept().await.expect("a connection").stream;
        wire.cut(a, b);
        assert!(client.write_all(b"x").await.is_err());
        assert!(server.read_u8().await.is_err());
        let late = connect(&wire, a, at).await.err().expect("nothing passes");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        wire.heal();
        let mut client = connect(&wire, a, at).await.expect("it listens");
        wire.unplug(b);
        let broken = client.read_u8().await.expect_err("its peer is gone");
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);
    }
}
