use proptest::prelude::*;

use super::{nft::render, *};
use crate::id::NodeId;

fn interface(name: &str) -> Interface {
    name.to_owned().try_into().unwrap()
}

fn containers(bridge: &str, subnet: &str) -> Containers {
    Containers {
        bridge: interface(bridge),
        subnet: subnet.parse().unwrap(),
    }
}

fn lan(name: &str, address: &str) -> LanAddress {
    LanAddress {
        interface: interface(name),
        address: address.parse().unwrap(),
    }
}

fn plan(host: &HostNetworks) -> FilterPlan {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    FilterPlan::new(
        interface("im0"),
        ["10.77.0.0/16", "fd77:77:77::/48"]
            .map(|net| net.parse().unwrap())
            .into(),
        [ip("10.77.1.1"), ip("fd77:77:77::1")].into(),
        [ip("10.77.0.53"), ip("fd77:77:77::53")].into(),
        host,
        |address| address == ip("10.77.9.9"),
    )
}

/// A gateway of two devices, with a LAN beside it.
fn gateway() -> FilterPlan {
    let mut plan = plan(&docker());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    plan.gateway = Some(GatewayFilter {
        devices: ["10.77.7.7", "fd77:77:77::7"].map(ip).into(),
        lans: [Lan {
            interface: interface("eth0"),
            net: "192.168.5.0/24".parse().unwrap(),
        }]
        .into(),
    });
    plan.behind_gateways = ["172.30.0.0/16".parse().unwrap()].into();
    plan
}

/// As a public node has it, by which port 25 leads to a link's end.
fn public() -> PublishFilter {
    let ports = ["10.77.8.8", "fd77:77:77::8"].map(|to| PublishedPort {
        port: 25,
        to: to.parse().unwrap(),
        to_port: 2525,
    });
    PublishFilter {
        outer: [interface("eth0"), interface("eth1")].into(),
        ports: ports.into(),
        links: BTreeSet::new(),
        never: publish::never(std::iter::empty(), std::iter::empty()),
        ..PublishFilter::default()
    }
}

/// As the node at that end has it.
fn inside() -> PublishFilter {
    let link = LinkFilter {
        interface: interface("im0").link_to(&NodeId([0xab; 16])),
        addresses: ["10.77.8.8", "fd77:77:77::8"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        ports: [2525].into(),
    };
    PublishFilter {
        links: [link].into(),
        ports: BTreeSet::new(),
        ..public()
    }
}

/// The rules of one chain of the inet table.
fn chain<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let begin = format!("add rule inet innermesh {name} ");
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix(begin.as_str()))
        .map(str::trim_end)
        .collect()
}

fn docker() -> HostNetworks {
    HostNetworks {
        containers: [
            containers("docker0", "172.17.0.0/16"),
            containers("docker0", "fd00:d::/64"),
        ]
        .into(),
        ..HostNetworks::default()
    }
}

#[test]
fn names_that_mean_something_in_a_ruleset_are_refused() {
    for name in [
        "",
        "lo",
        "-x",
        "a b",
        "a\"b",
        "a*",
        "a;b",
        "a\nb",
        "a/b",
        "ü",
        "sixteen-letters-",
    ] {
        assert!(Interface::try_from(name.to_owned()).is_err(), "{name:?}");
    }
    for name in ["im0", "br-0123456789ab", "eth0.7"] {
        assert_eq!(interface(name).as_str(), name);
    }
}

#[test]
fn a_plan_is_rendered_the_same_each_time_and_with_every_counter() {
    let mut plan = gateway();
    plan.access.has_others = true;
    plan.publish = inside();
    plan.through = Some(through(LanAccess::Keep));
    let text = render(&plan, false);
    assert_eq!(text, render(&plan.clone(), false));
    for dropped in nft::Dropped::ALL {
        let rule = format!("counter name {} drop", dropped.counter());
        assert!(text.contains(&rule), "{rule} in {text}");
    }
    assert!(text.contains("{ \"docker0\" . 172.17.0.0/16 }"), "{text}");
    assert!(
        text.contains("arp daddr ip { 10.77.1.1, 10.77.0.53, 10.77.8.8 }"),
        "{text}"
    );
    // Placeholders are all filled in.
    for left in ["IP ", "N ", "N\n"] {
        assert!(!text.contains(left), "{left} in {text}");
    }
}

#[test]
fn containers_reach_other_nodes_only_where_the_plan_lets_them() {
    let mut plan = plan(&docker());
    assert!(render(&plan, false).contains("masquerade"));
    plan.containers_reach_mesh = false;
    let closed = render(&plan, false);
    assert!(!closed.contains("masquerade") && !closed.contains("ct status snat"));
    assert!(closed.contains("delete chain inet innermesh containers"));
}

#[test]
fn only_the_overlays_own_addresses_come_by_the_tunnel() {
    let text = render(&plan(&docker()), false);
    assert_eq!(
        chain(&text, "tunnel"),
        [
            "ip saddr != @net4 ip saddr != @routes4 counter name tunnel_source drop",
            "ip6 saddr != @net6 ip6 saddr != @routes6 counter name tunnel_source drop",
            "ip daddr @own4 accept",
            "ip6 daddr @own6 accept",
            "counter name tunnel_through drop",
        ]
    );
    assert!(text.contains("add element inet innermesh own4 { 10.77.1.1 }"));
}

#[test]
fn s25_a_gateway_forwards_for_its_devices_and_its_lan_and_a_plain_node_for_none() {
    let text = render(&gateway(), false);
    for element in [
        "device4 { 10.77.7.7 }",
        "device6 { fd77:77:77::7 }",
        "beside4 { \"eth0\" . 192.168.5.0/24 }",
        "behind4 { 192.168.5.0/24 }",
        "routes4 { 172.30.0.0/16 }",
        "resolver4 { 10.77.0.53 }",
    ] {
        let line = format!("add element inet innermesh {element}");
        assert!(text.contains(&line), "{line} in {text}");
    }
    let judge = chain(&text, "judge");
    for rule in [
        "iifname \"im0\" oifname \"im0\" ct original ip saddr @device4 goto granted",
        "iifname \"im0\" oifname \"im0\" ct original ip6 daddr @device6 goto granted",
        "iifname \"im0\" oifname . ip daddr @beside4 goto granted",
        "oifname \"im0\" iifname . ip6 saddr @beside6 goto granted",
    ] {
        assert!(judge.contains(&rule), "{rule} in {judge:?}");
    }
    // What is let pass is judged by the policy first, but for errors.
    let granted = chain(&text, "granted");
    assert_eq!(&granted[2..], ["jump access", "goto passed"]);
    assert!(
        granted[..2]
            .iter()
            .all(|rule| rule.contains("destination-unreachable"))
    );
    // A resolver is asked by devices; no other node's name server is this one.
    let tunnel = chain(&text, "tunnel");
    let of = |rule: &str| tunnel.iter().position(|line| *line == rule).unwrap();
    assert!(
        of("ip saddr @device4 ip daddr @resolver4 accept")
            < of("ip daddr @resolver4 counter name tunnel_through drop")
    );

    // WireGuard's and QUIC's own packets don't go into the tunnel.
    let mut outer = gateway();
    outer.outer_ports = [51819, 51820].into();
    let begin = "oifname \"im0\" udp sport { 51819, 51820 } drop";
    assert_eq!(chain(&render(&outer, false), "begin")[0], begin);
    outer.publish.outer_ports = [40_000].into();
    let begin = "oifname \"im0\" udp sport { 40000, 51819, 51820 } drop";
    assert_eq!(chain(&render(&outer, false), "begin")[0], begin);

    let plain = render(&plan(&docker()), false);
    for set in ["device", "beside", "behind", "resolver"] {
        let named = plain.lines().filter(|line| line.starts_with("add rule"));
        let mut named = named.filter(|line| line.contains(&format!("@{set}")));
        assert_eq!(named.next(), None);
    }
}

#[test]
fn s23_a_gateway_keeps_the_sources_of_others_from_being_rewritten() {
    let text = render(&gateway(), false);
    let sources = chain(&text, "sources");
    for rule in [
        "ip saddr @net4 snat ip to ip saddr",
        "ip6 daddr @net6 snat ip6 to ip6 saddr",
        "ip daddr @routes4 snat ip to ip saddr",
    ] {
        assert!(sources.contains(&rule), "{rule} in {sources:?}");
    }
    let leaving = chain(&text, "leaving");
    assert!(leaving[0].contains("ct status snat counter name rewritten drop"));
    let plain = render(&plan(&docker()), false);
    assert!(plain.contains("delete chain inet innermesh sources"));
    assert_eq!(chain(&plain, "sources"), [""; 0]);
}

fn through(lan: LanAccess) -> ThroughExit {
    ThroughExit {
        lan,
        beside: ["eth0", "wlan0"].map(interface).into(),
    }
}

#[test]
fn s23_an_exit_masquerades_what_leaves_for_the_internet_and_nothing_else() {
    let mut exit = plan(&docker());
    exit.exit = Some(ExitFilter {
        outer: [Lan {
            interface: interface("wan0"),
            net: "0.0.0.0/0".parse().unwrap(),
        }]
        .into(),
        own_networks: ["203.0.113.0/24".parse().unwrap()].into(),
    });
    let text = render(&exit, false);
    let out = "iifname \"im0\" oifname \"wan0\" ip saddr @net4 ip daddr != @closed4";
    let sources = chain(&text, "sources");
    assert_eq!(sources[0], format!("{out} masquerade"));
    let masquerades = text.matches("masquerade").count();
    assert_eq!(masquerades, 3, "its containers' of both families, too");
    // All else that is ours keeps its source.
    assert_eq!(sources[1], "ip saddr @net4 snat ip to ip saddr");
    let judge = chain(&text, "judge");
    for rule in [
        &*format!("{out} goto granted"),
        "iifname \"wan0\" oifname \"im0\" ip daddr @net4 ct direction reply ct status snat goto granted",
        "iifname \"im0\" ip6 saddr @net6 ip6 daddr != @closed6 reject with icmpv6 type no-route",
    ] {
        assert!(judge.contains(&rule), "{rule} in {judge:?}");
    }
    assert!(chain(&text, "granted").contains(&"jump access"));
    // Before what is rewritten is dropped.
    let leaving = chain(&text, "leaving");
    assert!(leaving[0].ends_with("ct original ip daddr != @closed4 accept"));
    assert!(leaving[1].contains("rewritten drop"), "{leaving:?}");
    let closed =
        "add element inet innermesh closed4 { 0.0.0.0-0.255.255.255, 10.0.0.0-10.255.255.255, ";
    let closed = text.lines().find(|line| line.starts_with(closed)).unwrap();
    assert!(closed.contains("203.0.113.0-203.0.113.255"), "{closed}");
    let tunnel = chain(&text, "tunnel");
    assert!(tunnel.contains(&"ip saddr @net4 ip daddr != @closed4 accept"));
    assert!(tunnel[0].starts_with("ip saddr != @net4 ip saddr != @routes4 counter"));

    let plain = render(&plan(&docker()), false);
    assert!(!plain.contains("add rule inet innermesh sources"));
    assert!(
        !plain
            .lines()
            .any(|line| line.starts_with("add rule") && line.contains("@closed"))
    );
}

#[test]
fn who_uses_an_exit_sends_in_no_other_way_and_hears_by_it_only_what_it_asked_for() {
    let mut user = plan(&docker());
    user.through = Some(through(LanAccess::Keep));
    let text = render(&user, false);
    let tunnel = chain(&text, "tunnel");
    assert!(tunnel[0].contains("ip saddr @closed4 counter name tunnel_source drop"));
    assert_eq!(tunnel[2], "ip daddr @own4 accept");
    let welcome = chain(&text, "welcome");
    assert!(welcome[0].contains("ct state != { established, related } counter name tunnel_source"));
    let early = chain(&text, "early");
    let mark = "meta mark set meta mark | 0x20000000";
    assert_eq!(
        early[0],
        format!("iifname {{ \"eth0\", \"wlan0\" }} {mark}")
    );
    let begun = chain(&text, "begun");
    assert_eq!(
        begun[0],
        "oifname != { \"lo\", \"im0\" } meta mark & 0x20000000 != 0x20000000 jump apart"
    );
    let apart = chain(&text, "apart");
    assert!(apart.contains(&"ip daddr @closed4 return"), "{apart:?}");
    assert!(
        apart.contains(&"oifname . ip saddr @pubown4 return"),
        "{apart:?}"
    );
    assert_eq!(apart.last(), Some(&"counter name past_exit drop"));
    assert!(chain(&text, "come")[0].contains("ct mark set ct mark | 0x20000000"));

    user.through = Some(through(LanAccess::Cut));
    let text = render(&user, false);
    let apart = chain(&text, "apart");
    assert!(!apart.contains(&"ip daddr @closed4 return"), "{apart:?}");
    assert!(
        !text.contains("ct mark set"),
        "nobody who comes in is answered"
    );

    let plain = render(&plan(&docker()), false);
    for chain in ["come", "answer"] {
        assert!(plain.contains(&format!("delete chain inet innermesh {chain}\n")));
    }
    assert!(!plain.contains("mark"), "{plain}");
}

#[test]
fn what_is_no_lan_and_not_marked_is_looked_up_in_the_exits_table_which_has_no_other_way() {
    let mut user = plan(&docker());
    assert_eq!(user.exit_routes(), BTreeSet::new());
    assert_eq!(user.rules().len(), 2, "{:?}", user.rules());
    user.through = Some(through(LanAccess::Keep));
    user.behind_gateways = ["172.30.0.0/16".parse().unwrap()].into();
    let net = |text: &str| -> IpNet { text.parse().unwrap() };
    let routes = user.exit_routes();
    for everything in ["0.0.0.0/0", "::/0"] {
        assert!(routes.contains(&OverlayRoute::Unreachable(net(everything))));
    }
    let by_tunnel = |route: &&OverlayRoute| matches!(route, OverlayRoute::Tunnel { .. });
    assert_eq!(routes.iter().filter(by_tunnel).count(), 2);
    let own = |text: &str, by_default| RoutingRule::Own {
        net: net(text),
        by_default,
    };
    let rules = user.rules();
    assert!(rules.contains(&own("192.168.0.0/16", false)));
    // Overlay, LANs and the rest are looked up in this order.
    let order: Vec<u8> = rules
        .iter()
        .map(|rule| match rule {
            RoutingRule::Overlay(_) => 0,
            RoutingRule::Link { .. } => 1,
            RoutingRule::Own { .. } => 2,
            RoutingRule::Exit { .. } => 3,
        })
        .collect();
    assert!(order.is_sorted() && order.ends_with(&[3, 3]), "{rules:?}");
    user.through = Some(through(LanAccess::Cut));
    let rules = user.rules();
    assert!(!rules.contains(&own("192.168.0.0/16", false)));
    for kept in ["172.30.0.0/16", "172.17.0.0/16", "fe80::/10"] {
        assert!(rules.contains(&own(kept, false)), "{kept}");
    }
    assert!(user.is_bounded());
}

#[test]
fn a_network_is_led_to_by_what_lies_in_it_and_by_the_narrowest_that_has_all_of_it() {
    let links = [
        ("wan0", "0.0.0.0/0"),
        ("eth0", "192.168.0.0/16"),
        ("eth1", "192.168.5.0/24"),
        ("eth2", "10.20.1.0/24"),
        ("eth3", "10.20.2.0/24"),
    ];
    let host = HostNetworks {
        links: links
            .map(|(name, net)| Lan {
                interface: interface(name),
                net: net.parse().unwrap(),
            })
            .into(),
        ..HostNetworks::default()
    };
    let by = |net: &str| -> Vec<String> {
        let net = net.parse().unwrap();
        let all = host.leading_to(&net).into_iter();
        all.map(|lan| lan.interface.to_string()).collect()
    };
    assert_eq!(by("192.168.5.0/24"), ["eth1"]);
    assert_eq!(by("192.168.7.0/24"), ["eth0"]);
    assert_eq!(by("10.20.0.0/16"), ["eth2", "eth3"]);
    assert_eq!(by("10.30.0.0/16"), ["wan0"]);
    assert_eq!(by("fd00:1::/64"), [""; 0]);
    let meets = |net: &str| host.meets(&net.parse().unwrap()).is_some();
    assert!(meets("10.20.0.0/16") && meets("192.168.5.128/25"));
    assert!(!meets("10.30.0.0/16"), "a default route is no network");
}

#[test]
fn a_subnet_within_another_of_its_bridge_is_left_out() {
    let mut host = docker();
    host.containers.extend([
        containers("docker0", "172.17.3.0/24"),
        containers("br-1", "172.17.3.0/24"),
    ]);
    host.containers.insert(containers("br-1", "fe80::/64"));
    host.containers.insert(containers("im0", "192.0.2.0/24"));
    let found = plan(&host).containers;
    assert_eq!(
        found,
        [
            containers("br-1", "172.17.3.0/24"),
            containers("docker0", "172.17.0.0/16"),
            containers("docker0", "fd00:d::/64"),
        ]
        .into()
    );
}

#[test]
fn s25_a_lan_with_the_overlays_range_has_its_gateway_and_no_member_s_address() {
    let host = HostNetworks {
        own: [
            lan("eth0", "10.77.5.20"),
            lan("eth0", "192.0.2.1"),
            lan("im0", "10.77.5.21"),
        ]
        .into(),
        neighbours: [
            lan("eth0", "10.77.5.1"),
            // A member's, the resolver's and this node's own.
            lan("eth0", "10.77.9.9"),
            lan("eth0", "10.77.0.53"),
            lan("eth0", "10.77.1.1"),
            lan("eth0", "9.9.9.9"),
        ]
        .into(),
        ..HostNetworks::default()
    };
    let plan = plan(&host);
    assert_eq!(plan.lan_own, [lan("eth0", "10.77.5.20")].into());
    assert_eq!(plan.lan_neighbours, [lan("eth0", "10.77.5.1")].into());
    let text = render(&plan, false);
    assert!(text.contains("near4 { \"eth0\" . 10.77.5.1 }"), "{text}");
    assert!(
        plan.routes()
            .contains(&OverlayRoute::Neighbour(lan("eth0", "10.77.5.1")))
    );
}

#[test]
fn each_network_has_a_route_through_the_tunnel_and_none_below_it() {
    let routes = plan(&docker()).routes();
    let net = |text: &str| -> IpNet { text.parse().unwrap() };
    let tunnel = |text: &str, source: &str| OverlayRoute::Tunnel {
        net: net(text),
        source: source.parse().unwrap(),
    };
    let expected: BTreeSet<OverlayRoute> = [
        OverlayRoute::Unreachable(net("10.77.0.0/16")),
        OverlayRoute::Unreachable(net("fd77:77:77::/48")),
        tunnel("10.77.0.0/16", "10.77.1.1"),
        tunnel("fd77:77:77::/48", "fd77:77:77::1"),
    ]
    .into();
    assert_eq!(routes, expected);
}

#[test]
fn a_stored_plan_that_would_cut_the_host_off_is_out_of_bounds() {
    let good = plan(&docker());
    assert!(good.is_bounded());
    for wide in ["0.0.0.0/0", "::/0", "10.77.0.1/16"] {
        let mut plan = good.clone();
        plan.networks = [wide.parse().unwrap()].into();
        assert!(!plan.is_bounded(), "{wide}");
        let mut plan = gateway();
        assert!(plan.is_bounded());
        plan.behind_gateways = [wide.parse().unwrap()].into();
        assert!(!plan.is_bounded(), "{wide}");
        let mut plan = gateway();
        let interface = interface("eth0");
        let net = wide.parse().unwrap();
        plan.gateway.as_mut().unwrap().lans = [Lan { interface, net }].into();
        assert!(!plan.is_bounded(), "{wide}");
    }
}

proptest! {
    #[test]
    fn no_name_of_an_interface_adds_a_line_to_a_ruleset(name in "\\PC{0,20}") {
        let Ok(bridge) = Interface::try_from(name) else { return Ok(()) };
        let host = HostNetworks {
            containers: [Containers { bridge, subnet: "172.17.0.0/16".parse().unwrap() }].into(),
            ..HostNetworks::default()
        };
        let lines = |host: &HostNetworks| render(&plan(host), false).lines().count();
        let mut one = docker();
        one.containers.pop_last();
        prop_assert_eq!(lines(&host), lines(&one));
    }
}

#[test]
fn s25_what_comes_by_a_link_is_for_published_ports_and_never_from_the_own_side() {
    let mut plan = plan(&docker());
    plan.publish = inside();
    let text = render(&plan, false);
    let link = "iifname { \"im0pababab\" }";
    let early = chain(&text, "early");
    let [first, second, third, ..] = early[..] else {
        panic!("{early:?}");
    };
    assert_eq!(first, "iifname \"lo\" accept");
    assert_eq!(second, "iifname \"im0\" goto tunnel");
    assert_eq!(third, format!("{link} goto published"));
    let dropped = "counter name not_published drop";
    assert_eq!(
        chain(&text, "published"),
        [
            &format!("ip saddr @never4 {dropped}")[..],
            &format!("ip6 saddr @never6 {dropped}"),
            "iifname . ip daddr . tcp dport @pubin4 accept",
            "iifname . ip6 daddr . tcp dport @pubin6 accept",
            dropped,
        ]
    );
    assert_eq!(chain(&text, "entry")[0], format!("{link} goto landed"));
    assert_eq!(chain(&text, "landed").last(), Some(&dropped));
    assert_eq!(chain(&text, "across")[0], format!("{link} {dropped}"));
    assert!(
        text.contains("pubin4 { \"im0pababab\" . 10.77.8.8 . 2525 }"),
        "{text}"
    );
    // Nothing here leads elsewhere.
    assert!(!text.contains("dnat ip"), "{text}");
}

#[test]
fn s23_a_public_node_leads_its_ports_into_the_tunnel_and_keeps_sources() {
    let mut plan = plan(&docker());
    plan.publish = public();
    let text = render(&plan, false);
    assert_eq!(
        chain(&text, "publish"),
        [
            "iifname { \"eth0\", \"eth1\" } ip saddr != @never4 fib daddr type local tcp dport 25 dnat ip \
             to 10.77.8.8:2525",
            "iifname { \"eth0\", \"eth1\" } ip6 saddr != @never6 fib daddr type local tcp dport 25 dnat \
             ip6 to [fd77:77:77::8]:2525",
        ]
    );
    let sources = chain(&text, "sources");
    assert!(
        sources.contains(&"ip daddr @net4 snat ip to ip saddr"),
        "{sources:?}"
    );
    assert!(!text.contains("chain inet innermesh sources\n"), "{text}");
    let judge = chain(&text, "judge");
    let at = |rule: &str| judge.iter().position(|it| it.contains(rule));
    assert!(at("maxseg") < at("@pub4"), "{judge:?}");
    let tunnel = chain(&text, "tunnel");
    assert!(
        tunnel.contains(&"ip saddr . tcp sport @pub4 accept"),
        "{tunnel:?}"
    );
    // Without anything published there is no NAT at all.
    plan.publish = PublishFilter::default();
    let text = render(&plan, false);
    assert!(
        text.contains("delete chain inet innermesh publish"),
        "{text}"
    );
    assert!(
        text.contains("delete chain inet innermesh sources"),
        "{text}"
    );
    assert!(!text.contains("@pub4"), "{text}");
}

#[test]
fn sources_that_are_no_strangers_never_overlap_in_a_set() {
    let nets = [
        "192.168.0.0/16",
        "192.168.1.0/24",
        "10.0.0.1/8",
        "fd00::/8",
        "fd00:1::/32",
    ];
    let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
    let never = publish::never(nets.iter(), nets.iter());
    for net in &never {
        let mut others = never.iter().filter(|other| *other != net);
        assert!(others.all(|other| !other.contains(net)), "{net}");
    }
    for ip in [
        "127.0.0.1",
        "192.168.1.7",
        "10.9.9.9",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00:1::1",
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        assert!(never.iter().any(|net| net.contains(&ip)), "{ip}");
    }
    for ip in ["198.51.100.1", "100.64.0.1", "2001:db8::1"] {
        let ip: IpAddr = ip.parse().unwrap();
        assert!(!never.iter().any(|net| net.contains(&ip)), "{ip}");
    }
}

#[test]
fn a_link_s_interface_is_known_by_its_name() {
    let tunnel = interface("im0");
    let link = tunnel.link_to(&NodeId([0xab; 16]));
    assert_eq!(link.as_str(), "im0pababab");
    assert!(link.is_link_of(&tunnel) && !tunnel.is_link_of(&tunnel));
    for other in [
        "im0p",
        "im0pababag",
        "im0pabababa",
        "im1pababab",
        "im0xababab",
    ] {
        assert!(!interface(other).is_link_of(&tunnel), "{other}");
    }
    let long = interface("a-long-name-150");
    assert!(long.link_to(&NodeId([1; 16])).is_link_of(&long));
}
