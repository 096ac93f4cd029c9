//! What a connection does for its client, without a socket and in no time.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::http;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use innermesh_host::listen::{Class, Room, Shares, Source, Who};
use innermesh_proto::limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::acme::http::{Protocol, Requests};

type Sender = SendRequest<BoxBody<Bytes, std::convert::Infallible>>;

/// A connection to a server, of a program of this host.
async fn connect(server: &Server, protocol: Protocol) -> DuplexStream {
    let clock = server.acme.host.clock.clone();
    let room = Room::new(Shares::new(4, 4, 4), clock.clone());
    let source = Source {
        class: Class::Local,
        who: Who::User(Some(33)),
    };
    let place = Arc::new(room.enter(source).await.unwrap());
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let requests = Requests::new(server.acme.clone(), clock, source, place);
    tokio::spawn(requests.serve(theirs, protocol));
    ours
}

async fn http_2(server: &Server) -> Sender {
    let stream = connect(server, Protocol::Http2).await;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(
    sender: &Sender,
    method: &str,
    path: &str,
    body: BoxBody<Bytes, std::convert::Infallible>,
) -> (http::response::Parts, Bytes) {
    let mut sender = sender.clone();
    sender.ready().await.unwrap();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://acme.{DOMAIN}:{PORT}{path}"))
        .header("content-type", "application/jose+json")
        .body(body)
        .unwrap();
    let response: http::Response<Incoming> = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.unwrap().to_bytes())
}

fn nothing() -> BoxBody<Bytes, std::convert::Infallible> {
    Empty::new().boxed()
}

/// A body that never comes, and of which nobody says how long it will be.
struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

/// One answer of HTTP/1.1, its head and what came of its body with it.
async fn answer_1(stream: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !text.windows(4).any(|part| part == b"\r\n\r\n") {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "it ends: {}", String::from_utf8_lossy(&text));
        text.extend(&buffer[..length]);
    }
    String::from_utf8(text).unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn a_hundred_and_twenty_orders_at_once_come_to_an_end_on_one_connection() {
    let server = server().await;
    let client = server.with_account().await;
    let sender = http_2(&server).await;
    // What each order asks next, signed beforehand.
    let wanted = json!({ "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }] });
    let post = async |path: &str, payload: &str| {
        let header = client.header(path).await;
        let jws = client.key.jws(&header, payload).to_string();
        let (parts, body) = ask(&sender, "POST", path, Full::new(jws.into()).boxed()).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (parts, body)
    };
    let whole = async || {
        let (made, _) = post("/new-order", &wanted.to_string()).await;
        assert_eq!(made.status, 201);
        let order = path_of(made.headers["location"].to_str().unwrap());
        let told = post(&order, "").await.1;
        let path = path_of(told["authorizations"][0].as_str().unwrap());
        let told = post(&path, "").await.1;
        let mut challenges = told["challenges"].as_array().unwrap().iter();
        let dns = challenges.find(|c| c["type"] == "dns-01").unwrap();
        let thumbprint = jwk::Jwk::parse(&client.key.jwk()).unwrap().thumbprint();
        let token = dns["token"].as_str().unwrap();
        let answer = format!("{token}.{}", BASE64URL_NOPAD.encode(&thumbprint));
        let digest = innermesh_proto::crypto::Hash::of(answer.as_bytes()).0;
        let text = BASE64URL_NOPAD.encode(&digest).into_bytes();
        server.mesh.texts.lock().unwrap().push(text);
        let (met, told) = post(&path_of(dns["url"].as_str().unwrap()), "{}").await;
        assert_eq!(
            (met.status.as_u16(), &told["status"]),
            (200, &json!("valid"))
        );
        let csr = csr_for(&["photos.lab.internal"]).to_string();
        let (done, told) = post(&format!("{order}/finalize"), &csr).await;
        assert_eq!(
            (done.status.as_u16(), &told["status"]),
            (200, &json!("valid"))
        );
        assert!(done.headers.contains_key("replay-nonce"));
    };
    join_all((0..120).map(|_| whole())).await;
    assert_eq!(server.mesh.issued.lock().unwrap().len(), 120);
}

#[tokio::test(start_paused = true)]
async fn what_one_connection_has_under_way_is_bounded_and_ends_in_time() {
    let server = server().await;
    let sender = http_2(&server).await;
    // All the room that its bodies have.
    let slow = limits::ACME_STREAMS_BYTES / BODY_BYTES;
    let slow = (0..slow).map(|_| ask(&sender, "POST", "/new-order", Never.boxed()));
    let slow = tokio::time::timeout(Duration::from_secs(15), join_all(slow));
    // What has no body is answered beside them; another one waits for them.
    let beside = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (parts, _) = ask(&sender, "HEAD", "/new-nonce", nothing()).await;
        assert_eq!(parts.status, 200);
        let small = ask(
            &sender,
            "POST",
            "/new-order",
            Full::new("{}".into()).boxed(),
        );
        let small = tokio::time::timeout(Duration::from_secs(5), small);
        assert!(small.await.is_err(), "there was room");
    };
    let (slow, ()) = tokio::join!(slow, beside);
    for (parts, body) in slow.unwrap() {
        assert_eq!(parts.status, 408, "{body:?}");
        assert!(parts.headers.contains_key("replay-nonce"));
        assert!(!parts.headers.contains_key("connection"));
    }
    let small = Full::new("{}".into()).boxed();
    let (parts, _) = ask(&sender, "POST", "/new-order", small).await;
    assert_eq!(parts.status, 400);
    // One that says that it is too long isn't waited for.
    let long = Full::new(vec![b'x'; BODY_BYTES + 1].into()).boxed();
    let (parts, _) = ask(&sender, "POST", "/new-order", long).await;
    assert_eq!(parts.status, 413);
}

#[tokio::test(start_paused = true)]
async fn head_has_the_length_of_what_get_answers_and_nothing_of_it() {
    let server = server().await;
    let sender = http_2(&server).await;
    let (got, body) = ask(&sender, "GET", "/directory", nothing()).await;
    let (asked, none) = ask(&sender, "HEAD", "/directory", nothing()).await;
    assert_eq!(
        (got.status, asked.status),
        (http::StatusCode::OK, http::StatusCode::OK)
    );
    assert_eq!(asked.headers["content-length"], body.len().to_string());
    assert!(none.is_empty() && !body.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_left_unread_closes_the_connection() {
    let server = server().await;
    let head = "POST /new-order HTTP/1.1\r\nhost: a\r\ncontent-type: application/jose+json\r\n";
    for (rest, status) in [
        (format!("content-length: {}\r\n\r\n", BODY_BYTES + 1), "413"),
        ("content-length: 9\r\n\r\nfew".into(), "408"),
        ("transfer-encoding: chunked\r\n\r\n".into(), "408"),
    ] {
        let mut stream = connect(&server, Protocol::Http1).await;
        let asked = format!("{head}{rest}");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let answer = answer_1(&mut stream).await;
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains("\r\nreplay-nonce: "), "{answer}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }
    // A refusal alone doesn't.
    let mut stream = connect(&server, Protocol::Http1).await;
    for _ in 0..2 {
        let asked = "GET /new-order HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.unwrap();
        let answer = answer_1(&mut stream).await;
        assert!(answer.starts_with("http/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: post\r\n"), "{answer}");
        assert!(!answer.contains("\r\nconnection: "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_s_last_answer_says_so() {
    let server = server().await;
    let mut stream = connect(&server, Protocol::Http1).await;
    for _ in 0..12 {
        let asked = "HEAD /new-nonce HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.unwrap();
        let answer = answer_1(&mut stream).await;
        assert!(!answer.contains("\r\nconnection: "), "{answer}");
        tokio::time::sleep(Duration::from_secs(9)).await;
    }
    // One that is under way as its time is over is answered.
    let asked = "POST /new-order HTTP/1.1\r\nhost: a\r\ncontent-type: application/jose+json\r\n\
                 content-length: 2\r\n\r\n{";
    stream.write_all(asked.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stream.write_all(b"}").await.unwrap();
    let answer = answer_1(&mut stream).await;
    assert!(answer.starts_with("http/1.1 400 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
}
