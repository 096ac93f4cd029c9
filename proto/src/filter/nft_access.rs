//! An [`AccessPlan`](super::access::AccessPlan) in nftables' words.
//!
//! A packet is judged by the first one of its connection (`ct original`), in
//! either direction and each time: what is no longer allowed is cut at once, and
//! replies pass for as long as what they answer may. Destination, source and port
//! are each looked up once, however many rules there are; what is found last is the
//! counter of the rule.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    FilterPlan,
    access::{AccessPlan, Lookup, Ports},
    nft_table::{TABLE, Table},
    ranges::{self, Range, Ranges},
};

/// The chain that returns what may pass and drops the rest.
pub const CHAIN: &str = "access";
/// How the names of counters of rules begin.
pub const COUNTERS: &str = "allow_";
/// How the names of chains and sets begin that come and go with the rules.
const PARTS: [&str; 3] = ["a4_", "a6_", "a_"];
/// Kinds of sources up to which they are compared one after the other, by sets
/// that all destinations share.
const COMPARED: usize = 4;

/// Writes the chain and all that it leads to. `verdict` drops and counts.
pub(super) fn write(inet: &mut Table<'_>, plan: &FilterPlan, verdict: &str) {
    inet.line(format_args!("add chain inet {TABLE} {CHAIN}"));
    let access = &plan.access;
    if access.looks_at_nothing() {
        return;
    }
    for (v4, suffix, kind) in [(true, "4", "ipv4_addr"), (false, "6", "ipv6_addr")] {
        let devices = ranges::of(&access.devices, v4);
        let devices = devices.iter().map(|range| element(*range, v4));
        inet.set(&format!("dev{suffix}"), kind, "flags interval;", devices);
    }
    let errors = "destination-unreachable, time-exceeded, parameter-problem";
    inet.rule(CHAIN, &format!("icmp type {{ {errors} }} return"));
    inet.rule(
        CHAIN,
        &format!("icmpv6 type {{ {errors}, packet-too-big }} return"),
    );
    // What members send, and answers to it, mostly without a look at connections.
    if access.members_open {
        let open = "IP saddr @netN IP saddr != @devN IP daddr != @devN";
        inet.both(CHAIN, open, "return");
    }
    // What this node began.
    inet.both(CHAIN, "ct original IP saddr @ownN", "return");
    if access.members_open {
        let open = "ct original IP saddr @netN ct original IP saddr != @devN \
                    ct original IP daddr != @devN";
        inet.both(CHAIN, open, "return");
    }
    let mut writer = Writer {
        inet,
        access,
        verdict,
        ports: BTreeMap::new(),
        sets: BTreeMap::new(),
        counted: BTreeSet::new(),
    };
    for v4 in [true, false] {
        writer.family(&Lookup::new(access, v4));
    }
    writer.inet.rule(CHAIN, verdict);
}

/// What takes away the parts of former rules: those that were `listed` and aren't
/// in `text`. It stands behind that, in one transaction.
pub fn remove_former(listed: &str, text: &str) -> String {
    let current: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("add ")?
                .split_once(&*format!(" inet {TABLE} "))
        })
        .map(|(kind, rest)| (kind, rest.split(' ').next().unwrap_or_default()))
        .collect();
    let listed = listed.lines().filter_map(|line| {
        let (kind, rest) = line.trim_start().split_once(' ')?;
        let name = rest.strip_suffix(" {")?;
        let is_part = PARTS.iter().any(|part| name.starts_with(part));
        let is_former = match kind {
            "chain" | "set" => is_part,
            "counter" => name.starts_with(COUNTERS),
            _ => false,
        };
        (is_former && is_plain(name) && !current.contains(&(kind, name))).then_some((kind, name))
    });
    // Chains first, as rules name sets.
    let former: BTreeSet<(&str, &str)> = listed.collect();
    let lines = former
        .iter()
        .map(|(kind, name)| format!("delete {kind} inet {TABLE} {name}\n"));
    lines.collect()
}

/// Whether a name that `nft` listed is one of ours, and no more than a name.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Writer<'w, 't> {
    inet: &'w mut Table<'t>,
    access: &'w AccessPlan,
    verdict: &'w str,
    /// Chains that look at ports, by their rules.
    ports: BTreeMap<Vec<usize>, String>,
    /// Named sets of sources.
    sets: BTreeMap<(bool, Ranges), String>,
    /// Labels whose counters are written.
    counted: BTreeSet<&'w str>,
}

impl<'w> Writer<'w, '_> {
    fn family(&mut self, lookup: &Lookup<'_>) {
        let v4 = lookup.is_v4();
        let word = if v4 { "ip" } else { "ip6" };
        let mut chains: BTreeMap<Vec<usize>, String> = BTreeMap::new();
        let mut elements = Vec::new();
        for (range, rules) in lookup.destinations() {
            let chain = match chains.get(&rules) {
                Some(chain) => chain.clone(),
                None => {
                    let chain = format!("a{}_d{}", if v4 { 4 } else { 6 }, chains.len());
                    self.sources(lookup, &rules, &chain);
                    chains.insert(rules, chain.clone());
                    chain
                }
            };
            elements.push(format!("{} : goto {chain}", element(range, v4)));
        }
        if !elements.is_empty() {
            let elements = elements.join(", ");
            self.inet.rule(
                CHAIN,
                &format!("ct original {word} daddr vmap {{ {elements} }}"),
            );
        }
    }

    /// The chain of destinations that these rules are about.
    fn sources(&mut self, lookup: &Lookup<'_>, rules: &[usize], chain: &str) {
        let v4 = lookup.is_v4();
        let word = if v4 { "ip" } else { "ip6" };
        let mut groups: BTreeMap<Vec<usize>, Ranges> = BTreeMap::new();
        for (range, rules) in lookup.sources(rules) {
            groups.entry(rules).or_default().push(range);
        }
        let mut lines = Vec::new();
        if groups.len() <= COMPARED {
            for (rules, ranges) in groups {
                let sources = match &ranges[..] {
                    [one] => element(*one, v4),
                    _ => format!("@{}", self.set(v4, ranges)),
                };
                let ports = self.ports(&rules);
                lines.push(format!("ct original {word} saddr {sources} goto {ports}"));
            }
        } else {
            let mut elements: Vec<(Range, String)> = Vec::new();
            for (rules, ranges) in groups {
                let ports = self.ports(&rules);
                elements.extend(ranges.into_iter().map(|range| (range, ports.clone())));
            }
            elements.sort_unstable();
            let elements: Vec<String> = elements
                .into_iter()
                .map(|(range, ports)| format!("{} : goto {ports}", element(range, v4)))
                .collect();
            let elements = elements.join(", ");
            lines.push(format!("ct original {word} saddr vmap {{ {elements} }}"));
        }
        lines.push(self.verdict.to_owned());
        self.chain(chain, &lines);
    }

    /// The name of a set of these sources.
    fn set(&mut self, v4: bool, ranges: Ranges) -> String {
        let (family, kind) = if v4 {
            (4, "ipv4_addr")
        } else {
            (6, "ipv6_addr")
        };
        let number = self.sets.len();
        let key = (v4, ranges);
        if let Some(name) = self.sets.get(&key) {
            return name.clone();
        }
        let name = format!("a{family}_s{number}");
        let elements = key.1.iter().map(|range| element(*range, v4));
        self.inet.set(&name, kind, "flags interval;", elements);
        self.sets.insert(key, name.clone());
        name
    }

    /// The name of the chain that finds the first of `rules` by the port.
    fn ports(&mut self, rules: &[usize]) -> String {
        if let Some(chain) = self.ports.get(rules) {
            return chain.clone();
        }
        let chain = format!("a_p{}", self.ports.len());
        self.ports.insert(rules.to_vec(), chain.clone());
        let access = self.access;
        let numbered = rules.iter().filter_map(|number| access.rules.get(*number));
        let numbered: Vec<_> = numbered.collect();
        let mut lines = Vec::new();
        for (protocol, v) in [("tcp", true), ("udp", false)] {
            let ranges: Vec<Ranges> = numbered
                .iter()
                .map(|rule| port_ranges(&rule.ports, v))
                .collect();
            let atoms = ranges::atoms(ranges.iter().enumerate());
            let mut elements: Vec<(Range, String)> = Vec::new();
            for (range, rules) in atoms {
                let Some(first) = rules.first().and_then(|first| numbered.get(*first)) else {
                    continue;
                };
                let counter = self.counter(&first.label);
                match elements.last_mut() {
                    Some((last, same)) if *same == counter && last.1 + 1 == range.0 => {
                        last.1 = range.1;
                    }
                    _ => elements.push((range, counter)),
                }
            }
            if elements.is_empty() {
                continue;
            }
            lines.push(match &elements[..] {
                [((0, 65535), counter)] => format!("meta l4proto {protocol} counter name {counter} return"),
                _ => {
                    let elements: Vec<String> = elements
                        .iter()
                        .map(|(range, counter)| format!("{} : \"{counter}\"", ports(*range)))
                        .collect();
                    let elements = elements.join(", ");
                    format!("meta l4proto {protocol} counter name ct original proto-dst map {{ {elements} }} return")
                }
            });
        }
        // Type and code of an echo request: 8 and 0, in IPv6 128 and 0.
        if let Some(first) = numbered.first() {
            let counter = self.counter(&first.label);
            for (protocol, echo) in [("icmp", 0x0800), ("ipv6-icmp", 0x8000)] {
                lines.push(format!(
                    "meta l4proto {protocol} ct original proto-dst {echo} counter name {counter} return"
                ));
            }
        }
        let whole = numbered
            .iter()
            .find(|rule| rule.ports.contains(&Ports::All));
        match whole {
            Some(rule) => {
                let counter = self.counter(&rule.label);
                lines.push(format!("counter name {counter} return"));
            }
            None => lines.push(self.verdict.to_owned()),
        }
        self.chain(&chain, &lines);
        chain
    }

    /// The counter of what a rule lets pass.
    fn counter(&mut self, label: &'w str) -> String {
        let counter = format!("{COUNTERS}{label}");
        if self.counted.insert(label) {
            self.inet
                .line(format_args!("add counter inet {TABLE} {counter}"));
        }
        counter
    }

    fn chain(&mut self, name: &str, lines: &[String]) {
        self.inet
            .line(format_args!("add chain inet {TABLE} {name}"));
        for line in lines {
            self.inet.rule(name, line);
        }
    }
}

/// The ports of one protocol.
fn port_ranges(all: &BTreeSet<Ports>, tcp: bool) -> Ranges {
    let mut ranges: Ranges = all
        .iter()
        .filter_map(|ports| match *ports {
            Ports::All => Some((0, 65535)),
            Ports::Tcp(first, last) if tcp => Some((first.into(), last.into())),
            Ports::Udp(first, last) if !tcp => Some((first.into(), last.into())),
            _ => None,
        })
        .collect();
    ranges.sort_unstable();
    ranges
}

fn ports((first, last): Range) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// A range as an element of a set.
pub(super) fn element((first, last): Range, v4: bool) -> String {
    let (from, to) = (ranges::address(first, v4), ranges::address(last, v4));
    if first == last {
        from.to_string()
    } else {
        format!("{from}-{to}")
    }
}
