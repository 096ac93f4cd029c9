//! Aliases inside, outside, there and back.

use std::net::SocketAddr;

use innermesh_proto::zone::Rdata;
use tokio::net::UdpSocket;

use crate::bench::{Bench, input, outside};

/// An upstream that answers every question with the same alias.
async fn upstream_alias(owner: &'static [u8], target: &'static [u8]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let end = buffer[12..length].iter().position(|b| *b == 0).unwrap();
            let mut message = buffer[..2].to_vec();
            message.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            message.extend(&buffer[12..12 + end + 5]);
            message.extend(owner);
            message.extend([0, 5, 0, 1, 0, 0, 0, 60, 0, target.len() as u8]);
            message.extend(target);
            let _ = socket.send_to(&message, from).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_leads_outside_is_followed_there_and_back() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let mut inside = input("lab.internal");
    let alias = |to: &str| vec![Rdata::Cname(to.parse().unwrap())];
    for (name, to) in [
        ("site.lab.internal", "www.outside.org"),
        ("gone.lab.internal", "nobody.outside.org"),
        ("trick.lab.internal", "evil.outside.org"),
        ("hop.lab.internal", "site.lab.internal"),
    ] {
        inside.records.insert(name.parse().unwrap(), alias(to));
    }
    let upstream = Bench::start(&outside());
    let bench = Bench::start(&inside);
    bench.dns.set_upstreams(&[upstream.address()], &[]);
    assert_eq!(
        bench.short("site.lab.internal A").await,
        ["192.0.2.80", "www.outside.org."]
    );
    assert_eq!(bench.short("hop.lab.internal A").await.len(), 3);
    assert_eq!(bench.status("gone.lab.internal A").await, "NXDOMAIN");
    // An address of the mesh doesn't come from outside on this way either.
    assert_eq!(
        bench.short("trick.lab.internal A").await,
        ["evil.outside.org."]
    );
    assert_eq!(bench.status("site.lab.internal AAAA").await, "NOERROR");
    // Who wants no recursion is shown the way and no more.
    assert_eq!(
        bench.short("site.lab.internal A +norecurse").await,
        ["www.outside.org."]
    );
    let back = upstream_alias(
        b"\x03www\x07outside\x03org\0",
        b"\x01a\x03lab\x08internal\0",
    );
    bench.dns.set_upstreams(&[back.await], &[]);
    assert_eq!(
        bench.short("site.lab.internal A").await,
        ["10.77.0.1", "a.lab.internal.", "www.outside.org."]
    );
    let circle = upstream_alias(
        b"\x03www\x07outside\x03org\0",
        b"\x04site\x03lab\x08internal\0",
    );
    bench.dns.set_upstreams(&[circle.await], &[]);
    let text = bench.dig("site.lab.internal A").await;
    assert!(
        text.contains("status: SERVFAIL") && text.contains("circle"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_to_what_is_not_there_is_nxdomain_or_nodata_with_the_soa() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let mut inside = input("lab.internal");
    let alias = |to: &str| vec![Rdata::Cname(to.parse().unwrap())];
    for (name, to) in [
        ("gone.lab.internal", "nobody.lab.internal"),
        ("v4.lab.internal", "b.lab.internal"),
        ("round.lab.internal", "trip.lab.internal"),
        ("trip.lab.internal", "round.lab.internal"),
    ] {
        inside.records.insert(name.parse().unwrap(), alias(to));
    }
    let bench = Bench::start(&inside);
    for (question, status) in [
        ("GONE.lab.internal A", "NXDOMAIN"),
        ("v4.lab.internal AAAA", "NOERROR"),
    ] {
        let text = bench.dig(question).await;
        assert!(text.contains(&format!("status: {status}")), "{text}");
        assert!(
            text.contains("ANSWER: 1, AUTHORITY: 1") && text.contains("SOA\tns.lab.internal."),
            "{text}"
        );
    }
    let text = bench.dig("round.lab.internal A").await;
    assert!(
        text.contains("status: SERVFAIL") && text.contains("EDE: ") && text.contains("circle"),
        "{text}"
    );
    // The alias itself is there.
    assert_eq!(
        bench.short("round.lab.internal CNAME").await,
        ["trip.lab.internal."]
    );
    inside.loading = true;
    bench.dns.publish(move || crate::bench::internal(&inside));
    let text = bench.dig("gone.lab.internal A").await;
    assert!(
        text.contains("status: SERVFAIL") && text.contains("EDE: 14"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_alias_to_a_name_of_the_mesh_resolves_inside() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let mut inside = input("lab.internal");
    inside.records.insert(
        "out.lab.internal".parse().unwrap(),
        vec![Rdata::Cname("www.outside.org".parse().unwrap())],
    );
    let bench = Bench::start(&inside);
    let to = upstream_alias(b"\x04home\x05other\x03org\0", b"\x01a\x03lab\x08internal\0");
    bench.dns.set_upstreams(&[to.await], &[]);
    let text = bench.dig("Home.other.org A").await;
    assert!(text.contains("status: NOERROR"), "{text}");
    assert!(
        text.contains("Home.other.org.") && text.contains("A\t10.77.0.1"),
        "{text}"
    );
    let text = bench.dig("home.other.org TXT").await;
    assert!(
        text.contains("status: NOERROR") && text.contains("SOA\tns.lab.internal."),
        "{text}"
    );
    assert_eq!(
        bench.short("home.other.org CNAME").await,
        ["a.lab.internal."]
    );
    let nobody = upstream_alias(
        b"\x04gone\x05other\x03org\0",
        b"\x06nobody\x03lab\x08internal\0",
    );
    bench.dns.set_upstreams(&[nobody.await], &[]);
    let text = bench.dig("gone.other.org A").await;
    assert!(
        text.contains("status: NXDOMAIN") && text.contains("SOA\tns.lab.internal."),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_aliases_in_a_circle_are_a_failure_with_its_reason() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    let itself = upstream_alias(b"\x05round\x03org\0", b"\x05round\x03org\0");
    bench.dns.set_upstreams(&[itself.await], &[]);
    let text = bench.dig("round.org A").await;
    assert!(
        text.contains("status: SERVFAIL") && text.contains("EDE: 22") && text.contains("circle"),
        "{text}"
    );
}
