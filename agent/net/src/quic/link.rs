//! One connection with one peer, as both its users see it: calls and one-way
//! messages going out, and the state that decides when it may be closed.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use innermesh_proto::{
    crypto::PublicKey,
    id::NodeId,
    limits,
    rpc::{Hello, RequestFrame, ResponseFrame, method},
};
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    counters::Tally,
    endpoint::MEMBER_WINDOW,
    error::{CallError, Exchange},
    frame::{self, ReadFrame},
    registry::PeerInfo,
};
use crate::{host::Mono, listen::Place, tls};

/// RFC 5705 exporter label by which a joiner binds its request to this session.
const EXPORTER_LABEL: &[u8] = b"innermesh join";

pub(super) struct Link {
    pub(super) connection: Connection,
    /// The key that the peer proved by TLS, and the node that it is.
    pub(super) key: Option<PublicKey>,
    pub(super) node: Option<NodeId>,
    pub(super) exporter: [u8; 32],
    pub(super) dialed: bool,
    /// The order in which handshakes ended here.
    pub(super) ordinal: u64,
    /// Of our dials, when we dialed.
    pub(super) serial: u64,
    pub(super) since: Mono,
    /// Over a lane, where its TCP connection leads.
    lane: Option<SocketAddr>,
    /// What the peer introduced itself as.
    pub(super) hello: OnceLock<Hello>,
    /// Turns true when the hello was dealt with.
    pub(super) settled: watch::Sender<bool>,
    /// Wakes the task that serves the connection to look at its state anew.
    pub(super) changed: Notify,
    pub(super) calls: Arc<Semaphore>,
    pub(super) notices: Arc<Semaphore>,
    pub(super) large: Arc<Semaphore>,
    pub(super) garbage: AtomicU64,
    registered: AtomicBool,
    in_force: AtomicBool,
    in_flight: AtomicUsize,
    /// Room for answers that the peer hasn't taken yet, in KiB.
    answers: Arc<Semaphore>,
    /// Requests of a peer that is no member.
    pub(super) asked: AtomicUsize,
    /// The place of a peer that is no member.
    place: Mutex<Option<Arc<Place>>>,
    queue: mpsc::Sender<Bytes>,
    /// One-way messages that the peer hasn't acknowledged yet.
    queued: watch::Sender<usize>,
    queued_bytes: AtomicUsize,
}

/// What tells one new connection from the next.
pub(super) struct Origin {
    pub(super) dialed: bool,
    pub(super) ordinal: u64,
    pub(super) serial: u64,
    pub(super) since: Mono,
    /// Over a lane, where its TCP connection leads.
    pub(super) lane: Option<SocketAddr>,
}

impl Link {
    /// Wraps a connection whose handshake ended. The second value is the queue
    /// that [`Link::send_notices`] empties.
    pub(super) fn new(
        connection: Connection,
        origin: Origin,
        place: Option<Arc<Place>>,
        answers: Arc<Semaphore>,
    ) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let key = tls::peer_key(&connection);
        let (queue, outgoing) = mpsc::channel(limits::NOTICE_QUEUE);
        let link = Self {
            key,
            node: key.map(|k| k.node_id()),
            exporter: exporter(&connection),
            connection,
            dialed: origin.dialed,
            ordinal: origin.ordinal,
            serial: origin.serial,
            since: origin.since,
            lane: origin.lane,
            hello: OnceLock::new(),
            settled: watch::Sender::new(false),
            changed: Notify::new(),
            calls: Arc::new(Semaphore::new(limits::CALLS_PER_PEER)),
            notices: Arc::new(Semaphore::new(limits::NOTICES_PER_PEER)),
            large: Arc::new(Semaphore::new(limits::LARGE_FRAMES_PER_PEER)),
            garbage: AtomicU64::new(0),
            registered: AtomicBool::new(false),
            in_force: AtomicBool::new(true),
            in_flight: AtomicUsize::new(0),
            answers,
            asked: AtomicUsize::new(0),
            place: Mutex::new(place),
            queue,
            queued: watch::Sender::new(0),
            queued_bytes: AtomicUsize::new(0),
        };
        (Arc::new(link), outgoing)
    }

    /// The address that QUIC knows, which may stand for a lane.
    pub(super) fn remote(&self) -> SocketAddr {
        plain(self.connection.remote_address())
    }

    /// Where the peer's packets come from; over a lane, where its TCP connection does.
    pub(super) fn outer(&self) -> SocketAddr {
        self.lane.unwrap_or_else(|| self.remote())
    }

    pub(super) fn close(&self, code: u32, why: &str) {
        self.connection
            .close(VarInt::from_u32(code), why.as_bytes());
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Acquire)
    }

    /// Room for an answer of so many bytes, until it was delivered.
    pub(super) fn answer_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let size = u32::try_from(bytes / 1024 + 1).ok()?;
        self.answers.clone().try_acquire_many_owned(size).ok()
    }

    /// The place that a peer has that is no member.
    pub(super) fn place(&self) -> Option<Arc<Place>> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }

    /// Gives the place back, as the peer is a member or gone: whether it had one.
    pub(super) fn give_place_back(&self) -> bool {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.take().is_some()
    }

    /// Marks the peer as a member and gives its streams a member's room.
    pub(super) fn set_registered(&self) {
        if !self.registered.swap(true, Ordering::AcqRel) {
            let streams = VarInt::from_u32(limits::STREAMS_PER_PEER);
            self.connection.set_max_concurrent_bi_streams(streams);
            self.connection.set_max_concurrent_uni_streams(streams);
            self.connection
                .set_receive_window(VarInt::from_u32(MEMBER_WINDOW));
        }
        self.changed.notify_one();
    }

    pub(super) fn is_in_force(&self) -> bool {
        self.in_force.load(Ordering::Acquire)
    }

    pub(super) fn set_in_force(&self, in_force: bool) {
        if self.in_force.swap(in_force, Ordering::AcqRel) != in_force {
            self.changed.notify_one();
        }
    }

    /// Whether nothing of ours is under way on it.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0 && *self.queued.borrow() == 0
    }

    pub(super) fn info(&self, node: NodeId) -> PeerInfo {
        let stats = self.connection.stats();
        PeerInfo {
            node,
            remote: self.outer(),
            by_tcp: self.lane.is_some(),
            rtt: self.connection.rtt(),
            since: self.since,
            dialed_by_us: self.dialed,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            instance: self.hello.get().map_or(0, |h| h.instance),
            garbage: self.garbage.load(Ordering::Relaxed),
        }
    }

    /// Queues a one-way message; `false` when the queue is full.
    pub(super) fn queue(&self, frame: Vec<u8>) -> bool {
        let length = frame.len();
        let before = self.queued_bytes.fetch_add(length, Ordering::AcqRel);
        if before.saturating_add(length) <= limits::NOTICE_QUEUE_BYTES {
            self.queued.send_modify(|queued| *queued += 1);
            if self.queue.try_send(frame.into()).is_ok() {
                return true;
            }
            self.queued.send_modify(|queued| *queued -= 1);
        }
        self.queued_bytes.fetch_sub(length, Ordering::AcqRel);
        false
    }

    /// Sends the hello, then what is queued, each on a stream of its own, until
    /// the connection ends.
    pub(super) async fn send_notices(
        self: Arc<Self>,
        hello: Hello,
        mut outgoing: mpsc::Receiver<Bytes>,
        tally: Arc<Tally>,
    ) {
        let body = innermesh_proto::codec::encode(&hello);
        let first = RequestFrame::new(method::HELLO, 0, None, body).encode();
        let _ = self.send_notice(first.into()).await;
        let mut unacknowledged = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                // The queue lives as long as the link, so the connection's end
                // has to be waited for as well.
                _ = self.connection.closed() => break,
                Some(length) = unacknowledged.next() => self.notice_done(length),
                frame = outgoing.recv() => {
                    let Some(frame) = frame else { break };
                    let length = frame.len();
                    match self.send_notice(frame).await {
                        Some(stream) => {
                            let acknowledged = stream.stopped();
                            unacknowledged.push(async move {
                                let _ = acknowledged.await;
                                length
                            });
                        }
                        None => {
                            tally.notices_dropped.add();
                            self.notice_done(length);
                        }
                    }
                }
            }
        }
        outgoing.close();
        while outgoing.try_recv().is_ok() {
            tally.notices_dropped.add();
        }
    }

    /// Waits until the peer has acknowledged what was queued, or is gone.
    pub(super) async fn flushed(&self) {
        let mut queued = self.queued.subscribe();
        tokio::select! {
            _ = queued.wait_for(|queued| *queued == 0) => {}
            _ = self.connection.closed() => {}
        }
    }

    fn notice_done(&self, length: usize) {
        self.queued_bytes.fetch_sub(length, Ordering::AcqRel);
        self.queued.send_modify(|queued| *queued -= 1);
        if *self.queued.borrow() == 0 && !self.is_in_force() {
            self.changed.notify_one();
        }
    }

    /// Sends one message on a stream of its own, which is finished then.
    async fn send_notice(&self, frame: Bytes) -> Option<SendStream> {
        let mut stream = self.connection.open_uni().await.ok()?;
        stream.write_chunk(frame).await.ok()?;
        stream.finish().ok()?;
        Some(stream)
    }
}

/// A use of a connection. While there is one, the connection isn't retired.
pub(super) struct InFlight(Arc<Link>);

impl InFlight {
    pub(super) fn on(link: &Arc<Link>) -> Self {
        link.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(link.clone())
    }

    pub(super) fn link(&self) -> &Link {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 && !self.0.is_in_force() {
            self.0.changed.notify_one();
        }
    }
}

/// Sends one request on a stream of its own and reads the answer. Dropping the
/// future takes the request back as far as that is possible.
pub(super) async fn exchange(connection: &Connection, request: Bytes) -> Result<Vec<u8>, Exchange> {
    let length = request.len();
    let (send, mut receive) = connection.open_bi().await.map_err(|e| Exchange::of(&e))?;
    let mut send = Unfinished(send);
    match send.0.write_chunk(request).await {
        Ok(()) => {}
        // The peer may have answered without reading to the end.
        Err(quinn::WriteError::Stopped(code)) if code == VarInt::from_u32(0) => {}
        Err(e) => return Err(Exchange::of_write(&e, length)),
    }
    let _ = send.0.finish();
    let bytes = match frame::read(&mut receive, limits::RPC_BYTES, None).await {
        Ok(ReadFrame { bytes, .. }) => bytes,
        Err(frame::ReadFrameError::TooLong) => {
            let limit = limits::RPC_BYTES;
            return Err(innermesh_proto::codec::CodecError::TooLong {
                got: limit + 1,
                limit,
            }
            .into());
        }
        Err(frame::ReadFrameError::Stream(e)) => return Err(Exchange::of_read(&e, length)),
    };
    let frame = ResponseFrame::decode(&bytes, limits::RPC_BYTES)?;
    frame
        .into_result()
        .map_err(|failure| Exchange::Failed(CallError::Failed(failure)))
}

/// A stream being written. quinn finishes a stream that is dropped, which would
/// make half a frame look like a whole one.
pub(super) struct Unfinished(pub(super) SendStream);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // No effect on a stream that was finished and acknowledged.
        let _ = self.0.reset(VarInt::from_u32(0));
    }
}

pub(super) fn exporter(connection: &Connection) -> [u8; 32] {
    let mut out = [0; 32];
    connection
        .export_keying_material(&mut out, EXPORTER_LABEL, b"")
        .expect("an established TLS 1.3 session exports 32 bytes");
    out
}

/// IPv4 addresses as themselves, also on a socket for both families.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
