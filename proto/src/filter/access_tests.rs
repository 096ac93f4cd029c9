//! What is written of an [`AccessPlan`] is read again here, as the kernel does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    FilterPlan, HostNetworks,
    access::{AccessPlan, AccessRule, Flow, Passes, Ports},
    nft::{self, changes, render},
};

/// The ruleset of a node that has this looked at.
fn written(access: AccessPlan) -> String {
    let net = |text: &str| text.parse().unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut plan = FilterPlan::new(
        "im0".to_owned().try_into().unwrap(),
        [net("10.77.0.0/16"), net("fd77:77:77::/48")].into(),
        [ip("10.77.200.1"), ip("fd77:77:77::c8:1")].into(),
        BTreeSet::new(),
        &HostNetworks::default(),
        |_| false,
    );
    plan.access = access;
    render(&plan, false)
}

fn access(rules: &[(&str, &[usize], &[usize], Ports)]) -> AccessPlan {
    let sets = [
        vec!["10.77.9.1/32", "fd77:77:77::9:1/128"],
        vec!["10.77.9.2/32", "10.77.9.3/32"],
        vec!["10.77.1.1/32", "fd77:77:77::1/128"],
        vec!["192.168.5.0/24"],
    ];
    AccessPlan {
        members_open: true,
        has_others: true,
        devices: ["10.77.9.0/24".parse().unwrap()].into(),
        sets: sets
            .map(|set| set.iter().map(|net| net.parse().unwrap()).collect())
            .into(),
        rules: rules
            .iter()
            .map(|(label, from, to, ports)| AccessRule {
                label: (*label).to_owned(),
                from: from.iter().copied().collect(),
                to: to.iter().copied().collect(),
                ports: [*ports].into(),
            })
            .collect(),
    }
}

#[test]
fn where_nothing_is_looked_at_no_rule_about_access_is_written() {
    let text = written(AccessPlan::open());
    assert!(text.contains("add chain inet innermesh access\n"));
    for word in [
        "jump access",
        "@dev4",
        "not_allowed drop",
        "innermesh access ",
    ] {
        assert!(!text.contains(word), "{word}");
    }
}

/// The rules of each chain, and the elements of each set.
struct Ruleset<'t> {
    chains: BTreeMap<&'t str, Vec<&'t str>>,
    sets: BTreeMap<&'t str, &'t str>,
}

impl<'t> Ruleset<'t> {
    fn read(text: &'t str) -> Self {
        let mut read = Self {
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
        };
        for line in text.lines() {
            if let Some(rule) = line.strip_prefix("add rule inet innermesh ") {
                let (chain, rule) = rule.split_once(' ').unwrap();
                read.chains.entry(chain).or_default().push(rule);
            } else if let Some(set) = line.strip_prefix("add element inet innermesh ") {
                let (set, elements) = set.split_once(' ').unwrap();
                read.sets.insert(set, elements);
            }
        }
        read
    }

    /// The counter by which a first packet returns, which goes by the access chain.
    fn counts(&self, packet: &Packet) -> Option<&'t str> {
        let mut chain = "access";
        'chain: loop {
            for rule in self.chains[chain].iter().copied() {
                // What other tests are about.
                if rule.starts_with("icmp") || rule.contains("@own") || rule.contains("@net") {
                    continue;
                }
                match self.verdict(rule, packet) {
                    None => {}
                    Some(Verdict::Goto(next)) => {
                        chain = next;
                        continue 'chain;
                    }
                    Some(Verdict::Return(counter)) => return Some(counter),
                    Some(Verdict::Drop) => return None,
                }
            }
            panic!("{chain} leads nowhere");
        }
    }

    fn verdict(&self, rule: &'t str, packet: &Packet) -> Option<Verdict<'t>> {
        let mut words = rule;
        let mut take = |word: &str| {
            let rest = words.strip_prefix(word)?;
            words = rest.trim_start();
            Some(())
        };
        for protocol in ["tcp", "udp", "icmp", "icmpv6"] {
            let is_for = take(&format!("meta l4proto {protocol} ")).is_some();
            if is_for && packet.protocol != protocol {
                return None;
            }
        }
        if rule.contains("proto-dst 2048") || rule.contains("proto-dst 32768") {
            let request = packet.port.to_string();
            take(&format!("ct original proto-dst {request} "))?;
        }
        let counts = take("counter name ").is_some();
        let mut key = Vec::new();
        let families = [(true, "ip"), (false, "ip6")];
        for ((v4, family), end) in families
            .into_iter()
            .flat_map(|f| [(f, "saddr"), (f, "daddr")])
        {
            if take(&format!("ct original {family} {end} ")).is_some() {
                let address = if end == "saddr" {
                    packet.from
                } else {
                    packet.to
                };
                if address.is_ipv4() != v4 {
                    return None;
                }
                key.push(address.to_string());
                let _ = take(". ");
            }
        }
        if take("ct original proto-dst ").is_some() {
            key.push(packet.port.to_string());
        }
        if let Some(map) = words
            .strip_prefix("vmap { ")
            .or(words.strip_prefix("map { "))
        {
            let (elements, rest) = map.split_once(" }")?;
            let found = find(elements, &key)?;
            return Some(match found.strip_prefix("goto ") {
                Some(chain) => Verdict::Goto(chain),
                None => {
                    assert_eq!(rest, " return");
                    Verdict::Return(found.trim_matches('"'))
                }
            });
        }
        if let [address] = &key[..] {
            let (one, chain) = words.split_once(" goto ")?;
            let elements = match one.strip_prefix('@') {
                Some(set) => self.sets[set].trim_matches(['{', '}', ' ']),
                None => one,
            };
            return elements
                .split(", ")
                .any(|element| holds(element, address))
                .then_some(Verdict::Goto(chain));
        }
        assert!(counts, "{rule}");
        let (counter, verdict) = words.split_once(' ')?;
        Some(match verdict {
            "return" => Verdict::Return(counter),
            _ => Verdict::Drop,
        })
    }
}

enum Verdict<'t> {
    Goto(&'t str),
    Return(&'t str),
    Drop,
}

struct Packet {
    from: IpAddr,
    to: IpAddr,
    protocol: &'static str,
    port: u16,
}

/// What a map of `KEY . KEY : VALUE` has for a key.
fn find<'t>(elements: &'t str, key: &[String]) -> Option<&'t str> {
    elements.split(", ").find_map(|element| {
        let (keys, value) = element.split_once(" : ")?;
        let keys: Vec<&str> = keys.split(" . ").collect();
        assert_eq!(keys.len(), key.len(), "{element}");
        let mut pairs = keys.iter().zip(key);
        pairs.all(|(own, key)| holds(own, key)).then_some(value)
    })
}

/// Whether an address or port is a range's, or the same.
fn holds(element: &str, key: &str) -> bool {
    let Some((first, last)) = element.split_once('-') else {
        return element == key;
    };
    if let Ok(port) = key.parse::<u16>() {
        return (first.parse::<u16>().unwrap()..=last.parse().unwrap()).contains(&port);
    }
    let key: IpAddr = key.parse().unwrap();
    (first.parse::<IpAddr>().unwrap()..=last.parse().unwrap()).contains(&key)
}

fn ports() -> impl Strategy<Value = Ports> {
    let port = 1u16..6;
    prop_oneof![
        1 => Just(Ports::All),
        1 => Just(Ports::Icmp),
        4 => port.clone().prop_map(|port| Ports::Tcp(port, port)),
        1 => (port.clone(), 0u16..3).prop_map(|(port, more)| Ports::Tcp(port, port + more)),
        2 => port.prop_map(|port| Ports::Udp(port, port)),
    ]
}

fn plans() -> impl Strategy<Value = AccessPlan> {
    let among = || prop::collection::btree_set(0usize..6, 0..4);
    let rule = (among(), among(), prop::collection::btree_set(ports(), 1..4));
    prop::collection::vec(rule, 0..9).prop_map(|rules| {
        let mut plan = access(&[]);
        plan.members_open = false;
        let many = |begin: &'static str| {
            (1..20)
                .map(move |n| IpNet::from(format!("{begin}{}", 2 * n).parse::<IpAddr>().unwrap()))
        };
        plan.sets.push(many("10.77.3.").collect());
        let both = many("fd77:77:77::3:").chain(many("10.77.3."));
        plan.sets.push(both.take(21).collect());
        plan.rules = rules
            .into_iter()
            .enumerate()
            .map(|(number, (from, to, ports))| AccessRule {
                label: format!("r{number}"),
                from,
                to,
                ports,
            })
            .collect();
        plan
    })
}

const ADDRESSES: [&str; 12] = [
    "10.77.9.1",
    "10.77.9.2",
    "10.77.9.3",
    "10.77.1.1",
    "10.77.3.2",
    "10.77.3.3",
    "10.77.3.38",
    "192.168.5.0",
    "192.168.6.0",
    "fd77:77:77::9:1",
    "fd77:77:77::1",
    "fd77:77:77::3:4",
];

proptest! {
    // Each asks of some thousand flows.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_lets_pass_and_counts_what_the_rules_say(plan in plans()) {
        let text = written(plan.clone());
        let ruleset = Ruleset::read(&text);
        let pairs = ADDRESSES.iter().flat_map(|from| ADDRESSES.map(|to| (from, to)));
        for (from, to) in pairs {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            if from.is_ipv4() != to.is_ipv4() {
                continue;
            }
            let (icmp, echo) = if from.is_ipv4() { ("icmp", 0x0800) } else { ("icmpv6", 0x8000) };
            let ports = (0..9).flat_map(|port| [("tcp", port, Flow::Tcp(port)), ("udp", port, Flow::Udp(port))]);
            let flows = ports.chain([(icmp, echo, Flow::Echo), ("sctp", 1, Flow::Other)]);
            for (protocol, port, flow) in flows {
                let expected = match plan.passes(&BTreeSet::new(), from, to, flow) {
                    Some(Passes::By(rule)) => Some(format!("{}{}", nft::COUNTERS, rule.label)),
                    _ => None,
                };
                let counted = ruleset.counts(&Packet { from, to, protocol, port });
                prop_assert_eq!(counted, expected.as_deref(), "{} to {}, {}\n{}", from, to, flow, text);
            }
        }
    }

    #[test]
    fn a_change_makes_of_one_ruleset_another(before in plans(), now in plans()) {
        let (before, now) = (written(before), written(now));
        let changes = changes(&before, &now).unwrap();
        let chains = |text: &str| {
            let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for line in text.lines() {
                let mut words = line.splitn(6, ' ').map(str::to_owned);
                let (verb, kind) = (words.next().unwrap(), words.next().unwrap());
                let Some(name) = words.nth(2) else { continue };
                let rest = words.next().unwrap_or_default();
                match (&*verb, &*kind) {
                    ("add", "rule") => chains.get_mut(&name).unwrap().push(rest),
                    ("add" | "delete", "element") => {
                        let all = rest.trim_matches(['{', '}', ' ']).split(", ");
                        let set = chains.entry(format!("set {name}")).or_default();
                        for element in all {
                            set.retain(|held| held != element);
                            if verb == "add" {
                                set.push(element.to_owned());
                            }
                        }
                        set.sort();
                        if set.is_empty() {
                            chains.remove(&format!("set {name}"));
                        }
                    }
                    ("add", "chain") => drop(chains.entry(name).or_default()),
                    ("flush", "chain") => chains.get_mut(&name).unwrap().clear(),
                    ("delete", "chain") => drop(chains.remove(&name)),
                    ("delete", "set") => drop(chains.remove(&format!("set {name}"))),
                    _ => {}
                }
            }
            chains
        };
        prop_assert_eq!(chains(&format!("{before}{changes}")), chains(&now), "{}", changes);
    }
}

#[test]
fn the_first_policy_and_its_end_leave_all_sets_as_they_are() {
    let open = written(AccessPlan::open());
    let closed = written(access(&[("rule_a", &[0, 1], &[2], Ports::Tcp(80, 90))]));
    for (before, now) in [(&open, &closed), (&closed, &open)] {
        let changes = changes(before, now).unwrap();
        assert!(!changes.contains("flush set"), "{changes}");
        for set in ["net4", "own4", "in4", "lan4", "near4", "routes4"] {
            assert!(!changes.contains(&format!(" {set} {{")), "{changes}");
        }
    }
}

#[test]
fn a_change_of_one_rule_is_handed_over_alone() {
    let rules = |ports| {
        access(&[
            ("rule_a", &[0, 1], &[2], Ports::Tcp(80, 90)),
            ("rule_b", &[0], &[2], ports),
            ("services", &[1], &[3], Ports::All),
        ])
    };
    let (before, now) = (
        written(rules(Ports::Tcp(85, 100))),
        written(rules(Ports::Tcp(85, 101))),
    );
    let changes = changes(&before, &now).unwrap();
    assert!(changes.contains("91-101 : \"allow_rule_b\""), "{changes}");
    for kept in [
        "allow_services",
        "chain inet innermesh access",
        "chain inet innermesh early",
        "192.168.5",
    ] {
        assert!(!changes.contains(kept), "{kept} in {changes}");
    }
}

#[test]
fn each_rule_has_a_counter_and_what_no_rule_allows_is_dropped() {
    let text = written(access(&[
        ("rule_a", &[0, 1], &[2], Ports::Tcp(80, 90)),
        ("rule_b", &[0], &[2], Ports::Tcp(85, 100)),
        ("services", &[1], &[3], Ports::All),
    ]));
    for line in [
        "add rule inet innermesh welcome jump access",
        "add rule inet innermesh judge ct original ip daddr @own4 jump access",
        "add element inet innermesh dev4 { 10.77.9.0-10.77.9.255 }",
        "add counter inet innermesh allow_rule_a",
        "add rule inet innermesh access counter name not_allowed drop",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
    for rule in [
        "meta l4proto tcp counter name ct original proto-dst map { \
         80-90 : \"allow_rule_a\", 91-100 : \"allow_rule_b\" } return",
        "meta l4proto tcp counter name ct original proto-dst map { 80-90 : \"allow_rule_a\" } return",
    ] {
        assert!(text.contains(rule), "{rule}\n{text}");
    }
}

#[test]
fn a_service_of_one_node_stands_beside_its_address() {
    let text = written(access(&[
        ("rule_a", &[0], &[2], Ports::Tcp(80, 80)),
        ("rule_b", &[0], &[1], Ports::Tcp(81, 81)),
        ("rule_c", &[0], &[3], Ports::Udp(53, 53)),
    ]));
    for rule in [
        "meta l4proto tcp counter name ct original ip daddr . ct original proto-dst map { \
         10.77.1.1 . 80 : \"allow_rule_a\", 10.77.9.2 . 81 : \"allow_rule_b\", \
         10.77.9.3 . 81 : \"allow_rule_b\" } return",
        "meta l4proto icmp ct original proto-dst 2048 counter name ct original ip daddr map { \
         10.77.1.1 : \"allow_rule_a\", 10.77.9.2 : \"allow_rule_b\", \
         10.77.9.3 : \"allow_rule_b\" } return",
        "192.168.5.0-192.168.5.255 goto a_p_",
    ] {
        assert!(text.contains(rule), "{rule}\n{text}");
    }
}

#[test]
fn parts_of_rules_that_are_gone_are_taken_away_and_nothing_else() {
    let listed = "table inet innermesh {\n\tcounter leak {\n\t}\n\tcounter allow_rule_a {\n\t}\n\
                  \tcounter allow_rule_b {\n\t}\n\tset a4_s0 {\n\t}\n\tset net4 {\n\t}\n\
                  \tchain a_r_rule_a {\n\t}\n\tchain access {\n\t}\n\tchain a_p0; x {\n\t}\n";
    let text = "add counter inet innermesh allow_rule_b\n";
    assert_eq!(
        nft::remove_former(listed, text),
        "delete chain inet innermesh a_r_rule_a\ndelete counter inet innermesh allow_rule_a\n\
         delete set inet innermesh a4_s0\n"
    );
}
