//! Other names: forwarded, kept, and served beyond their time.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::Ordering,
};

use innermesh_control::dns::Origin;
use innermesh_host::Presence;
use innermesh_proto::zone::RecordType;
use innermesh_serve::dns::{DnsServer, NameServer};

use crate::bench::{Bench, around};

#[tokio::test(flavor = "multi_thread")]
async fn other_names_are_forwarded_and_kept() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    assert_eq!(bench.short("www.outside.org A").await, ["192.0.2.80"]);
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 1);
    bench.clock.advance(10);
    let kept = bench.dig("WWW.outside.org A").await;
    assert!(kept.contains("20\tIN\tA\t192.0.2.80"), "{kept}");
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 1);
    let missing = bench.dig("nobody.outside.org A").await;
    assert!(
        missing.contains("status: NXDOMAIN") && missing.contains("SOA\tns.outside.org."),
        "{missing}"
    );
    let nodata = bench.dig("www.outside.org TXT").await;
    assert!(
        nodata.contains("status: NOERROR") && nodata.contains("SOA\tns.outside.org."),
        "{nodata}"
    );
    // Cut over UDP by upstream, fetched over TCP, whole to a client on TCP.
    assert_eq!(bench.short("crowd.outside.org A +tcp").await.len(), 200);
    assert_eq!(bench.status("www.outside.org A +norec").await, "REFUSED");
    assert_eq!(bench.short("localhost A").await, ["127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn special_names_are_nobody_s_to_ask_and_come_with_an_soa() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    for (question, status, zone) in [
        ("printer.local A", "NXDOMAIN", "local"),
        ("x.onion AAAA", "NXDOMAIN", "onion"),
        (
            "use-application-dns.net A",
            "NXDOMAIN",
            "use-application-dns.net",
        ),
        ("-x 127.0.0.2", "NXDOMAIN", "127.in-addr.arpa"),
        ("localhost MX", "NOERROR", "localhost"),
        ("_dns.resolver.arpa SVCB", "NOERROR", "resolver.arpa"),
    ] {
        let text = bench.dig(question).await;
        assert!(text.contains(&format!("status: {status}")), "{text}");
        assert!(
            text.contains("ANSWER: 0, AUTHORITY: 1") && text.contains("IN\tSOA\t"),
            "{text}"
        );
        assert!(text.contains(&format!("{zone}.\t")), "{zone}: {text}");
    }
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_the_same_are_one_question_to_upstream() {
    let (bench, upstream) = Bench::forwarding();
    let name = "www.outside.org".parse().unwrap();
    let all = (0..50).map(|_| bench.dns.query(&name, RecordType::A));
    for report in futures_util::future::join_all(all).await {
        assert_eq!(report.rcode, "NOERROR", "{report:?}");
    }
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_the_mesh_in_answers_from_outside_are_dropped() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    assert_eq!(upstream.short("evil.outside.org A").await, ["10.77.0.1"]);
    for rtype in ["A", "AAAA"] {
        let text = bench.dig(&format!("evil.outside.org {rtype}")).await;
        assert!(
            text.contains("status: NOERROR") && text.contains("ANSWER: 0,"),
            "{text}"
        );
        assert!(text.contains("EDE: 15"), "{text}");
    }
    assert_eq!(bench.short("half.outside.org A").await, ["192.0.2.81"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_upstream_is_dead_its_last_answer_stands() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    assert_eq!(bench.short("www.outside.org A").await, ["192.0.2.80"]);
    drop(upstream);
    bench.clock.advance(31);
    let stale = bench.dig("www.outside.org A").await;
    assert!(
        stale.contains("192.0.2.80") && stale.contains("EDE: 3"),
        "{stale}"
    );
    let unknown = bench.dig("new.outside.org A").await;
    assert!(
        unknown.contains("status: SERVFAIL") && unknown.contains("EDE: 22"),
        "{unknown}"
    );
    // Long after that it is better to say that nothing is known.
    bench.clock.advance(25 * 3600);
    assert_eq!(bench.status("www.outside.org A").await, "SERVFAIL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_before_a_live_one_costs_one_slow_answer() {
    let (bench, upstream) = Bench::forwarding();
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dead.set_nonblocking(true).unwrap();
    bench
        .dns
        .set_upstreams(&[dead.local_addr().unwrap(), upstream.address()], &[]);
    let first = bench
        .dns
        .query(&"www.outside.org".parse().unwrap(), RecordType::A)
        .await;
    assert_eq!(
        (first.rcode.as_str(), first.origin),
        ("NOERROR", Origin::Upstream)
    );
    let mut buffer = [0; 512];
    assert!(
        dead.recv(&mut buffer).is_ok(),
        "the dead server was asked first"
    );
    while dead.recv(&mut buffer).is_ok() {}
    let second = bench
        .dns
        .query(&"half.outside.org".parse().unwrap(), RecordType::A)
        .await;
    assert_eq!(second.rcode, "NOERROR");
    assert!(
        dead.recv(&mut buffer).is_err(),
        "the live server is asked first from now on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_the_answer_says_so_and_the_mesh_still_resolves() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    let nobody: [SocketAddr; 0] = [];
    bench.dns.set_upstreams(&nobody, &[]);
    let text = bench.dig("www.outside.org A").await;
    assert!(
        text.contains("status: SERVFAIL")
            && text.contains("EDE: 22")
            && text.contains("dns.upstream"),
        "{text}"
    );
    assert_eq!(bench.short("a.lab.internal A").await, ["10.77.0.1"]);
    bench.dns.set_upstreams(&[upstream.address()], &[]);
    assert_eq!(bench.short("www.outside.org A").await, ["192.0.2.80"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_never_forwards_to_itself() {
    let (bench, upstream) = Bench::forwarding();
    let resolver: SocketAddr = "10.77.0.53:53".parse().unwrap();
    bench
        .dns
        .set_upstreams(&[bench.address(), resolver, upstream.address()], &[]);
    assert_eq!(bench.dns.upstreams(), [upstream.address().into()]);
    // Also not where it starts to listen later on, on all addresses of the host.
    let own: IpAddr = "192.0.2.1".parse().unwrap();
    let any = DnsServer::start(
        bench.dns.clone(),
        &around(&bench.clock),
        &["0.0.0.0:0".parse().unwrap()],
        Presence::Present,
    )
    .unwrap();
    let port = any.addresses()[0].port();
    let through_any = [
        SocketAddr::new(own, port),
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
    ];
    bench.dns.set_upstreams(&through_any, &[own]);
    assert!(bench.dns.upstreams().is_empty());
    drop(any);
    assert_eq!(bench.dns.upstreams(), through_any.map(NameServer::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_in_process_is_answered_as_over_a_socket() {
    let (bench, _upstream) = Bench::forwarding();
    let report = bench
        .dns
        .query(&"a.lab.internal".parse().unwrap(), RecordType::A)
        .await;
    assert_eq!(
        (report.rcode.as_str(), report.origin),
        ("NOERROR", Origin::Zone)
    );
    assert!(report.answers[0].ends_with("A 10.77.0.1"), "{report:?}");
    let report = bench
        .dns
        .query(&"www.outside.org".parse().unwrap(), RecordType::A)
        .await;
    assert_eq!(report.origin, Origin::Upstream);
    let report = bench
        .dns
        .query(&"www.outside.org".parse().unwrap(), RecordType::A)
        .await;
    assert_eq!(report.origin, Origin::Cache);
    let crowd = bench
        .dns
        .query(&"crowd.lab.internal".parse().unwrap(), RecordType::A)
        .await;
    assert_eq!(crowd.answers.len(), 200);
}
