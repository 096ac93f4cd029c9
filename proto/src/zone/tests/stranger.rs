//! What strangers are told where the domain is delegated to sinkholes.

use super::*;
use crate::crypto::Hash;

const CHALLENGE: &str = "Aq0zYx8wv7ut6sr5qp4on3ml2kj1ih0gf9ed8cb7a_-";

fn input(published: &[(&str, &str)]) -> StrangerInput {
    let record = |(at, data): &(&str, &str)| Record {
        name: name(at),
        ttl_s: 300,
        data: match data.parse::<IpAddr>() {
            Ok(ip) => Rdata::address(ip),
            Err(_) => Rdata::Txt(vec![data.as_bytes().to_vec()]),
        },
    };
    StrangerInput {
        apex: name("lab.internal"),
        name_servers: vec![[ip("203.0.113.7")].into(), [ip("203.0.113.8")].into()],
        sinkhole: [ip("203.0.113.7"), ip("203.0.113.8")].into(),
        published: published.iter().map(record).collect(),
        secret: Hash([1; 32]),
    }
}

fn texts(zone: &StrangerZone, at: &str, day: u64) -> Vec<Rdata> {
    match zone.lookup(&name(at), RecordType::TXT, day) {
        StrangerAnswer::Records { data, .. } => data.into_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_serial_follows_what_is_said_and_not_challenges() {
    let serial = |published: &[(&str, &str)]| {
        let zone = StrangerZone::build(input(published));
        match &zone.soa().data {
            Rdata::Soa(soa) => soa.serial,
            _ => 0,
        }
    };
    let usual = serial(&[]);
    assert_eq!(
        usual,
        serial(&[("_acme-challenge.a.lab.internal", CHALLENGE)])
    );
    assert_ne!(usual, serial(&[("www.lab.internal", "198.51.100.1")]));
}

#[test]
fn stand_ins_are_new_each_day_with_each_challenge_and_with_another_secret() {
    let at = "_acme-challenge.nobody.lab.internal";
    let zone = StrangerZone::build(input(&[]));
    let usual = texts(&zone, at, 1);
    assert_eq!(usual, texts(&zone, at, 1));
    assert_ne!(usual, texts(&zone, at, 2));
    assert_ne!(usual, texts(&zone, "_acme-challenge.other.lab.internal", 1));
    let published = [("_acme-challenge.a.lab.internal", CHALLENGE)];
    assert_ne!(usual, texts(&StrangerZone::build(input(&published)), at, 1));
    let other = StrangerInput {
        secret: Hash([2; 32]),
        ..input(&[])
    };
    assert_ne!(usual, texts(&StrangerZone::build(other), at, 1));
    for data in usual {
        let Rdata::Txt(strings) = data else {
            panic!("a text")
        };
        assert!(is_challenge_value(&strings), "{strings:?}");
    }
}

#[test]
fn challenges_that_stand_are_among_two_and_the_newest_count() {
    let at = "_acme-challenge.a.lab.internal";
    let values = ["A", "B", "C"].map(|first| format!("{first}{}", &CHALLENGE[1..]));
    for count in 0..=3 {
        let all: Vec<(&str, &str)> = values[..count]
            .iter()
            .map(|value| (at, value.as_str()))
            .collect();
        let zone = StrangerZone::build(input(&all));
        let told = texts(&zone, at, 1);
        assert_eq!(told.len(), 2);
        let has = |value: &String| told.contains(&Rdata::Txt(vec![value.clone().into_bytes()]));
        let found = values.iter().filter(|value| has(value)).count();
        assert_eq!(found, count.min(2), "{told:?}");
        assert!(count < 3 || !has(&values[0]));
        // At such a name is nothing else, as everywhere.
        let addresses = zone.lookup(&name(at), RecordType::A, 1);
        assert_eq!(
            addresses,
            zone.lookup(&name("x.lab.internal"), RecordType::A, 1)
        );
    }
}

#[test]
fn a_published_wildcard_stands_for_the_names_below_it() {
    let zone = StrangerZone::build(input(&[
        ("*.shop.lab.internal", "198.51.100.1"),
        ("eu.shop.lab.internal", "198.51.100.2"),
    ]));
    let address = |at: &str| match zone.lookup(&name(at), RecordType::A, 0) {
        StrangerAnswer::Records { data, .. } => data[0].to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(address("x.shop.lab.internal"), "198.51.100.1");
    assert_eq!(address("x.y.shop.lab.internal"), "198.51.100.1");
    assert_eq!(address("eu.shop.lab.internal"), "198.51.100.2");
    assert_eq!(address("x.eu.shop.lab.internal"), "203.0.113.7");
    assert_eq!(address("shop.lab.internal"), "203.0.113.7");
    assert_eq!(address("ns2.lab.internal"), "203.0.113.8");
    let outside = zone.lookup(&name("lab.example"), RecordType::A, 0);
    assert_eq!(outside, StrangerAnswer::NotOurs);
}

#[test]
fn users_can_t_take_a_name_server_s_name_or_the_apex_away() {
    let mut all = input(&[("ns1.lab.internal", "198.51.100.66")]);
    all.published.push(Record {
        name: name("lab.internal"),
        ttl_s: 300,
        data: Rdata::Cname(name("example.org")),
    });
    let zone = StrangerZone::build(all);
    for (at, rtype, expected) in [
        ("ns1.lab.internal", RecordType::A, "203.0.113.7"),
        ("lab.internal", RecordType::A, "203.0.113.7"),
        ("lab.internal", RecordType::NS, "ns1.lab.internal."),
    ] {
        match zone.lookup(&name(at), rtype, 0) {
            StrangerAnswer::Records { data, .. } => assert_eq!(data[0].to_string(), expected),
            other => panic!("{at}: {other:?}"),
        }
    }
}
