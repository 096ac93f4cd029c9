//! The DNS service on real sockets, asked by dig.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use innermesh_control::dns::Origin;
use innermesh_host::{
    Clock, Mono, Presence,
    listen::{Class, ListenError, Sources},
    system,
    tasks::Tasks,
};
use innermesh_proto::{
    name::Label,
    zone::{
        InstanceRecord, NodeRecords, Protocol, Rdata, RecordType, ServiceRecords, ServiceState,
        Zone, ZoneInput,
    },
};
use innermesh_serve::dns::{Dns, DnsServer, Served, Source, Surroundings};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UdpSocket},
    process::Command,
};

/// Stands still but for what a test adds; waits are real.
#[derive(Default)]
struct TestClock {
    now_s: AtomicU64,
}

impl TestClock {
    fn advance(&self, seconds: u64) {
        self.now_s.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Mono {
        Duration::from_secs(self.now_s.load(Ordering::SeqCst))
    }
    fn wall_ms(&self) -> u64 {
        1_000_000_000_000
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn label(s: &str) -> Label {
    s.parse().unwrap()
}

/// A view that everybody may see.
fn internal(input: &ZoneInput) -> Served {
    Served {
        zone: Arc::new(Zone::build(input)),
        sources: Arc::new(|_: IpAddr| Source::Internal),
    }
}

fn instance(node: &str, address: &str, port: u16) -> InstanceRecord {
    InstanceRecord {
        node: label(node),
        addresses: vec![address.parse().unwrap()],
        port,
        protocol: Protocol::Tcp,
        live: true,
        healthy: true,
    }
}

fn node(addresses: &[&str]) -> NodeRecords {
    NodeRecords {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        live: true,
        ..NodeRecords::default()
    }
}

/// Two nodes, `web` on both, and `crowd` on very many addresses.
fn input(domain: &str) -> ZoneInput {
    let known = |instances| ServiceRecords {
        state: ServiceState::Known,
        instances,
        wildcard: false,
    };
    let crowd = (0..200)
        .map(|n| instance("a", &format!("10.77.9.{n}"), 80))
        .collect();
    ZoneInput {
        domain: domain.parse().unwrap(),
        ipv4: "10.77.0.0/16".parse().unwrap(),
        ula: "fd00:1:2::/48".parse().unwrap(),
        version: 7,
        loading: false,
        nodes: [
            (label("a"), node(&["10.77.0.1", "fd00:1:2::a"])),
            (label("b"), node(&["10.77.0.2"])),
        ]
        .into(),
        services: [
            (
                label("web"),
                known(vec![
                    instance("a", "10.77.0.1", 80),
                    instance("b", "10.77.0.2", 81),
                ]),
            ),
            (label("crowd"), known(crowd)),
        ]
        .into(),
        records: Default::default(),
        member_aliases: Default::default(),
    }
}

/// What the world outside says: its overlay is another.
fn outside() -> ZoneInput {
    ZoneInput {
        ipv4: "10.99.0.0/16".parse().unwrap(),
        ula: "fd00:9:9::/48".parse().unwrap(),
        nodes: [
            (label("www"), node(&["192.0.2.80"])),
            (
                label("evil"),
                node(&["10.77.0.1", "::ffff:10.77.0.1", "fd00:1:2::a"]),
            ),
            (label("half"), node(&["10.77.0.1", "192.0.2.81"])),
        ]
        .into(),
        services: [(
            label("crowd"),
            ServiceRecords {
                state: ServiceState::Known,
                instances: (0..200)
                    .map(|n| instance("www", &format!("192.0.2.{n}"), 80))
                    .collect(),
                wildcard: false,
            },
        )]
        .into(),
        ..input("outside.org")
    }
}

struct Bench {
    dns: Arc<Dns>,
    clock: Arc<TestClock>,
    server: DnsServer,
    /// Questions that reached it.
    asked: Arc<AtomicUsize>,
}

impl Bench {
    /// A service whose strangers are at 127.0.0.2.
    fn start(input: &ZoneInput) -> Self {
        let clock = Arc::new(TestClock::default());
        let zone = Zone::build(input);
        let first = zone.clone();
        let dns = Dns::new(
            clock.clone(),
            Tasks::default(),
            || first,
            input.ipv4,
            input.ula,
        );
        let dns = Arc::new(dns);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let sources = move |source: IpAddr| {
            counter.fetch_add(1, Ordering::SeqCst);
            if source == IpAddr::from([127, 0, 0, 2]) {
                Source::Stranger
            } else {
                Source::Internal
            }
        };
        dns.publish(|| Served {
            zone: Arc::new(zone),
            sources: Arc::new(sources),
        });
        let listen = [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)];
        let server =
            DnsServer::start(dns.clone(), &around(&clock), &listen, Presence::Present).unwrap();
        Self {
            dns,
            clock,
            server,
            asked,
        }
    }

    /// A service that forwards to another.
    fn forwarding() -> (Self, Self) {
        let upstream = Self::start(&outside());
        let bench = Self::start(&input("lab.internal"));
        bench.dns.set_upstreams(&[upstream.address()], &[]);
        (bench, upstream)
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// What dig prints.
    async fn dig(&self, question: &str) -> String {
        let address = self.address();
        let output = Command::new("dig")
            .arg(format!("@{}", address.ip()))
            .args(["-p", &address.port().to_string(), "+tries=1", "+timeout=5"])
            .args(question.split(' '))
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The data of the answer, sorted.
    async fn short(&self, question: &str) -> Vec<String> {
        let text = self.dig(&format!("{question} +short")).await;
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    }

    /// The response code.
    async fn status(&self, question: &str) -> String {
        let text = self.dig(question).await;
        let status = text
            .split("status: ")
            .nth(1)
            .and_then(|rest| rest.split(',').next());
        status
            .unwrap_or_else(|| panic!("no answer: {text}"))
            .to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zone_is_answered_with_authority() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    assert_eq!(bench.short("a.lab.internal A").await, ["10.77.0.1"]);
    assert_eq!(bench.short("a.lab.internal AAAA").await, ["fd00:1:2::a"]);
    assert_eq!(
        bench.short("web.lab.internal A").await,
        ["10.77.0.1", "10.77.0.2"]
    );
    assert_eq!(bench.short("x.y.a.lab.internal A").await, ["10.77.0.1"]);
    assert_eq!(bench.short("-x 10.77.0.2").await, ["b.lab.internal."]);
    assert_eq!(bench.short("-x fd00:1:2::a").await, ["a.lab.internal."]);
    assert_eq!(bench.short("acme.lab.internal A").await, ["10.77.0.53"]);
    assert_eq!(bench.short("lab.internal NS").await, ["ns.lab.internal."]);
    let srv = bench.dig("_web._tcp.lab.internal SRV").await;
    assert!(srv.contains("SRV\t0 0 81 b.lab.internal."), "{srv}");
    assert!(
        srv.contains("ADDITIONAL: 4"),
        "three addresses and OPT: {srv}"
    );
    let mixed = bench.dig("A.lAb.InterNal A").await;
    assert!(
        mixed.contains(";A.lAb.InterNal.") && mixed.contains("flags: qr aa rd ra;"),
        "{mixed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_nodata_or_nxdomain_with_the_soa() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    for (question, status) in [
        ("b.lab.internal AAAA", "NOERROR"),
        ("b.lab.internal HTTPS", "NOERROR"),
        ("_tcp.lab.internal A", "NOERROR"),
        ("nobody.lab.internal A", "NXDOMAIN"),
        ("-x 10.77.200.200", "NXDOMAIN"),
    ] {
        let text = bench.dig(question).await;
        assert!(
            text.contains(&format!("status: {status}")),
            "{question}: {text}"
        );
        assert!(
            text.contains("ANSWER: 0, AUTHORITY: 1") && text.contains("SOA\tns.lab.internal."),
            "{text}"
        );
    }
    assert_eq!(
        bench.short("b.lab.internal ANY").await,
        ["\"RFC8482\" \"\""]
    );
    assert!(
        bench
            .dig("lab.internal AXFR")
            .await
            .contains("Transfer failed.")
    );
    assert_eq!(bench.status("version.bind CH TXT").await, "REFUSED");
    assert_eq!(
        bench.status("lab.internal SOA +opcode=notify").await,
        "NOTIMP"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_view_loads_the_unknown_is_servfail_and_then_the_new_zone_answers() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let mut loading = input("lab.internal");
    loading.loading = true;
    let bench = Bench::start(&loading);
    let text = bench.dig("late.lab.internal A").await;
    assert!(
        text.contains("status: SERVFAIL") && text.contains("EDE: 14"),
        "{text}"
    );
    loading.loading = false;
    loading.nodes.insert(label("late"), node(&["10.77.0.3"]));
    bench.dns.publish(move || internal(&loading));
    assert_eq!(bench.short("late.lab.internal A").await, ["10.77.0.3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_udp_is_cut_and_comes_over_tcp() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    let cut = bench.dig("crowd.lab.internal A +ignore").await;
    assert!(
        cut.contains(" tc ") && cut.contains("ANSWER: 0,") && cut.contains("EDNS: version: 0"),
        "{cut}"
    );
    assert_eq!(bench.short("crowd.lab.internal A").await.len(), 200);
    assert_eq!(bench.short("crowd.lab.internal A +tcp").await.len(), 200);
    // Additional records alone never make a client come again.
    let mut many = input("lab.internal");
    let instances = (0..14)
        .map(|n| instance(&format!("n{n}"), &format!("10.77.1.{n}"), 80))
        .collect();
    many.nodes = (0..14)
        .map(|n| (label(&format!("n{n}")), node(&[&format!("10.77.1.{n}")])))
        .collect();
    many.services.insert(
        label("web"),
        ServiceRecords {
            state: ServiceState::Known,
            instances,
            wildcard: false,
        },
    );
    bench.dns.publish(move || internal(&many));
    let srv = bench
        .dig("_web._tcp.lab.internal SRV +bufsize=800 +ignore")
        .await;
    assert!(
        srv.contains("ANSWER: 14,") && srv.contains("ADDITIONAL: 1") && !srv.contains(" tc "),
        "{srv}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn edns_is_answered_in_kind() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    let with = bench.dig("a.lab.internal A +bufsize=4096 +dnssec").await;
    assert!(
        with.contains("EDNS: version: 0, flags: do; udp: 1232"),
        "{with}"
    );
    let without = bench.dig("a.lab.internal A +noedns").await;
    assert!(
        !without.contains("EDNS") && without.contains("10.77.0.1"),
        "{without}"
    );
    let newer = bench.dig("a.lab.internal A +edns=1 +noednsneg").await;
    assert!(newer.contains("BADVERS"), "{newer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_everything() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    for question in [
        "a.lab.internal A",
        "nobody.lab.internal A",
        "www.outside.org A",
        "localhost A",
        "-x 10.77.0.1",
    ] {
        for transport in ["+notcp", "+tcp"] {
            let text = bench
                .dig(&format!("-b 127.0.0.2 {question} {transport}"))
                .await;
            assert!(
                text.contains("status: REFUSED") && text.contains("flags: qr rd;"),
                "{text}"
            );
            assert!(text.contains("ANSWER: 0, AUTHORITY: 0"), "{text}");
        }
    }
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 0);
    assert_eq!(bench.status("www.outside.org A").await, "NOERROR");
}

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
    assert_eq!(bench.status("printer.local A").await, "NXDOMAIN");
    assert_eq!(bench.short("localhost A").await, ["127.0.0.1"]);
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
    bench.dns.set_upstreams(&[], &[]);
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
    assert_eq!(bench.dns.upstreams(), [upstream.address()]);
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
    assert_eq!(bench.dns.upstreams(), through_any);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_never_answered() {
    let bench = Bench::start(&input("lab.internal"));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(bench.address()).await.unwrap();
    let mut question =
        b"\0\x01\x81\0\0\x01\0\0\0\0\0\0\x01a\x03lab\x08internal\0\0\x01\0\x01".to_vec();
    socket.send(&question).await.unwrap();
    question[1] = 2;
    question[2] = 1;
    socket.send(&question).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert!(length > question.len());
    assert_eq!(
        buffer[1], 2,
        "the question is answered, the response before it was not"
    );
}

/// Nobody is known: each address is a source of its own.
fn others() -> Arc<dyn Sources> {
    Arc::new(|_: IpAddr| Class::Other)
}

/// Real sockets, on which all are strangers.
fn around(clock: &Arc<TestClock>) -> Surroundings {
    Surroundings {
        clock: clock.clone(),
        net: system::network(),
        tasks: Tasks::default(),
        sources: others(),
        room: Surroundings::room(clock.clone()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_places_are_taken_gives_the_one_that_was_idle_for_the_longest() {
    let bench = Bench::start(&input("lab.internal"));
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(TcpStream::connect(bench.address()).await.unwrap());
    }
    let answered = async {
        loop {
            bench.clock.advance(1);
            if innermesh_skip::missing(&["dig"]).is_some()
                || bench.short("a.lab.internal A +tcp").await == ["10.77.0.1"]
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered)
        .await
        .unwrap();
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(5), open[0].read(&mut byte));
    assert!(matches!(ended.await.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_with_its_holder_and_what_to_do() {
    let bench = Bench::start(&input("lab.internal"));
    let other = Bench::start(&input("lab.internal"));
    let start = |listen: &[SocketAddr]| {
        let around = around(&other.clock);
        DnsServer::start(other.dns.clone(), &around, listen, Presence::Present)
    };
    let error = start(&[bench.address()]).err().unwrap();
    assert!(matches!(error, ListenError::InUse { .. }));
    let words = error.to_string();
    for part in [
        "127.0.0.1",
        &bench.address().port().to_string(),
        &std::process::id().to_string(),
        "dns.listen",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let elsewhere = ["192.0.2.1:0".parse().unwrap()];
    let error = start(&elsewhere).err().unwrap();
    assert!(matches!(error, ListenError::NotHere { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_of_two_addresses_is_taken_the_other_can_be_had_at_once() {
    let bench = Bench::start(&input("lab.internal"));
    for _ in 0..50 {
        let holder = UdpSocket::bind("127.0.0.9:0").await.unwrap();
        let free = holder.local_addr().unwrap();
        drop(holder);
        let start = |listen: &[SocketAddr]| {
            let around = around(&bench.clock);
            DnsServer::start(bench.dns.clone(), &around, listen, Presence::Present)
        };
        let error = start(&[free, bench.address()]).err().unwrap();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        let server = start(&[free]).unwrap();
        // And once more, as its sockets are free when it has ended.
        server.end().await;
        start(&[free]).unwrap().end().await;
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn both_loopback_addresses_can_be_served() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    let Ok(server) = DnsServer::start(
        bench.dns.clone(),
        &around(&bench.clock),
        &["[::1]:0".parse().unwrap()],
        Presence::Present,
    ) else {
        innermesh_skip::skip("this machine has no IPv6 loopback address");
        return;
    };
    let bench = Bench { server, ..bench };
    assert_eq!(bench.short("a.lab.internal A").await, ["10.77.0.1"]);
}

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
