use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proptest::prelude::*;

use super::*;
use crate::{
    filter::access::{Flow, Passes, Ports},
    id::NodeId,
    limits,
    name::Label,
};

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn ips(all: &[&str]) -> BTreeSet<IpAddr> {
    all.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn node(number: u8) -> NodeEntry {
    NodeEntry {
        id: NodeId([number; 16]),
        addresses: ips(&[&format!("10.77.1.{number}"), &format!("fd77::1:{number}")]),
    }
}

fn device(number: u8, gateways: &[u8]) -> DeviceEntry {
    DeviceEntry {
        addresses: ips(&[&format!("10.77.9.{number}"), &format!("fd77::9:{number}")]),
        gateways: gateways.iter().map(|n| NodeId([*n; 16])).collect(),
        ..DeviceEntry::default()
    }
}

fn service(on: u8, ports: ServicePorts) -> ServiceEntry {
    let instance = InstanceEntry {
        addresses: node(on).addresses,
        ports,
    };
    ServiceEntry {
        instances: [instance].into(),
    }
}

/// Nodes alpha, bravo (a gateway) and carol; phones anna and ben; nextcloud and
/// mail on carol.
fn directory() -> Directory {
    let tcp = |port| ServicePorts::Known(Ports::Tcp(port, port));
    Directory {
        networks: ["10.77.0.0/16", "fd77::/48"]
            .map(|net| net.parse().unwrap())
            .into(),
        resolvers: ips(&["10.77.0.53", "fd77::53"]),
        nodes: [("alpha", 1), ("bravo", 2), ("carol", 3)]
            .map(|(name, number)| (label(name), node(number)))
            .into(),
        devices: [("anna", 1), ("ben", 2)]
            .map(|(name, number)| (label(name), device(number, &[2])))
            .into(),
        services: [("nextcloud", tcp(443)), ("mail", tcp(25))]
            .map(|(name, port)| (label(name), service(3, port)))
            .into(),
        routes: [("192.168.5.0/24".parse().unwrap(), [NodeId([2; 16])].into())].into(),
        exits: BTreeSet::new(),
    }
}

fn place(number: u8, is_gateway: bool) -> Place {
    Place {
        me: NodeId([number; 16]),
        own: node(number).addresses,
        is_gateway,
        is_exit: false,
        served: compile::usual(),
    }
}

fn passes(policy: &str, at: &Place, from: &str, to: &str, flow: Flow) -> bool {
    let directory = directory();
    let plan = compile(&Policy::parse(policy).unwrap(), &directory, at);
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    plan.passes(&directory.networks, from, to, flow).is_some()
}

const ALPHA: &str = "10.77.1.1";
const BRAVO: &str = "10.77.1.2";
const CAROL: &str = "10.77.1.3";
const ANNA: &str = "10.77.9.1";
const BEN: &str = "10.77.9.2";

#[test]
fn without_a_policy_members_reach_members_and_devices_services_and_their_gateway() {
    let (carol, bravo) = (place(3, false), place(2, true));
    let at = |at: &Place, from, to, flow| passes("", at, from, to, flow);
    assert!(at(&carol, ALPHA, CAROL, Flow::Tcp(22)));
    assert!(at(&carol, ANNA, CAROL, Flow::Tcp(443)));
    assert!(at(&carol, ANNA, CAROL, Flow::Echo));
    assert!(!at(&carol, ANNA, CAROL, Flow::Tcp(22)));
    assert!(!at(&carol, ANNA, CAROL, Flow::Udp(443)));
    assert!(!at(&carol, "192.168.5.7", CAROL, Flow::Tcp(443)));
    // The gateway judges what it sends on as the destination does, and the rest.
    assert!(at(&bravo, ANNA, CAROL, Flow::Tcp(25)));
    assert!(!at(&bravo, ANNA, CAROL, Flow::Tcp(22)));
    assert!(!at(&bravo, ALPHA, ANNA, Flow::Tcp(80)));
    assert!(!at(&bravo, ANNA, BEN, Flow::Tcp(80)));
    assert!(!at(&bravo, ANNA, "192.168.5.7", Flow::Tcp(80)));
    assert!(at(&bravo, ALPHA, "192.168.5.7", Flow::Tcp(80)));
    for port in [53, 7443, 7480] {
        assert!(at(&bravo, ANNA, "10.77.0.53", Flow::Tcp(port)));
        assert!(at(&bravo, ANNA, BRAVO, Flow::Tcp(port)));
        assert!(!at(&carol, ANNA, CAROL, Flow::Tcp(port)));
    }
    assert!(at(&bravo, "fd77::9:1", "fd77::53", Flow::Udp(53)));
    assert!(!at(&bravo, ANNA, BRAVO, Flow::Tcp(22)));
}

#[test]
fn closed_defaults_leave_what_rules_allow_and_what_gateways_serve() {
    let policy = r#"
        [default]
        members = "closed"
        devices = "closed"
        [groups]
        family = ["anna", "group:kids"]
        kids = ["ben"]
        [[allow]]
        from = ["group:family", "alpha"]
        to = ["nextcloud", "mail:25,587", "bravo:tcp/22", "192.168.5.0/24:udp/53"]
    "#;
    let (carol, bravo) = (place(3, false), place(2, true));
    for from in [ANNA, BEN, ALPHA] {
        assert!(passes(policy, &carol, from, CAROL, Flow::Tcp(443)));
        assert!(passes(policy, &carol, from, CAROL, Flow::Udp(587)));
        assert!(!passes(policy, &carol, from, CAROL, Flow::Tcp(8443)));
        assert!(passes(policy, &bravo, from, BRAVO, Flow::Tcp(22)));
        assert!(!passes(policy, &bravo, from, BRAVO, Flow::Udp(22)));
        assert!(passes(policy, &bravo, from, "192.168.5.9", Flow::Udp(53)));
        assert!(!passes(policy, &bravo, from, "192.168.5.9", Flow::Tcp(53)));
    }
    assert!(!passes(policy, &carol, BRAVO, CAROL, Flow::Tcp(443)));
    assert!(!passes(policy, &carol, BRAVO, CAROL, Flow::Echo));
    assert!(passes(policy, &bravo, ANNA, "10.77.0.53", Flow::Udp(53)));
}

#[test]
fn a_devices_own_networks_and_groups_count() {
    let mut directory = directory();
    let anna = directory.devices.get_mut(&label("anna")).unwrap();
    anna.routes = ["192.168.5.0/24".parse().unwrap()].into();
    anna.groups = [label("staff")].into();
    let policy = Policy::parse(
        "[groups]\nstaff = []\n[[allow]]\nfrom = [\"group:staff\"]\nto = [\"carol:22\"]",
    )
    .unwrap();
    let passes = |at: &Place, from: &str, to: &str, flow| {
        let plan = compile(&policy, &directory, at);
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        plan.passes(&directory.networks, from, to, flow).is_some()
    };
    assert!(passes(&place(2, true), ANNA, "192.168.5.9", Flow::Tcp(9)));
    assert!(!passes(&place(2, true), BEN, "192.168.5.9", Flow::Tcp(9)));
    assert!(passes(&place(3, false), ANNA, CAROL, Flow::Tcp(22)));
    assert!(!passes(&place(3, false), BEN, CAROL, Flow::Tcp(22)));
}

#[test]
fn the_internet_is_reached_by_members_that_are_open_by_rules_and_by_full_tunnels_alone() {
    let mut directory = directory();
    directory.exits = [NodeId([2; 16])].into();
    let anna = directory.devices.get_mut(&label("anna")).unwrap();
    anna.full_tunnel = true;
    let exit = Place {
        is_exit: true,
        ..place(2, true)
    };
    let flow = Flow::Tcp(443);
    let passes = |policy: &str, at: &Place, from: &str, to: &str| {
        let plan = compile(&Policy::parse(policy).unwrap(), &directory, at);
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        plan.passes(&directory.networks, from, to, flow).is_some()
    };
    let closed = "[default]\nmembers = \"closed\"\n";
    let allows =
        |from: &str, to: &str| format!("{closed}[[allow]]\nfrom = [\"{from}\"]\nto = [\"{to}\"]\n");
    let alpha = allows("alpha", "internet:tcp/443");
    for (policy, from, to, expected) in [
        ("", ALPHA, "9.9.9.9", true),
        ("", ANNA, "9.9.9.9", true),
        ("", "fd77::9:1", "2620:fe::fe", true),
        ("", "10.77.9.2", "9.9.9.9", false),
        (closed, ALPHA, "9.9.9.9", false),
        (closed, ANNA, "9.9.9.9", true),
        (&alpha, ALPHA, "9.9.9.9", true),
        (&alpha, CAROL, "9.9.9.9", false),
        (&alpha, "10.77.9.2", "9.9.9.9", false),
        // Which is no part of the internet.
        (&alpha, ALPHA, "192.168.5.7", false),
        (&alpha, ALPHA, "192.168.7.7", false),
        (&alpha, ALPHA, CAROL, false),
        ("", ANNA, "192.168.7.7", false),
        (&allows("ben", "9.9.9.9"), "10.77.9.2", "9.9.9.9", true),
        (&allows("ben", "9.9.9.9"), "10.77.9.2", "9.9.9.10", false),
    ] {
        let got = passes(policy, &exit, from, to);
        assert_eq!(got, expected, "{from} to {to} by {policy}");
    }
    // Elsewhere nobody is let through.
    assert!(!passes(&alpha, &place(3, false), ALPHA, "9.9.9.9"));
    let policy = Policy::parse(&alpha).unwrap();
    assert_eq!(unknown_names(&policy, &directory), []);
    let to = parse_target("internet:443").unwrap();
    let explained = explain(
        &policy,
        &directory,
        &parse_subject("anna").unwrap(),
        &to,
        1000,
    );
    let by_tunnel = |one: &Explained| one.by == Some(By::FullTunnel);
    assert!(!explained.is_empty() && explained.iter().all(by_tunnel));

    // Without an exit, and where something is called so, it is a name.
    let without = super::tests::directory();
    assert_eq!(unknown_names(&policy, &without).len(), 1);
    directory.nodes.insert(label("internet"), node(7));
    let plan = compile(&policy, &directory, &exit);
    let (from, to) = (ALPHA.parse().unwrap(), "9.9.9.9".parse().unwrap());
    assert!(plan.passes(&directory.networks, from, to, flow).is_none());
}

#[test]
fn a_mesh_without_devices_and_networks_has_nothing_looked_at() {
    let mut directory = directory();
    directory.devices.clear();
    directory.routes.clear();
    let policy = Policy::parse("[[allow]]\nfrom = [\"alpha\"]\nto = [\"carol:22\"]").unwrap();
    let plan = compile(&policy, &directory, &place(3, false));
    assert!(plan.looks_at_nothing());
    assert_eq!(plan, crate::filter::access::AccessPlan::open());
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_was_meant() {
    for (text, told) in [
        ("[groups", "line 1: "),
        (
            "\n[[alow]]\n",
            "line 2: `alow` is no key of a policy; did you mean allow?",
        ),
        (
            "[groups]\nfamily = [\"anna\"]\n[[allow]]\nfrom = [\"group:famly\"]\nto = [\"mail\"]",
            "line 4: there is no group famly; did you mean family?",
        ),
        (
            "[groups]\na = [\"group:b\"]\nb = [\"group:c\"]\nc = [\"group:a\"]",
            "the group a contains itself: a → b → c → a",
        ),
        (
            "[[allow]]\nfrom = [\"anna\"]",
            "line 1: [[allow]] needs `to`",
        ),
        (
            "[[allow]]\nfrom = [\"anna\"]\nto = [\"mail:70000\"]",
            "line 3: \"mail:70000\": `70000` isn't a port",
        ),
        (
            "[[allow]]\nfrom = [\"anna:22\"]\nto = [\"mail\"]",
            "line 2: \"anna:22\": a port belongs behind what is reached, in `to`",
        ),
        (
            "[[allow]]\nfrom = [\"10.0.0.1/8\"]\nto = [\"mail\"]",
            "line 2: \"10.0.0.1/8\": it is an address within 10.0.0.0/8; write that",
        ),
        (
            "[default]\nmembers = \"shut\"",
            "line 2: members: it is \"open\" or \"closed\"",
        ),
        (
            "[[expect]]\nfrom = \"anna\"\nto = \"mail\"\nresult = \"yes\"",
            "line 4: result: it is \"allow\" or \"deny\"",
        ),
        ("groups = 5", "line 1: [groups] is a table"),
        (
            "[groups]\na = \"anna\"",
            "line 2: the group a is a list of names in quotes",
        ),
    ] {
        let error = Policy::parse(text).unwrap_err().to_string();
        assert!(error.contains(told), "{text}\n{error}\n{told}");
    }
}

#[test]
fn ten_thousand_rules_are_refused_and_five_hundred_are_not() {
    let rule = "[[allow]]\nfrom=[\"a\"]\nto=[\"b:1\"]\n";
    let short = "{from=[],to=[]},";
    assert_eq!(Policy::parse(&rule.repeat(500)).unwrap().rules.len(), 500);
    let many = format!("allow=[{}]", short.repeat(10_000));
    assert!(many.len() < limits::POLICY_BYTES);
    let error = Policy::parse(&many).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 1: a policy has at most 2048 rules, and this has 10000"
    );
    let error = Policy::parse(&rule.repeat(10_000)).unwrap_err().to_string();
    assert!(error.contains("bytes, and may have 262144"), "{error}");
}

#[test]
fn groups_are_bounded_in_depth_and_opened_once() {
    let chain = |depth: usize, width: usize| {
        let mut text = String::from("[groups]\n");
        for level in 0..depth {
            let inner = format!("\"group:g{}\",", level + 1).repeat(width);
            text += &format!("g{level} = [{inner}]\n");
        }
        text + &format!("g{depth} = [\"anna\"]\n")
    };
    let policy = Policy::parse(&chain(15, 100)).unwrap();
    let from = parse_subject("group:g0").unwrap();
    let to = parse_target("nextcloud").unwrap();
    let explained = explain(&policy, &directory(), &from, &to, 16);
    assert_eq!(explained.len(), 2);
    let error = Policy::parse(&chain(16, 1)).unwrap_err().to_string();
    assert!(error.contains("more than 16 deep"), "{error}");
}

#[test]
fn tests_of_a_policy_are_carried_out() {
    let policy = |result: &str, to: &str| {
        let text = format!(
            "[default]\ndevices = \"closed\"\n[[allow]]\nfrom = [\"ben\"]\nto = [\"nextcloud\", \"bravo:80-90\"]\n\
             [[expect]]\nfrom = \"ben\"\nto = \"{to}\"\nresult = \"{result}\"\n"
        );
        Policy::parse(&text).unwrap()
    };
    for (to, allowed, denied) in [
        ("nextcloud:tcp/443", true, false),
        ("nextcloud", true, false),
        ("nextcloud:443", false, false),
        ("nextcloud:25", false, true),
        ("bravo:85-86", true, false),
        ("bravo:85-95", false, false),
        ("bravo:91-95", false, true),
        ("bravo:icmp", true, false),
        ("bravo", false, false),
        ("alpha:icmp", false, true),
        ("devices:*", false, true),
    ] {
        let told = |result| check(&policy(result, to), &directory());
        assert_eq!(told("allow").is_ok(), allowed, "{to}: {:?}", told("allow"));
        assert_eq!(told("deny").is_ok(), denied, "{to}: {:?}", told("deny"));
    }
    let error = check(&policy("deny", "nextcloud"), &directory()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 6: the test fails: ben to nextcloud is allowed, by rule 1 (line 3)"
    );
}

#[test]
fn ports_that_only_gossip_knows_fail_no_test() {
    let mut directory = directory();
    let unknown = service(3, ServicePorts::Unknown);
    directory.services.insert(label("nextcloud"), unknown);
    let policy = |result: &str| {
        let text = format!(
            "[default]\ndevices = \"closed\"\n[[allow]]\nfrom = [\"ben\"]\nto = [\"nextcloud\"]\n\
             [[expect]]\nfrom = \"ben\"\nto = \"nextcloud:443\"\nresult = \"{result}\"\n"
        );
        Policy::parse(&text).unwrap()
    };
    assert_eq!(check(&policy("allow"), &directory), Ok(()));
    assert_eq!(check(&policy("deny"), &directory), Ok(()));
    // Nobody allows anything to anna, whatever the ports are.
    let text = "[default]\ndevices = \"closed\"\n[[expect]]\nfrom = \"anna\"\nto = \"nextcloud:443\"\nresult = \"allow\"";
    assert!(check(&Policy::parse(text).unwrap(), &directory).is_err());
}

#[test]
fn names_that_nothing_has_are_found_and_match_nothing() {
    let text = "[groups]\nfamily = [\"ana\", \"gone\"]\n[[allow]]\nfrom = [\"group:family\", \"family\"]\nto = [\"nextclod\"]\n";
    let policy = Policy::parse(text).unwrap();
    let told: Vec<String> = unknown_names(&policy, &directory())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "line 2: no node, device or service is called ana; did you mean anna?",
            "line 2: no node, device or service is called gone",
            "line 3: no node, device or service is called family; did you mean group:family?",
            "line 3: no node, device or service is called nextclod; did you mean nextcloud?",
        ]
    );
    assert!(
        everywhere(&policy, &directory())
            .rules
            .iter()
            .all(|rule| !rule.label.starts_with("rule_"))
    );
}

#[test]
fn a_rule_that_changes_nothing_is_noted() {
    let text = "[[allow]]\nfrom = [\"alpha\"]\nto = [\"bravo:22\"]\n[[allow]]\nfrom = [\"anna\"]\nto = [\"nextcloud\"]\n[[allow]]\nfrom = [\"anna\"]\nto = [\"bravo:22\"]\n[[allow]]\nfrom = [\"mail\"]\nto = [\"bravo:22\"]";
    let policy = Policy::parse(text).unwrap();
    let told: Vec<String> = notes(&policy, &directory())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].contains("line 1: rule 1 allows nothing more than members = \"open\""));
    assert!(told[1].contains("line 4: rule 2 allows nothing more than devices = \"services\""));
    assert!(told[2].contains("line 10: mail is a service"));
    assert!(told[3].contains("line 10: rule 4 allows nothing:"));
}

#[test]
fn words_are_read_and_written_alike() {
    for word in [
        "mail",
        "mail:tcp/25",
        "group:kids:tcp/80-90,udp/53",
        "members:*",
        "devices:icmp",
        "10.0.5.0/24",
        "10.0.5.0/24:udp/53",
        "10.0.5.1:tcp/*",
        "fd00::/64",
        "[fd00::/64]:tcp/443",
        "[fd00::1]:*",
    ] {
        assert_eq!(parse_target(word).unwrap().to_string(), word);
    }
    assert_eq!(
        parse_target("mail:25").unwrap().to_string(),
        "mail:tcp/25,udp/25"
    );
    for word in [
        "",
        "mail:",
        "mail:0",
        "mail:-1",
        "mail:+1",
        "mail:5-1",
        "mail:sctp/5",
        ":25",
        "[fd00::1",
        "fd00::1:tcp/443:",
        "[fd00::1]443",
        "group:",
        "a b",
        "10.0.0.0/33",
        "mail:1,,2",
    ] {
        assert!(parse_target(word).is_err(), "{word}");
    }
}

#[test]
fn explain_says_which_rule_allows() {
    let text =
        "[default]\ndevices = \"closed\"\n[[allow]]\nfrom = [\"ben\"]\nto = [\"carol:443\"]\n";
    let policy = Policy::parse(text).unwrap();
    let by = |from: &str, to: &str| -> Vec<Option<By>> {
        let from = parse_subject(from).unwrap();
        let to = parse_target(to).unwrap();
        let all = explain(&policy, &directory(), &from, &to, 64);
        all.into_iter().map(|one| one.by).collect()
    };
    let rule = By::Rule(0, policy.rules[0].label());
    assert_eq!(by("ben", "nextcloud"), [Some(rule.clone()), Some(rule)]);
    assert_eq!(by("anna", "nextcloud"), [None, None]);
    assert_eq!(by("alpha", "mail:25"), vec![Some(By::Members); 4]);
    assert_eq!(by("anna", "bravo:tcp/7480"), vec![Some(By::Gateway); 2]);
    assert_eq!(by("10.77.9.2", "10.77.1.3:tcp/443").len(), 1);
    assert_eq!(by("nobody", "mail"), []);
}

/// To whom, and at which ports; all where none is said.
type MadeTarget = (String, Option<Vec<String>>);

/// A policy that was made up, and what it says in the simplest words.
#[derive(Clone, Debug)]
struct Made {
    members: bool,
    devices: bool,
    rules: Vec<(Vec<String>, Vec<MadeTarget>)>,
    groups: BTreeMap<String, Vec<String>>,
}

impl Made {
    fn text(&self) -> String {
        let quoted = |all: &[String]| {
            let all: Vec<String> = all.iter().map(|one| format!("\"{one}\"")).collect();
            format!("[{}]", all.join(", "))
        };
        let mut text = format!(
            "[default]\nmembers = \"{}\"\ndevices = \"{}\"\n[groups]\n",
            if self.members { "open" } else { "closed" },
            if self.devices { "services" } else { "closed" },
        );
        for (name, members) in &self.groups {
            text += &format!("{name} = {}\n", quoted(members));
        }
        for (from, to) in &self.rules {
            let to: Vec<String> = to
                .iter()
                .map(|(name, ports)| match ports {
                    Some(ports) => format!("{name}:{}", ports.join(",")),
                    None => name.clone(),
                })
                .collect();
            text += &format!("[[allow]]\nfrom = {}\nto = {}\n", quoted(from), quoted(&to));
        }
        text
    }

    /// Whether `name` is the one with this address.
    fn is(&self, directory: &Directory, name: &str, ip: IpAddr) -> bool {
        if let Some(group) = name.strip_prefix("group:") {
            return self.groups[group]
                .iter()
                .any(|name| self.is(directory, name, ip));
        }
        match name {
            "members" => directory
                .nodes
                .values()
                .any(|node| node.addresses.contains(&ip)),
            "devices" => directory
                .devices
                .values()
                .any(|one| one.addresses.contains(&ip)),
            _ if name.contains('/') => name.parse::<ipnet::IpNet>().unwrap().contains(&ip),
            _ => {
                let node = directory.nodes.get(&label(name));
                let device = directory.devices.get(&label(name));
                node.is_some_and(|one| one.addresses.contains(&ip))
                    || device.is_some_and(|one| one.addresses.contains(&ip))
            }
        }
    }

    fn reaches(
        &self,
        directory: &Directory,
        name: &str,
        ports: &Option<Vec<String>>,
        ip: IpAddr,
        flow: Flow,
    ) -> bool {
        if let Some(group) = name.strip_prefix("group:") {
            let mut group = self.groups[group].iter();
            return group.any(|name| self.reaches(directory, name, ports, ip, flow));
        }
        let fits = |port: &String| match port.as_str() {
            "*" => true,
            _ if flow == Flow::Echo => true,
            port => match (port.split_once('/'), flow) {
                (Some(("tcp", port)), Flow::Tcp(own)) | (Some(("udp", port)), Flow::Udp(own)) => {
                    port == own.to_string()
                }
                (None, Flow::Tcp(own) | Flow::Udp(own)) => port == own.to_string(),
                _ => false,
            },
        };
        if let Some(service) = label_of(name).and_then(|name| directory.services.get(&name)) {
            return service.instances.iter().any(|instance| {
                let ServicePorts::Known(own) = instance.ports else {
                    return false;
                };
                instance.addresses.contains(&ip)
                    && match ports {
                        Some(ports) => ports.iter().any(fits),
                        None => own.contains(flow),
                    }
            });
        }
        self.is(directory, name, ip) && ports.as_ref().is_none_or(|ports| ports.iter().any(fits))
    }

    fn allows(&self, directory: &Directory, from: IpAddr, to: IpAddr, flow: Flow) -> bool {
        let is = |name: &str, ip| self.is(directory, name, ip);
        let member_to_member = is("members", from) && !is("devices", to);
        if self.members && member_to_member {
            return true;
        }
        let served = [
            Flow::Tcp(53),
            Flow::Udp(53),
            Flow::Tcp(7443),
            Flow::Tcp(7480),
            Flow::Echo,
        ];
        for (name, device) in &directory.devices {
            let mut gateways = directory.nodes.values();
            if is(name.as_str(), from)
                && served.contains(&flow)
                && (gateways
                    .any(|node| device.gateways.contains(&node.id) && node.addresses.contains(&to))
                    || directory.resolvers.contains(&to))
            {
                return true;
            }
            let mut routes = device.routes.iter();
            if is(name.as_str(), from) && routes.any(|net| net.contains(&to)) {
                return true;
            }
        }
        let mut services = directory.services.keys();
        if self.devices
            && is("devices", from)
            && services.any(|name| self.reaches(directory, name.as_str(), &None, to, flow))
        {
            return true;
        }
        self.rules.iter().any(|(sources, targets)| {
            sources.iter().any(|name| is(name, from))
                && targets
                    .iter()
                    .any(|(name, ports)| self.reaches(directory, name, ports, to, flow))
        })
    }
}

fn label_of(name: &str) -> Option<Label> {
    name.parse().ok()
}

fn made() -> impl Strategy<Value = Made> {
    let name = || {
        prop::sample::select(vec![
            "alpha",
            "bravo",
            "carol",
            "anna",
            "ben",
            "members",
            "devices",
            "group:g",
            "192.168.5.0/24",
            "10.77.9.0/31",
            "192.168.5.9/32",
            "fd77::9:0/127",
            "nextcloud",
            "gone",
        ])
        .prop_map(str::to_owned)
    };
    let leaf = prop::sample::select(vec!["alpha", "carol", "anna", "mail", "192.168.5.0/24"]);
    let port = prop::sample::select(vec!["*", "22", "tcp/443", "udp/53", "tcp/25", "icmp"]);
    let ports = prop::option::of(prop::collection::vec(port.prop_map(str::to_owned), 1..3));
    // IPv6 networks with ports stand in brackets, which the simple words don't have.
    let target = (name(), ports).prop_map(|(name, ports)| {
        let ports = ports.filter(|_| !name.contains("::"));
        (name, ports)
    });
    let rule = (
        prop::collection::vec(name(), 0..4),
        prop::collection::vec(target, 0..4),
    );
    (
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(rule, 0..6),
        prop::collection::vec(leaf.prop_map(str::to_owned), 0..4),
    )
        .prop_map(|(members, devices, rules, group)| Made {
            members,
            devices,
            rules,
            groups: [("g".to_owned(), group)].into(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn s35_what_is_enforced_is_what_the_policy_says_in_the_simplest_words(
        made in made(),
        ben_routes in any::<bool>(),
    ) {
        let mut directory = directory();
        if ben_routes {
            let ben = directory.devices.get_mut(&label("ben")).unwrap();
            ben.routes = ["192.168.5.0/24".parse().unwrap()].into();
        }
        let text = made.text();
        let policy = Policy::parse(&text).unwrap();
        let machines = |v: u8| -> Vec<IpAddr> {
            let pick = |all: &BTreeSet<IpAddr>| -> Vec<IpAddr> {
                all.iter().copied().filter(|ip| ip.is_ipv4() == (v == 4)).collect()
            };
            let mut all: Vec<IpAddr> = directory.nodes.values().flat_map(|n| pick(&n.addresses)).collect();
            all.extend(directory.devices.values().flat_map(|d| pick(&d.addresses)));
            all.extend(pick(&ips(&["192.168.5.9", "192.168.5.10"])));
            all
        };
        let places = [place(1, false), place(2, true), place(3, false)];
        let plans = places.clone().map(|place| (compile(&policy, &directory, &place), place));
        let whole = everywhere(&policy, &directory);
        for version in [4, 6] {
            let all = machines(version);
            for from in &all {
                for to in all.iter().chain(&directory.resolvers).filter(|to| to.is_ipv4() == from.is_ipv4()) {
                    if from == to { continue }
                    for flow in [Flow::Tcp(22), Flow::Tcp(443), Flow::Tcp(25), Flow::Udp(53), Flow::Tcp(7480), Flow::Echo, Flow::Other] {
                        let expected = made.allows(&directory, *from, *to, flow);
                        let got = whole.passes(&directory.networks, *from, *to, flow);
                        prop_assert_eq!(got.is_some(), expected, "{} to {}, {:?}\n{}", from, to, flow, text);
                        for (plan, place) in &plans {
                            let passed = plan.passes(&directory.networks, *from, *to, flow);
                            let is_here = place.own.contains(to) || place.is_gateway
                                && (made.is(&directory, "devices", *from) || made.is(&directory, "devices", *to)
                                    || made.is(&directory, "192.168.5.0/24", *from)
                                    || made.is(&directory, "192.168.5.0/24", *to));
                            // Resolver addresses are each node's own, and only served to devices of its own.
                            if directory.resolvers.contains(to) { continue }
                            if is_here {
                                prop_assert_eq!(passed.is_some(), expected, "{} to {}, {:?} at {:?}\n{}", from, to, flow, place.me, text);
                            } else if let Some(Passes::By(_)) = passed {
                                prop_assert!(expected);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_text_has_the_parser_panic_or_gives_a_policy_out_of_bounds(text in "\\PC{0,200}") {
        if let Ok(policy) = Policy::parse(&text) {
            prop_assert!(policy.rules.len() <= limits::POLICY_RULES);
        }
    }
}
