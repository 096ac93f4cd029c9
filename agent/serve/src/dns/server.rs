//! The sockets of the DNS service. UDP is hickory's server; TCP connections
//! are accepted here, because hickory's take no cap.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_server::{Server, net::xfer::Protocol, proto::op::MessageType, server::Request};
use innermesh_proto::limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::responder::{Dns, Handler};
use innermesh_host::{
    Clock, Host, Network, Presence, Stream,
    holder::Kind,
    listen::{self, ListenError, Place, Room, Shares, Sources},
    tasks::Tasks,
};

/// How long a TCP connection may be idle, and how long one message may take
/// (RFC 7766 §6.2.3: some seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);

/// What a person can set so that it listens elsewhere.
const INSTEAD: &str = "set `dns.listen` in the config to another address or port";

/// A [`Dns`] on sockets, until it is dropped.
pub struct DnsServer {
    dns: Arc<Dns>,
    addresses: Vec<SocketAddr>,
    serving: Vec<AbortHandle>,
    /// Has UDP end: hickory's tasks let go of their sockets only when told.
    stop: watch::Sender<bool>,
    /// Ends once nothing is served any more.
    ended: mpsc::Receiver<()>,
}

impl DnsServer {
    /// Serves on UDP and TCP at each address; port 0 takes a free one.
    ///
    /// # Errors
    /// Why one of the addresses can't be had; then none is served.
    pub fn start(
        dns: Arc<Dns>,
        host: &Surroundings,
        listen: &[SocketAddr],
        presence: Presence,
    ) -> Result<Self, ListenError> {
        // All sockets first: one that a task has closes some time after that task
        // was ended, and whoever tries again would find the port taken by itself.
        let bound: Result<Vec<Bound>, ListenError> = listen
            .iter()
            .map(|address| bind(host, *address, presence))
            .collect();
        let (sockets, listeners): (Vec<_>, Vec<_>) = bound?.into_iter().unzip();
        let addresses: Vec<SocketAddr> = listeners.iter().map(listen::Tcp::address).collect();
        let (alive, ended) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let mut serving = Vec::new();
        for listener in listeners {
            let tcp = Tcp {
                dns: dns.clone(),
                clock: host.clock.clone(),
            };
            let (room, alive) = (host.room.clone(), alive.clone());
            serving.push(host.tasks.spawn(async move {
                let _alive = alive;
                tcp.serve(listener, room).await;
            }));
        }
        let sockets: Vec<UdpSocket> = sockets.into_iter().flatten().collect();
        if !sockets.is_empty() {
            let handler = Handler(dns.clone());
            host.tasks.spawn(async move {
                let _alive = alive;
                serve_udp(handler, sockets, stopped).await;
            });
        }
        dns.listens(&addresses);
        Ok(Self {
            dns,
            addresses,
            serving,
            stop,
            ended,
        })
    }

    /// Ends, and waits until its addresses are free again.
    pub async fn end(mut self) {
        self.abort();
        // Nobody says anything: the last that could has ended.
        let _ = self.ended.recv().await;
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn abort(&self) {
        self.stop.send_replace(true);
        for serving in &self.serving {
            serving.abort();
        }
    }
}

/// Answers on these sockets until told to stop; they are closed then.
async fn serve_udp(handler: Handler, sockets: Vec<UdpSocket>, mut stop: watch::Receiver<bool>) {
    let mut server = Server::new(handler);
    for socket in sockets {
        server.register_socket(socket);
    }
    let told = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = server.block_until_done() => ended,
        () = told => server.shutdown_gracefully().await,
    };
    if let Err(error) = ended {
        tracing::error!(%error, "DNS over UDP ended; restart the agent");
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.abort();
        self.dns.listens_no_more(&self.addresses);
    }
}

/// What it needs of the host, and who is told apart how.
pub struct Surroundings {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Sockets.
    pub net: Arc<dyn Network>,
    /// What runs in the background.
    pub tasks: Tasks,
    /// Tells clients apart.
    pub sources: Arc<dyn Sources>,
    /// Places for connections over TCP: all servers here share them.
    pub room: Arc<Room>,
}

impl Surroundings {
    /// Those on `host`.
    pub fn of(host: &Host, sources: Arc<dyn Sources>) -> Self {
        Self {
            room: Self::room(host.clock.clone()),
            clock: host.clock.clone(),
            net: host.net.clone(),
            tasks: host.tasks.clone(),
            sources,
        }
    }

    /// As many places as connections may have together.
    pub fn room(clock: Arc<dyn Clock>) -> Arc<Room> {
        let shares = Shares::new(
            limits::DNS_TCP_CONNECTIONS,
            limits::DNS_TCP_PER_ADDRESS,
            limits::DNS_TCP_PER_USER,
        );
        Room::new(shares, clock)
    }
}

type Bound = (Option<UdpSocket>, listen::Tcp);

/// Binds UDP and TCP to one address; where any port will do, to the same one.
fn bind(host: &Surroundings, wanted: SocketAddr, presence: Presence) -> Result<Bound, ListenError> {
    // A port that is free for one transport may be taken for the other.
    let mut attempts = if wanted.port() == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        let bound = bind_once(host, wanted, presence);
        match bound {
            Err(ListenError::InUse { .. }) if attempts > 0 => {}
            other => return other,
        }
    }
}

fn bind_once(
    host: &Surroundings,
    wanted: SocketAddr,
    presence: Presence,
) -> Result<Bound, ListenError> {
    let failed = |error| ListenError::new(&*host.net, Kind::Udp, wanted, error, INSTEAD);
    let udp = host.net.dns_socket(wanted, presence).map_err(failed)?;
    let address = match &udp {
        Some(socket) => socket.local_addr().map_err(failed)?,
        None => wanted,
    };
    let sources = host.sources.clone();
    let tcp = listen::Tcp::bind(&*host.net, address, presence, sources, INSTEAD)?;
    Ok((udp, tcp))
}

#[derive(Clone)]
struct Tcp {
    dns: Arc<Dns>,
    clock: Arc<dyn Clock>,
}

impl Tcp {
    async fn serve(self, listener: listen::Tcp, room: Arc<Room>) {
        let clock = self.clock.clone();
        let answer =
            move |(stream, source): (Box<dyn Stream>, SocketAddr), _, place: Arc<Place>| {
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
        mut stream: Box<dyn Stream>,
        source: SocketAddr,
        place: &Arc<Place>,
    ) -> io::Result<()> {
        while let Some(question) = self.in_time(read_message(&mut *stream)).await? {
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
async fn read_message(stream: &mut dyn Stream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
