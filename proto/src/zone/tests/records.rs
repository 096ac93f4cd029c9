//! Records that users added, and aliases.

use super::*;
use crate::zone::alias::ALIASES;

fn with_records(records: &[(&str, Rdata)]) -> Zone {
    let mut input = input();
    for (at, data) in records {
        input
            .records
            .entry(name(at))
            .or_default()
            .push(data.clone());
    }
    Zone::build(&input)
}

fn alias(to: &str) -> Rdata {
    Rdata::Cname(name(to))
}

#[test]
fn users_records_are_served_and_never_in_place_of_a_machines_or_a_services() {
    let text = Rdata::Txt(vec![b"v=spf1 -all".to_vec()]);
    let zone = with_records(&[
        ("printer.lab.internal", Rdata::A([192, 0, 2, 9].into())),
        ("a.lab.internal", Rdata::A([192, 0, 2, 9].into())),
        ("web.lab.internal", Rdata::A([192, 0, 2, 9].into())),
        ("lab.internal", text),
        ("elsewhere.org", Rdata::A([192, 0, 2, 9].into())),
    ]);
    let asked = |at: &str, rtype| ask(&zone, at, rtype);
    assert_eq!(
        asked("printer.lab.internal", RecordType::A),
        "30: 192.0.2.9"
    );
    assert_eq!(
        asked("printer.lab.internal", RecordType::AAAA),
        "nodata lab.internal."
    );
    assert_eq!(asked("a.lab.internal", RecordType::A), "30: 10.77.0.1");
    assert_eq!(
        asked("web.lab.internal", RecordType::A),
        "30: 10.77.0.1, 10.77.0.2"
    );
    assert_eq!(
        asked("lab.internal", RecordType::TXT),
        "30: \"v=spf1 -all\""
    );
    assert_eq!(asked("elsewhere.org", RecordType::A), "not ours");
}

#[test]
fn an_alias_is_followed_within_the_mesh_and_told_where_it_leads_out() {
    let zone = with_records(&[
        ("tv.lab.internal", alias("b.lab.internal")),
        ("out.lab.internal", alias("tv.example.org")),
        ("round.lab.internal", alias("round.lab.internal")),
        ("*.many.lab.internal", alias("tv.lab.internal")),
    ]);
    let asked = |at: &str, rtype| ask(&zone, at, rtype);
    assert_eq!(
        asked("tv.lab.internal", RecordType::A),
        "tv.lab.internal. 30 IN CNAME b.lab.internal., b.lab.internal. 30 IN A 10.77.0.2"
    );
    assert_eq!(
        asked("tv.lab.internal", RecordType::CNAME),
        "30: b.lab.internal."
    );
    assert_eq!(
        asked("out.lab.internal", RecordType::A),
        "out.lab.internal. 30 IN CNAME tv.example.org., then tv.example.org."
    );
    assert_eq!(
        asked("x.many.lab.internal", RecordType::A),
        "x.many.lab.internal. 30 IN CNAME tv.lab.internal., \
         tv.lab.internal. 30 IN CNAME b.lab.internal., b.lab.internal. 30 IN A 10.77.0.2"
    );
    assert_eq!(
        asked("round.lab.internal", RecordType::A),
        "round.lab.internal. 30 IN CNAME round.lab.internal., circle"
    );
}

#[test]
fn an_alias_to_what_is_not_there_says_so_with_the_soa() {
    let records = [
        ("gone.lab.internal", alias("nobody.lab.internal")),
        ("v4.lab.internal", alias("b.lab.internal")),
        ("pointer.lab.internal", alias("9.9.77.10.in-addr.arpa")),
        ("hop.lab.internal", alias("gone.lab.internal")),
    ];
    let zone = with_records(&records);
    let end = |zone: &Zone, at: &str, rtype| {
        let answer = ask(zone, at, rtype);
        answer.rsplit(", ").next().unwrap_or_default().to_string()
    };
    for (at, rtype, expected) in [
        ("gone.lab.internal", RecordType::A, "nxdomain lab.internal."),
        ("hop.lab.internal", RecordType::A, "nxdomain lab.internal."),
        ("v4.lab.internal", RecordType::AAAA, "nodata lab.internal."),
        (
            "pointer.lab.internal",
            RecordType::PTR,
            "nxdomain 77.10.in-addr.arpa.",
        ),
    ] {
        assert_eq!(end(&zone, at, rtype), expected, "{at}");
    }
    let mut loading = input();
    loading.loading = true;
    for (at, data) in records {
        loading.records.insert(name(at), vec![data]);
    }
    let zone = Zone::build(&loading);
    assert_eq!(end(&zone, "gone.lab.internal", RecordType::A), "servfail");
    // What is known is known, and its other types too.
    assert_eq!(
        end(&zone, "v4.lab.internal", RecordType::AAAA),
        "nodata lab.internal."
    );
}

#[test]
fn aliases_in_a_circle_or_without_end_are_told_apart_from_those_that_end() {
    let chain: Vec<(String, Rdata)> = (0..=ALIASES)
        .map(|n| {
            (
                format!("n{n}.lab.internal"),
                alias(&format!("n{}.lab.internal", n + 1)),
            )
        })
        .collect();
    let all = |first: usize| {
        let mut records: Vec<(&str, Rdata)> = chain[first..]
            .iter()
            .map(|(at, data)| (at.as_str(), data.clone()))
            .collect();
        let last = format!("n{}.lab.internal", ALIASES + 1);
        records.push((&last, Rdata::A([192, 0, 2, 1].into())));
        with_records(&records)
    };
    assert!(ask(&all(0), "n0.lab.internal", RecordType::A).ends_with(", circle"));
    assert!(ask(&all(1), "n1.lab.internal", RecordType::A).ends_with(" A 192.0.2.1"));
    let zone = with_records(&[
        ("x.lab.internal", alias("y.lab.internal")),
        ("y.lab.internal", alias("x.lab.internal")),
    ]);
    assert!(ask(&zone, "x.lab.internal", RecordType::A).ends_with(", circle"));
}

#[test]
fn a_users_ttl_is_that_of_all_records_of_a_name_and_type() {
    let mut timed = input();
    let at = name("mail.lab.internal");
    let mx = |host: &str| {
        Rdata::Mx(Mx {
            preference: 10,
            exchange: name(host),
        })
    };
    timed.records.insert(
        at.clone(),
        vec![
            mx("a.example"),
            mx("b.example"),
            Rdata::Txt(vec![b"x".to_vec()]),
        ],
    );
    timed.ttls.insert((at, RecordType::MX), 3600);
    let zone = Zone::build(&timed);
    let asked = |zone: &Zone, rtype| ask(zone, "mail.lab.internal", rtype);
    assert!(asked(&zone, RecordType::MX).starts_with("3600: "));
    assert_eq!(asked(&zone, RecordType::TXT), "30: \"x\"");
    timed.loading = true;
    let zone = Zone::build(&timed);
    assert!(asked(&zone, RecordType::MX).starts_with("5: "));
}

#[test]
fn https_records_come_with_the_addresses_of_their_hosts() {
    let https = |text: &str| Rdata::Https(Svcb::parse(text).unwrap());
    let zone = with_records(&[
        ("web.lab.internal", https("1 . alpn=h2")),
        ("lab.internal", https("0 web.lab.internal.")),
    ]);
    assert_eq!(
        ask(&zone, "web.lab.internal", RecordType::HTTPS),
        "30: 1 . alpn=h2"
    );
    let addresses = [
        "web.lab.internal. 30 IN A 10.77.0.1",
        "web.lab.internal. 30 IN A 10.77.0.2",
    ];
    // An alias of this kind comes with what it is an alias of.
    let own = "web.lab.internal. 30 IN HTTPS 1 . alpn=h2";
    for (at, more) in [("web.lab.internal", None), ("lab.internal", Some(own))] {
        let Answer::Records { additional, .. } = zone.lookup(&name(at), RecordType::HTTPS) else {
            panic!("no HTTPS record at {at}");
        };
        let mut hosts: Vec<String> = additional.iter().map(ToString::to_string).collect();
        hosts.sort();
        let expected: Vec<&str> = addresses.into_iter().chain(more).collect();
        assert_eq!(hosts, expected);
    }
}
