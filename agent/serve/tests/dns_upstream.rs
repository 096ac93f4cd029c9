//! What a hostile or peculiar name server elsewhere can do to those who ask.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_control::dns::QueryReport;
use innermesh_host::{Clock, Mono, tasks::Tasks};
use innermesh_proto::zone::{DomainName, Rdata, RecordType, Zone, ZoneInput};
use innermesh_serve::dns::{AnswerScope, Dns, Heard, NameServer, Served, Source};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

/// Stands still; waits are real.
struct TestClock;

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Mono {
        Duration::ZERO
    }
    fn wall_ms(&self) -> u64 {
        1_000_000_000_000
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A resolver with this zone, which forwards to `upstream`.
fn resolver(input: &ZoneInput, upstream: SocketAddr) -> Dns {
    let zone = Zone::build(input);
    let served = zone.clone();
    let dns = Dns::new(
        Arc::new(TestClock),
        Tasks::default(),
        || zone,
        input.ipv4,
        input.ula,
    );
    dns.publish(|| Served {
        zone: Arc::new(served),
        lan: None,
        sources: Arc::new(|_: IpAddr| Source::Internal),
    });
    dns.set_upstreams(&[upstream], &[]);
    dns
}

fn inside() -> ZoneInput {
    ZoneInput {
        domain: "lab.internal".parse().unwrap(),
        ipv4: "10.77.0.0/16".parse().unwrap(),
        ula: "fd00:1:2::/48".parse().unwrap(),
        serial: 1,
        loading: false,
        nodes: Default::default(),
        services: Default::default(),
        records: Default::default(),
        ttls: Default::default(),
        member_aliases: Default::default(),
        devices: Default::default(),
        front: None,
        withheld: Default::default(),
    }
}

async fn ask(dns: &Dns, name: &str) -> QueryReport {
    dns.query(&name.parse().unwrap(), RecordType::A).await
}

/// The data of the answers.
fn data(report: &QueryReport) -> Vec<&str> {
    let lines = report.answers.iter();
    lines
        .filter_map(|line| line.split_whitespace().last())
        .collect()
}

/// One record in wire form, its name compressed to the question's unless
/// another is given.
fn record(owner: Option<&[u8]>, rtype: u8, rdata: &[u8]) -> Vec<u8> {
    let length = u8::try_from(rdata.len()).unwrap();
    let owner = owner.unwrap_or(b"\xc0\x0c");
    let fixed = [0, rtype, 0, 1, 0, 0, 0, 60, 0, length];
    [owner, &fixed, rdata].concat()
}

fn address(last: u8) -> Vec<u8> {
    record(None, 1, &[192, 0, 2, last])
}

/// Answers, authorities and additional records.
type Sections = [Vec<Vec<u8>>; 3];

/// The response to a question; `fold` has its name in lower case.
fn response(question: &[u8], fold: bool, sections: &Sections) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
    let mut message = question[..2].to_vec();
    message.extend([0x81, 0x80, 0, 1]);
    for section in sections {
        message.extend([0, u8::try_from(section.len()).unwrap()]);
    }
    let mut name = question[12..end].to_vec();
    if fold {
        name.make_ascii_lowercase();
    }
    message.extend(name);
    message.extend(sections.concat().concat());
    message
}

/// The name that a question asks for, as it was written.
fn asked(question: &[u8]) -> Vec<u8> {
    let end = question[12..].iter().position(|b| *b == 0).unwrap();
    question[12..12 + end].to_vec()
}

type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

/// A name server that gives one answer to all over UDP, and tells what it was
/// asked; over TCP another one, if it has that.
async fn upstream(udp: (bool, Sections), tcp: Option<Sections>) -> (SocketAddr, Seen) {
    name_server(move |question| response(question, udp.0, &udp.1), tcp).await
}

/// As [`upstream`], with what is sent over UDP.
async fn name_server(
    udp: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    tcp: Option<Sections>,
) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    // TCP first: its port must be free for UDP, and hardly anything uses that.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let names = seen.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            names.lock().unwrap().push(asked(&buffer[..length]));
            let message = udp(&buffer[..length]);
            let _ = socket.send_to(&message, from).await;
        }
    });
    if let Some(sections) = tcp {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let message = response(&question, false, &sections);
                stream.write_u16(message.len() as u16).await.unwrap();
                stream.write_all(&message).await.unwrap();
            }
        });
    }
    (address, seen)
}

fn only(answers: Vec<Vec<u8>>) -> Sections {
    [answers, Vec::new(), Vec::new()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_is_asked_in_a_case_that_nobody_can_guess() {
    let (upstream, seen) = upstream((false, only(vec![address(1)])), None).await;
    let dns = resolver(&inside(), upstream);
    for first in ["a", "b", "c", "d"] {
        let name = format!("{first}.a-name-with-many-letters.example.org");
        let report = ask(&dns, &name).await;
        assert_eq!(data(&report), ["192.0.2.1"], "{report:?}");
        // The client doesn't see it.
        assert!(report.answers[0].starts_with(&name), "{report:?}");
    }
    let seen = seen.lock().unwrap();
    let upper = |name: &Vec<u8>| name.iter().any(u8::is_ascii_uppercase);
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(upper), "each has 32 letters: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_another_case_is_checked_over_tcp() {
    let forged = (true, only(vec![address(66)]));
    let (upstream, seen) = upstream(forged, Some(only(vec![address(1)]))).await;
    let dns = resolver(&inside(), upstream);
    let report = ask(&dns, "www.a-name-with-many-letters.example.org").await;
    assert_eq!(data(&report), ["192.0.2.1"], "{report:?}");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_folds_case_and_has_no_tcp_goes_on_being_used() {
    let folding = (true, only(vec![address(1)]));
    let (upstream, seen) = upstream(folding, None).await;
    let dns = resolver(&inside(), upstream);
    let report = ask(&dns, "www.a-name-with-many-letters.example.org").await;
    assert_eq!(data(&report), ["192.0.2.1"], "{report:?}");
    let before = seen.lock().unwrap().len();
    let name = "other.a-name-with-many-letters.example.org";
    let report = ask(&dns, name).await;
    assert_eq!(data(&report), ["192.0.2.1"], "{report:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), before + 1, "it is known to do so: {seen:?}");
    assert!(!seen[before].iter().any(u8::is_ascii_uppercase), "{seen:?}");
}

/// As the servers of a zone above are asked for a delegation.
#[tokio::test(flavor = "multi_thread")]
async fn one_server_whose_answer_is_cut_is_asked_again_over_tcp() {
    let ns = |last: u8| record(None, 2, &[3, b'n', b's', last, 0]);
    let cut = move |question: &[u8]| {
        let mut message = response(question, false, &only(vec![ns(b'1')]));
        // TC (RFC 1035 §4.1.1).
        message[2] |= 2;
        message
    };
    let whole = [Vec::new(), vec![ns(b'1'), ns(b'2')], Vec::new()];
    let (server, seen) = name_server(cut, Some(whole)).await;
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let dns = resolver(&inside(), nobody);
    let name: DomainName = "lab.example.org".parse().unwrap();
    let heard = dns.ask_one(server, (&name, RecordType::NS)).await;
    let heard = heard.unwrap();
    assert!(heard.answers.is_empty(), "{heard:?}");
    let servers = Heard::data(&heard.authorities, &name, RecordType::NS);
    assert_eq!(servers, ["ns1.", "ns2."]);
    assert_eq!(seen.lock().unwrap().len(), 1);
    // Part of an answer is none.
    let (server, _) = name_server(cut, None).await;
    let heard = dns.ask_one(server, (&name, RecordType::NS)).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_nobody_asked_for_are_not_passed_on() {
    let bank: &[u8] = b"\x03www\x04bank\x04test\0";
    let evil = b"\x02ns\x04evil\x04test\0";
    let sections = [
        vec![
            record(Some(bank), 1, &[192, 0, 2, 66]),
            address(1),
            record(Some(b"\x04bank\x04test\0"), 5, bank),
        ],
        vec![record(Some(b"\x04bank\x04test\0"), 2, evil)],
        vec![record(Some(bank), 1, &[192, 0, 2, 67])],
    ];
    let (address, _) = upstream((false, sections), None).await;
    let dns = resolver(&inside(), address);
    let report = ask(&dns, "www.example.org").await;
    assert_eq!(data(&report), ["192.0.2.1"], "{report:?}");
    assert!(report.authorities.is_empty(), "{report:?}");
    assert!(report.additionals.is_empty(), "{report:?}");
    // What is about others alone is no answer.
    let others = only(vec![record(Some(bank), 1, &[192, 0, 2, 66])]);
    let (address, _) = upstream((false, others), None).await;
    dns.set_upstreams(&[address], &[]);
    let report = ask(&dns, "other.example.org").await;
    assert_eq!(report.rcode, "SERVFAIL", "{report:?}");
    assert!(report.error.unwrap().contains("other names"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_s_alias_leads_to_no_address_of_a_local_network() {
    let lan = vec![record(None, 1, &[192, 168, 1, 9]), address(1)];
    let (upstream, _) = upstream((false, only(lan)), None).await;
    let mut input = inside();
    let alias = |to: &str| vec![Rdata::Cname(to.parse().unwrap())];
    for (name, to) in [
        ("member.lab.internal", "a.example.org"),
        ("admin.lab.internal", "b.example.org"),
        ("mixed.lab.internal", "member.lab.internal"),
    ] {
        input.records.insert(name.parse().unwrap(), alias(to));
    }
    input.member_aliases = [("member.lab.internal").parse().unwrap()].into();
    let dns = resolver(&input, upstream);
    for name in ["member.lab.internal", "mixed.lab.internal"] {
        let report = ask(&dns, name).await;
        assert_eq!(data(&report).last(), Some(&"192.0.2.1"), "{report:?}");
        assert!(
            !report.answers.concat().contains("192.168.1.9"),
            "{report:?}"
        );
        assert!(report.error.unwrap().contains("local network"));
    }
    let report = ask(&dns, "admin.lab.internal").await;
    assert!(
        report.answers.concat().contains("192.168.1.9"),
        "{report:?}"
    );
}

fn zone(name: &str, servers: &[SocketAddr]) -> (DomainName, Vec<NameServer>) {
    let servers = servers.iter().map(NameServer::from);
    (name.parse().unwrap(), servers.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_zone_with_a_rule_are_asked_of_its_own_servers_alone() {
    let lan = |last| only(vec![record(None, 1, &[192, 168, 7, last])]);
    let (usual, asked_usual) = upstream((false, only(vec![address(1)])), None).await;
    let (corp, asked_corp) = upstream((false, lan(2)), None).await;
    let (lab, _) = upstream((false, lan(3)), None).await;
    let dns = resolver(&inside(), usual);
    dns.set_forwards(
        [
            zone("corp.example", &[corp]),
            zone("lab.corp.example", &[lab]),
        ]
        .into(),
    );
    // Private addresses are what such a zone is for.
    for (name, address) in [
        ("www.corp.example", "192.168.7.2"),
        ("corp.example", "192.168.7.2"),
        ("a.lab.corp.example", "192.168.7.3"),
        ("www.example", "192.0.2.1"),
        ("notcorp.example", "192.0.2.1"),
    ] {
        let report = ask(&dns, name).await;
        assert_eq!(data(&report), [address], "{name}: {report:?}");
    }
    assert_eq!(asked_usual.lock().unwrap().len(), 2);
    assert_eq!(asked_corp.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_zone_whose_servers_are_gone_fail_and_are_asked_of_nobody_else() {
    let (usual, asked) = upstream((false, only(vec![address(1)])), None).await;
    let dns = resolver(&inside(), usual);
    // Nobody answers there, and the other is this service itself.
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nobody = nobody.local_addr().unwrap();
    let itself = "10.77.0.53:53".parse().unwrap();
    dns.set_forwards([zone("corp.example", &[itself, nobody])].into());
    let report = ask(&dns, "www.corp.example").await;
    assert_eq!(report.rcode, "SERVFAIL", "{report:?}");
    dns.set_forwards([zone("corp.example", &[itself])].into());
    let report = ask(&dns, "other.corp.example").await;
    assert_eq!(report.rcode, "SERVFAIL", "{report:?}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_zone_s_servers_said_is_forgotten_with_its_rule() {
    let (usual, _) = upstream((false, only(vec![address(1)])), None).await;
    let (corp, _) = upstream((false, only(vec![address(2)])), None).await;
    let dns = resolver(&inside(), usual);
    dns.set_forwards([zone("corp.example", &[corp])].into());
    assert_eq!(data(&ask(&dns, "www.corp.example").await), ["192.0.2.2"]);
    dns.set_forwards(Default::default());
    assert_eq!(data(&ask(&dns, "www.corp.example").await), ["192.0.2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_the_mesh_come_from_no_zone_s_servers() {
    let mixed = vec![record(None, 1, &[10, 77, 0, 9]), address(2)];
    let (corp, _) = upstream((false, only(mixed)), None).await;
    let dns = resolver(&inside(), corp);
    dns.set_forwards([zone("corp.example", &[corp])].into());
    let report = ask(&dns, "www.corp.example").await;
    assert_eq!(data(&report), ["192.0.2.2"], "{report:?}");
    assert!(report.error.unwrap().contains("rebinding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_wins_over_multicast_names_and_over_nothing_else_of_its_own() {
    let (usual, asked) = upstream((false, only(vec![address(1)])), None).await;
    let (corp, _) = upstream((false, only(vec![address(2)])), None).await;
    let dns = resolver(&inside(), usual);
    dns.set_forwards([zone("corp.local", &[corp]), zone("lab.internal", &[corp])].into());
    assert_eq!(data(&ask(&dns, "www.corp.local").await), ["192.0.2.2"]);
    assert_eq!(ask(&dns, "printer.local").await.rcode, "NXDOMAIN");
    assert_eq!(ask(&dns, "nobody.lab.internal").await.rcode, "NXDOMAIN");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_mesh_s_names_alone_refuses_all_others_and_completes_its_own() {
    let (usual, asked) = upstream((false, only(vec![address(1)])), None).await;
    let mut input = inside();
    let alias = vec![Rdata::Cname("www.example.org".parse().unwrap())];
    input.records = [("site.lab.internal".parse().unwrap(), alias)].into();
    let dns = resolver(&input, usual);
    dns.answers(AnswerScope::Mesh);
    for name in [
        "www.example.org",
        "localhost",
        "printer.local",
        "use-application-dns.net",
        "1.2.0.192.in-addr.arpa",
    ] {
        assert_eq!(ask(&dns, name).await.rcode, "REFUSED", "{name}");
    }
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(ask(&dns, "nobody.lab.internal").await.rcode, "NXDOMAIN");
    // The reverse zones are the mesh's.
    let reverse = ask(&dns, "9.0.77.10.in-addr.arpa").await;
    assert_eq!(reverse.rcode, "NXDOMAIN", "{reverse:?}");
    let site = ask(&dns, "site.lab.internal").await;
    assert_eq!(data(&site).last(), Some(&"192.0.2.1"), "{site:?}");
}
