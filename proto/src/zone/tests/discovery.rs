//! What follows from what services speak.

use super::*;

fn speaking(node: &str, address: &str, port: u16, good: bool, spoken: &str) -> InstanceRecord {
    InstanceRecord {
        service_type: spoken.parse().ok(),
        ..instance(node, address, port, good)
    }
}

const A: &str = "10.77.0.1";
const B: &str = "10.77.0.2";

/// `photos` with these instances beside what the others have.
fn photos(instances: Vec<InstanceRecord>) -> ZoneInput {
    let mut input = input();
    input.services.insert(label("photos"), service(instances));
    input
}

fn https(input: &ZoneInput) -> String {
    let zone = Zone::build(input);
    ask(&zone, "photos.lab.internal", RecordType::HTTPS)
}

#[test]
fn a_web_service_has_an_https_record_where_its_addresses_stand() {
    let one = |port, spoken| photos(vec![speaking("a", A, port, true, spoken)]);
    assert_eq!(https(&one(443, "https")), "30: 1 . alpn=h2");
    assert_eq!(https(&one(8443, "https")), "30: 1 . alpn=h2 port=8443");
    assert_eq!(https(&one(80, "http")), "nodata lab.internal.");
    assert_eq!(https(&one(8080, "")), "nodata lab.internal.");
    let mut udp = one(443, "https");
    let service = udp.services.get_mut(&label("photos")).unwrap();
    service.instances[0].protocol = Protocol::Udp;
    assert_eq!(https(&udp), "nodata lab.internal.");
    // The addresses come with it.
    let zone = Zone::build(&one(8443, "https"));
    let answer = zone.lookup(&name("photos.lab.internal"), RecordType::HTTPS);
    let Answer::Records { additional, .. } = answer else {
        panic!("{answer:?}");
    };
    let hosts: Vec<String> = additional.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["photos.lab.internal. 30 IN A 10.77.0.1"]);
    // Under its node's name as well.
    let mut own = input();
    let a = own.nodes.get_mut(&label("a")).unwrap();
    let wiki = vec![speaking("a", A, 8443, true, "https")];
    a.own_services.insert(label("wiki"), wiki);
    let zone = Zone::build(&own);
    let at = |question: &str| ask(&zone, question, RecordType::HTTPS);
    assert_eq!(at("wiki.a.lab.internal"), "30: 1 . alpn=h2 port=8443");
    assert_eq!(at("x.a.lab.internal"), "nodata lab.internal.");
    let mut wild = one(8443, "https");
    let service = wild.services.get_mut(&label("photos")).unwrap();
    service.wildcard = true;
    let zone = Zone::build(&wild);
    let below = ask(&zone, "x.photos.lab.internal", RecordType::HTTPS);
    assert_eq!(below, "30: 1 . alpn=h2 port=8443");
}

#[test]
fn the_instances_are_those_whose_addresses_are_answered() {
    let of = |a: bool, b: bool| {
        photos(vec![
            speaking("a", A, 8443, a, "https"),
            speaking("b", B, 443, b, "https"),
        ])
    };
    assert_eq!(https(&of(true, false)), "30: 1 . alpn=h2 port=8443");
    assert_eq!(https(&of(false, true)), "30: 1 . alpn=h2");
    // At two ports no address may be tried at the other's.
    let both = "1 a.lab.internal. alpn=h2 port=8443, 1 b.lab.internal. alpn=h2";
    assert_eq!(https(&of(true, true)), format!("30: {both}"));
    // The last answer stands.
    assert_eq!(https(&of(false, false)), format!("5: {both}"));
    // What speaks something else is no place for a browser.
    let mixed = photos(vec![
        speaking("a", A, 8443, true, "https"),
        speaking("b", B, 8443, true, "http"),
    ]);
    assert_eq!(https(&mixed), "30: 1 a.lab.internal. alpn=h2 port=8443");
    // A printer that a node speaks for has its own name there.
    let mut printer = photos(vec![
        speaking("a", "192.0.2.9", 8443, true, "https"),
        speaking("b", B, 443, true, "https"),
    ]);
    let own = vec![speaking("a", "192.0.2.9", 8443, true, "https")];
    let a = printer.nodes.get_mut(&label("a")).unwrap();
    a.own_services.insert(label("photos"), own);
    assert!(https(&printer).contains("1 photos.a.lab.internal. alpn=h2 port=8443"));
    // A service that isn't known yet may have one.
    let mut loading = photos(Vec::new());
    let service = loading.services.get_mut(&label("photos")).unwrap();
    service.state = ServiceState::Loading;
    assert_eq!(https(&loading), "servfail");
}

#[test]
fn what_users_wrote_at_the_name_stands_alone() {
    let mut input = photos(vec![speaking("a", A, 443, true, "https")]);
    let at = name("photos.lab.internal");
    let data = |text: &str| Rdata::Https(Svcb::parse(text).unwrap());
    input.records.insert(at.clone(), vec![data("1 . alpn=h3")]);
    assert_eq!(https(&input), "30: 1 . alpn=h3");
    input
        .records
        .insert(at, vec![Rdata::Txt(vec![b"x".to_vec()])]);
    assert_eq!(https(&input), "30: 1 . alpn=h2");
    // The same for how it is found.
    let found = name("photos._https._tcp.lab.internal");
    let text = Rdata::Txt(vec![b"path=/admin".to_vec()]);
    input.records.insert(found, vec![text]);
    let services = name("_services._dns-sd._udp.lab.internal");
    let alias = Rdata::Cname(name("elsewhere.lab.internal"));
    input.records.insert(services, vec![alias]);
    let zone = Zone::build(&input);
    let said = |question: &str, rtype| ask(&zone, question, rtype);
    assert_eq!(
        said("photos._https._tcp.lab.internal", RecordType::TXT),
        "30: \"path=/admin\""
    );
    assert_eq!(
        said("photos._https._tcp.lab.internal", RecordType::SRV),
        "30: 0 0 443 photos.lab.internal."
    );
    assert_eq!(
        said("_services._dns-sd._udp.lab.internal", RecordType::CNAME),
        "30: elsewhere.lab.internal."
    );
}

#[test]
fn services_are_found_by_what_they_speak() {
    let mut input = photos(vec![
        speaking("a", A, 8443, true, "https"),
        speaking("b", B, 8443, true, "https"),
    ]);
    let wiki = service(vec![
        speaking("a", A, 8443, true, "https"),
        speaking("b", B, 443, true, "https"),
        speaking("b", B, 80, false, "http"),
    ]);
    input.services.insert(label("wiki"), wiki);
    let logs = service(vec![InstanceRecord {
        protocol: Protocol::Udp,
        ..speaking("b", B, 514, false, "syslog")
    }]);
    input.services.insert(label("logs"), logs);
    let silent = vec![instance("a", A, 9000, true)];
    input.services.insert(label("silent"), service(silent));
    let zone = Zone::build(&input);
    let ptr = |question: &str| ask(&zone, question, RecordType::PTR);
    for browse in ["b", "lb"] {
        let question = format!("{browse}._dns-sd._udp.lab.internal");
        assert_eq!(ptr(&question), "30: lab.internal.");
    }
    assert_eq!(
        ptr("_services._dns-sd._udp.lab.internal"),
        "30: _https._tcp.lab.internal., _syslog._udp.lab.internal."
    );
    assert_eq!(
        ptr("_https._tcp.lab.internal"),
        "30: wiki._https._tcp.lab.internal., photos._https._tcp.lab.internal."
    );
    // Where others are well, one that isn't is no more in this than in the addresses.
    assert_eq!(ptr("_http._tcp.lab.internal"), "nxdomain lab.internal.");
    let found = |question: &str, rtype| ask(&zone, question, rtype);
    for (question, srv) in [
        (
            "photos._https._tcp.lab.internal",
            "30: 0 0 8443 photos.lab.internal.",
        ),
        (
            "wiki._https._tcp.lab.internal",
            "30: 0 0 443 b.lab.internal., 0 0 8443 a.lab.internal.",
        ),
        (
            "logs._syslog._udp.lab.internal",
            "5: 0 0 514 logs.lab.internal.",
        ),
    ] {
        assert_eq!(found(question, RecordType::SRV), srv);
        let text = found(question, RecordType::TXT);
        assert!(text.ends_with(": \"\""), "{text}");
    }
    let silent = zone.records().filter(|line| line.starts_with("silent._"));
    assert_eq!(silent.count(), 0);
}

#[test]
fn what_a_service_speaks_is_unknown_with_the_service() {
    let mut loading = photos(Vec::new());
    let service = loading.services.get_mut(&label("photos")).unwrap();
    service.state = ServiceState::Loading;
    let zone = Zone::build(&loading);
    for question in [
        "_services._dns-sd._udp.lab.internal",
        "_https._tcp.lab.internal",
        "photos._https._tcp.lab.internal",
    ] {
        assert_eq!(ask(&zone, question, RecordType::PTR), "servfail");
    }
    let zone = Zone::build(&photos(Vec::new()));
    let ptr = ask(&zone, "_https._tcp.lab.internal", RecordType::PTR);
    assert_eq!(ptr, "nxdomain lab.internal.");
}

#[test]
fn records_of_one_name_are_bounded() {
    let mut many = input();
    for n in 0..2 * crate::limits::RRSET_RECORDS {
        let one = vec![speaking("a", A, 443, true, &format!("t{n}"))];
        many.services.insert(label(&format!("s{n}")), service(one));
        let web = vec![speaking("a", A, 443, true, "https")];
        many.services.insert(label(&format!("w{n}")), service(web));
    }
    let zone = Zone::build(&many);
    for question in [
        "_services._dns-sd._udp.lab.internal",
        "_https._tcp.lab.internal",
    ] {
        let answer = zone.lookup(&name(question), RecordType::PTR);
        let Answer::Records { data, .. } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(data.len(), crate::limits::RRSET_RECORDS);
    }
}

#[test]
fn a_lan_finds_what_has_an_address_there() {
    let all = || {
        let mut all = photos(vec![
            speaking("a", A, 8443, true, "https"),
            speaking("b", B, 443, true, "https"),
        ]);
        let inside = service(vec![speaking("b", B, 443, true, "https")]);
        all.services.insert(label("inside"), inside);
        all
    };
    let lan = LanAddresses {
        own: BTreeSet::new(),
        reached: [(label("a"), [ip("192.168.1.7")].into())].into(),
    };
    let nets = ["192.168.1.0/24".parse().unwrap()];
    let zone = Zone::build(&all().for_lan(&lan, &nets));
    let said = |question: &str, rtype| ask(&zone, question, rtype);
    let web = "photos.lab.internal";
    assert_eq!(said(web, RecordType::A), "30: 192.168.1.7");
    assert_eq!(said(web, RecordType::HTTPS), "30: 1 . alpn=h2 port=8443");
    assert_eq!(
        said("inside.lab.internal", RecordType::HTTPS),
        "nodata lab.internal."
    );
    assert_eq!(
        said("_https._tcp.lab.internal", RecordType::PTR),
        "30: photos._https._tcp.lab.internal."
    );
    // What a user wrote and a LAN isn't told has nothing in its place.
    let mut written = all();
    let hinted = Rdata::Https(Svcb::parse("1 . ipv4hint=10.77.0.9").unwrap());
    written.records.insert(name(web), vec![hinted]);
    let zone = Zone::build(&written.for_lan(&lan, &nets));
    assert_eq!(ask(&zone, web, RecordType::HTTPS), "nodata lab.internal.");
}
