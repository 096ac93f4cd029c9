mod discovery;
mod lan;
mod public;
mod records;
mod stranger;

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn label(s: &str) -> Label {
    s.parse().unwrap()
}

fn name(s: &str) -> DomainName {
    s.parse().unwrap()
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn node(addresses: &[&str], live: bool) -> NodeRecords {
    NodeRecords {
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        live,
        own_services: BTreeMap::new(),
    }
}

fn instance(node: &str, address: &str, port: u16, good: bool) -> InstanceRecord {
    InstanceRecord {
        node: label(node),
        addresses: vec![ip(address)],
        port,
        protocol: Protocol::Tcp,
        service_type: None,
        live: good,
        healthy: good,
    }
}

fn service(instances: Vec<InstanceRecord>) -> ServiceRecords {
    ServiceRecords {
        state: ServiceState::Known,
        instances,
        wildcard: false,
    }
}

/// Two nodes; `web` runs on both, `a` has `wiki` of its own.
fn input() -> ZoneInput {
    let mut a = node(&["10.77.0.1", "fd00:1:2::a"], true);
    a.own_services
        .insert(label("wiki"), vec![instance("a", "10.77.0.1", 8080, true)]);
    ZoneInput {
        domain: "lab.internal".parse().unwrap(),
        ipv4: "10.77.0.0/16".parse().unwrap(),
        ula: "fd00:1:2::/48".parse().unwrap(),
        serial: 7,
        loading: false,
        nodes: [(label("a"), a), (label("b"), node(&["10.77.0.2"], true))].into(),
        services: [(
            label("web"),
            service(vec![
                instance("a", "10.77.0.1", 80, true),
                instance("b", "10.77.0.2", 81, true),
            ]),
        )]
        .into(),
        records: BTreeMap::new(),
        ttls: BTreeMap::new(),
        member_aliases: BTreeSet::new(),
        devices: BTreeMap::new(),
        front: None,
        withheld: BTreeSet::new(),
    }
}

/// The answer in words: sorted data, or the kind of refusal.
fn ask(zone: &Zone, question: &str, rtype: RecordType) -> String {
    match zone.lookup(&name(question), rtype) {
        Answer::Records { data, ttl_s, .. } => {
            let data: Vec<String> = data.iter().map(ToString::to_string).collect();
            format!("{ttl_s}: {}", data.join(", "))
        }
        Answer::Alias { records, end, .. } => {
            let mut words: Vec<String> = records.iter().map(ToString::to_string).collect();
            words.extend(match end {
                AliasEnd::Records => None,
                AliasEnd::Outside(name) => Some(format!("then {name}")),
                AliasEnd::NoData(soa) => Some(format!("nodata {}", soa.name)),
                AliasEnd::NxDomain(soa) => Some(format!("nxdomain {}", soa.name)),
                AliasEnd::ServFail => Some("servfail".into()),
                AliasEnd::Circle => Some("circle".into()),
            });
            words.join(", ")
        }
        Answer::NoData(soa) => format!("nodata {}", soa.name),
        Answer::NxDomain(soa) => format!("nxdomain {}", soa.name),
        Answer::ServFail => "servfail".into(),
        Answer::NotOurs => "not ours".into(),
    }
}

#[test]
fn a_node_has_its_addresses_in_any_case() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "A.Lab.INTERNAL.", RecordType::A),
        "30: 10.77.0.1"
    );
    assert_eq!(
        ask(&zone, "a.lab.internal", RecordType::AAAA),
        "30: fd00:1:2::a"
    );
}

#[test]
fn each_zone_has_the_records_that_are_printed() {
    let zone = Zone::build(&input());
    let mut listed: Vec<String> = zone
        .zones()
        .into_iter()
        .flat_map(|(soa, records)| records.into_iter().chain([soa.clone()]))
        .map(|record| record.to_string())
        .collect();
    let mut printed: Vec<String> = zone.records().collect();
    listed.sort();
    printed.sort();
    assert_eq!(listed, printed);
    assert_eq!(zone.zones().len(), 3);
}

#[test]
fn one_zone_can_have_another_serial() {
    let mut zone = Zone::build(&input());
    assert!(zone.is_complete());
    zone.set_serial(&name("77.10.in-addr.arpa"), 9);
    let serial = |origin: &str| ask(&zone, origin, RecordType::SOA);
    assert!(serial("lab.internal").contains(" 7 60 "));
    assert!(serial("77.10.in-addr.arpa").contains(" 9 60 "));
    let missing = zone.lookup(&name("9.9.77.10.in-addr.arpa"), RecordType::PTR);
    assert!(matches!(missing, Answer::NxDomain(soa) if soa.to_string().contains(" 9 60 ")));
}

#[test]
fn a_device_has_its_addresses_and_their_names_and_nothing_below() {
    let mut input = input();
    let addresses = ["10.77.9.9", "fd00:1:2::99"].map(|address| address.parse().unwrap());
    input.devices = [
        (label("phone"), addresses.to_vec()),
        // A node's name is the node's.
        (label("a"), vec!["10.77.6.6".parse().unwrap()]),
    ]
    .into();
    let zone = Zone::build(&input);
    let asked = |question, rtype| ask(&zone, question, rtype);
    assert_eq!(asked("phone.lab.internal", RecordType::A), "30: 10.77.9.9");
    assert_eq!(
        asked("phone.lab.internal", RecordType::AAAA),
        "30: fd00:1:2::99"
    );
    assert_eq!(
        asked("9.9.77.10.in-addr.arpa", RecordType::PTR),
        "30: phone.lab.internal."
    );
    assert_eq!(
        asked("x.phone.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
    assert_eq!(asked("a.lab.internal", RecordType::A), "30: 10.77.0.1");
    input.loading = true;
    let zone = Zone::build(&input);
    assert_eq!(
        ask(&zone, "phone.lab.internal", RecordType::A),
        "5: 10.77.9.9"
    );
}

#[test]
fn the_apex_has_soa_and_name_servers_and_no_address() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "lab.internal", RecordType::NS),
        "30: ns.lab.internal."
    );
    assert!(
        ask(&zone, "lab.internal", RecordType::SOA)
            .contains("ns.lab.internal. hostmaster.lab.internal. 7 ")
    );
    assert_eq!(
        ask(&zone, "lab.internal", RecordType::A),
        "nodata lab.internal."
    );
    let Answer::Records { additional, .. } = zone.lookup(&name("lab.internal"), RecordType::NS)
    else {
        panic!("no name server");
    };
    assert_eq!(additional.len(), 2);
}

#[test]
fn acme_and_ca_are_the_local_agent_even_while_loading_and_alone() {
    let mut alone = input();
    alone.loading = true;
    alone.nodes.clear();
    alone.services.clear();
    let zone = Zone::build(&alone);
    for host in ["acme", "ca", "ns"] {
        let question = format!("{host}.lab.internal");
        assert_eq!(ask(&zone, &question, RecordType::A), "30: 10.77.0.53");
        assert_eq!(ask(&zone, &question, RecordType::AAAA), "30: fd00:1:2::53");
    }
}

#[test]
fn a_node_or_service_cannot_take_a_reserved_name() {
    let mut greedy = input();
    greedy
        .nodes
        .insert(label("acme"), node(&["10.77.6.6"], true));
    greedy.services.insert(
        label("ca"),
        service(vec![instance("a", "10.77.6.6", 443, true)]),
    );
    let zone = Zone::build(&greedy);
    assert_eq!(
        ask(&zone, "acme.lab.internal", RecordType::A),
        "30: 10.77.0.53"
    );
    assert_eq!(
        ask(&zone, "ca.lab.internal", RecordType::A),
        "30: 10.77.0.53"
    );
}

#[test]
fn a_type_that_a_name_lacks_is_nodata_with_the_soa() {
    let zone = Zone::build(&input());
    for rtype in [
        RecordType::AAAA,
        RecordType::HTTPS,
        RecordType::TXT,
        RecordType(43),
        RecordType(65280),
    ] {
        assert_eq!(ask(&zone, "b.lab.internal", rtype), "nodata lab.internal.");
    }
}

#[test]
fn a_name_that_does_not_exist_is_nxdomain_with_the_soa() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "nobody.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
    assert_eq!(
        ask(&zone, "x.web.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
}

#[test]
fn other_domains_are_not_ours() {
    let zone = Zone::build(&input());
    for question in [
        "example.org",
        "internal",
        "xlab.internal",
        "10.in-addr.arpa",
        "1.0.78.10.in-addr.arpa",
        ".",
    ] {
        assert_eq!(
            ask(&zone, question, RecordType::A),
            "not ours",
            "{question}"
        );
    }
}

#[test]
fn everything_below_a_node_is_the_node_unless_it_is_declared() {
    let zone = Zone::build(&input());
    for question in ["x.a.lab.internal", "x.y.a.lab.internal", "*.a.lab.internal"] {
        assert_eq!(
            ask(&zone, question, RecordType::A),
            "30: 10.77.0.1",
            "{question}"
        );
    }
    assert_eq!(
        ask(&zone, "x.a.lab.internal", RecordType::TXT),
        "nodata lab.internal."
    );
    // Names that exist block the wildcard for what is below them (RFC 4592 §2.2.1).
    assert_eq!(
        ask(&zone, "wiki.a.lab.internal", RecordType::AAAA),
        "nodata lab.internal."
    );
    assert_eq!(
        ask(&zone, "x.wiki.a.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
    assert_eq!(
        ask(&zone, "_x._tcp.a.lab.internal", RecordType::SRV),
        "nxdomain lab.internal."
    );
}

#[test]
fn an_empty_non_terminal_is_nodata() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "_tcp.lab.internal", RecordType::A),
        "nodata lab.internal."
    );
    assert_eq!(
        ask(&zone, "_tcp.a.lab.internal", RecordType::A),
        "nodata lab.internal."
    );
    assert_eq!(
        ask(&zone, "0.77.10.in-addr.arpa", RecordType::PTR),
        "nodata 77.10.in-addr.arpa."
    );
}

#[test]
fn a_service_has_the_addresses_of_all_its_instances() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "web.lab.internal", RecordType::A),
        "30: 10.77.0.1, 10.77.0.2"
    );
}

#[test]
fn srv_names_each_instance_and_brings_its_addresses() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "_web._tcp.lab.internal", RecordType::SRV),
        "30: 0 0 80 a.lab.internal., 0 0 81 b.lab.internal."
    );
    let question = name("_web._tcp.lab.internal");
    let Answer::Records { additional, .. } = zone.lookup(&question, RecordType::SRV) else {
        panic!("no service");
    };
    assert_eq!(additional.len(), 3);
    assert_eq!(
        ask(&zone, "_web._udp.lab.internal", RecordType::SRV),
        "nxdomain lab.internal."
    );
    assert_eq!(
        ask(&zone, "_wiki._tcp.a.lab.internal", RecordType::SRV),
        "30: 0 0 8080 a.lab.internal."
    );
}

#[test]
fn srv_of_a_machine_that_a_node_speaks_for_names_that_machine() {
    let mut printing = input();
    let printer = vec![instance("a", "192.0.2.9", 631, true)];
    printing
        .nodes
        .get_mut(&label("a"))
        .unwrap()
        .own_services
        .insert(label("ipp"), printer.clone());
    printing.services.insert(label("ipp"), service(printer));
    let zone = Zone::build(&printing);
    for question in ["_ipp._tcp.lab.internal", "_ipp._tcp.a.lab.internal"] {
        assert_eq!(
            ask(&zone, question, RecordType::SRV),
            "30: 0 0 631 ipp.a.lab.internal."
        );
    }
    assert_eq!(
        ask(&zone, "ipp.a.lab.internal", RecordType::A),
        "30: 192.0.2.9"
    );
}

#[test]
fn a_dead_instance_leaves_once_another_lives() {
    let mut ill = input();
    ill.services.get_mut(&label("web")).unwrap().instances[0].live = false;
    let zone = Zone::build(&ill);
    assert_eq!(
        ask(&zone, "web.lab.internal", RecordType::A),
        "30: 10.77.0.2"
    );
    assert_eq!(
        ask(&zone, "_web._tcp.lab.internal", RecordType::SRV),
        "30: 0 0 81 b.lab.internal."
    );
}

#[test]
fn when_no_instance_lives_the_last_answer_stands_with_a_low_ttl() {
    let mut ill = input();
    let instances = &mut ill.services.get_mut(&label("web")).unwrap().instances;
    instances[0].live = false;
    instances[1].healthy = false;
    let zone = Zone::build(&ill);
    assert_eq!(
        ask(&zone, "web.lab.internal", RecordType::A),
        "5: 10.77.0.1, 10.77.0.2"
    );
}

#[test]
fn a_node_that_is_away_keeps_its_name_with_a_low_ttl() {
    let mut away = input();
    away.nodes.insert(label("b"), node(&["10.77.0.2"], false));
    let zone = Zone::build(&away);
    assert_eq!(ask(&zone, "b.lab.internal", RecordType::A), "5: 10.77.0.2");
    assert_eq!(
        ask(&zone, "x.b.lab.internal", RecordType::A),
        "5: 10.77.0.2"
    );
    assert_eq!(
        ask(&zone, "2.0.77.10.in-addr.arpa", RecordType::PTR),
        "30: b.lab.internal."
    );
}

#[test]
fn an_instance_on_a_node_that_is_no_member_is_not_served() {
    let mut evicted = input();
    evicted.nodes.remove(&label("b"));
    let zone = Zone::build(&evicted);
    assert_eq!(
        ask(&zone, "web.lab.internal", RecordType::A),
        "30: 10.77.0.1"
    );
    assert_eq!(
        ask(&zone, "b.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
    assert_eq!(
        ask(&zone, "2.0.77.10.in-addr.arpa", RecordType::PTR),
        "nxdomain 77.10.in-addr.arpa."
    );
}

#[test]
fn a_granted_name_without_an_instance_is_nodata() {
    let mut idle = input();
    idle.services.insert(label("idle"), service(Vec::new()));
    let zone = Zone::build(&idle);
    assert_eq!(
        ask(&zone, "idle.lab.internal", RecordType::A),
        "nodata lab.internal."
    );
}

#[test]
fn a_granted_name_whose_holder_was_not_heard_yet_is_servfail() {
    let mut young = input();
    let unheard = ServiceRecords {
        state: ServiceState::Loading,
        instances: Vec::new(),
        wildcard: false,
    };
    young.services.insert(label("late"), unheard);
    let zone = Zone::build(&young);
    assert_eq!(ask(&zone, "late.lab.internal", RecordType::A), "servfail");
    assert_eq!(ask(&zone, "late.lab.internal", RecordType::ANY), "servfail");
    assert_eq!(
        ask(&zone, "_late._tcp.lab.internal", RecordType::SRV),
        "servfail"
    );
    assert_eq!(
        ask(&zone, "nobody.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
}

#[test]
fn while_the_view_loads_what_is_unknown_is_servfail_and_what_is_known_is_answered() {
    let mut loading = input();
    loading.loading = true;
    let zone = Zone::build(&loading);
    assert_eq!(ask(&zone, "nobody.lab.internal", RecordType::A), "servfail");
    assert_eq!(
        ask(&zone, "9.9.77.10.in-addr.arpa", RecordType::PTR),
        "servfail"
    );
    assert_eq!(ask(&zone, "a.lab.internal", RecordType::A), "5: 10.77.0.1");
    assert_eq!(
        ask(&zone, "b.lab.internal", RecordType::AAAA),
        "nodata lab.internal."
    );
    assert_eq!(
        ask(&zone, "x.b.lab.internal", RecordType::AAAA),
        "nodata lab.internal."
    );
    assert_eq!(ask(&zone, "x.b.lab.internal", RecordType::SRV), "servfail");
    assert_eq!(ask(&zone, "example.org", RecordType::A), "not ours");
}

#[test]
fn a_wildcard_service_answers_below_its_name_too() {
    let mut wild = input();
    wild.services.get_mut(&label("web")).unwrap().wildcard = true;
    let zone = Zone::build(&wild);
    assert_eq!(
        ask(&zone, "x.y.web.lab.internal", RecordType::A),
        "30: 10.77.0.1, 10.77.0.2"
    );
}

#[test]
fn every_overlay_address_has_its_name_and_no_other_address_has() {
    let mut lan = input();
    lan.nodes
        .get_mut(&label("b"))
        .unwrap()
        .addresses
        .push(ip("192.0.2.7"));
    let zone = Zone::build(&lan);
    let reverse = |address: &str| {
        let text = DomainName::reverse(ip(address)).to_string();
        ask(&zone, &text, RecordType::PTR)
    };
    assert_eq!(reverse("10.77.0.1"), "30: a.lab.internal.");
    assert_eq!(reverse("fd00:1:2::a"), "30: a.lab.internal.");
    assert_eq!(reverse("10.77.0.53"), "30: ns.lab.internal.");
    assert_eq!(reverse("10.77.1.1"), "nxdomain 77.10.in-addr.arpa.");
    assert!(reverse("fd00:1:2::b").starts_with("nxdomain "));
    assert_eq!(reverse("10.78.0.1"), "not ours");
    assert_eq!(reverse("fd00:1:3::a"), "not ours");
    assert_eq!(reverse("192.0.2.7"), "not ours");
}

#[test]
fn reverse_zones_cover_exactly_the_overlay_also_off_label_boundaries() {
    let mut wide = input();
    wide.ipv4 = "10.64.0.0/12".parse().unwrap();
    wide.ula = "fd00:1:2::/46".parse().unwrap();
    let zone = Zone::build(&wide);
    let origins: Vec<String> = zone.origins().map(ToString::to_string).collect();
    assert_eq!(origins.len(), 1 + 16 + 4);
    assert!(origins.contains(&"64.10.in-addr.arpa.".to_string()));
    assert!(origins.contains(&"79.10.in-addr.arpa.".to_string()));
    assert!(origins.contains(&"3.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.".to_string()));
    assert_eq!(
        ask(&zone, "1.0.80.10.in-addr.arpa", RecordType::PTR),
        "not ours"
    );
}

#[test]
fn any_gets_the_minimal_answer() {
    let zone = Zone::build(&input());
    assert_eq!(
        ask(&zone, "a.lab.internal", RecordType::ANY),
        "30: \"RFC8482\" \"\""
    );
    assert_eq!(
        ask(&zone, "nobody.lab.internal", RecordType::ANY),
        "nxdomain lab.internal."
    );
}

#[test]
fn any_of_an_alias_is_the_alias_and_of_a_name_between_others_nothing() {
    let mut aliased = input();
    let target = name("a.lab.internal");
    aliased
        .records
        .insert(name("other.lab.internal"), vec![Rdata::Cname(target)]);
    let zone = Zone::build(&aliased);
    assert_eq!(
        ask(&zone, "other.lab.internal", RecordType::ANY),
        "30: a.lab.internal."
    );
    assert_eq!(
        ask(&zone, "_tcp.lab.internal", RecordType::ANY),
        "nodata lab.internal."
    );
}

#[test]
fn records_are_a_master_file_in_canonical_order() {
    let lines: Vec<String> = Zone::build(&input()).records().collect();
    assert!(lines[0].starts_with("lab.internal. 5 IN SOA ns.lab.internal. "));
    let place = |line: &str| {
        lines
            .iter()
            .position(|l| l == line)
            .unwrap_or_else(|| panic!("no {line}"))
    };
    assert!(
        place("a.lab.internal. 30 IN A 10.77.0.1") < place("*.a.lab.internal. 30 IN A 10.77.0.1")
    );
    assert!(
        place("*.a.lab.internal. 30 IN A 10.77.0.1") < place("b.lab.internal. 30 IN A 10.77.0.2")
    );
    assert!(
        place("1.0.77.10.in-addr.arpa. 30 IN PTR a.lab.internal.")
            > place("web.lab.internal. 30 IN A 10.77.0.2")
    );
    assert_eq!(
        lines.iter().filter(|line| line.contains(" SOA ")).count(),
        3
    );
}

#[test]
fn the_hash_follows_what_is_said_and_not_the_version() {
    let zone = Zone::build(&input());
    let mut newer = input();
    newer.serial = 8;
    assert_eq!(Zone::build(&newer).hash(), zone.hash());
    newer.nodes.remove(&label("b"));
    assert_ne!(Zone::build(&newer).hash(), zone.hash());
    let mut loading = input();
    loading.loading = true;
    assert_ne!(Zone::build(&loading).hash(), zone.hash());
}

#[test]
fn a_name_that_leaves_no_room_for_srv_is_served_without() {
    let mut long = input();
    let big = "s".repeat(63);
    long.services.insert(
        label(&big),
        service(vec![instance("a", "10.77.0.1", 1, true)]),
    );
    let zone = Zone::build(&long);
    assert_eq!(
        ask(&zone, &format!("{big}.lab.internal"), RecordType::A),
        "30: 10.77.0.1"
    );
}

#[test]
fn a_service_on_very_many_nodes_still_fits_a_message() {
    let mut crowd = input();
    let many =
        (0..1000u32).map(|n| instance("a", &format!("10.77.{}.{}", n / 250, n % 250), 80, true));
    crowd.services.insert(label("web"), service(many.collect()));
    let zone = Zone::build(&crowd);
    let Answer::Records { data, .. } = zone.lookup(&name("web.lab.internal"), RecordType::A) else {
        panic!("no service");
    };
    assert_eq!(data.len(), crate::limits::RRSET_RECORDS);
}

fn any_label() -> impl Strategy<Value = Label> {
    "[d-g]{1,2}".prop_map(|s| label(&s))
}

prop_compose! {
    fn any_instances()(list in prop::collection::vec((any_label(), 0u8..4, any::<bool>(), any::<bool>(), any::<bool>(), 0usize..4), 0..4))
        -> Vec<InstanceRecord> {
        list.into_iter().map(|(node, host, live, healthy, tcp, spoken)| InstanceRecord {
            node,
            addresses: vec![IpAddr::from([10, 77, 1, host])],
            port: 80,
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            service_type: ["https", "http", "b"].get(spoken).map(|it| it.parse().unwrap()),
            live,
            healthy,
        }).collect()
    }
}

prop_compose! {
    fn any_input()(
        loading in any::<bool>(),
        nodes in prop::collection::btree_map(any_label(), (0u8..8, any::<bool>(), prop::collection::btree_map(any_label(), any_instances(), 0..3)), 1..5),
        services in prop::collection::btree_map(any_label(), (any::<bool>(), any_instances(), any::<bool>()), 0..5),
    ) -> ZoneInput {
        ZoneInput {
            loading,
            nodes: nodes.into_iter().map(|(label, (host, live, own_services))| (label, NodeRecords {
                addresses: vec![IpAddr::from([10, 77, 0, host])], live, own_services,
            })).collect(),
            services: services.into_iter().map(|(label, (known, instances, wildcard))| (label, ServiceRecords {
                state: if known { ServiceState::Known } else { ServiceState::Loading }, instances, wildcard,
            })).collect(),
            ..input()
        }
    }
}

proptest! {
    #[test]
    fn no_question_panics(
        input in any_input(),
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..6),
        ours in any::<bool>(),
        rtype in any::<u16>(),
    ) {
        let zone = Zone::build(&input);
        let tail: &[&[u8]] = if ours { &[b"lab", b"internal"] } else { &[] };
        if let Some(name) = DomainName::from_labels(labels.iter().map(Vec::as_slice).chain(tail.iter().copied())) {
            let answer = zone.lookup(&name, RecordType(rtype));
            prop_assert_eq!(answer == Answer::NotOurs, !zone.is_ours(&name));
        }
    }

    #[test]
    fn no_text_panics_as_a_name(text in ".{0,300}") {
        if let Ok(name) = text.parse::<DomainName>() {
            prop_assert!(name.labels().count() <= 128);
        }
    }

    #[test]
    fn a_name_in_force_resolves_and_is_never_nxdomain(input in any_input(), rtype in any::<u16>()) {
        let zone = Zone::build(&input);
        let apex = name("lab.internal");
        for label in input.nodes.keys() {
            let host = apex.child(label.as_str().as_bytes()).unwrap();
            let is_answered = matches!(zone.lookup(&host, RecordType::A), Answer::Records { .. });
            prop_assert!(is_answered);
            let below = host.child(b"undeclared").unwrap();
            let is_answered = matches!(zone.lookup(&below, RecordType::A), Answer::Records { .. });
            prop_assert!(is_answered);
        }
        for label in input.nodes.keys().chain(input.services.keys()) {
            let host = apex.child(label.as_str().as_bytes()).unwrap();
            for rtype in [RecordType(rtype), RecordType::A, RecordType::AAAA, RecordType::SRV] {
                prop_assert!(!matches!(zone.lookup(&host, rtype), Answer::NxDomain(_)));
            }
        }
        if input.loading {
            let unknown = apex.child(b"nobody-knows").unwrap();
            prop_assert_eq!(zone.lookup(&unknown, RecordType::A), Answer::ServFail);
        }
    }

    #[test]
    fn every_name_that_a_record_points_to_resolves(input in any_input()) {
        let zone = Zone::build(&input);
        for line in zone.records() {
            let fields: Vec<&str> = line.split(' ').collect();
            if let [owner, _, _, "SRV" | "PTR" | "NS", .., target] = fields[..] {
                let target = name(target);
                let has = |rtype: &RecordType| matches!(zone.lookup(&target, *rtype), Answer::Records { .. });
                // What DNS-SD points to is more of it, or the domain.
                let is_found_by = line.contains(" PTR ") && owner.starts_with('_') || owner.contains("._dns-sd.");
                let types: &[RecordType] = if is_found_by {
                    &[RecordType::PTR, RecordType::SRV, RecordType::NS]
                } else {
                    &[RecordType::A]
                };
                prop_assert!(types.iter().any(has), "{line}");
            }
        }
    }
}
