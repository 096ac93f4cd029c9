//! What this service answers, and what slow, odd and unknown clients get.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use innermesh_host::{Presence, listen::Class};
use innermesh_proto::limits;
use innermesh_serve::dns::{EncryptedDns, Encryption, Surroundings};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
};

use crate::{
    bench::{Bench, around, input},
    certified::{Certified, tcp},
};

const HERE: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 2];
const INSIDE: &[u8] = b"\x01a\x03lab\x08internal\0";
const PADDING: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 12, 0, 0];
const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

fn question(id: u8, name: &[u8], opt: &[u8]) -> Vec<u8> {
    let opts = u8::from(!opt.is_empty());
    let header = [0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, opts];
    [&header[..], name, &[0, 1, 0, 1], opt].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_answers_come_as_they_are_there_and_padded_for_who_asks_for_that() {
    let bench = Bench::start(&input("lab.internal"));
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    bench
        .dns
        .set_upstreams(&[silent.local_addr().unwrap()], &[]);
    let certified = Certified::new();
    let server = certified.serve(&bench, Encryption::Tls);
    let connecting = certified.connect(HERE, server.address(), b"dot");
    let mut stream = connecting.await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"dot"[..]));
    let outside = b"\x03www\x07outside\x03org\0";
    let all = [
        question(1, outside, OPT),
        question(2, INSIDE, PADDING),
        question(3, INSIDE, OPT),
        question(4, INSIDE, &[]),
    ];
    let all: Vec<u8> = all.iter().flat_map(|message| framed(message)).collect();
    stream.write_all(&all).await.unwrap();
    let mut lengths = Vec::new();
    for id in [2, 3, 4] {
        let message = answer(&mut stream).await;
        assert_eq!((message[1], message[3] & 0xf), (id, 0));
        lengths.push(message.len());
    }
    assert_eq!(lengths[0], 468);
    assert!(
        lengths[1] < 128 && lengths[2] == lengths[1] - OPT.len(),
        "{lengths:?}"
    );
    // What waits for others fails in the end, on the same connection.
    let slow = answer(&mut stream).await;
    assert_eq!((slow[1], slow[3] & 0xf), (1, 2));
    // Over TCP nobody pads: everybody between can read it.
    let mut plain = tcp(HERE, bench.address()).await;
    plain
        .write_all(&framed(&question(2, INSIDE, PADDING)))
        .await
        .unwrap();
    assert_eq!(answer(&mut plain).await.len(), lengths[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_not_even_a_handshake() {
    let bench = Bench::start(&input("lab.internal"));
    let certified = Certified::new();
    for (encryption, protocol) in [(Encryption::Tls, &b"dot"[..]), (Encryption::Https, b"h2")] {
        let server = certified.serve(&bench, encryption);
        let refused = certified
            .connect(STRANGER, server.address(), protocol)
            .await;
        assert!(refused.is_err());
        let mut stream = tcp(STRANGER, server.address()).await;
        let mut all = Vec::new();
        // It may be reset, as what was sent isn't read.
        let _ = stream.read_to_end(&mut all).await;
        assert!(all.is_empty(), "{all:?}");
        let known = certified.connect(HERE, server.address(), protocol).await;
        assert!(known.is_ok());
    }
}

struct Http(http2::SendRequest<Full<Bytes>>);

impl Http {
    async fn connect(certified: &Certified, to: SocketAddr) -> Self {
        let stream = certified.connect(HERE, to, b"h2").await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Status, some headers, and the body.
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> (u16, [String; 2], Vec<u8>) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://ns.lab.internal{path}"));
        if let Some(value) = content_type {
            request = request.header("content-type", value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_vec()))).unwrap();
        let response = self.0.send_request(request).await.unwrap();
        let headers = ["content-type", "cache-control"].map(|name| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        });
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap();
        (status, headers, body.to_bytes().to_vec())
    }
}

const MESSAGE: &str = "application/dns-message";
/// Bytes of a message that is far longer than its question.
const LONG: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn over_https_get_and_post_are_answered_with_the_time_that_a_cache_may_keep_it() {
    let bench = Bench::start(&input("lab.internal"));
    let certified = Certified::new();
    let server = certified.serve(&bench, Encryption::Https);
    let mut http = Http::connect(&certified, server.address()).await;
    let asked = question(0, INSIDE, OPT);
    let path = format!(
        "/dns-query?dns={}",
        data_encoding::BASE64URL_NOPAD.encode(&asked)
    );
    let (status, [kind, cache], got) = http.ask("GET", &path, None, &[]).await;
    assert_eq!((status, kind.as_str()), (200, MESSAGE));
    assert_eq!(got[..4], [0, 0, 0x85, 0x80]);
    // The answer's TTL stands behind name, type and class.
    let ttl_at = 12 + INSIDE.len() + 4 + 6;
    let ttl = u32::from_be_bytes(*got[ttl_at..].first_chunk().unwrap());
    assert_eq!(cache, format!("max-age={ttl}"));
    assert!(ttl > 0);
    let post = http.ask("POST", "/dns-query", Some(MESSAGE), &asked).await;
    assert_eq!((post.0, &post.2), (200, &got));
    let padded = question(0, INSIDE, PADDING);
    let (_, _, padded) = http.ask("POST", "/dns-query", Some(MESSAGE), &padded).await;
    assert_eq!(padded.len(), 468);
    // A failure isn't kept.
    let nowhere = question(0, b"\x03www\x07outside\x03org\0", OPT);
    let (status, [_, cache], got) = http
        .ask("POST", "/dns-query", Some(MESSAGE), &nowhere)
        .await;
    assert_eq!(
        (status, got[3] & 0xf, cache.as_str()),
        (200, 2, "max-age=0")
    );

    let long = vec![0; 65_536];
    for (method, path, kind, body, status) in [
        ("GET", "/", None, &[][..], 404),
        ("GET", "/dns-query", None, &[], 400),
        ("GET", "/dns-query?dns=A%3D", None, &[], 400),
        ("PUT", "/dns-query", Some(MESSAGE), &asked, 405),
        ("POST", "/dns-query", Some("text/plain"), &asked, 415),
        ("POST", "/dns-query", Some(MESSAGE), &[7, 9], 400),
        ("POST", "/dns-query", Some(MESSAGE), &long, 413),
    ] {
        let (got, [kind, _], _) = http.ask(method, path, kind, body).await;
        assert_eq!(got, status, "{method} {path}");
        assert_ne!(kind, MESSAGE);
    }
    // All that on one connection, which is still good.
    assert_eq!(
        http.ask("POST", "/dns-query", Some(MESSAGE), &asked)
            .await
            .0,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_over_https_have_so_much_room_until_they_are_answered() {
    let bench = Bench::start(&input("lab.internal"));
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    bench
        .dns
        .set_upstreams(&[silent.local_addr().unwrap()], &[]);
    let certified = Certified::new();
    let server = certified.serve(&bench, Encryption::Https);
    let mut http = Http::connect(&certified, server.address()).await;
    let most = limits::DNS_HTTP_PENDING_BYTES / LONG;
    let slow: Vec<_> = (0..=most)
        .map(|n| {
            let name = [&[2, b'n', b'0' + n as u8][..], b"\x07outside\x03org\0"].concat();
            let mut asked = question(0, &name, OPT);
            // What stands behind it says nothing.
            asked.resize(LONG, 0);
            let mut http = Http(http.0.clone());
            tokio::spawn(async move { http.ask("POST", "/dns-query", Some(MESSAGE), &asked).await })
        })
        .collect();
    let mut names = std::collections::BTreeSet::new();
    let mut buffer = [0; 512];
    while names.len() < most {
        let length = silent.recv(&mut buffer).await.unwrap();
        names.insert(buffer[13..length.min(15)].to_ascii_lowercase());
    }
    // One that is short has room beside them, and doesn't wait behind the last.
    let asked = question(0, INSIDE, OPT);
    let (status, _, _) = http.ask("POST", "/dns-query", Some(MESSAGE), &asked).await;
    assert_eq!(status, 200);
    while let Ok(length) = silent.try_recv(&mut buffer) {
        names.insert(buffer[13..length.min(15)].to_ascii_lowercase());
    }
    assert_eq!(names.len(), most);
    // The last has its turn.
    for slow in slow {
        let (status, _, reply) = slow.await.unwrap();
        assert_eq!((status, reply[3] & 0xf), (200, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_no_dns_over_https() {
    let bench = Bench::start(&input("lab.internal"));
    let certified = Certified::new();
    let server = certified.serve(&bench, Encryption::Https);
    let refused = certified.connect(HERE, server.address(), b"http/1.1").await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("NoApplicationProtocol")
    );
}

/// Members are at 127.0.1.x.
fn with_members(bench: &Bench) -> Surroundings {
    Surroundings {
        sources: Arc::new(|address: IpAddr| match address {
            IpAddr::V4(v4) if v4.octets()[2] == 1 => Class::Member,
            _ => Class::Other,
        }),
        ..around(&bench.clock)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_slow_clients_keep_no_member_waiting() {
    let bench = Bench::start(&input("lab.internal"));
    let certified = Certified::new();
    let dns = EncryptedDns::new(bench.dns.clone(), certified.resolver());
    let around = with_members(&bench);
    let any = SocketAddr::from((HERE, 0));
    let start = |encryption| {
        dns.start(&around, any, encryption, Presence::Present)
            .unwrap()
    };
    let (tls, https) = (start(Encryption::Tls), start(Encryption::Https));
    let mut slow = Vec::new();
    for n in 0..500u16 {
        let from = [127, 0, 2, u8::try_from(n % 50 + 1).unwrap()];
        let to = if n % 2 == 0 {
            tls.address()
        } else {
            https.address()
        };
        let mut stream = tcp(from, to).await;
        // A part of a record of a handshake.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).await.unwrap();
        slow.push(stream);
    }
    assert!(around.room.served() <= limits::DNS_TCP_CONNECTIONS);
    for n in 1..=8 {
        let from = [127, 0, 1, n];
        let mut stream = certified
            .connect(from, tls.address(), b"dot")
            .await
            .unwrap();
        stream
            .write_all(&framed(&question(n, INSIDE, &[])))
            .await
            .unwrap();
        assert_eq!(answer(&mut stream).await[1], n);
        let h2 = certified.connect(from, https.address(), b"h2").await;
        assert!(h2.is_ok());
    }
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_behind_the_handshake_is_let_go() {
    let bench = Bench::start(&input("lab.internal"));
    let certified = Certified::new();
    let tls = certified.serve(&bench, Encryption::Tls);
    let https = certified.serve(&bench, Encryption::Https);
    let mut dot = certified
        .connect(HERE, tls.address(), b"dot")
        .await
        .unwrap();
    // Half a question, and half a preface of HTTP/2.
    dot.write_all(&[0, 40, 1]).await.unwrap();
    let mut h2 = certified
        .connect(HERE, https.address(), b"h2")
        .await
        .unwrap();
    h2.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let ends = async {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let _ = tokio::join!(dot.read_to_end(&mut one), h2.read_to_end(&mut other));
        one
    };
    let got = tokio::time::timeout(Duration::from_secs(60), ends).await;
    assert!(got.unwrap().is_empty());
}
