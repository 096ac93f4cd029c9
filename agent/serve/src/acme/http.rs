//! HTTP/1.1 and HTTP/2 in front of [`Acme`]. What one connection has under way
//! is bounded: in time, in requests, and in what their bodies have together.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::http::{Method, Request, Response, Version, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_proto::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Acme, Answer, BODY_BYTES, problem::Problem};
use crate::streams::Streams;
use innermesh_host::{
    Clock, Stream,
    listen::{Class, Place, Source, Who},
    within,
};

/// What a client that speaks HTTP/2 says in its handshake (RFC 9113 §3.2).
pub(super) const HTTP_2: &[u8] = b"h2";
/// How long the head of a request may take, and its body.
const HEAD: Duration = Duration::from_secs(10);
/// After this time a connection takes no more requests: its client is told so
/// with the answer that it waits for, or by the connection's end.
const CONNECTION: Duration = Duration::from_secs(110);
/// How long what is under way then may take.
const LAST: Duration = Duration::from_secs(10);
/// The longest head of a request of HTTP/2, in bytes.
const HEAD_BYTES: u32 = 16 * 1024;
/// What a client may send of one body before it is read, in bytes.
const WINDOW: u32 = 64 * 1024;

pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Answers the requests of one connection. Clones are the same.
#[derive(Clone)]
pub(super) struct Requests {
    acme: Arc<Acme>,
    clock: Arc<dyn Clock>,
    source: Source,
    place: Arc<Place>,
    /// Bytes that bodies may have that are not answered yet.
    bodies: Arc<Semaphore>,
}

impl Requests {
    pub(super) fn new(
        acme: Arc<Acme>,
        clock: Arc<dyn Clock>,
        source: Source,
        place: Arc<Place>,
    ) -> Self {
        Self {
            acme,
            clock,
            source,
            place,
            bodies: Arc::new(Semaphore::new(limits::ACME_STREAMS_BYTES)),
        }
    }

    /// Answers on a connection until it ends. That a client went away is no news.
    pub(super) async fn serve(self, stream: impl Stream + 'static, protocol: Protocol) {
        let clock = self.clock.clone();
        let service = service_fn(move |request| self.clone().answer(request));
        let stream = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .max_buf_size(BODY_BYTES)
                    .serve_connection(stream, service);
                let mut connection = pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = clock.sleep(CONNECTION) => connection.as_mut().graceful_shutdown(),
                }
                within(&*clock, LAST, connection).await;
            }
            Protocol::Http2 => {
                let (streams, under_way) = Streams::new();
                let connection = http2::Builder::new(streams)
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(limits::ACME_STREAMS)
                    .max_header_list_size(HEAD_BYTES)
                    .initial_stream_window_size(WINDOW)
                    .initial_connection_window_size(2 * WINDOW)
                    .max_send_buf_size(WINDOW as usize)
                    .serve_connection(stream, service);
                let mut connection = pin!(connection);
                let mut under_way = pin!(under_way.run());
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = under_way.as_mut() => return,
                    () = clock.sleep(CONNECTION) => connection.as_mut().graceful_shutdown(),
                }
                let last = async {
                    tokio::select! {
                        _ = connection => {}
                        () = under_way => {}
                    }
                };
                within(&*clock, LAST, last).await;
            }
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        // Held until there is an answer.
        let (answer, _room) = match self.read(body).await {
            Ok((body, room)) => {
                let request = super::Request {
                    method: method.to_owned(),
                    path: path.to_owned(),
                    content_type: content_type.map(str::to_owned),
                    body,
                    is_local: self.source.class == Class::Local,
                    user: match self.source.who {
                        Who::User(uid) => uid,
                        Who::Address(_) => None,
                    },
                };
                let _working = self.place.working();
                (self.acme.handle(&request).await, Some(room))
            }
            Err(problem) => {
                let answer = self.acme.refuse(problem, method, path);
                // What is left of the body would be read as the next request
                // (RFC 9112 §9.6). HTTP/2 has no such header.
                let answer = if parts.version < Version::HTTP_2 {
                    answer.with("connection", "close")
                } else {
                    answer
                };
                (answer, None)
            }
        };
        Ok(response(answer, parts.method == Method::HEAD))
    }

    /// A body, and the room that it has for as long as it is needed.
    async fn read(&self, body: Incoming) -> Result<(Vec<u8>, OwnedSemaphorePermit), Problem> {
        let too_long = || {
            Problem::malformed(format!("a request has at most {BODY_BYTES} bytes")).with_status(413)
        };
        // Where nothing tells its length it may have all that is allowed.
        let most = body.size_hint().upper();
        let most = usize::try_from(most.unwrap_or(BODY_BYTES as u64)).unwrap_or(usize::MAX);
        let share = u32::try_from(most.min(BODY_BYTES)).unwrap_or(u32::MAX);
        if most > BODY_BYTES {
            return Err(too_long());
        }
        let waiting = self.bodies.clone().acquire_many_owned(share);
        let Some(Ok(room)) = within(&*self.clock, HEAD, waiting).await else {
            let detail = "too much is under way on this connection";
            return Err(Problem::unavailable(detail));
        };
        match within(&*self.clock, HEAD, Limited::new(body, BODY_BYTES).collect()).await {
            Some(Ok(body)) => Ok((body.to_bytes().to_vec(), room)),
            Some(Err(_)) => Err(too_long()),
            None => Err(Problem::malformed("the request didn't arrive in time").with_status(408)),
        }
    }
}

fn response(answer: Answer, is_head: bool) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(answer.status);
    if !answer.content_type.is_empty() {
        response = response.header(header::CONTENT_TYPE, answer.content_type);
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = if is_head && !answer.body.is_empty() {
        // On HTTP/2 it would be sent.
        response = response.header(header::CONTENT_LENGTH, answer.body.len());
        Vec::new()
    } else {
        answer.body
    };
    response.body(Full::new(body.into())).unwrap_or_default()
}
