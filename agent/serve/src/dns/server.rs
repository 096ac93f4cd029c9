//! The sockets of the DNS service. None is hickory's: its TCP takes no cap, and
//! its UDP makes a task for each question.

use std::{net::SocketAddr, sync::Arc};

use innermesh_proto::limits;
use tokio::task::JoinHandle;

use super::{service::Dns, tcp::Tcp, udp};
use innermesh_host::{
    Clock, Datagrams, Host, Network, Presence, Serving,
    holder::Kind,
    listen::{self, ListenError, Room, Shares, Sources},
    tasks::Tasks,
};

/// What a person can set so that it listens elsewhere.
const INSTEAD: &str = "set `dns.listen` in the config to another address or port";

/// A [`Dns`] on sockets, until it is dropped.
pub struct DnsServer {
    dns: Arc<Dns>,
    addresses: Vec<SocketAddr>,
    answering: Vec<Box<dyn Serving>>,
    serving: Vec<JoinHandle<()>>,
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
        let mut serving = Vec::new();
        for listener in listeners {
            let tcp = Tcp {
                dns: dns.clone(),
                clock: host.clock.clone(),
                is_encrypted: false,
            };
            serving.push(host.tasks.spawn(tcp.serve(listener, host.room.clone())));
        }
        let mut server = Self {
            dns: dns.clone(),
            addresses,
            answering: Vec::new(),
            serving,
        };
        dns.listens(&server.addresses);
        for socket in sockets {
            let address = socket.local_addr();
            dns.transfers().listens(address, socket.sender());
            let (udp, careful) = udp::both(&dns, socket.sender());
            let answering = socket.serve(Arc::new(udp)).map_err(|error| {
                ListenError::new(&*host.net, Kind::Udp, address, error, INSTEAD)
            })?;
            server.answering.push(answering);
            server.serving.push(host.tasks.spawn(careful.serve()));
        }
        Ok(server)
    }

    /// Ends, and waits until its addresses are free again.
    pub async fn end(mut self) {
        self.abort();
        for serving in std::mem::take(&mut self.serving) {
            // How it ended doesn't matter: what it held is gone.
            let _ = serving.await;
        }
        for answering in std::mem::take(&mut self.answering) {
            answering.end().await;
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn abort(&self) {
        // A sender that is left would keep its socket open.
        self.dns.transfers().listens_no_more(&self.addresses);
        for serving in &self.serving {
            serving.abort();
        }
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

type Bound = (Box<dyn Datagrams>, listen::Tcp);

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
    let address = udp.local_addr();
    let sources = host.sources.clone();
    let tcp = listen::Tcp::bind(&*host.net, address, presence, sources, INSTEAD)?;
    Ok((udp, tcp))
}
