//! DNS over HTTP/2 (RFC 8484), behind TLS. What one connection has under way is
//! bounded: in requests, in what their bodies have together, and in time.

mod request;
mod ttl;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use hickory_server::net::xfer::Protocol;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) use self::request::MESSAGE;
pub use self::request::{DnsRequest, RequestError};
use super::{padding, prompt::Prompt, service::Dns, tcp::IDLE};
use crate::streams::Streams;
use innermesh_host::{Clock, Stream, listen::Place, within};
use innermesh_proto::limits;

/// The longest head of a request, in bytes: a GET has its question there.
const HEAD_BYTES: u32 = 16 * 1024;
/// Longest message, and what a client may send of one body before it is read.
const BODY_BYTES: usize = u16::MAX as usize;
const WINDOW: u32 = 64 * 1024;

/// Answers on a connection until it ends, or nothing was asked on it for a while.
pub(super) async fn converse(
    dns: Arc<Dns>,
    clock: Arc<dyn Clock>,
    stream: impl Stream + 'static,
    source: SocketAddr,
    place: Arc<Place>,
) {
    let requests = Requests {
        dns,
        clock: clock.clone(),
        source,
        place,
        room: Arc::new(Semaphore::new(limits::DNS_HTTP_PENDING_BYTES)),
        asked: Arc::default(),
    };
    let asked = requests.asked.clone();
    let service = service_fn(move |request| requests.clone().answer(request));
    let (streams, under_way) = Streams::new();
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::DNS_HTTP_STREAMS)
        .max_header_list_size(HEAD_BYTES)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_send_buf_size(WINDOW as usize)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut under_way = pin!(under_way.run());
    tokio::select! {
        // A client that went away is no news.
        _ = connection.as_mut() => return,
        () = under_way.as_mut() => return,
        () = asked.until_idle(&*clock) => connection.as_mut().graceful_shutdown(),
    }
    let last = async {
        tokio::select! {
            _ = connection => {}
            () = under_way => {}
        }
    };
    within(&*clock, IDLE, last).await;
}

/// What was asked on a connection.
#[derive(Default)]
struct Asked {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Asked {
    /// Waits until nothing is under way, and nothing was for [`IDLE`] at least.
    async fn until_idle(&self, clock: &dyn Clock) {
        loop {
            let before = self.begun.load(Ordering::Relaxed);
            clock.sleep(IDLE).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if before == begun && self.ended.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

/// One that is under way, for as long as this value lives.
struct Open(Arc<Asked>);

impl Open {
    fn begin(asked: &Arc<Asked>) -> Self {
        asked.begun.fetch_add(1, Ordering::Relaxed);
        Self(asked.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Requests {
    dns: Arc<Dns>,
    clock: Arc<dyn Clock>,
    source: SocketAddr,
    place: Arc<Place>,
    /// Bytes that questions may have until they are answered.
    room: Arc<Semaphore>,
    asked: Arc<Asked>,
}

impl Requests {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let _open = Open::begin(&self.asked);
        let _working = self.place.working();
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let asked = DnsRequest::read(
            parts.method.as_str(),
            parts.uri.path(),
            parts.uri.query(),
            content_type.map(|value| value.as_bytes()),
        );
        let message = match asked {
            Ok(DnsRequest::Message(message)) => self.with_room(message).await,
            Ok(DnsRequest::InBody) => self.read(body).await,
            Err(error) => Err(error),
        };
        let reply = match message {
            Ok((message, _room)) => self.reply(&message).await.ok_or(RequestError::NoMessage),
            Err(error) => Err(error),
        };
        Ok(match reply {
            Ok(reply) => answered(reply),
            Err(error) => refused(error),
        })
    }

    /// Waits until there is room for what came in the head.
    async fn with_room(
        &self,
        message: Vec<u8>,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), RequestError> {
        let room = within(&*self.clock, IDLE, self.room_for(message.len())).await;
        Ok((message, room.ok_or(RequestError::TooSlow)?))
    }

    /// Room for so many bytes. Questions of the usual length need none, and wait behind
    /// no other.
    async fn room_for(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        if bytes <= usize::from(limits::DNS_UDP_BYTES) {
            return None;
        }
        let share = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.room.acquire_many(share).await.ok()
    }

    async fn read(
        &self,
        body: Incoming,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), RequestError> {
        // Where nothing tells its length it may have all that is allowed.
        let most = body.size_hint().upper();
        let most = usize::try_from(most.unwrap_or(BODY_BYTES as u64)).unwrap_or(usize::MAX);
        if most > BODY_BYTES {
            return Err(RequestError::TooLong);
        }
        let read = async {
            let room = self.room_for(most).await;
            (Limited::new(body, most).collect().await, room)
        };
        let (body, mut room) = within(&*self.clock, IDLE, read)
            .await
            .ok_or(RequestError::TooSlow)?;
        let body = body.map_err(|_| RequestError::TooLong)?.to_bytes().to_vec();
        // What it might have had, and hasn't, is for others.
        let left = most.saturating_sub(body.len());
        drop(room.as_mut().and_then(|room| room.split(left)));
        Ok((body, room))
    }

    /// The answer to a message; `None` to what is no question.
    async fn reply(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        let source = self.source.ip();
        let prompt = {
            let view = self.dns.view();
            self.dns
                .answer_promptly(&view, message, source, Protocol::Tcp, &mut reply)
        };
        if prompt == Prompt::Careful {
            reply = self.dns.answer_with_care(message, self.source).await?;
        }
        if padding::is_wanted(message) {
            padding::pad(&mut reply, 0, padding::RESPONSE_BLOCK);
        }
        Some(reply)
    }
}

fn answered(reply: Vec<u8>) -> Response<Full<Bytes>> {
    let max_age = format!("max-age={}", ttl::fresh_s(&reply));
    let response = Response::builder()
        .header(header::CONTENT_TYPE, MESSAGE)
        .header(header::CACHE_CONTROL, max_age);
    response.body(Full::new(reply.into())).unwrap_or_default()
}

fn refused(error: RequestError) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    if error == RequestError::Method {
        response = response.header(header::ALLOW, "GET, POST");
    }
    let text = format!("{error}\n");
    response.body(Full::new(text.into())).unwrap_or_default()
}
