//! How others are asked over TCP, TLS and HTTPS, and what is never done.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use innermesh_control::dns::QueryReport;
use innermesh_proto::{crypto::Hash, zone::RecordType};
use innermesh_serve::dns::{Dns, Encryption, NameServer, UpstreamTrust};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    bench::{Bench, input, outside},
    certified::{Certified, NAME},
};

/// A resolver that asks `servers`, and trusts.
fn resolver(servers: &[&str], trust: UpstreamTrust) -> Bench {
    let bench = Bench::start(&input("lab.internal"));
    bench.dns.trusts(trust);
    let servers = servers.iter().map(|server| server.parse().unwrap());
    let servers: Vec<NameServer> = servers.collect();
    bench.dns.set_upstreams(&servers, &[]);
    bench
}

async fn ask(dns: &Dns, name: &str) -> QueryReport {
    dns.query(&name.parse().unwrap(), RecordType::A).await
}

fn first(report: &QueryReport) -> &str {
    let line = report.answers.first().map_or("", String::as_str);
    line.split_whitespace().last().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_asked_by_each_transport() {
    let other = Bench::start(&outside());
    let certified = Certified::new();
    let tls_server = certified.serve(&other, Encryption::Tls);
    let https_server = certified.serve(&other, Encryption::Https);
    let (tls, https) = (tls_server.address(), https_server.address());
    let pin = data_encoding::BASE64.encode(&Hash::of(&certified.spki).0);
    for server in [
        format!("tcp://{}", other.address()),
        format!("tls://{tls}#{NAME}"),
        // The certificate has the address too.
        format!("tls://{tls}"),
        format!("https://{https}/dns-query#{NAME}"),
        format!("https://{https}"),
        format!("tls://{tls}?pin={pin}"),
        format!("https://{https}?pin={pin}#other.example"),
    ] {
        let bench = resolver(&[&server], certified.trust());
        let report = ask(&bench.dns, "www.outside.org").await;
        assert_eq!(first(&report), "192.0.2.80", "{server}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_who_was_meant_is_asked_nothing() {
    let other = Bench::start(&outside());
    let certified = Certified::new();
    let ended = Certified::until(2020);
    let servers = [
        certified.serve(&other, Encryption::Tls),
        certified.serve(&other, Encryption::Https),
        ended.serve(&other, Encryption::Tls),
    ];
    let [tls, https, late] = servers.each_ref().map(|server| server.address());
    let other_pin = data_encoding::BASE64.encode(&Hash::of(b"another key").0);
    let asked = other.asked.load(std::sync::atomic::Ordering::SeqCst);
    for (server, trust, why) in [
        (
            format!("tls://{tls}#dns.example"),
            certified.trust(),
            "not valid for name",
        ),
        (
            format!("https://{https}#dns.example"),
            certified.trust(),
            "not valid for name",
        ),
        (format!("tls://{tls}#{NAME}"), ended.trust(), "BadSignature"),
        (format!("tls://{late}#{NAME}"), ended.trust(), "expired"),
        (
            format!("tls://{tls}?pin={other_pin}#{NAME}"),
            certified.trust(),
            "ApplicationVerificationFailure",
        ),
        // It speaks another protocol.
        (
            format!("https://{tls}#{NAME}"),
            certified.trust(),
            "NoApplicationProtocol",
        ),
    ] {
        let bench = resolver(&[&server], trust);
        let report = ask(&bench.dns, "www.outside.org").await;
        assert_eq!(report.rcode, "SERVFAIL", "{server}");
        let error = report.error.unwrap_or_default();
        assert!(error.contains(why), "{server}: {error}");
    }
    // Sources were looked at before handshakes, and no question was.
    let more = other.asked.load(std::sync::atomic::Ordering::SeqCst) - asked;
    assert!(more < 12, "{more}");
}

/// The name of a question, as it stands in the message.
fn label(message: &[u8]) -> Vec<u8> {
    let length = usize::from(message[12]);
    message[13..13 + length].to_vec()
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

/// Answers a question with an address.
async fn reply(stream: &mut (impl AsyncWrite + Unpin), question: &[u8], last: u8) {
    let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
    let mut message = question[..end].to_vec();
    message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    let length = u16::try_from(message.len()).unwrap();
    let framed = [&length.to_be_bytes()[..], &message].concat();
    stream.write_all(&framed).await.unwrap();
    stream.flush().await.unwrap();
}

fn acceptor(certified: &Certified) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(certified.resolver());
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_kept_and_what_was_lost_with_it_is_asked_again() {
    let certified = Certified::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("tls://{}#{NAME}", listener.local_addr().unwrap());
    let bench = resolver(&[&server], certified.trust());
    let asked: Vec<_> = ["one", "two", "three"]
        .map(|name| {
            let dns = bench.dns.clone();
            tokio::spawn(async move { ask(&dns, &format!("{name}.example.org")).await })
        })
        .into();
    let acceptor = acceptor(&certified);
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut questions = Vec::new();
    for _ in 0..3 {
        questions.push(read(&mut stream).await.unwrap());
    }
    for question in &questions {
        // Padded as RFC 8467 says, whatever their names' lengths are.
        assert_eq!(question.len() % 128, 0);
    }
    // The last first, and the first never.
    for question in questions[1..].iter().rev() {
        let last = u8::try_from(label(question).len()).unwrap();
        reply(&mut stream, question, last).await;
    }
    drop(stream);
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    let again = read(&mut stream).await.unwrap();
    assert_eq!(label(&again), label(&questions[0]));
    reply(
        &mut stream,
        &again,
        u8::try_from(label(&again).len()).unwrap(),
    )
    .await;
    for (asked, last) in asked.into_iter().zip([3, 3, 5]) {
        let report = asked.await.unwrap();
        assert_eq!(first(&report), format!("192.0.2.{last}"), "{report:?}");
    }
    // The next goes by the same connection.
    let next = tokio::spawn({
        let dns = bench.dns.clone();
        async move { ask(&dns, "four.example.org").await }
    });
    let question = read(&mut stream).await.unwrap();
    reply(&mut stream, &question, 4).await;
    assert_eq!(first(&next.await.unwrap()), "192.0.2.4");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_in_the_clear_to_a_server_that_knows_no_tls() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = udp.local_addr().unwrap();
    let listener = TcpListener::bind(at).await.unwrap();
    let seen = tokio::spawn(async move {
        let mut all = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap();
            all.push(bytes[..length].to_vec());
        }
        all
    });
    for server in [format!("tls://{at}#{NAME}"), format!("https://{at}#{NAME}")] {
        let bench = resolver(&[&server], Certified::new().trust());
        let report = ask(&bench.dns, "secret.outside.org").await;
        assert_eq!(report.rcode, "SERVFAIL");
    }
    for bytes in seen.await.unwrap() {
        assert_eq!(bytes[..2], [22, 3], "a TLS handshake");
        assert!(!bytes.windows(6).any(|part| part == b"secret"));
    }
    let mut datagram = [0; 512];
    let nothing = udp.try_recv_from(&mut datagram);
    assert!(nothing.is_err(), "a datagram");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_costs_little_and_not_at_all_once_it_is_known() {
    let other = Bench::start(&outside());
    let certified = Certified::new();
    let alive = certified.serve(&other, Encryption::Tls);
    // Nothing listens there, and nobody answers here.
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let black_hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let servers = [refusing, black_hole.local_addr().unwrap(), alive.address()];
    let servers = servers.map(|at: SocketAddr| format!("tls://{at}#{NAME}"));
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let bench = resolver(&servers, certified.trust());
    let within = |limit, name| {
        let asked = ask(&bench.dns, name);
        async move { tokio::time::timeout(limit, asked).await.unwrap() }
    };
    let slow = within(Duration::from_secs(3), "www.outside.org").await;
    assert_eq!(first(&slow), "192.0.2.80");
    // Whoever answered last is asked first.
    let quick = within(Duration::from_secs(3), "half.outside.org").await;
    assert_eq!(first(&quick), "192.0.2.81");
}
