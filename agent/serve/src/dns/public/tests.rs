//! What strangers are answered, byte for byte.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hickory_server::proto::op::Message as Parsed;
use innermesh_host::{Clock, Mono, keys::SystemKeys};
use innermesh_proto::{
    crypto::Hash,
    zone::{Rdata, Record, StrangerInput, StrangerZone},
};

use super::{
    message::{NOTIMP, REFUSED, SERVFAIL},
    *,
};

const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 66));
const CHALLENGE: &[u8] = b"Aq0zYx8wv7ut6sr5qp4on3ml2kj1ih0gf9ed8cb7a_-";

/// Moves only when a test says so.
#[derive(Default)]
struct StillClock(AtomicU64);

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Mono {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
    fn wall_ms(&self) -> u64 {
        1_000_000_000_000
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn zone(published: &[(&str, Rdata)]) -> StrangerZone {
    let ips =
        |all: &[&str]| -> BTreeSet<IpAddr> { all.iter().map(|ip| ip.parse().unwrap()).collect() };
    StrangerZone::build(StrangerInput {
        apex: "in.example.org".parse().unwrap(),
        name_servers: vec![ips(&["203.0.113.7", "2001:db8::7"]), ips(&["203.0.113.8"])],
        sinkhole: ips(&["203.0.113.7", "203.0.113.8", "2001:db8::7"]),
        published: published
            .iter()
            .map(|(name, data)| Record {
                name: name.parse().unwrap(),
                ttl_s: 300,
                data: data.clone(),
            })
            .collect(),
        secret: Hash([7; 32]),
    })
}

fn dns() -> PublicDns {
    let dns = PublicDns::new(Arc::new(StillClock::default()), &SystemKeys);
    dns.publish(zone(&[
        (
            "www.in.example.org",
            Rdata::Cname("site.in.example.org".parse().unwrap()),
        ),
        (
            "away.in.example.org",
            Rdata::Cname("example.net".parse().unwrap()),
        ),
        (
            "a.in.example.org",
            Rdata::Cname("b.in.example.org".parse().unwrap()),
        ),
        (
            "b.in.example.org",
            Rdata::Cname("a.in.example.org".parse().unwrap()),
        ),
        (
            "in.example.org",
            Rdata::Mx(innermesh_proto::zone::Mx {
                preference: 10,
                exchange: "mail.in.example.org".parse().unwrap(),
            }),
        ),
        ("big.in.example.org", Rdata::Txt(vec![vec![b'x'; 255]; 4])),
        (
            "_acme-challenge.gamma.in.example.org",
            Rdata::Txt(vec![CHALLENGE.to_vec()]),
        ),
    ]));
    dns
}

/// A question, with an OPT record of so large a payload and these options.
fn question(name: &str, rtype: u16, edns: Option<(u16, &[u8])>) -> Vec<u8> {
    let mut message = vec![
        0xab,
        0xcd,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(edns.is_some()),
    ];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(rtype.to_be_bytes());
    message.extend([0, 1]);
    if let Some((payload, options)) = edns {
        message.extend([0, 0, 41]);
        message.extend(payload.to_be_bytes());
        message.extend([0, 0, 0, 0]);
        message.extend((options.len() as u16).to_be_bytes());
        message.extend(options);
    }
    message
}

fn tell(dns: &PublicDns, message: &[u8], is_udp: bool) -> Vec<u8> {
    let mut reply = Vec::new();
    dns.respond(message, STRANGER, is_udp, &mut reply);
    reply
}

/// Over TCP, as a parser that isn't ours reads it: flags, and each section's records.
fn told(dns: &PublicDns, name: &str, rtype: u16) -> (Parsed, [Vec<String>; 3]) {
    let reply = tell(dns, &question(name, rtype, Some((1232, &[]))), false);
    let parsed = Parsed::from_vec(&reply).expect("a message");
    let sections = [&parsed.answers, &parsed.authorities, &parsed.additionals]
        .map(|all| all.iter().map(|record| record.to_string()).collect());
    (parsed, sections)
}

const SOA: &str = "in.example.org. 300 IN SOA ns1.in.example.org. hostmaster.in.example.org.";

#[test]
fn every_name_leads_to_the_sinkholes_and_has_nothing_else() {
    let dns = dns();
    for name in [
        "gamma.in.example.org",
        "x.y.in.example.org",
        "in.example.org",
    ] {
        let (parsed, [answers, authorities, _]) = told(&dns, name, 1);
        assert!(
            parsed.authoritative && !parsed.recursion_available,
            "{name}"
        );
        let expected = ["203.0.113.7", "203.0.113.8"].map(|ip| format!("{name}. 300 IN A {ip}"));
        assert_eq!(answers, expected);
        assert!(authorities.is_empty());
        let (_, [answers, ..]) = told(&dns, name, 28);
        assert_eq!(answers, [format!("{name}. 300 IN AAAA 2001:db8::7")]);
        for rtype in [2, 12, 33, 43, 48, 65, 65280] {
            if rtype == 2 && name == "in.example.org" {
                continue;
            }
            let (parsed, [answers, authorities, _]) = told(&dns, name, rtype);
            assert_eq!(u16::from(parsed.response_code), NOERROR, "{name} {rtype}");
            assert!(answers.is_empty(), "{name} {rtype}: {answers:?}");
            assert!(authorities[0].starts_with(SOA), "{authorities:?}");
        }
    }
}

#[test]
fn the_apex_has_name_servers_with_glue_and_what_was_published() {
    let dns = dns();
    let (_, [answers, _, additionals]) = told(&dns, "in.example.org", 2);
    let ns = ["ns1", "ns2"].map(|ns| format!("in.example.org. 300 IN NS {ns}.in.example.org."));
    assert_eq!(answers, ns);
    for glue in [
        "ns1.in.example.org. 300 IN A 203.0.113.7",
        "ns1.in.example.org. 300 IN AAAA 2001:db8::7",
        "ns2.in.example.org. 300 IN A 203.0.113.8",
    ] {
        assert!(
            additionals.iter().any(|line| line == glue),
            "{glue} in {additionals:?}"
        );
    }
    let (_, [answers, ..]) = told(&dns, "ns2.in.example.org", 1);
    assert_eq!(answers, ["ns2.in.example.org. 300 IN A 203.0.113.8"]);
    let (_, [answers, ..]) = told(&dns, "ns2.in.example.org", 28);
    assert!(answers.is_empty());
    let (_, [answers, ..]) = told(&dns, "in.example.org", 6);
    assert!(answers[0].starts_with(SOA), "{answers:?}");
    let (_, [answers, ..]) = told(&dns, "in.example.org", 15);
    assert_eq!(
        answers,
        ["in.example.org. 300 IN MX 10 mail.in.example.org."]
    );
    let (_, [answers, ..]) = told(&dns, "in.example.org", 257);
    assert_eq!(answers.len(), 2, "{answers:?}");
    let (_, [answers, ..]) = told(&dns, "www.in.example.org", 1);
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_eq!(
        answers[0],
        "www.in.example.org. 300 IN CNAME site.in.example.org."
    );
    let (_, [answers, authorities, _]) = told(&dns, "away.in.example.org", 1);
    assert_eq!(answers, ["away.in.example.org. 300 IN CNAME example.net."]);
    assert!(authorities.is_empty());
    // A circle ends.
    let (_, [answers, ..]) = told(&dns, "a.in.example.org", 1);
    assert_eq!(answers.len(), 8);
    let (_, [answers, ..]) = told(&dns, "x.in.example.org", 255);
    assert!(answers[0].contains("RFC8482"), "{answers:?}");
}

#[test]
fn other_zones_classes_transfers_and_operations_are_refused() {
    let dns = dns();
    let rcode = |message: &[u8]| tell(&dns, message, false)[3] & 15;
    for (name, rtype) in [
        ("example.org", 1),
        (".", 2),
        ("xin.example.org", 1),
        ("in.example.org", 252),
        ("in.example.org", 251),
        ("in.example.org", 250),
        ("in.example.org", 41),
    ] {
        let reply = tell(&dns, &question(name, rtype, None), false);
        assert_eq!(u16::from(reply[3] & 15), REFUSED, "{name} {rtype}");
        assert_eq!(reply[2] & 4, 0, "no authority: {name}");
        assert_eq!(reply[3] & 0x80, 0, "no recursion: {name}");
        assert_eq!(reply.len(), question(name, rtype, None).len());
    }
    let mut chaos = question("in.example.org", 16, None);
    let end = chaos.len();
    chaos[end - 1] = 3;
    assert_eq!(u16::from(rcode(&chaos)), REFUSED);
    let mut update = question("in.example.org", 6, None);
    update[2] = 5 << 3;
    assert_eq!(u16::from(rcode(&update)), NOTIMP);
    let mut newer = question("in.example.org", 1, Some((1232, &[])));
    let end = newer.len();
    newer[end - 5] = 1;
    let reply = tell(&dns, &newer, false);
    assert_eq!((reply[3] & 15, reply[reply.len() - 6]), (0, 1), "BADVERS");
    let mut response = question("in.example.org", 1, None);
    response[2] |= 0x80;
    assert!(tell(&dns, &response, false).is_empty());
    assert!(tell(&dns, &response[..11], false).is_empty());
    let unknown = PublicDns::new(Arc::new(StillClock::default()), &SystemKeys);
    let reply = tell(&unknown, &question("in.example.org", 1, None), false);
    assert_eq!(u16::from(reply[3] & 15), SERVFAIL);
}

#[test]
fn no_name_answers_longer_or_otherwise_than_another_of_its_length() {
    let dns = dns();
    for rtype in (0..=300).filter(|rtype| *rtype != 16) {
        let all: BTreeSet<Vec<u8>> = ["gamma", "nobdy", "GAMMA"]
            .map(|name| {
                let message = question(&format!("{name}.in.example.org"), rtype, None);
                let mut reply = tell(&dns, &message, false);
                assert_eq!(reply[12..message.len()], message[12..], "the case stays");
                reply.drain(12..message.len());
                reply
            })
            .into();
        assert_eq!(all.len(), 1, "type {rtype}");
    }
}

#[test]
fn a_challenge_that_stands_has_the_size_of_those_that_don_t() {
    let dns = dns();
    let texts = |name: &str| {
        let (_, [answers, ..]) = told(&dns, &format!("{name}.in.example.org"), 16);
        answers
    };
    let real = texts("_acme-challenge.gamma");
    let none = texts("_acme-challenge.nobdy");
    let value = String::from_utf8(CHALLENGE.to_vec()).unwrap();
    assert_eq!((real.len(), none.len()), (2, 2));
    assert!(real.iter().any(|line| line.contains(&value)), "{real:?}");
    let message = |name: &str| question(name, 16, None);
    let size = |name: &str| tell(&dns, &message(name), true).len();
    assert_eq!(
        size("_acme-challenge.gamma.in.example.org"),
        size("_ACME-challenge.nobdy.in.example.org")
    );
    assert_eq!(none, texts("_acme-challenge.nobdy"), "the same all day");
    assert_ne!(none, texts("_acme-challenge.other"));
    assert!(texts("gamma").is_empty());
}

#[test]
fn what_is_too_long_is_cut_and_whole_over_tcp() {
    let dns = dns();
    let name = "big.in.example.org";
    for (edns, longest) in [
        (None, 512),
        (Some((100, &[][..])), 512),
        (Some((4096, &[])), 1232),
    ] {
        let reply = tell(&dns, &question(name, 16, edns), true);
        assert!(reply.len() <= longest);
        assert_eq!(reply[2] & 2 != 0, longest == 512, "{edns:?}");
        let (_, [answers, ..]) = told(&dns, name, 16);
        assert_eq!(answers.len(), 1);
    }
}

#[test]
fn who_shows_the_cookie_that_it_was_given_is_never_limited() {
    let dns = dns();
    let cookie = |cookie: &[u8]| [&[0, 10, 0, cookie.len() as u8][..], cookie].concat();
    let ask = |option: &[u8]| {
        let message = question("x.in.example.org", 1, Some((1232, option)));
        tell(&dns, &message, true)
    };
    let first = ask(&cookie(b"12345678"));
    let given = first[first.len() - 24..].to_vec();
    assert_eq!(given[..8], *b"12345678");
    for _ in 0..1000 {
        let reply = ask(&cookie(&given));
        assert_eq!((reply[2] & 2, reply[3] & 15), (0, 0));
    }
    // Without one it is, and is told a cookie then and nothing else.
    let rcodes: Vec<Option<u8>> = (0..60)
        .map(|_| ask(&cookie(b"87654321")).get(3).map(|low| low & 15))
        .collect();
    let count = |rcode| rcodes.iter().filter(|other| **other == rcode).count();
    assert_eq!((count(Some(0)), count(Some(7)), count(None)), (19, 21, 20));
    // Malformed ones.
    for length in [0, 7, 9, 15, 41] {
        let reply = tell(
            &dns,
            &question(
                "x.in.example.org",
                1,
                Some((1232, &cookie(&vec![1; length]))),
            ),
            false,
        );
        assert_eq!(reply[3] & 15, 1, "{length}");
    }
}

#[test]
fn a_burst_gets_no_more_bytes_than_it_sent() {
    for rtype in [1, 2, 6, 16, 28, 255, 65] {
        let dns = dns();
        let (mut asked, mut answered) = (0, 0);
        for n in 0..200 {
            let name = match n % 2 {
                0 => format!("x{n:03}.in.example.org"),
                _ => format!("_acme-challenge.x{n:03}.in.example.org"),
            };
            let message = question(&name, rtype, Some((1232, &[])));
            asked += message.len();
            answered += tell(&dns, &message, true).len();
        }
        assert!(answered <= asked, "{rtype}: {answered} for {asked}");
    }
}

#[test]
fn any_bytes_are_answered_or_not_and_never_with_more_than_was_asked_for() {
    let dns = dns();
    let good = question(
        "gamma.in.example.org",
        1,
        Some((1232, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8])),
    );
    for end in 0..=good.len() {
        for (at, with) in (0..end).flat_map(|at| [0, 1, 63, 64, 192, 255].map(|with| (at, with))) {
            let mut bytes = good[..end].to_vec();
            bytes[at] = with;
            let reply = tell(&dns, &bytes, false);
            if !reply.is_empty() {
                assert_eq!(reply[..2], bytes[..2]);
                assert!(Parsed::from_vec(&reply).is_ok(), "{bytes:?}: {reply:?}");
            }
        }
    }
}
