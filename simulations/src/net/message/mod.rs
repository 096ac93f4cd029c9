//! Agents' messages over the simulated links without QUIC under them: a second
//! implementation of the agent's [`TransportBackend`], for hundreds of nodes. A request or
//! message is one event in the world's one queue; an idle connection is one
//! entry in a map, and neither a task nor a timer.
//!
//! Certificates are shown and judged by the agent's own rules, and the same
//! bounds hold for members and strangers. What isn't here: packets, so no MTU,
//! no congestion, no encryption; and two members never have a second connection
//! while both ends of the first one are up.

mod flight;
mod handshake;
mod ids;
mod say;
mod serve;
mod shared;
mod talk;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    host::{Clock, Host, within},
    quic::{
        CallError, Channel, Counters, DialError, EnrolConnection, Handler, PeerEvent, PeerInfo,
        Settings, Transport, TransportBackend, TransportError,
    },
    tls::{ClientTls, ServerTls},
};
use innermesh_proto::{crypto::PublicKey, id::NodeId, limits, rpc::close};
use tokio::sync::{Semaphore, broadcast};

pub(super) use self::talk::Talk;
use self::{
    flight::Dialed,
    ids::{ConnectionId, DeskId, Side},
    shared::{Shared, locked},
    talk::Frame,
};
use super::{
    place::HostId,
    wire::{State, Wire},
};

/// How long closing waits until what was told before has arrived.
const FAREWELL: Duration = Duration::from_secs(2);

/// Opens a transport for an agent on the host at `place`.
pub(super) fn open(
    wire: &Wire,
    place: HostId,
    host: &Host,
    settings: Settings,
) -> Result<Transport, TransportError> {
    let listen = settings.listen;
    let mut random = [0; 8];
    // As a transport over QUIC does for its instance.
    host.keys.random(&mut random);
    let mut state = wire.lock();
    let port = state
        .talk
        .free_port(place, listen.port())
        .map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                let (port, holder) = (listen.port(), None);
                return TransportError::AddressInUse { port, holder };
            }
            TransportError::Listen {
                address: listen,
                error,
            }
        })?;
    let desk = state.talk.seat(place, port, host, settings);
    drop(state);
    serve::start(&wire.state);
    Ok(Transport::new(Arc::new(Post {
        seat: Seat {
            wire: Arc::downgrade(&wire.state),
            desk,
            clock: host.clock.clone(),
        },
        local: SocketAddr::new(listen.ip(), port),
        dials: Semaphore::new(limits::DIALS),
    })))
}

/// One agent's transport.
struct Post {
    seat: Seat,
    local: SocketAddr,
    dials: Semaphore,
}

/// Where it is in its world.
#[derive(Clone)]
struct Seat {
    /// The world may end before its agents do.
    wire: Weak<Shared>,
    desk: DeskId,
    clock: Arc<dyn Clock>,
}

impl Seat {
    /// What `work` makes of the world's state; `None` when it has ended.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        locked(&self.wire, work)
    }

    /// One request on a connection.
    async fn ask(
        &self,
        connection: ConnectionId,
        side: Side,
        (method, body): (u16, Vec<u8>),
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let deadline_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let asked = self.with(|state| {
            let (number, answer) = state.talk.expect_answer(connection, side);
            let frame = Frame::Request {
                number,
                method,
                deadline_ms,
                body,
            };
            state
                .send(connection, side, frame)
                .then_some((number, answer))
        });
        let Some((number, answer)) = asked.flatten() else {
            return Err(CallError::Lost("the connection has ended".into()));
        };
        let _gives_up = Asking {
            wire: self.wire.clone(),
            place: (connection, side, number),
        };
        match within(&*self.clock, timeout, answer).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(CallError::Lost("the connection has ended".into())),
            None => Err(CallError::Deadline),
        }
    }
}

#[async_trait]
impl TransportBackend for Post {
    fn serve(&self, handler: Arc<dyn Handler>) {
        self.seat.with(|state| {
            if let Some(desk) = state.talk.desk(self.seat.desk) {
                desk.handler.get_or_insert(handler);
            }
        });
    }

    async fn dial(&self, to: SocketAddr, expect: Option<NodeId>) -> Result<NodeId, DialError> {
        Ok(self.shake(to, expect, None, true).await?.node)
    }

    async fn dial_unregistered(
        &self,
        to: SocketAddr,
        client: Option<Arc<ClientTls>>,
    ) -> Result<Channel, DialError> {
        let dialed = self.shake(to, None, client, false).await?;
        Ok(Channel::new(Box::new(Direct {
            seat: self.seat.clone(),
            dialed,
        })))
    }

    async fn call(
        &self,
        to: NodeId,
        method: u16,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if body.len() > limits::RPC_BODY_BYTES {
            return Err(CallError::TooLong(body.len()));
        }
        let there = self.seat.with(|state| state.talk.peer(self.seat.desk, &to));
        let (connection, side) = there.flatten().ok_or(CallError::NotConnected(to))?;
        self.seat
            .ask(connection, side, (method, body), timeout)
            .await
    }

    fn notify(&self, to: NodeId, method: u16, body: Vec<u8>) -> bool {
        let queued = self
            .seat
            .with(|state| state.notify(self.seat.desk, &to, method, body));
        queued.unwrap_or(false)
    }

    fn send_datagram(&self, to: NodeId, datagram: bytes::Bytes) -> bool {
        let sent = self.seat.with(|state| {
            let (connection, side) = state.talk.peer(self.seat.desk, &to)?;
            state
                .send(connection, side, Frame::Datagram(datagram))
                .then_some(())
        });
        sent.flatten().is_some()
    }

    fn acknowledgements(&self, from: NodeId) -> u64 {
        let acks = self.seat.with(|state| {
            let (connection, side) = state.talk.peer(self.seat.desk, &from)?;
            Some(state.talk.end(connection, side)?.acks)
        });
        acks.flatten().unwrap_or(0)
    }

    fn datagram_room(&self, to: NodeId) -> Option<usize> {
        self.is_connected(to).then_some(say::DATAGRAM)
    }

    fn set_tls(&self, server: Arc<ServerTls>, client: Arc<ClientTls>) {
        self.seat.with(|state| {
            if let Some(desk) = state.talk.desk(self.seat.desk) {
                desk.server = Some(server);
                desk.client = client;
            }
        });
    }

    fn review(&self) {
        self.seat.with(|state| state.review(self.seat.desk));
    }

    fn disconnect(&self, node: NodeId, why: &str) {
        self.seat.with(|state| {
            for (connection, side) in state.talk.with(self.seat.desk, &node) {
                state.close(connection, side, close::PARTED, why);
            }
        });
    }

    fn connected(&self) -> Vec<PeerInfo> {
        let connected = self.seat.with(|state| state.connected(self.seat.desk));
        connected.unwrap_or_default()
    }

    fn paths(&self) -> BTreeMap<NodeId, SocketAddr> {
        let paths = self.seat.with(|state| state.talk.paths(self.seat.desk));
        paths.unwrap_or_default()
    }

    fn peers(&self) -> Vec<NodeId> {
        let peers = self.seat.with(|state| {
            let desk = state.talk.desk(self.seat.desk)?;
            Some(desk.peers.keys().copied().collect())
        });
        peers.flatten().unwrap_or_default()
    }

    fn is_connected(&self, node: NodeId) -> bool {
        let there = self
            .seat
            .with(|state| state.talk.peer(self.seat.desk, &node));
        there.flatten().is_some()
    }

    fn link_count(&self) -> usize {
        let count = self
            .seat
            .with(|state| state.talk.desk(self.seat.desk).map(|desk| desk.all.len()));
        count.flatten().unwrap_or(0)
    }

    fn events(&self) -> broadcast::Receiver<PeerEvent> {
        let events = self.seat.with(|state| {
            let desk = state.talk.desk(self.seat.desk);
            desk.map(|desk| desk.events.subscribe())
        });
        // Of an agent that has stopped: the receiver is told that it is over.
        events
            .flatten()
            .unwrap_or_else(|| broadcast::Sender::new(1).subscribe())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn counters(&self) -> Counters {
        let counters = self
            .seat
            .with(|state| state.talk.desk(self.seat.desk).map(|desk| desk.counters));
        counters.flatten().unwrap_or_default()
    }

    async fn close(&self) {
        let flushed = async {
            loop {
                let left = self.seat.with(|state| {
                    let desk = state.talk.desk(self.seat.desk)?;
                    (desk.under_way > 0).then(|| desk.flushed.clone())
                });
                match left.flatten() {
                    Some(flushed) => flushed.notified().await,
                    None => return,
                }
            }
        };
        within(&*self.seat.clock, FAREWELL, flushed).await;
        self.leave();
    }
}

impl Post {
    async fn shake(
        &self,
        to: SocketAddr,
        expect: Option<NodeId>,
        client: Option<Arc<ClientTls>>,
        introduces: bool,
    ) -> Result<Dialed, DialError> {
        let limit = Duration::from_millis(limits::HANDSHAKE_MS);
        let shaking = async {
            let _turn = self.dials.acquire().await;
            let begun = self
                .seat
                .with(|state| state.dial(self.seat.desk, to, expect, client, introduces));
            let (number, done) = begun.flatten().ok_or(DialError::Closed)?;
            let _gives_up = Dialing {
                wire: self.seat.wire.clone(),
                number,
            };
            done.await.unwrap_or(Err(DialError::Closed))
        };
        let result = within(&*self.seat.clock, limit, shaking)
            .await
            .unwrap_or(Err(DialError::Timeout));
        self.seat.with(|state| {
            if let Some(desk) = state.talk.desk(self.seat.desk) {
                match result {
                    Ok(_) => desk.counters.dials += 1,
                    Err(_) => desk.counters.dials_failed += 1,
                }
            }
        });
        result
    }

    fn leave(&self) {
        let left = self.seat.with(|state| {
            for (connection, side) in state.talk.all(self.seat.desk) {
                state.close(connection, side, close::SHUTDOWN, "");
            }
            state.talk.leave(self.seat.desk)
        });
        // Its handler may hold this very transport, whose end locks the state.
        drop(left);
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A connection for joining and renewing.
struct Direct {
    seat: Seat,
    dialed: Dialed,
}

#[async_trait]
impl EnrolConnection for Direct {
    async fn call(
        &self,
        method: u16,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if body.len() > limits::RPC_BODY_BYTES {
            return Err(CallError::TooLong(body.len()));
        }
        let (connection, side) = (self.dialed.connection, Side::Dialer);
        self.seat
            .ask(connection, side, (method, body), timeout)
            .await
    }

    fn exporter(&self) -> [u8; 32] {
        let exporter = self
            .seat
            .with(|state| state.talk.exporter(self.dialed.connection));
        exporter.unwrap_or_default()
    }

    fn peer_chain(&self) -> Vec<Vec<u8>> {
        self.dialed.chain.clone()
    }

    fn peer_key(&self) -> Option<PublicKey> {
        Some(self.dialed.key)
    }

    fn remote(&self) -> SocketAddr {
        self.dialed.remote
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.seat.with(|state| {
            state.close(self.dialed.connection, Side::Dialer, close::NORMAL, "");
        });
    }
}

/// A dial that is awaited; dropped, it is given up.
struct Dialing {
    wire: Weak<Shared>,
    number: u64,
}

impl Drop for Dialing {
    fn drop(&mut self) {
        locked(&self.wire, |state| state.talk.dials.remove(&self.number));
    }
}

/// A request whose answer is awaited; dropped, it isn't any more.
struct Asking {
    wire: Weak<Shared>,
    place: (ConnectionId, Side, u64),
}

impl Drop for Asking {
    fn drop(&mut self) {
        locked(&self.wire, |state| state.talk.answers.remove(&self.place));
    }
}
