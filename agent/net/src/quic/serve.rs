//! The task that serves one connection: takes its streams in, judges who asks,
//! runs the handler under its deadline, and closes the connection when its time
//! has come.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use innermesh_proto::{
    codec, limits,
    rpc::{Failure, Hello, RequestFrame, ResponseFrame, close, method, stop},
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tracing::{Instrument, Span, debug};

use super::{
    core::Core,
    frame::{self, ReadFrame, ReadFrameError},
    link::{Link, Unfinished},
    registry::PeerEvent,
    transport::{Caller, Held, Membership},
};
use crate::{
    host::within,
    listen::{Class, Place},
    telemetry,
};

/// How long a connection that is no longer in force stays after its last use:
/// long enough for the other end to notice, too.
const GRACE: Duration = Duration::from_secs(1);
/// How long the other end may go on using a connection that is no longer in
/// force before its streams are left alone.
const DRAINING: Duration = Duration::from_secs(10);
/// Datagrams that are taken in one after the other, before streams have their turn.
const DATAGRAMS: usize = 32;

/// Serves `link` until it ends. A stranger's place is given back as soon as
/// the peer is known as a member.
pub(super) async fn run(core: Arc<Core>, link: Arc<Link>) {
    core.registry.track(&link);
    let mut work = JoinSet::new();
    let mut trial = timer(&core, Some(Duration::from_millis(limits::STRANGER_MS)));
    let mut displaced = displacement(&link);
    let mut drain = Drain::No;
    let mut drained = timer(&core, None);
    let mut pause = timer(&core, None);
    let mut is_paused = false;
    loop {
        let open = drain != Drain::Closed && !is_paused;
        tokio::select! {
            biased;
            _ = link.connection.closed() => break,
            Some(_) = work.join_next(), if !work.is_empty() => {}
            () = link.changed.notified() => {}
            () = &mut trial, if !link.is_registered() => {
                core.settle(&link);
                if !link.is_registered() {
                    core.tally.strangers_expired.add();
                    link.close(close::STRANGER, "time is up");
                    break;
                }
            }
            () = &mut displaced, if !link.is_registered() => {
                core.tally.strangers_displaced.add();
                link.close(close::STRANGER, "no room");
                break;
            }
            () = &mut drained => {
                drain = drain.next();
                drained = timer(&core, drain.time());
            }
            Ok(stream) = link.connection.accept_uni(), if open => {
                core.count_stream(&link);
                work.spawn(notice(core.clone(), link.clone(), stream));
            }
            Ok((send, receive)) = link.connection.accept_bi(), if open => {
                core.count_stream(&link);
                work.spawn(request(core.clone(), link.clone(), send, receive));
            }
            () = &mut pause, if is_paused => is_paused = false,
            Ok(datagram) = link.connection.read_datagram() => datagrams_in(&core, &link, datagram),
        }
        if link.is_registered() && link.give_place_back() {
            // It would hold the place for as long as it waits.
            displaced = timer(&core, None);
        }
        if !is_paused && let Some(wait) = core.pause(&link) {
            is_paused = true;
            pause = timer(&core, Some(wait));
        }
        if link.is_in_force() != (drain == Drain::No) {
            drain = if link.is_in_force() {
                Drain::No
            } else {
                Drain::Grace
            };
            drained = timer(&core, drain.time());
        }
        // Nothing of the peer's is being worked on or unacknowledged, and what
        // it may have sent since was not looked at: it can ask again elsewhere.
        let dry = matches!(drain, Drain::Draining | Drain::Closed) && work.is_empty();
        if dry
            && link
                .node
                .is_some_and(|node| core.registry.retire(&node, &link))
        {
            link.close(close::DUPLICATE, "");
            break;
        }
    }
    link.give_place_back();
    core.registry.remove(&link);
}

/// How far a connection that is not in force has come on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// It is in force.
    No,
    /// Served as ever, for a while.
    Grace,
    /// Served, and closed at the first moment in which nothing is under way.
    Draining,
    /// New streams are left alone.
    Closed,
}

impl Drain {
    fn next(self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Grace => Self::Draining,
            Self::Draining | Self::Closed => Self::Closed,
        }
    }

    /// How long this step lasts at most.
    fn time(self) -> Option<Duration> {
        match self {
            Self::Grace => Some(GRACE),
            Self::Draining => Some(DRAINING),
            Self::No | Self::Closed => None,
        }
    }
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

fn timer(core: &Arc<Core>, after: Option<Duration>) -> Timer {
    let clock = core.clock.clone();
    match after {
        Some(after) => Box::pin(async move { clock.sleep(after).await }),
        None => Box::pin(std::future::pending()),
    }
}

/// Ready when a stranger's place was given to another.
fn displacement(link: &Link) -> Timer {
    match link.place() {
        Some(place) => Box::pin(async move { place.displaced().await }),
        None => Box::pin(std::future::pending()),
    }
}

/// Answers one request.
async fn request(core: Arc<Core>, link: Arc<Link>, send: SendStream, mut receive: RecvStream) {
    let mut send = Unfinished(send);
    let ReadFrame { bytes, room } = match read(&core, &link, &mut receive).await {
        Ok(frame) => frame,
        Err(code) => {
            let _ = receive.stop(code);
            let _ = send.0.reset(code);
            return;
        }
    };
    let frame = RequestFrame::decode(&bytes, limits::RPC_BYTES);
    core.count_bytes(&link, bytes.len());
    drop(bytes);
    // What the answer holds of shared memory, until it is delivered.
    let mut held: Option<Held> = None;
    let result = match frame {
        Ok(frame) => match answer(&core, &link, frame, &mut held).await {
            Some(result) => result,
            None => return,
        },
        Err(_) => {
            garbage(&core, &link);
            Err(Failure::Malformed)
        }
    };
    drop(room);
    core.tally.requests.add();
    let mut bytes = ResponseFrame::new(fit(result)).encode();
    // Whoever asks and doesn't take the answers makes us hold only so many.
    let answer_room = link.answer_room(bytes.len());
    if answer_room.is_none() {
        core.tally.busy.add();
        bytes = ResponseFrame::new(Err(Failure::Busy)).encode();
    }
    core.count_bytes(&link, bytes.len());
    let limit = Duration::from_millis(limits::HANDLER_MS);
    let delivered = async {
        if send.0.write_chunk(bytes.into()).await.is_ok() && send.0.finish().is_ok() {
            // Until it is acknowledged the connection may not be closed as dry.
            let _ = send.0.stopped().await;
        }
    };
    within(&*core.clock, limit, delivered).await;
    drop(held);
}

/// Takes one one-way message in.
async fn notice(core: Arc<Core>, link: Arc<Link>, mut receive: RecvStream) {
    let frame = match read(&core, &link, &mut receive).await {
        Ok(frame) => frame,
        Err(code) => {
            let _ = receive.stop(code);
            return;
        }
    };
    core.count_bytes(&link, frame.bytes.len());
    let Ok(request) = RequestFrame::decode(&frame.bytes, limits::RPC_BYTES) else {
        return garbage(&core, &link);
    };
    if request.method == method::HELLO {
        return hello(&core, &link, &request.body);
    }
    let Some(caller) = judge(&core, &link, request.method) else {
        return;
    };
    if caller.node.is_none() {
        core.tally.not_member.add();
        return;
    }
    let Some(handler) = core.handler.get() else {
        return;
    };
    // Gossip ticks for ever: only what belongs to somebody's trace is traced.
    let parent = request.traceparent.as_deref();
    let span = parent.map_or_else(Span::none, |parent| {
        telemetry::span_from(Some(parent), request.method)
    });
    let limit = Duration::from_millis(limits::HANDLER_MS);
    let work = async {
        let _turn = link.notices.acquire().await;
        core.tally.notices_received.add();
        handler.notice(&caller, request.method, request.body).await;
    };
    if within(&*core.clock, limit, work.instrument(span))
        .await
        .is_none()
    {
        core.tally.deadlines.add();
    }
}

/// The peer introduces itself: its connection may now be registered.
fn hello(core: &Core, link: &Arc<Link>, body: &[u8]) {
    let Ok(hello) = codec::decode::<Hello>(body, limits::SMALL_FRAME_BYTES) else {
        return garbage(core, link);
    };
    // Only the first counts: a second could move the connection's rank.
    let _ = link.hello.set(hello);
    if link.node == Some(core.me) {
        if hello.instance != core.instance {
            core.registry.tell(PeerEvent::Twin(link.outer()));
        }
        link.settled.send_replace(true);
        return link.close(close::WRONG_NODE, "this node's own key");
    }
    core.settle(link);
    link.settled.send_replace(true);
}

/// Takes in a datagram and those that came with it.
fn datagrams_in(core: &Core, link: &Arc<Link>, first: bytes::Bytes) {
    let (caller, handler) = match (core.caller(link), core.handler.get()) {
        (Ok(caller), Some(handler)) if caller.node.is_some() => (caller, handler),
        _ => return core.tally.datagrams_dropped.add(),
    };
    handler.datagram(&caller, first);
    for _ in 1..DATAGRAMS {
        let Some(Ok(next)) = link.connection.read_datagram().now_or_never() else {
            return;
        };
        handler.datagram(&caller, next);
    }
}

/// Reads a frame within its time and size; an error is the code to stop with.
async fn read(core: &Core, link: &Link, receive: &mut RecvStream) -> Result<ReadFrame, VarInt> {
    let limit = match core.membership(link) {
        Membership::Member => limits::RPC_BYTES,
        Membership::Unknown | Membership::Revoked => limits::STRANGER_RPC_BYTES,
    };
    let time = Duration::from_millis(limits::FRAME_READ_MS);
    let code = match within(
        &*core.clock,
        time,
        frame::read(receive, limit, Some(&link.large)),
    )
    .await
    {
        Some(Ok(frame)) => return Ok(frame),
        Some(Err(ReadFrameError::TooLong)) => {
            core.tally.frames_too_long.add();
            stop::TOO_LONG
        }
        // The sender took it back, or the connection ended.
        Some(Err(ReadFrameError::Stream(_))) => 0,
        None => {
            core.tally.frames_too_slow.add();
            stop::TOO_SLOW
        }
    };
    Err(VarInt::from_u32(code))
}

/// Runs the handler; `None` when the connection was closed instead.
async fn answer(
    core: &Core,
    link: &Arc<Link>,
    request: RequestFrame,
    held: &mut Option<Held>,
) -> Option<Result<Vec<u8>, Failure>> {
    let caller = judge(core, link, request.method)?;
    if caller.node.is_none() && !core.open.contains(&request.method) {
        core.tally.not_member.add();
        return Some(Err(Failure::NotMember));
    }
    if request.method == method::PING {
        return Some(Ok(request.body));
    }
    let Some(handler) = core.handler.get() else {
        return Some(Err(Failure::Unavailable("the agent is starting".into())));
    };
    let place = link.place().filter(|_| caller.node.is_none());
    if place.is_some() && link.asked.fetch_add(1, Ordering::Relaxed) >= limits::STRANGER_REQUESTS {
        link.close(close::STRANGER, "too many requests");
        return None;
    }
    if let Some(place) = &place
        && core
            .membership
            .proves(&caller, request.method, &request.body)
    {
        place.prove(Class::Member);
    }
    let _working = place.as_ref().map(Place::working);
    let span = telemetry::span_from(request.traceparent.as_deref(), request.method);
    let limit = Duration::from_millis(limits::HANDLER_MS.min(request.deadline_ms.into()));
    let started = AtomicBool::new(false);
    let work = async {
        let _turn = link.calls.acquire().await;
        *held = Some(handler.make_room(&caller, request.method).await);
        started.store(true, Ordering::Relaxed);
        handler.call(&caller, request.method, request.body).await
    };
    let result = within(&*core.clock, limit, work.instrument(span)).await;
    Some(result.unwrap_or_else(|| {
        if started.load(Ordering::Relaxed) {
            core.tally.deadlines.add();
            Err(Failure::DeadlineExceeded)
        } else {
            core.tally.busy.add();
            Err(Failure::Busy)
        }
    }))
}

/// Who asks, by the ledger as it stands at this moment. `None` when the peer
/// was revoked: its connection is then closed.
fn judge(core: &Core, link: &Arc<Link>, method: u16) -> Option<Caller> {
    match core.caller(link) {
        Ok(caller) => {
            if caller.node.is_some() && !link.is_registered() {
                core.settle(link);
            }
            Some(caller)
        }
        Err(_) => {
            debug!(peer = ?link.node, method, "a revoked peer asked");
            core.revoke(link);
            None
        }
    }
}

fn garbage(core: &Core, link: &Link) {
    core.tally.frames_malformed.add();
    link.garbage.fetch_add(1, Ordering::Relaxed);
}

/// An answer that is too long for a frame is our own handler's mistake, and
/// the caller is told so.
fn fit(result: Result<Vec<u8>, Failure>) -> Result<Vec<u8>, Failure> {
    match result {
        Ok(body) if body.len() > limits::RPC_BODY_BYTES => Err(Failure::Internal(
            "the answer is too long for one frame".into(),
        )),
        other => other,
    }
}
