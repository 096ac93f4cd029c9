//! Questions as requests of HTTP/2 (RFC 8484): each a POST, with the id 0.

use std::{collections::BTreeMap, net::IpAddr};

use axum::http::{Method, Request, Version, header};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_host::{Clock, Mono, Stream, within};
use innermesh_proto::limits;

use super::{
    super::super::{
        https::MESSAGE,
        name_server::{NameServer, Transport},
    },
    Asked, Ended, IDLE, Keeper, KeptError, LOOK, SILENCE,
};
use crate::streams::Streams;

/// The longest head of a response, in bytes.
const HEAD_BYTES: u32 = 16 * 1024;
const BODY_BYTES: usize = u16::MAX as usize;
/// What a server may send of one answer before it is read, and of all, in bytes.
const WINDOW: u32 = 64 * 1024;
const WINDOW_OF_ALL: u32 = 1024 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// What is under way on one connection.
struct UnderWay {
    open: BTreeMap<u64, Asked>,
    next: u64,
    /// When something was heard, or was asked while nothing else was.
    heard: Mono,
    has_answered: bool,
}

impl Keeper {
    pub(super) async fn converse_http(&mut self, stream: Box<dyn Stream>) -> Ended {
        let clock = self.around.clock.clone();
        let (streams, running) = Streams::new();
        let handshake = Builder::new(streams)
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW_OF_ALL)
            .handshake(TokioIo::new(stream));
        let mut under_way = UnderWay {
            open: BTreeMap::new(),
            next: 0,
            heard: clock.now(),
            has_answered: false,
        };
        let why = match within(&*clock, SILENCE, handshake).await {
            Some(Ok((sender, connection))) => {
                tokio::select! {
                    _ = connection => KeptError::Closed,
                    () = running.run() => KeptError::Closed,
                    why = self.request(&sender, &mut under_way) => why,
                }
            }
            Some(Err(_)) => KeptError::Closed,
            None => KeptError::Silent,
        };
        Ended {
            open: under_way.open.into_values().collect(),
            has_answered: under_way.has_answered,
            why,
        }
    }

    /// Asks, until the connection is of no use any more.
    async fn request(&mut self, sender: &Sender, under_way: &mut UnderWay) -> KeptError {
        let clock = self.around.clock.clone();
        let clock: &dyn Clock = &*clock;
        let server = self.server.clone();
        let mut exchanges = FuturesUnordered::new();
        loop {
            let next = async {
                match self.lost.pop_front() {
                    Some(asked) => Some(asked),
                    None => self.asked.recv().await,
                }
            };
            tokio::select! {
                asked = next, if exchanges.len() < limits::DNS_FORWARDS => match asked {
                    // Nobody is there any more to ask.
                    None => return KeptError::Closed,
                    Some(asked) if asked.is_given_up() => {}
                    Some(asked) => {
                        let request = request(&server, &asked.message);
                        let number = under_way.begin(asked, clock.now());
                        let sender = sender.clone();
                        exchanges.push(async move {
                            let answer = answer(sender, request);
                            (number, within(clock, SILENCE, answer).await)
                        });
                    }
                },
                Some((number, answer)) = exchanges.next() => match answer {
                    Some(Err(KeptError::Closed)) => return KeptError::Closed,
                    Some(answer) => under_way.answer(number, answer, clock.now()),
                    // Whoever asked has given up; the connection may be dead.
                    None if clock.now().saturating_sub(under_way.heard) >= SILENCE => {
                        return KeptError::Silent;
                    }
                    None => drop(under_way.open.remove(&number)),
                },
                () = clock.sleep(LOOK) => {}
            }
            let silence = clock.now().saturating_sub(under_way.heard);
            if !under_way.open.is_empty() && silence >= SILENCE {
                return KeptError::Silent;
            }
            if under_way.open.is_empty() && silence >= IDLE {
                // What ends so was good.
                under_way.has_answered = true;
                return KeptError::Closed;
            }
        }
    }
}

impl UnderWay {
    fn begin(&mut self, asked: Asked, now: Mono) -> u64 {
        if self.open.is_empty() {
            self.heard = now;
        }
        self.next += 1;
        self.open.insert(self.next, asked);
        self.next
    }

    fn answer(&mut self, number: u64, answer: Result<Vec<u8>, KeptError>, now: Mono) {
        self.heard = now;
        self.has_answered = true;
        if let Some(asked) = self.open.remove(&number) {
            let id = asked.id();
            asked.end(answer.map(|mut message| {
                if let Some(place) = message.first_chunk_mut::<2>() {
                    *place = id;
                }
                message
            }));
        }
    }
}

fn request(server: &NameServer, message: &[u8]) -> Request<Full<Bytes>> {
    let (host, path) = match &server.transport {
        Transport::Https { path, identity } => (identity.name.clone(), path.as_str()),
        _ => (None, "/"),
    };
    let host = host.unwrap_or_else(|| match server.address.ip() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    });
    let authority = match server.address.port() {
        443 => host,
        port => format!("{host}:{port}"),
    };
    let mut message = message.to_vec();
    if let Some(id) = message.first_chunk_mut::<2>() {
        // Caches of HTTP may have the answer (RFC 8484 §4.1).
        *id = [0; 2];
    }
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("https://{authority}{path}"))
        .header(header::CONTENT_TYPE, MESSAGE)
        .header(header::ACCEPT, MESSAGE);
    // Name and path were read as such.
    request.body(Full::new(message.into())).unwrap_or_default()
}

async fn answer(mut sender: Sender, request: Request<Full<Bytes>>) -> Result<Vec<u8>, KeptError> {
    sender.ready().await.map_err(|_| KeptError::Closed)?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|_| KeptError::Closed)?;
    if response.status() != 200 {
        return Err(KeptError::Status(response.status().as_u16()));
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != MESSAGE) {
        return Err(KeptError::NoMessage);
    }
    let body = Limited::new(response.into_body(), BODY_BYTES);
    let body = body.collect().await.map_err(|_| KeptError::NoMessage)?;
    Ok(body.to_bytes().to_vec())
}
