//! The transport as the rest of the agent uses it: dial, call, notify, and be
//! called.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
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
    rpc::{Failure, RequestFrame, close},
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use tokio::sync::{Semaphore, broadcast};

use super::{
    core::Core,
    counters::{Counters, Tally},
    endpoint,
    error::{CallError, DialError, Exchange, TransportError},
    link::{self, InFlight},
    registry::{PeerEvent, PeerInfo, Registry},
    within,
};
use crate::{host::Host, telemetry, tls};

/// How often a call moves on to another connection with the same peer.
const MOVES: usize = 3;
/// How long closing waits for peers: to hear what was told them before, then
/// to hear of the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the ledger says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A member.
    Member,
    /// Not known here; it may be a member that the ledger held here doesn't
    /// know yet.
    Unknown,
    /// Was a member and no longer is.
    Revoked,
}

/// Says who is a member, from the ledger held here. Asked at every handshake
/// and every request: it must answer at once.
pub trait Admission: Send + Sync {
    /// What the ledger says of `key`.
    fn standing(&self, key: &PublicKey) -> Standing;
}

/// Answers peers.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers a request. The future is dropped at the deadline, which is the
    /// caller's but at most [`limits::HANDLER_MS`]; what must not be torn
    /// belongs into a task of its own.
    ///
    /// # Errors
    /// The [`Failure`] that the caller is told.
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure>;

    /// Takes in a member's one-way message. Several of one peer may be under
    /// way at the same time, in any order.
    async fn notice(&self, caller: &Caller, method: u16, body: Vec<u8>);

    /// Takes in a member's datagram. Must return at once.
    fn datagram(&self, caller: &Caller, datagram: Bytes) {
        let _ = (caller, datagram);
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The member, by the ledger held here at this moment; a stranger has none.
    pub node: Option<NodeId>,
    /// The key that the peer proved by TLS, if it has one.
    pub key: Option<PublicKey>,
    /// Its address, as its packets arrive.
    pub remote: SocketAddr,
    /// The session's exporter (RFC 5705), label "innermesh join", the same at
    /// both ends and at no other session.
    pub exporter: [u8; 32],
}

/// What a transport is opened with.
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// The UDP address to listen on and to dial from.
    pub listen: SocketAddr,
    /// TLS towards those who dial this node; a node that has not joined has
    /// none, and can't be dialed.
    pub server: Option<Arc<QuicServerConfig>>,
    /// TLS towards those whom this node dials.
    pub client: Arc<QuicClientConfig>,
    /// Who is a member.
    pub admission: Arc<dyn Admission>,
    /// The methods that strangers may call.
    pub open_to_strangers: BTreeSet<u16>,
}

/// The transport. Clones are cheap and are the same transport.
#[derive(Clone)]
pub struct Transport(pub(super) Arc<Core>);

impl Transport {
    /// Binds the socket. Peers are answered from [`Transport::serve`] on.
    ///
    /// # Errors
    /// [`TransportError`]; nothing was changed.
    pub fn open(host: &Host, settings: Settings) -> Result<Self, TransportError> {
        let (endpoint, configs) = endpoint::open(host, settings.listen, settings.server)?;
        let mut instance = [0; 8];
        host.keys.random(&mut instance);
        Ok(Self(Arc::new(Core {
            me: settings.me,
            instance: u64::from_le_bytes(instance),
            clock: host.clock.clone(),
            tasks: host.tasks.clone(),
            client: ArcSwap::from_pointee(configs.client(settings.client)),
            endpoint,
            configs,
            admission: settings.admission,
            open: settings.open_to_strangers,
            handler: OnceLock::new(),
            registry: Arc::new(Registry::new(settings.me)),
            tally: Arc::new(Tally::default()),
            dials: Semaphore::new(limits::DIALS),
            handshakes: AtomicUsize::new(0),
            serials: AtomicU64::new(0),
            ordinals: AtomicU64::new(0),
        })))
    }

    /// Takes connections in and answers with `handler`, until
    /// [`Transport::close`]. Only the first call has an effect.
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        if self.0.handler.set(handler).is_ok() {
            self.0.tasks.spawn(self.0.clone().accept());
        }
    }

    /// Connects to the agent at `to` and gives the identity that it proved. If
    /// that is a member by the ledger held here, the connection is registered;
    /// if it is not known, the connection stays for a while and is registered
    /// as soon as it is.
    ///
    /// # Errors
    /// [`DialError`]; there is then no connection.
    pub async fn dial(&self, to: SocketAddr, expect: Option<NodeId>) -> Result<NodeId, DialError> {
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
        if core.admission.standing(&key) == Standing::Revoked {
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

    /// Connects without registering, for joining and renewing, with other TLS
    /// settings if given. The other end keeps such a connection for
    /// [`limits::STRANGER_MS`] at most.
    ///
    /// # Errors
    /// [`DialError`]; there is then no connection.
    pub async fn dial_unregistered(
        &self,
        to: SocketAddr,
        client: Option<Arc<QuicClientConfig>>,
    ) -> Result<Channel, DialError> {
        let config = match client {
            Some(tls) => self.0.configs.client(tls),
            None => (**self.0.client.load()).clone(),
        };
        let connection = self.0.connect(to, config).await?;
        Ok(Channel {
            core: self.0.clone(),
            exporter: link::exporter(&connection),
            connection,
        })
    }

    /// Asks a connected peer.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have been carried out.
    pub async fn call(
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

    /// Tells a connected peer, without an answer and without waiting: `false`
    /// when it wasn't queued, because there is no connection or the queue is full.
    pub fn notify(&self, to: NodeId, method: u16, body: Vec<u8>) -> bool {
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

    /// Sends a datagram, at once or not at all.
    pub fn send_datagram(&self, to: NodeId, datagram: Bytes) -> bool {
        self.0
            .registry
            .active(&to)
            .is_some_and(|active| active.link().connection.send_datagram(datagram).is_ok())
    }

    /// Largest datagram that fits on the path to a connected peer at this
    /// moment, in bytes.
    pub fn datagram_room(&self, to: NodeId) -> Option<usize> {
        self.0
            .registry
            .active(&to)?
            .link()
            .connection
            .max_datagram_size()
    }

    /// Uses other TLS settings from now on, for new connections.
    pub fn set_tls(&self, server: Arc<QuicServerConfig>, client: Arc<QuicClientConfig>) {
        let configs = &self.0.configs;
        self.0
            .endpoint
            .set_server_config(Some(configs.server(server)));
        self.0.client.store(Arc::new(configs.client(client)));
    }

    /// Asks the ledger anew about every connected peer: drops those that are
    /// revoked or no longer members, registers those that became members. To
    /// be called after every change of membership.
    pub fn review(&self) {
        for link in self.0.registry.all() {
            match self.0.standing(&link) {
                Standing::Member => self.0.settle(&link),
                Standing::Revoked => self.0.revoke(&link),
                Standing::Unknown if link.is_registered() => {
                    link.close(close::PARTED, "no longer a member");
                }
                Standing::Unknown => {}
            }
        }
    }

    /// Closes every connection with `node`.
    pub fn disconnect(&self, node: NodeId, why: &str) {
        for link in self.0.registry.of(&node) {
            link.close(close::PARTED, why);
        }
    }

    /// The members connected, by their id.
    pub fn connected(&self) -> Vec<PeerInfo> {
        self.0.registry.connected()
    }

    /// The members connected and the address that each one's packets come
    /// from: [`Self::connected`] without the statistics, which cost more.
    pub fn paths(&self) -> BTreeMap<NodeId, SocketAddr> {
        self.0.registry.paths()
    }

    /// Whether `node` is connected.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.0.registry.active(&node).is_some()
    }

    /// Connections served, registered or not.
    pub fn link_count(&self) -> usize {
        self.0.registry.all().len()
    }

    /// News of peers from now on. Who falls behind reads
    /// [`Transport::connected`] anew.
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.0.registry.subscribe()
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// What was counted since the transport was opened.
    pub fn counters(&self) -> Counters {
        self.0.tally.read()
    }

    /// Closes every connection, once what was told to peers has arrived, and
    /// stops listening.
    pub async fn close(&self) {
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

/// A connection for joining and renewing: its owner asks and is never asked.
pub struct Channel {
    core: Arc<Core>,
    pub(super) connection: quinn::Connection,
    exporter: [u8; 32],
}

impl Channel {
    /// Asks the peer.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have been carried out.
    pub async fn call(
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

    /// The session's exporter (RFC 5705), label "innermesh join".
    pub fn exporter(&self) -> [u8; 32] {
        self.exporter
    }

    /// The peer's certificates in DER, its own first.
    pub fn peer_chain(&self) -> Vec<Vec<u8>> {
        tls::peer_chain(&self.connection)
    }

    /// The key that the peer proved by TLS, where it is an Ed25519 key.
    pub fn peer_key(&self) -> Option<PublicKey> {
        tls::peer_key(&self.connection)
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        link::plain(self.connection.remote_address())
    }
}

impl Drop for Channel {
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
