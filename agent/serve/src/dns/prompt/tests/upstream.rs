//! Answers that came from upstream, from the cache, both ways.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use tokio::net::UdpSocket;

use super::{
    MEMBER, StillClock,
    corpus::{Form, input, usual},
    dns, served,
};
use crate::dns::{BothWays, service::Dns};

/// Answers of an upstream: an alias and two addresses with TTLs of their own, below
/// the name as it was asked, validated; and for other names other things.
async fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let reply = reply(&buffer[..length]);
            let _ = socket.send_to(&reply, from).await;
        }
    });
    address
}

fn reply(query: &[u8]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 5;
    let name = query[13..end].to_ascii_lowercase();
    let is = |label: &[u8]| name.starts_with(label);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    let record = |owner: &[u8], rtype: u8, ttl: u8, data: &[u8]| {
        let head = [0, rtype, 0, 1, 0, 0, 0, ttl, 0, data.len() as u8];
        [owner, &head, data].concat()
    };
    let mut low = 0xa0;
    let mut authorities = 0;
    if is(b"missing") {
        low |= 3;
        authorities = 1;
        let soa = [&b"\x02ns\0\x01h\0"[..], &[0; 16], &[0, 0, 0, 60]].concat();
        answers.push(record(b"\x03ORG\0", 6, 90, &soa));
    } else if is(b"inside") {
        answers.push(record(&[0xc0, 12], 5, 60, b"\x01a\x03lab\x08internal\0"));
    } else if is(b"rebinding") {
        answers.push(record(&[0xc0, 12], 1, 60, &[10, 77, 0, 1]));
        answers.push(record(&[0xc0, 12], 1, 60, &[192, 0, 2, 1]));
    } else if is(b"fails") {
        low |= 2;
    } else {
        answers.push(record(&[0xc0, 12], 1, 100, &[192, 0, 2, 1]));
        answers.push(record(&[0xc0, 12], 1, 50, &[192, 0, 2, 2]));
    }
    let mut message = query[..2].to_vec();
    let answer = answers.len() as u8 - authorities.min(answers.len() as u8);
    message.extend([0x81, low, 0, 1, 0, answer, 0, authorities, 0, 0]);
    message.extend(&query[12..end]);
    message.extend(answers.concat());
    message
}

async fn ask(dns: &Dns, form: &Form, name: &str) -> BothWays {
    let message = form.message(&name.parse().unwrap(), 1, 0x1234);
    let both = dns.both_ways(&message, MEMBER, true).await;
    if both.prompt.is_some() {
        assert_eq!(both.prompt, both.careful, "{name} {form:?}");
    }
    both
}

async fn start() -> (Dns, Arc<StillClock>) {
    let clock = Arc::new(StillClock::default());
    let dns = dns(&input(), clock.clone());
    dns.set_upstreams(&[upstream().await], &[]);
    (dns, clock)
}

#[tokio::test]
async fn a_cached_answer_is_there_at_once_with_what_is_left_of_its_ttls() {
    let (dns, clock) = start().await;
    for form in usual() {
        let is_recursive = form.flags[0] & 1 == 1;
        ask(&dns, &form, "www.example.org").await;
        ask(&dns, &form, "missing.example.org").await;
        for name in ["www.example.org", "missing.example.org"] {
            let both = ask(&dns, &form, name).await;
            assert_eq!(both.prompt.is_some(), is_recursive, "{name} {form:?}");
        }
    }
    let form = &usual()[1];
    let ttl = |reply: Vec<u8>| reply[12 + 21 + 6 + 3];
    assert_eq!(
        ttl(ask(&dns, form, "www.example.org").await.prompt.unwrap()),
        100
    );
    clock.0.fetch_add(49, Ordering::SeqCst);
    assert_eq!(
        ttl(ask(&dns, form, "www.example.org").await.prompt.unwrap()),
        51
    );
    clock.0.fetch_add(1, Ordering::SeqCst);
    // The least TTL has passed.
    let both = ask(&dns, form, "www.example.org").await;
    assert_eq!(both.prompt, None);
    assert_eq!(ttl(both.careful.unwrap()), 100, "it was asked for again");
}

#[tokio::test]
async fn what_depends_on_more_than_the_cache_is_left_to_care() {
    let (dns, _) = start().await;
    for name in [
        "inside.example.org",
        "rebinding.example.org",
        "fails.example.org",
    ] {
        for form in usual() {
            ask(&dns, &form, name).await;
            assert_eq!(ask(&dns, &form, name).await.prompt, None, "{name}");
        }
    }
}

#[tokio::test]
async fn a_name_that_became_the_meshs_is_not_answered_from_the_cache() {
    let (dns, _) = start().await;
    let form = &usual()[0];
    let name = "1.0.88.10.in-addr.arpa";
    ask(&dns, form, name).await;
    assert!(ask(&dns, form, name).await.prompt.is_some());
    let mut moved = input();
    moved.ipv4 = "10.88.0.0/16".parse().unwrap();
    let next = served(&moved);
    dns.publish(|| next);
    let both = ask(&dns, form, name).await;
    assert_eq!(both.careful.unwrap()[3] & 0xf, 3);
    assert_eq!(both.prompt.map(|reply| reply[3] & 0xf), Some(3));
    // And back.
    let next = served(&input());
    dns.publish(|| next);
    assert_eq!(
        ask(&dns, form, name)
            .await
            .prompt
            .map(|reply| reply[3] & 0xf),
        Some(0)
    );
}

#[tokio::test]
async fn what_other_servers_said_is_not_answered_any_more() {
    let (dns, _) = start().await;
    let form = &usual()[0];
    ask(&dns, form, "www.example.org").await;
    assert!(ask(&dns, form, "www.example.org").await.prompt.is_some());
    dns.set_upstreams(&[upstream().await], &[]);
    assert_eq!(ask(&dns, form, "www.example.org").await.prompt, None);
}
