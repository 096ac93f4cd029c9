//! DNS over HTTP/2 (RFC 8484), behind TLS. What one connection has under way is
//! bounded: in requests, in what their bodies have together, and in time.

mod request;
mod ttl;

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, UNIX_EPOCH},
};

use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use hickory_server::net::xfer::Protocol;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) use self::request::MESSAGE;
pub use self::request::{DnsRequest, RequestError};
use super::{padding, prompt::Prompt, service::Dns, tcp::IDLE};
use innermesh_host::{Clock, Stream, listen::Place, within};
use innermesh_proto::limits;

/// The longest head of a request, in bytes: a GET has its question there.
const HEAD_BYTES: u32 = 16 * 1024;
/// Longest message, and what a client may send of one body before it is read.
const BODY_BYTES: usize = u16::MAX as usize;
const WINDOW: u32 = 64 * 1024;

/// Answers on a connection until it ends, or nothing was asked on it for a while.
pub(super) async fn converse(requests: Requests, stream: impl Stream) {
    let clock = requests.clock.clone();
    // A client that went away is no news.
    let handshake = within(&*clock, IDLE, builder().handshake(stream));
    let Some(Ok(connection)) = handshake.await else {
        return;
    };
    let asked = requests.asked.clone();
    let mut conversation = Conversation::new(connection, requests);
    tokio::select! {
        () = conversation.run() => return,
        () = asked.until_idle(&*clock) => {}
    }
    conversation.connection.graceful_shutdown();
    // Answers that the client doesn't take in keep nothing open.
    within(&*clock, IDLE, conversation.run()).await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits::DNS_HTTP_STREAMS)
        .max_header_list_size(HEAD_BYTES)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW);
    builder
}

/// A connection, and what is asked on it.
struct Conversation<S> {
    connection: Connection<S, Bytes>,
    requests: Requests,
    /// What isn't answered at once.
    under_way: FuturesUnordered<BoxFuture<'static, ()>>,
    date: Date,
}

impl<S: Stream> Conversation<S> {
    fn new(connection: Connection<S, Bytes>, requests: Requests) -> Self {
        Self {
            connection,
            requests,
            under_way: FuturesUnordered::new(),
            date: Date::default(),
        }
    }

    /// Until the connection has ended. Can be called again where it was dropped.
    async fn run(&mut self) {
        loop {
            // Streams that their client resets are no longer open, and still under way.
            let most = limits::DNS_HTTP_STREAMS as usize;
            let room = most.saturating_sub(self.under_way.len());
            tokio::select! {
                asked = poll_fn(|cx| poll_asked(&mut self.connection, room, cx)) => match asked {
                    Some(asked) => {
                        for (request, stream) in asked {
                            self.answer(request, stream);
                        }
                    }
                    None => return,
                },
                Some(()) = self.under_way.next() => {}
            }
        }
    }

    /// At once, where the answer is there.
    fn answer(&mut self, request: Request<RecvStream>, stream: SendResponse<Bytes>) {
        let date = self.date.at(self.requests.clock.wall_ms());
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let asked = DnsRequest::read(
            parts.method.as_str(),
            parts.uri.path(),
            parts.uri.query(),
            content_type.map(HeaderValue::as_bytes),
        );
        let open = Open::begin(&self.requests.asked);
        let reply = match asked {
            Ok(DnsRequest::Message(message)) => match self.requests.promptly(&message) {
                Some(reply) => Ok(reply),
                None => return self.answer_later(Asking::Message(message), stream, (date, open)),
            },
            Ok(DnsRequest::InBody) => {
                let length = content_length(&parts.headers, &body);
                return self.answer_later(Asking::InBody(body, length), stream, (date, open));
            }
            Err(error) => Err(error),
        };
        send(stream, reply, date);
    }

    fn answer_later(
        &self,
        asking: Asking,
        mut stream: SendResponse<Bytes>,
        (date, open): (HeaderValue, Open),
    ) {
        let requests = self.requests.clone();
        self.under_way.push(Box::pin(async move {
            let _open = open;
            let _working = requests.place.working();
            let reply = tokio::select! {
                reply = requests.answer(asking) => reply,
                _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
            };
            send(stream, reply, date);
        }));
    }
}

/// What came since, at most so many: answers that are ready together are written together.
/// `None` once the connection has ended.
fn poll_asked<S: Stream>(
    connection: &mut Connection<S, Bytes>,
    room: usize,
    cx: &mut Context<'_>,
) -> Poll<Option<Vec<Asked>>> {
    let mut asked = Vec::new();
    while asked.len() < room {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(one))) => asked.push(one),
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
            Poll::Pending if asked.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    if room == 0 {
        return connection.poll_closed(cx).map(|_| None);
    }
    Poll::Ready(Some(asked))
}

/// A request, and where it is answered.
type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// What is answered later.
enum Asking {
    Message(Vec<u8>),
    /// With the bytes that it may have at most.
    InBody(RecvStream, u64),
}

/// Where nothing tells the length of a body it may have all that is allowed.
fn content_length(headers: &HeaderMap, body: &RecvStream) -> u64 {
    if body.is_end_stream() {
        return 0;
    }
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(BODY_BYTES as u64)
}

/// The time of answers as HTTP has it (RFC 9110 §6.6.1), made once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: Option<HeaderValue>,
}

impl Date {
    fn at(&mut self, wall_ms: u64) -> HeaderValue {
        let second = wall_ms / 1000;
        if let Some(text) = self.text.as_ref().filter(|_| self.second == second) {
            return text.clone();
        }
        let time = UNIX_EPOCH + Duration::from_secs(second);
        let text = HeaderValue::try_from(httpdate::fmt_http_date(time));
        // Of letters, digits and spaces.
        let text = text.unwrap_or_else(|_| HeaderValue::from_static(""));
        self.second = second;
        self.text.insert(text).clone()
    }
}

/// How much was asked on a connection.
#[derive(Default)]
struct Count {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Count {
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
struct Open(Arc<Count>);

impl Open {
    fn begin(asked: &Arc<Count>) -> Self {
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
pub(super) struct Requests {
    dns: Arc<Dns>,
    clock: Arc<dyn Clock>,
    source: SocketAddr,
    place: Arc<Place>,
    /// Bytes that questions may have until they are answered.
    room: Arc<Semaphore>,
    asked: Arc<Count>,
}

impl Requests {
    pub fn new(
        dns: Arc<Dns>,
        clock: Arc<dyn Clock>,
        source: SocketAddr,
        place: Arc<Place>,
    ) -> Self {
        Self {
            dns,
            clock,
            source,
            place,
            room: Arc::new(Semaphore::new(limits::DNS_HTTP_PENDING_BYTES)),
            asked: Arc::default(),
        }
    }

    /// The answer to a message that is answered without waiting.
    fn promptly(&self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() > usize::from(limits::DNS_UDP_BYTES) {
            return None;
        }
        let _working = self.place.working();
        let view = self.dns.view();
        let (source, protocol) = (self.source.ip(), Protocol::Tcp);
        let mut reply = Vec::new();
        let prompt = self
            .dns
            .answer_promptly(&view, message, source, protocol, &mut reply);
        (prompt == Prompt::Answered).then(|| padded(message, reply))
    }

    async fn answer(&self, asking: Asking) -> Result<Vec<u8>, RequestError> {
        let (message, _room) = match asking {
            Asking::Message(message) => self.with_room(message).await?,
            Asking::InBody(body, length) => self.read(body, length).await?,
        };
        if let Some(reply) = self.promptly(&message) {
            return Ok(reply);
        }
        let reply = self.dns.answer_with_care(&message, self.source).await;
        reply
            .map(|reply| padded(&message, reply))
            .ok_or(RequestError::NoMessage)
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
        mut body: RecvStream,
        most: u64,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), RequestError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most > BODY_BYTES {
            return Err(RequestError::TooLong);
        }
        let read = async {
            let room = self.room_for(most).await;
            (whole(&mut body, most).await, room)
        };
        let (body, mut room) = within(&*self.clock, IDLE, read)
            .await
            .ok_or(RequestError::TooSlow)?;
        let body = body?;
        // What it might have had, and hasn't, is for others.
        let left = most.saturating_sub(body.len());
        drop(room.as_mut().and_then(|room| room.split(left)));
        Ok((body, room))
    }
}

async fn whole(body: &mut RecvStream, most: usize) -> Result<Vec<u8>, RequestError> {
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|_| RequestError::NoMessage)?;
        if message.len() + data.len() > most {
            return Err(RequestError::TooLong);
        }
        message.extend_from_slice(&data);
        // The client is gone.
        let released = body.flow_control().release_capacity(data.len());
        released.map_err(|_| RequestError::NoMessage)?;
    }
    Ok(message)
}

fn padded(message: &[u8], mut reply: Vec<u8>) -> Vec<u8> {
    if padding::is_wanted(message) {
        padding::pad(&mut reply, 0, padding::RESPONSE_BLOCK);
    }
    reply
}

/// Who doesn't listen any more gets nothing.
fn send(mut stream: SendResponse<Bytes>, reply: Result<Vec<u8>, RequestError>, date: HeaderValue) {
    let (mut head, body) = match reply {
        Ok(reply) => answered(reply),
        Err(error) => refused(error),
    };
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.insert(header::DATE, date);
    if let Ok(mut stream) = stream.send_response(head, false) {
        let _ = stream.send_data(body, true);
    }
}

fn answered(reply: Vec<u8>) -> (Response<()>, Bytes) {
    let mut head = Response::new(());
    let headers = head.headers_mut();
    let content_type = HeaderValue::from_static(MESSAGE);
    headers.insert(header::CONTENT_TYPE, content_type);
    let max_age = HeaderValue::try_from(format!("max-age={}", ttl::fresh_s(&reply)));
    if let Ok(max_age) = max_age {
        headers.insert(header::CACHE_CONTROL, max_age);
    }
    (head, reply.into())
}

fn refused(error: RequestError) -> (Response<()>, Bytes) {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = head.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    if error == RequestError::Method {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    (head, format!("{error}\n").into())
}

#[cfg(test)]
mod tests;
