//! Sockets and messages.

use std::{net::SocketAddr, time::Duration};

use innermesh_host::{Presence, listen::ListenError};
use innermesh_proto::zone::{ServiceRecords, ServiceState};
use innermesh_serve::dns::DnsServer;
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UdpSocket},
};

use crate::bench::{Bench, around, input, instance, internal, label, node};

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
    // Below the ports that the kernel gives to whoever names none, as other tests
    // here do.
    for port in 20_000..20_050 {
        let free = SocketAddr::from(([127, 0, 0, 9], port));
        let start = |listen: &[SocketAddr]| {
            let around = around(&bench.clock);
            DnsServer::start(bench.dns.clone(), &around, listen, Presence::Present)
        };
        let error = start(&[free, bench.address()]).err().unwrap();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        // And once more, as its sockets are free when it has ended, however soon.
        for _ in 0..20 {
            start(&[free]).unwrap().end().await;
        }
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn replies_leave_from_the_address_that_was_asked_whichever_listens() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    let start = |listen: &[&str]| {
        let listen: Vec<SocketAddr> = listen.iter().map(|at| at.parse().unwrap()).collect();
        let around = around(&bench.clock);
        DnsServer::start(bench.dns.clone(), &around, &listen, Presence::Present).unwrap()
    };
    // dig takes an answer from the address that it asked alone.
    let any = start(&["0.0.0.0:0"]);
    let port = any.addresses()[0].port();
    for asked in ["127.0.0.1", "127.0.0.7", "127.9.9.9"] {
        let at = SocketAddr::new(asked.parse().unwrap(), port);
        let short = bench.dig_at(at, "a.lab.internal A +short").await;
        assert_eq!(short, "10.77.0.1\n", "{asked}");
    }
    let several = start(&["127.0.0.8:0", "127.0.0.9:0"]);
    for at in several.addresses() {
        let short = bench.dig_at(*at, "a.lab.internal A +short").await;
        assert_eq!(short, "10.77.0.1\n", "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_gets_formerr_with_opt_where_it_had_one() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    // A question with none in it is well formed and says nothing.
    for transport in ["+notcp", "+tcp"] {
        let none = bench.dig(&format!("+header-only {transport}")).await;
        assert!(none.contains("status: FORMERR"), "{none}");
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(bench.address()).await.unwrap();
    let opt = [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0];
    let question = b"\x01a\x03lab\x08internal\0\0\x01\0\x01";
    let message = |questions: u8, opts: u8, body: &[&[u8]]| {
        let header = [7, 9, 1, 0, 0, questions, 0, 0, 0, 0, 0, opts];
        [&header[..], &body.concat()].concat()
    };
    for (sent, has_opt) in [
        (message(0, 1, &[&opt]), true),
        (message(2, 1, &[question, question, &opt]), true),
        (message(1, 2, &[question, &opt, &opt]), true),
        (message(2, 0, &[question]), false),
    ] {
        socket.send(&sent).await.unwrap();
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).await.unwrap();
        let reply = &reply[..length];
        assert_eq!((reply[0], reply[1], reply[3] & 0xf), (7, 9, 1), "{reply:?}");
        assert_eq!(reply[11], u8::from(has_opt), "{reply:?}");
        let is_at_end = reply.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(is_at_end, has_opt, "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_disabled_means_nothing_to_the_zone_and_is_kept_for_other_names() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, _upstream) = Bench::forwarding();
    for question in ["a.lab.internal", "nobody.lab.internal", "-x 10.77.0.1"] {
        let text = bench.dig(&format!("{question} +cd")).await;
        assert!(text.contains("flags: qr aa rd ra;"), "{text}");
    }
    let text = bench.dig("www.outside.org +cd").await;
    assert!(text.contains("flags: qr rd ra cd;"), "{text}");
}
