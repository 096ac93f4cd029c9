//! Sockets at which strangers ask. Their threads have no way to the mesh's own names.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use innermesh_host::{
    Clock, DatagramBatch, Host, Network, Presence, Responder, Serving,
    holder::Kind,
    listen::{self, ListenError, Room, Shares, Sources},
    tasks::Tasks,
};
use innermesh_proto::limits;
use tokio::task::JoinHandle;

use super::{super::udp::can_be_answered, PublicDns, tcp};

/// What a person can set so that it listens elsewhere.
const INSTEAD: &str = "set `dns` of [sinkhole] in the config";

/// A [`PublicDns`] at one address, until it is dropped.
pub struct PublicServer {
    answering: Option<Box<dyn Serving>>,
    serving: JoinHandle<()>,
}

/// What it needs of the host.
pub struct PublicSurroundings {
    net: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    sources: Arc<dyn Sources>,
    room: Arc<Room>,
}

impl PublicSurroundings {
    /// Of `host`; all servers share the places for connections.
    pub fn of(host: &Host, sources: Arc<dyn Sources>) -> Self {
        let shares = Shares::new(
            limits::SINKHOLE_DNS_CONNECTIONS,
            limits::SINKHOLE_DNS_CONNECTIONS_PER_ADDRESS,
            limits::SINKHOLE_DNS_CONNECTIONS,
        );
        Self {
            net: host.net.clone(),
            clock: host.clock.clone(),
            tasks: host.tasks.clone(),
            sources,
            room: Room::new(shares, host.clock.clone()),
        }
    }
}

impl PublicServer {
    /// Answers at an address over UDP and TCP.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn start(
        dns: &Arc<PublicDns>,
        host: &PublicSurroundings,
        at: SocketAddr,
    ) -> Result<Self, ListenError> {
        let failed = |error| ListenError::new(&*host.net, Kind::Udp, at, error, INSTEAD);
        let udp = host.net.dns_socket(at, Presence::Present).map_err(failed)?;
        let sources = host.sources.clone();
        let listener = listen::Tcp::bind(&*host.net, at, Presence::Present, sources, INSTEAD)?;
        let answering = udp.serve(Arc::new(Udp(dns.clone()))).map_err(failed)?;
        let (room, clock) = (host.room.clone(), host.clock.clone());
        let serving = tcp::serve(dns.clone(), listener, room, clock);
        Ok(Self {
            answering: Some(answering),
            serving: host.tasks.spawn(serving),
        })
    }

    /// Ends, and waits until its address is free again.
    pub async fn end(mut self) {
        self.serving.abort();
        // How it ended doesn't matter: what it held is gone.
        let _ = (&mut self.serving).await;
        if let Some(answering) = self.answering.take() {
            answering.end().await;
        }
    }
}

impl Drop for PublicServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers datagrams.
struct Udp(Arc<PublicDns>);

impl Responder for Udp {
    fn respond(&self, batch: &mut DatagramBatch) {
        for slot in batch.received() {
            let source = slot.from().source;
            if can_be_answered(source) {
                let source: IpAddr = source.ip();
                let (message, reply) = slot.parts();
                self.0.respond(message, source, true, reply);
            }
        }
    }
}
