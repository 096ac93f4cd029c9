//! The sockets of the DNS service. UDP is hickory's server; TCP connections
//! are accepted here, because hickory's take no cap.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_server::{Server, net::xfer::Protocol, proto::op::MessageType, server::Request};
use innermesh_proto::limits;
use socket2::Type;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::responder::{Dns, Handler};
use innermesh_host::{
    Clock,
    holder::{self, Kind},
    listen::{self, Place, Room, Shares, Sources},
    sockets,
};

/// How long a TCP connection may be idle, and how long one message may take
/// (RFC 7766 §6.2.3: some seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Receive buffer of a UDP socket, in bytes: room for a burst.
const UDP_BUFFER: usize = 1 << 20;

/// Why the service doesn't listen. Nothing is left bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has the port.
    #[error(
        "{transport} port {} on {} is taken by {holder}; stop that program, or set `dns.listen` in the config to another address or port",
        address.port(), address.ip()
    )]
    InUse {
        /// Where.
        address: SocketAddr,
        /// UDP or TCP.
        transport: Kind,
        /// Who, as far as can be told.
        holder: String,
    },
    /// Ports below 1024 take a privilege.
    #[error(
        "{transport} port {} on {} needs root or CAP_NET_BIND_SERVICE; run as a service, or set `dns.listen` in the config to a port above 1023",
        address.port(), address.ip()
    )]
    Denied {
        /// Where.
        address: SocketAddr,
        /// UDP or TCP.
        transport: Kind,
    },
    /// The address isn't this host's.
    #[error("no interface of this host has {}; correct `dns.listen` in the config", address.ip())]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("can't listen on {transport} {address}: {error}; see `dns.listen` in the config")]
    Other {
        /// Where.
        address: SocketAddr,
        /// UDP or TCP.
        transport: Kind,
        /// The operating system's error.
        #[source]
        error: io::Error,
    },
}

/// A [`Dns`] on sockets, until it is dropped.
pub struct DnsServer {
    dns: Arc<Dns>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
}

impl DnsServer {
    /// Serves on UDP and TCP at each address; port 0 takes a free one.
    ///
    /// # Errors
    /// Why one of the addresses can't be had; then none is served.
    pub fn start(
        dns: Arc<Dns>,
        clock: Arc<dyn Clock>,
        sources: &Arc<dyn Sources>,
        listen: &[SocketAddr],
    ) -> Result<Self, ListenError> {
        let mut udp = Server::new(Handler(dns.clone()));
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        let shares = Shares::new(
            limits::DNS_TCP_CONNECTIONS,
            limits::DNS_TCP_PER_ADDRESS,
            limits::DNS_TCP_PER_USER,
        );
        let room = Room::new(shares, clock.clone());
        for &address in listen {
            let (address, socket, listener) = bind(address)?;
            addresses.push(address);
            udp.register_socket(socket);
            let tcp = Tcp {
                dns: dns.clone(),
                clock: clock.clone(),
            };
            let listener = listen::Tcp::new(listener, sources.clone());
            tasks.spawn(tcp.serve(listener, room.clone()));
        }
        if !listen.is_empty() {
            tasks.spawn(async move {
                if let Err(error) = udp.block_until_done().await {
                    tracing::error!(%error, "DNS over UDP ended; restart the agent");
                }
            });
        }
        dns.listens(&addresses);
        Ok(Self {
            dns,
            addresses,
            tasks,
        })
    }

    /// Ends, and waits until its addresses are free again.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.dns.listens_no_more(&self.addresses);
    }
}

/// Binds UDP and TCP to one address; where any port will do, to the same one.
fn bind(wanted: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), ListenError> {
    // A port that is free for one transport may be taken for the other.
    let mut attempts = if wanted.port() == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        let bound = bind_once(wanted);
        match bound {
            Err(ListenError::InUse { .. }) if attempts > 0 => {}
            other => return other,
        }
    }
}

fn bind_once(wanted: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), ListenError> {
    let udp = || -> io::Result<(UdpSocket, SocketAddr)> {
        let socket = sockets::socket(wanted, Type::DGRAM)?;
        // Best effort: the kernel caps it.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        socket.bind(&wanted.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    let (udp, address) = udp().map_err(|error| listen_error(wanted, Kind::Udp, error))?;
    let tcp = sockets::tcp(address).map_err(|error| listen_error(address, Kind::Tcp, error))?;
    Ok((address, udp, tcp))
}

fn listen_error(address: SocketAddr, transport: Kind, error: io::Error) -> ListenError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse {
            address,
            transport,
            holder: holder::of_address(transport, address)
                .map_or_else(|| "another program".into(), |holder| holder.to_string()),
        },
        io::ErrorKind::PermissionDenied => ListenError::Denied { address, transport },
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere { address },
        _ => ListenError::Other {
            address,
            transport,
            error,
        },
    }
}

#[derive(Clone)]
struct Tcp {
    dns: Arc<Dns>,
    clock: Arc<dyn Clock>,
}

impl Tcp {
    async fn serve(self, listener: listen::Tcp, room: Arc<Room>) {
        let clock = self.clock.clone();
        let answer = move |(stream, source): (TcpStream, SocketAddr), _, place: Arc<Place>| {
            let tcp = self.clone();
            async move {
                if let Err(error) = tcp.converse(stream, source, &place).await {
                    tracing::debug!(%source, %error, "DNS over TCP ended");
                }
            }
        };
        listen::serve("DNS over TCP", listener, room, clock, answer).await;
    }

    /// Answers one question after the other (RFC 7766), until the client
    /// closes, is idle, or sends what is no question.
    async fn converse(
        &self,
        mut stream: TcpStream,
        source: SocketAddr,
        place: &Arc<Place>,
    ) -> io::Result<()> {
        let _ = stream.set_nodelay(true);
        while let Some(question) = self.in_time(read_message(&mut stream)).await? {
            let request =
                Request::from_bytes(question, source, Protocol::Tcp).map_err(io::Error::other)?;
            if request.metadata.message_type == MessageType::Response {
                return Ok(());
            }
            let working = place.working();
            let mut reply = self.dns.respond(&request).await;
            drop(working);
            let Some(answer) = reply.encode(&request, Protocol::Tcp) else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            self.in_time(stream.write_all(&framed)).await?;
        }
        Ok(())
    }

    async fn in_time<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            done = work => done,
            () = self.clock.sleep(TCP_IDLE) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The next message; `None` where the client has closed.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
