//! The transport over quinn: one UDP socket, TLS, and what the other files of
//! this folder make of its connections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use innermesh_proto::{
    crypto::PublicKey,
    id::NodeId,
    limits,
    rpc::{RequestFrame, close},
};
use tokio::sync::{Semaphore, broadcast};

use super::{
    core::Core,
    counters::{Counters, Tally},
    endpoint,
    error::{CallError, DialError, Exchange, TransportError},
    half_open::HalfOpen,
    lane::Lanes,
    link::{self, InFlight},
    pace::Paces,
    registry::{PeerEvent, PeerInfo, Registry},
    transport::{Channel, EnrolConnection, Handler, Membership, Settings, TransportBackend},
};
use crate::{
    host::{Host, within},
    listen::{Room, Shares},
    telemetry,
    tls::{self, ClientTls, ServerTls},
};

/// How often a call moves on to another connection with the same peer.
const MOVES: usize = 3;
/// How long closing waits for peers: to hear what was told them before, then
/// to hear of the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// One quinn endpoint. Clones are the same one.
#[derive(Clone)]
pub struct Quinn(pub(super) Arc<Core>);

impl Quinn {
    /// Binds the socket.
    ///
    /// # Errors
    /// [`TransportError`]; nothing was changed.
    pub fn open(host: &Host, settings: Settings) -> Result<Self, TransportError> {
        let server = settings.server.map(|tls| tls.quic());
        let registry = Arc::new(Registry::new(settings.me));
        let tally = Arc::new(Tally::default());
        let lanes = Lanes::new(registry.clone(), tally.clone(), host.clock.clone());
        let (endpoint, configs) = endpoint::open(host, settings.listen, server, lanes.clone())?;
        // A program of this host is a stranger like any other.
        let strangers = Shares {
            kept_local: 0,
            ..Shares::new(
                limits::STRANGERS,
                limits::STRANGERS_PER_ADDRESS,
                limits::STRANGERS_PER_ADDRESS,
            )
        };
        let mut instance = [0; 8];
        host.keys.random(&mut instance);
        Ok(Self(Arc::new(Core {
            me: settings.me,
            instance: u64::from_le_bytes(instance),
            clock: host.clock.clone(),
            tasks: host.tasks.clone(),
            client: ArcSwap::from_pointee(configs.client(settings.client.quic())),
            endpoint,
            configs,
            membership: settings.membership,
            open: settings.open_to_strangers,
            handler: OnceLock::new(),
            registry,
            paces: Paces::default(),
            strangers: Room::new(strangers, host.clock.clone()),
            answers: Mutex::default(),
            tally,
            lanes,
            dials: Semaphore::new(limits::DIALS),
            handshakes: AtomicUsize::new(0),
            half_open: HalfOpen::default(),
            serials: AtomicU64::new(0),
            ordinals: AtomicU64::new(0),
        })))
    }

    /// As [`TransportBackend::dial_unregistered`], with the connection itself in reach.
    pub(super) async fn dial_unregistered(
        &self,
        to: SocketAddr,
        client: Option<Arc<ClientTls>>,
    ) -> Result<QuinnEnrolConnection, DialError> {
        let config = match client {
            Some(tls) => self.0.configs.client(tls.quic()),
            None => (**self.0.client.load()).clone(),
        };
        let connection = self.0.connect(to, config).await?;
        Ok(QuinnEnrolConnection {
            core: self.0.clone(),
            exporter: link::exporter(&connection),
            connection,
        })
    }

    /// Waits until another connection than `left` is in force with `node`: the
    /// peer closed that one because it already has the other.
    async fn another_than(
        &self,
        left: u64,
        node: NodeId,
        version: &mut tokio::sync::watch::Receiver<u64>,
    ) {
        let there = |active: &InFlight| active.link().ordinal != left;
        while !self.0.registry.active(&node).as_ref().is_some_and(there) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

#[async_trait]
impl TransportBackend for Quinn {
    fn serve(&self, handler: Arc<dyn Handler>) {
        if self.0.handler.set(handler).is_ok() {
            self.0.tasks.spawn(self.0.clone().accept());
        }
    }

    async fn dial(&self, to: SocketAddr, expect: Option<NodeId>) -> Result<NodeId, DialError> {
        let core = &self.0;
        let connection = core.connect(to, (**core.client.load()).clone()).await?;
        let serial = core.serials.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(key) = tls::peer_key(&connection) else {
            connection.close(close::WRONG_NODE.into(), b"no node certificate");
            return Err(DialError::Nameless);
        };
        let node = key.node_id();
        if expect.is_some_and(|expected| expected != node) {
            connection.close(close::WRONG_NODE.into(), b"");
            return Err(DialError::WrongNode(node));
        }
        if core.membership.check(&key) == Membership::Revoked {
            connection.close(close::REVOKED.into(), b"");
            return Err(DialError::Revoked(node));
        }
        let link = core.start(connection, true, serial, None);
        let mut settled = link.settled.subscribe();
        let limit = Duration::from_millis(limits::HANDSHAKE_MS);
        // With TLS 1.3 the dialer's handshake ends before the other end has
        // judged its certificate; the hello says that it has.
        let introduced = async {
            tokio::select! {
                biased;
                _ = settled.wait_for(|done| *done) => Ok(()),
                error = link.connection.closed() => Err(DialError::from(error)),
            }
        };
        let result = within(&*core.clock, limit, introduced).await;
        if node == core.me {
            link.close(close::WRONG_NODE, "");
            return Err(DialError::Myself);
        }
        match result {
            Some(Ok(())) => Ok(node),
            Some(Err(error)) => Err(error),
            None => {
                link.close(close::NORMAL, "");
                Err(DialError::Timeout)
            }
        }
    }

    async fn dial_unregistered(
        &self,
        to: SocketAddr,
        client: Option<Arc<ClientTls>>,
    ) -> Result<Channel, DialError> {
        let connection = Self::dial_unregistered(self, to, client).await?;
        Ok(Channel::new(Box::new(connection)))
    }

    async fn call(
        &self,
        to: NodeId,
        method: u16,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let request = encode(method, timeout, body)?;
        let calling = async {
            let mut version = self.0.registry.version();
            for _ in 0..MOVES {
                version.borrow_and_update();
                let Some(active) = self.0.registry.active(&to) else {
                    break;
                };
                match link::exchange(&active.link().connection, request.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(Exchange::Failed(error)) => return Err(error),
                    Err(Exchange::Moved) => {
                        let left = active.link().ordinal;
                        drop(active);
                        self.another_than(left, to, &mut version).await;
                    }
                }
            }
            Err(CallError::NotConnected(to))
        };
        within(&*self.0.clock, timeout, calling)
            .await
            .unwrap_or(Err(CallError::Deadline))
    }

    fn notify(&self, to: NodeId, method: u16, body: Vec<u8>) -> bool {
        let queued = body.len() <= limits::RPC_BODY_BYTES
            && self.0.registry.active(&to).is_some_and(|active| {
                let frame = RequestFrame::new(method, 0, telemetry::traceparent(), body);
                active.link().queue(frame.encode())
            });
        let tally = &self.0.tally;
        if queued {
            tally.notices_queued.add()
        } else {
            tally.notices_dropped.add()
        }
        queued
    }

    fn send_datagram(&self, to: NodeId, datagram: Bytes) -> bool {
        self.0
            .registry
            .active(&to)
            .is_some_and(|active| active.link().connection.send_datagram(datagram).is_ok())
    }

    fn try_relay(&self, to: NodeId, datagram: Bytes) -> Result<(), Bytes> {
        let Some(active) = self.0.registry.active(&to) else {
            return Err(datagram);
        };
        let connection = &active.link().connection;
        if connection.datagram_send_buffer_space() < datagram.len() {
            return Err(datagram);
        }
        // What it refuses now it would refuse later.
        let _ = connection.send_datagram(datagram);
        Ok(())
    }

    async fn relay_datagrams(&self, to: NodeId, datagrams: Vec<Bytes>) -> usize {
        let connection = match self.0.registry.active(&to) {
            Some(active) => active.link().connection.clone(),
            None => return datagrams.len(),
        };
        let mut lost = 0;
        for datagram in datagrams {
            let sent = connection.send_datagram_wait(datagram).await;
            lost += usize::from(sent.is_err());
        }
        lost
    }

    fn acknowledgements(&self, from: NodeId) -> u64 {
        let active = self.0.registry.active(&from);
        active.map_or(0, |active| active.link().connection.stats().frame_rx.acks)
    }

    fn datagram_room(&self, to: NodeId) -> Option<usize> {
        self.0
            .registry
            .active(&to)?
            .link()
            .connection
            .max_datagram_size()
    }

    fn set_tls(&self, server: Arc<ServerTls>, client: Arc<ClientTls>) {
        let configs = &self.0.configs;
        self.0
            .endpoint
            .set_server_config(Some(configs.server(server.quic())));
        self.0.client.store(Arc::new(configs.client(client.quic())));
    }

    fn review(&self) {
        for link in self.0.registry.all() {
            match self.0.membership(&link) {
                Membership::Member => self.0.settle(&link),
                Membership::Revoked => self.0.revoke(&link),
                Membership::Unknown if link.is_registered() => {
                    link.close(close::PARTED, "no longer a member");
                }
                Membership::Unknown => {}
            }
        }
    }

    fn disconnect(&self, node: NodeId, why: &str) {
        for link in self.0.registry.of(&node) {
            link.close(close::PARTED, why);
        }
    }

    fn connected(&self) -> Vec<PeerInfo> {
        self.0.registry.connected()
    }

    fn paths(&self) -> BTreeMap<NodeId, SocketAddr> {
        self.0.registry.paths()
    }

    fn peers(&self) -> Vec<NodeId> {
        self.0.registry.peers()
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.0.registry.active(&node).is_some()
    }

    fn link_count(&self) -> usize {
        self.0.registry.all().len()
    }

    fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.0.registry.subscribe()
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    fn half_open(&self) -> Vec<IpAddr> {
        self.0.half_open.recent(self.0.clock.now())
    }

    fn lanes(&self) -> Option<&Lanes> {
        Some(&self.0.lanes)
    }

    fn counters(&self) -> Counters {
        self.0.tally.read()
    }

    async fn close(&self) {
        let flushed = async {
            for link in self.0.registry.all() {
                link.flushed().await;
            }
        };
        within(&*self.0.clock, FAREWELL, flushed).await;
        self.0.endpoint.close(close::SHUTDOWN.into(), b"");
        within(&*self.0.clock, FAREWELL, self.0.endpoint.wait_idle()).await;
    }
}

/// See [`Channel`].
pub struct QuinnEnrolConnection {
    core: Arc<Core>,
    pub(super) connection: quinn::Connection,
    exporter: [u8; 32],
}

#[async_trait]
impl EnrolConnection for QuinnEnrolConnection {
    async fn call(
        &self,
        method: u16,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let request = encode(method, timeout, body)?;
        let exchange = link::exchange(&self.connection, request);
        match within(&*self.core.clock, timeout, exchange).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(Exchange::Failed(error))) => Err(error),
            Some(Err(Exchange::Moved)) => Err(CallError::Lost(
                "the peer moved to another connection".into(),
            )),
            None => Err(CallError::Deadline),
        }
    }

    fn exporter(&self) -> [u8; 32] {
        self.exporter
    }

    fn peer_chain(&self) -> Vec<Vec<u8>> {
        tls::peer_chain(&self.connection)
    }

    fn peer_key(&self) -> Option<PublicKey> {
        tls::peer_key(&self.connection)
    }

    fn remote(&self) -> SocketAddr {
        link::plain(self.connection.remote_address())
    }
}

impl Drop for QuinnEnrolConnection {
    fn drop(&mut self) {
        self.connection.close(close::NORMAL.into(), b"");
    }
}

fn encode(method: u16, timeout: Duration, body: Vec<u8>) -> Result<Bytes, CallError> {
    if body.len() > limits::RPC_BODY_BYTES {
        return Err(CallError::TooLong(body.len()));
    }
    let deadline = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    Ok(
        RequestFrame::new(method, deadline, telemetry::traceparent(), body)
            .encode()
            .into(),
    )
}
