//! The transport as the rest of the agent uses it: dial, call, notify, and be
//! called.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use innermesh_proto::{crypto::PublicKey, endpoint::is_lane, id::NodeId, rpc::Failure};
use tokio::sync::{broadcast, mpsc};

use super::{
    counters::Counters,
    demand::{Demand, Demands, Noting},
    error::{CallError, DialError, TransportError},
    lane::Lanes,
    registry::{PeerEvent, PeerInfo},
};
use crate::{
    host::{Clock, Host, Mono},
    tls::{ClientTls, ServerTls},
};

/// What the ledger says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Member,
    /// Not known here; it may be a member that the ledger held here doesn't
    /// know yet.
    Unknown,
    /// Was a member and no longer is.
    Revoked,
}

/// Says who is a member, from the ledger held here. Asked at every handshake
/// and every request: it must answer at once.
pub trait MembershipCheck: Send + Sync {
    /// What the ledger says of `key`.
    fn check(&self, key: &PublicKey) -> Membership;

    /// Whether a stranger's request shows that a member sent it or invited its
    /// sender: such a connection keeps its place. It must cost little.
    fn proves(&self, caller: &Caller, method: u16, body: &[u8]) -> bool {
        let _ = (caller, method, body);
        false
    }
}

/// What is given back when it is dropped.
pub type Held = Box<dyn std::any::Any + Send>;

/// Answers peers.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers a request. The future is dropped at the deadline, which is the
    /// caller's but at most [`HANDLER_MS`](innermesh_proto::limits::HANDLER_MS); what must not be torn
    /// belongs into a task of its own.
    ///
    /// # Errors
    /// The [`Failure`] that the caller is told.
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure>;

    /// Waits for what the answer needs of memory that callers share. It is held
    /// until the answer was delivered, and waiting for it is part of the
    /// deadline.
    async fn make_room(&self, caller: &Caller, method: u16) -> Held {
        let _ = (caller, method);
        Box::new(())
    }

    /// Takes in a member's one-way message. Several of one peer may be under
    /// way at the same time, in any order.
    async fn notice(&self, caller: &Caller, method: u16, body: Vec<u8>);

    /// Whether a member's work isn't counted, see
    /// [`PEER_WORK`](innermesh_proto::limits::PEER_WORK): those who decide tell each
    /// other more than others do. Must answer at once.
    fn is_free(&self, node: &NodeId) -> bool {
        let _ = node;
        false
    }

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
    /// Its address, as its packets arrive; over a lane, that of its TCP connection.
    pub remote: SocketAddr,
    /// The session's exporter (RFC 5705), label "innermesh join", the same at
    /// both ends and at no other session.
    pub exporter: [u8; 32],
}

/// What a transport is opened with.
pub struct Settings {
    pub me: NodeId,
    /// The UDP address to listen on and to dial from.
    pub listen: SocketAddr,
    /// TLS towards those who dial this node; a node that has not joined has
    /// none, and can't be dialed.
    pub server: Option<Arc<ServerTls>>,
    /// TLS towards those whom this node dials.
    pub client: Arc<ClientTls>,
    /// Who is a member.
    pub membership: Arc<dyn MembershipCheck>,
    /// The methods that strangers may call.
    pub open_to_strangers: BTreeSet<u16>,
}

/// What carries requests and messages between agents. One implementation is
/// over quinn; a host whose network is not made of UDP brings its own.
#[async_trait]
pub trait TransportBackend: Send + Sync {
    /// Takes connections in and answers with `handler`, until
    /// [`TransportBackend::close`]. Only the first call has an effect.
    fn serve(&self, handler: Arc<dyn Handler>);

    /// Connects to the agent at `to` and gives the identity that it proved. If
    /// that is a member by the ledger held here, the connection is registered;
    /// if it is not known, the connection stays for a while and is registered
    /// as soon as it is.
    ///
    /// # Errors
    /// [`DialError`]; there is then no connection.
    async fn dial(&self, to: SocketAddr, expect: Option<NodeId>) -> Result<NodeId, DialError>;

    /// Connects without registering, for joining and renewing, with other TLS
    /// settings if given. The other end keeps such a connection for
    /// [`STRANGER_MS`](innermesh_proto::limits::STRANGER_MS) at most.
    ///
    /// # Errors
    /// [`DialError`]; there is then no connection.
    async fn dial_unregistered(
        &self,
        to: SocketAddr,
        client: Option<Arc<ClientTls>>,
    ) -> Result<Channel, DialError>;

    /// Asks a connected peer.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have been carried out.
    async fn call(
        &self,
        to: NodeId,
        method: u16,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError>;

    /// Tells a connected peer, without an answer and without waiting: `false`
    /// when it wasn't queued, because there is no connection or the queue is full.
    fn notify(&self, to: NodeId, method: u16, body: Vec<u8>) -> bool;

    /// Sends a datagram, at once or not at all.
    fn send_datagram(&self, to: NodeId, datagram: Bytes) -> bool;

    /// Sends a datagram where there is room for it now; else it is given back.
    ///
    /// # Errors
    /// The datagram, which wasn't sent.
    fn try_relay(&self, to: NodeId, datagram: Bytes) -> Result<(), Bytes> {
        let sent = self.send_datagram(to, datagram.clone());
        sent.then_some(()).ok_or(datagram)
    }

    /// Sends datagrams that may wait for room, which those of
    /// [`TransportBackend::send_datagram`] don't: how many weren't sent.
    async fn relay_datagrams(&self, to: NodeId, datagrams: Vec<Bytes>) -> usize {
        let lost = datagrams.into_iter();
        lost.filter(|datagram| !self.send_datagram(to, datagram.clone()))
            .count()
    }

    /// How many acknowledgements have come from a connected peer, over the connection
    /// that datagrams to it take; 0 where there is none.
    fn acknowledgements(&self, from: NodeId) -> u64;

    /// Largest datagram that fits on the path to a connected peer at this
    /// moment, in bytes.
    fn datagram_room(&self, to: NodeId) -> Option<usize>;

    /// Uses other TLS settings from now on, for new connections.
    fn set_tls(&self, server: Arc<ServerTls>, client: Arc<ClientTls>);

    /// Asks the ledger anew about every connected peer: drops those that are
    /// revoked or no longer members, registers those that became members. To
    /// be called after every change of membership.
    fn review(&self);

    /// Closes every connection with `node`.
    fn disconnect(&self, node: NodeId, why: &str);

    /// The members connected, by their id.
    fn connected(&self) -> Vec<PeerInfo>;

    /// The members connected and the address that each one's packets come
    /// from, which may stand for a lane: [`Self::connected`] without the statistics, which
    /// cost more.
    fn paths(&self) -> BTreeMap<NodeId, SocketAddr>;

    /// The connected members, in the order of their ids.
    fn peers(&self) -> Vec<NodeId>;

    /// Whether `node` is connected.
    fn is_connected(&self, node: NodeId) -> bool;

    /// Connections served, registered or not.
    fn link_count(&self) -> usize;

    /// News of peers from now on. Who falls behind reads
    /// [`TransportBackend::connected`] anew.
    fn events(&self) -> broadcast::Receiver<PeerEvent>;

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The operating system's.
    fn local_addr(&self) -> std::io::Result<SocketAddr>;

    /// Addresses from which handshakes arrived of late that were never finished: what
    /// this end answered wasn't heard there, or no agent sent them.
    fn half_open(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    /// Its lanes; none where it isn't over QUIC.
    fn lanes(&self) -> Option<&Lanes> {
        None
    }

    /// What was counted since the transport was opened.
    fn counters(&self) -> Counters;

    /// Closes every connection, once what was told to peers has arrived, and
    /// stops listening.
    async fn close(&self);
}

/// A connection for joining and renewing: its owner asks and is never asked.
/// It is closed when dropped.
#[async_trait]
pub trait EnrolConnection: Send + Sync {
    /// Asks the peer.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have been carried out.
    async fn call(
        &self,
        method: u16,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError>;

    /// The session's exporter (RFC 5705), label "innermesh join".
    fn exporter(&self) -> [u8; 32];

    /// The peer's certificates in DER, its own first.
    fn peer_chain(&self) -> Vec<Vec<u8>>;

    /// The key that the peer proved by TLS, where it is an Ed25519 key.
    fn peer_key(&self) -> Option<PublicKey>;

    /// The peer's address.
    fn remote(&self) -> SocketAddr;
}

/// Opens what agents talk over where that isn't QUIC.
pub trait OpenMessages: Send + Sync {
    /// Opens it on `host`'s network.
    ///
    /// # Errors
    /// [`TransportError`]; nothing was changed.
    fn open(&self, host: &Host, settings: Settings) -> Result<Transport, TransportError>;
}

/// What [`crate::host::Network::messages`] gives, by its type.
pub struct Messages(pub Box<dyn OpenMessages>);

/// The transport, see [`Transport::open`]. Clones are cheap and are the same
/// transport.
#[derive(Clone)]
pub struct Transport {
    backend: Arc<dyn TransportBackend>,
    demands: Arc<Demands>,
}

impl Transport {
    /// One over `backend`.
    pub fn new(backend: Arc<dyn TransportBackend>) -> Self {
        Self {
            backend,
            demands: Arc::default(),
        }
    }

    /// As [`TransportBackend::serve`].
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        let demands = self.demands.clone();
        self.backend.serve(Arc::new(Noting { handler, demands }));
    }

    /// Has `node` connected with, for `timeout` at most, where it isn't. Whether it is
    /// connected.
    pub async fn connect(&self, node: NodeId, timeout: Duration) -> bool {
        self.is_connected(node) || self.demands.connect(node, timeout).await.is_some()
    }

    /// Asks a member, connected or not.
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
        let mut left = timeout;
        if !self.is_connected(to) {
            let took = self.demands.connect(to, timeout).await;
            let took = took.ok_or(CallError::NotConnected(to))?;
            left = timeout.saturating_sub(took);
        }
        self.demands.note_used(to);
        self.backend.call(to, method, body, left).await
    }

    /// The connection with a peer is used.
    pub fn note_used(&self, node: NodeId) {
        self.demands.note_used(node);
    }

    /// What asks for connections from now on, by `clock`; only the first call has an
    /// effect.
    pub fn demands(&self, clock: Arc<dyn Clock>) -> mpsc::Receiver<Demand> {
        self.demands.listen(clock)
    }

    /// Peers that asked or were asked something since this was called last.
    pub fn take_used(&self) -> BTreeSet<NodeId> {
        self.demands.take_used()
    }

    /// A member was reached.
    pub fn note_reached(&self, node: NodeId, at: SocketAddr) {
        // A lane leads nowhere once it has ended.
        if is_lane(&at) {
            return;
        }
        self.demands.note_reached(node, at);
    }

    /// A member couldn't be connected with.
    pub fn note_failed(&self, node: NodeId, now: Mono) {
        self.demands.note_failed(node, now);
    }

    /// Forgets failures with those that aren't tried any more, and everything of those
    /// that are no members.
    pub fn retain(&self, is_member: impl Fn(&NodeId) -> bool, is_tried: impl Fn(&NodeId) -> bool) {
        self.demands.retain(is_member, is_tried);
    }

    /// Where each member was reached last: those that are connected, and those whose
    /// connection wasn't needed any more.
    pub fn reached(&self) -> BTreeMap<NodeId, SocketAddr> {
        let mut reached = self.demands.reached();
        let by_udp = self.paths().into_iter();
        reached.extend(by_udp.filter(|(_, at)| !is_lane(at)));
        reached
    }

    /// Since when each member can't be connected with that was tried.
    pub fn failing(&self) -> BTreeMap<NodeId, Mono> {
        self.demands.failing()
    }
}

impl Deref for Transport {
    type Target = dyn TransportBackend;

    fn deref(&self) -> &Self::Target {
        &*self.backend
    }
}

/// A connection for joining and renewing, of whichever transport.
pub struct Channel(Box<dyn EnrolConnection>);

impl Channel {
    /// Over `connection`.
    pub fn new(connection: Box<dyn EnrolConnection>) -> Self {
        Self(connection)
    }
}

impl Deref for Channel {
    type Target = dyn EnrolConnection;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}
