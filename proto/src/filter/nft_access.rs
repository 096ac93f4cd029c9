//! An [`AccessPlan`](super::access::AccessPlan) in nftables' words.
//!
//! A packet is judged by the first one of its connection (`ct original`), in
//! either direction and each time: what is no longer allowed is cut at once, and
//! replies pass for as long as what they answer may. The address of one end, that of
//! the other and the port are each looked up once, however many rules there are; what
//! is found last is the counter of the rule.
//!
//! What `nft` takes grows with the lines and elements: the end whose addresses fall
//! into fewer kinds is looked up first, and what is alike is written once. Parts are
//! named by what is in them, or by the addresses that they are about, so that a
//! change leaves all others as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use sha2::{Digest, Sha256};

use super::{
    FilterPlan,
    access::{AccessPlan, Addresses, End, Lookup, Ports},
    nft_table::{TABLE, Table},
    ranges::{self, Range, Ranges},
};

/// The chain that returns what may pass and drops the rest.
pub const CHAIN: &str = "access";
/// How the names of counters of rules begin.
pub const COUNTERS: &str = "allow_";
/// How the names of chains and sets begin that come and go with the rules.
const PARTS: [&str; 3] = ["a4_", "a6_", "a_"];
/// Addresses from which on they are a set of their own, which others can share.
const SHARED: usize = 17;
/// Such sets up to which they are compared one after the other.
const COMPARED: usize = 4;
/// Ports and echo requests of addresses, one by one, up to which they are looked up
/// with the address: about what a chain of their own would take.
const BESIDE: u128 = 8;
/// Bytes of a hash that name a part.
const NAME_BYTES: usize = 12;

/// Writes the chain and all that it leads to. `verdict` drops and counts.
pub(super) fn write(inet: &mut Table<'_>, plan: &FilterPlan, verdict: &str) {
    inet.line(format_args!("add chain inet {TABLE} {CHAIN}"));
    let access = &plan.access;
    // Always there, so that the first policy changes a table that stays.
    for (v4, suffix, kind) in [(true, "4", "ipv4_addr"), (false, "6", "ipv6_addr")] {
        let devices = ranges::of(&access.devices, v4);
        let devices = devices.iter().map(|range| element(*range, v4));
        inet.set(&format!("dev{suffix}"), kind, "flags interval;", devices);
    }
    if access.looks_at_nothing() {
        return;
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
        written: BTreeSet::new(),
        named: BTreeSet::new(),
        counted: BTreeMap::new(),
        ports: BTreeMap::new(),
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
        let is_former = is_part(kind, name) && !current.contains(&(kind, name));
        is_former.then_some((kind, name))
    });
    // Chains first, as rules name sets.
    let former: BTreeSet<(&str, &str)> = listed.collect();
    let lines = former
        .iter()
        .map(|(kind, name)| format!("delete {kind} inet {TABLE} {name}\n"));
    lines.collect()
}

/// Whether something in our table comes and goes with the rules.
pub(super) fn is_part(kind: &str, name: &str) -> bool {
    let is_ours = match kind {
        "chain" | "set" => PARTS.iter().any(|part| name.starts_with(part)),
        "counter" => name.starts_with(COUNTERS),
        _ => false,
    };
    // No more than a name.
    is_ours && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Writer<'w, 't> {
    inet: &'w mut Table<'t>,
    access: &'w AccessPlan,
    verdict: &'w str,
    /// Names of the chains and sets that are written.
    written: BTreeSet<String>,
    /// Labels whose counters are written.
    named: BTreeSet<&'w str>,
    /// What counts flows by these rules: most are about addresses of both families.
    counted: BTreeMap<Vec<usize>, Option<Rc<Counted<'w>>>>,
    /// Names of the chains that count by the port.
    ports: BTreeMap<Rc<Counted<'w>>, String>,
}

/// What counts a flow between two addresses, by its port: labels of rules.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Counted<'w> {
    tcp: Vec<(Range, &'w str)>,
    udp: Vec<(Range, &'w str)>,
    /// An echo request.
    echo: &'w str,
    /// Everything else.
    rest: Option<&'w str>,
}

impl Counted<'_> {
    /// Whether the ports are better looked up with the address.
    fn stands_beside(&self, addresses: &[Range]) -> bool {
        let ports = || self.tcp.iter().chain(&self.udp);
        let addresses = addresses.iter().map(|(first, last)| last - first);
        let more = addresses.clone().fold(0, u128::saturating_add);
        let addresses = more.saturating_add(addresses.count() as u128);
        self.rest.is_none()
            && addresses.saturating_mul(1 + ports().count() as u128) <= BESIDE
            && ports().all(|((first, last), _)| first == last)
    }
}

impl<'w> Writer<'w, '_> {
    fn family(&mut self, lookup: &Lookup<'_>) {
        let all = 0..self.access.rules.len();
        let from = lookup.addresses(all.clone(), End::From);
        let to = lookup.addresses(all, End::To);
        let (from, to) = (by_rules(from), by_rules(to));
        let (first, kinds) = if to.len() <= from.len() {
            (End::To, to)
        } else {
            (End::From, from)
        };
        let mut elements: Vec<(Range, String)> = Vec::new();
        for (rules, ranges) in kinds {
            let chain = self.kind(lookup, first, &rules, &ranges);
            elements.extend(ranges.into_iter().map(|range| (range, chain.clone())));
        }
        if !elements.is_empty() {
            let address = address(lookup.is_v4(), first);
            let line = leads(&address, elements, lookup.is_v4());
            self.inet.rule(CHAIN, &line);
        }
    }

    /// The chain of addresses at one end that these rules are about, which looks at
    /// the other.
    fn kind(
        &mut self,
        lookup: &Lookup<'_>,
        first: End,
        rules: &[usize],
        ranges: &[Range],
    ) -> String {
        let v4 = lookup.is_v4();
        let address = address(v4, first.other());
        let mut alike: BTreeMap<Rc<Counted<'w>>, Ranges> = BTreeMap::new();
        let others = lookup.addresses(rules.iter().copied(), first.other());
        for (rules, ranges) in by_rules(others) {
            if let Some(counted) = self.counted(rules) {
                alike.entry(counted).or_default().extend(ranges);
            }
        }
        for ranges in alike.values_mut() {
            ranges.sort_unstable();
        }
        let (beside, apart): (Vec<_>, Vec<_>) = alike
            .into_iter()
            .partition(|(counted, ranges)| counted.stands_beside(ranges));
        let mut lines = self.beside(v4, &address, &beside);
        let apart = apart
            .into_iter()
            .map(|(counted, ranges)| (ranges, self.ports(&counted)))
            .collect();
        lines.extend(self.apart(v4, &address, apart));
        lines.push(self.verdict.to_owned());
        let place = match first {
            End::From => "from",
            End::To => "to",
        };
        let ranges: Vec<String> = ranges.iter().map(|range| element(*range, v4)).collect();
        let name = format!("a{}_{place}_{}", family(v4), hash(&ranges));
        self.chain(&name, &lines);
        name
    }

    fn counted(&mut self, rules: Vec<usize>) -> Option<Rc<Counted<'w>>> {
        if let Some(known) = self.counted.get(&rules) {
            return known.clone();
        }
        let counted = self.first_fitting(&rules).map(Rc::new);
        self.counted.insert(rules, counted.clone());
        counted
    }

    /// What the first rule is that fits, by the port.
    fn first_fitting(&self, rules: &[usize]) -> Option<Counted<'w>> {
        let access = self.access;
        let rules = rules.iter().filter_map(|number| access.rules.get(*number));
        let rules: Vec<_> = rules.collect();
        let by_port = |tcp: bool| {
            let ranges: Vec<Ranges> = rules
                .iter()
                .map(|rule| port_ranges(&rule.ports, tcp))
                .collect();
            let mut found: Vec<(Range, &'w str)> = Vec::new();
            for (range, fitting) in ranges::atoms(ranges.iter().enumerate()) {
                let first = fitting.first().and_then(|first| rules.get(*first));
                let Some(label) = first.map(|rule| rule.label.as_str()) else {
                    continue;
                };
                match found.last_mut() {
                    Some((last, same)) if *same == label && last.1 + 1 == range.0 => {
                        last.1 = range.1;
                    }
                    _ => found.push((range, label)),
                }
            }
            found
        };
        let whole = rules.iter().find(|rule| rule.ports.contains(&Ports::All));
        Some(Counted {
            tcp: by_port(true),
            udp: by_port(false),
            echo: &rules.first()?.label,
            rest: whole.map(|rule| rule.label.as_str()),
        })
    }

    /// Lines that look up addresses together with their ports.
    fn beside(
        &mut self,
        v4: bool,
        address: &str,
        all: &[(Rc<Counted<'w>>, Ranges)],
    ) -> Vec<String> {
        let mut tcp = Vec::new();
        let mut udp = Vec::new();
        let mut echo = Vec::new();
        for (counted, ranges) in all {
            for own in ranges.iter().flat_map(|(first, last)| *first..=*last) {
                let own = ranges::address(own, v4);
                for (elements, ports) in [(&mut tcp, &counted.tcp), (&mut udp, &counted.udp)] {
                    for (port, label) in ports {
                        let counter = self.counter(label);
                        elements.push(format!("{own} . {} : \"{counter}\"", self::ports(*port)));
                    }
                }
                let counter = self.counter(counted.echo);
                echo.push(format!("{own} : \"{counter}\""));
            }
        }
        let mut lines = Vec::new();
        for (protocol, mut elements) in [("tcp", tcp), ("udp", udp)] {
            if !elements.is_empty() {
                elements.sort_unstable();
                let elements = elements.join(", ");
                lines.push(format!(
                    "meta l4proto {protocol} counter name {address} . ct original proto-dst \
                     map {{ {elements} }} return"
                ));
            }
        }
        if !echo.is_empty() {
            echo.sort_unstable();
            let (protocol, request) = if v4 { ECHO[0] } else { ECHO[1] };
            let elements = echo.join(", ");
            lines.push(format!(
                "meta l4proto {protocol} ct original proto-dst {request} counter name {address} \
                 map {{ {elements} }} return"
            ));
        }
        lines
    }

    /// Lines that lead from addresses to the chains of their ports.
    fn apart(&mut self, v4: bool, address: &str, all: Vec<(Ranges, String)>) -> Vec<String> {
        let (mut large, mut small): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(ranges, _)| ranges.len() >= SHARED);
        if large.len() > COMPARED {
            small.append(&mut large);
        }
        let elements: Vec<(Range, String)> = small
            .into_iter()
            .flat_map(|(ranges, ports)| {
                let of_range = move |range| (range, ports.clone());
                ranges.into_iter().map(of_range)
            })
            .collect();
        let mut lines = match &elements[..] {
            [] => Vec::new(),
            [(one, ports)] => vec![format!("{address} {} goto {ports}", element(*one, v4))],
            _ => vec![leads(address, elements, v4)],
        };
        for (ranges, ports) in large {
            let set = self.set(v4, &ranges);
            lines.push(format!("{address} @{set} goto {ports}"));
        }
        lines
    }

    /// The name of a set of these addresses.
    fn set(&mut self, v4: bool, ranges: &[Range]) -> String {
        let kind = if v4 { "ipv4_addr" } else { "ipv6_addr" };
        let elements: Vec<String> = ranges.iter().map(|range| element(*range, v4)).collect();
        let name = format!("a{}_s_{}", family(v4), hash(&elements));
        if self.written.insert(name.clone()) {
            self.inet
                .set(&name, kind, "flags interval;", elements.into_iter());
        }
        name
    }

    /// The name of the chain that counts by the port.
    fn ports(&mut self, counted: &Rc<Counted<'w>>) -> String {
        if let Some(name) = self.ports.get(counted) {
            return name.clone();
        }
        let mut lines = Vec::new();
        for (protocol, all) in [("tcp", &counted.tcp), ("udp", &counted.udp)] {
            let elements: Vec<String> = all
                .iter()
                .map(|(range, label)| format!("{} : \"{}\"", ports(*range), self.counter(label)))
                .collect();
            match &all[..] {
                [] => {}
                [((0, 65535), label)] => {
                    let counter = self.counter(label);
                    lines.push(format!(
                        "meta l4proto {protocol} counter name {counter} return"
                    ));
                }
                _ => {
                    let elements = elements.join(", ");
                    lines.push(format!(
                        "meta l4proto {protocol} counter name ct original proto-dst map {{ {elements} }} return"
                    ));
                }
            }
        }
        let counter = self.counter(counted.echo);
        for (protocol, request) in ECHO {
            lines.push(format!(
                "meta l4proto {protocol} ct original proto-dst {request} counter name {counter} return"
            ));
        }
        match counted.rest {
            Some(label) => {
                let counter = self.counter(label);
                lines.push(format!("counter name {counter} return"));
            }
            None => lines.push(self.verdict.to_owned()),
        }
        let name = format!("a_p_{}", hash(&lines));
        self.chain(&name, &lines);
        self.ports.insert(Rc::clone(counted), name.clone());
        name
    }

    /// The counter of what a rule lets pass.
    fn counter(&mut self, label: &'w str) -> String {
        let counter = format!("{COUNTERS}{label}");
        if self.named.insert(label) {
            self.inet
                .line(format_args!("add counter inet {TABLE} {counter}"));
        }
        counter
    }

    fn chain(&mut self, name: &str, lines: &[String]) {
        if !self.written.insert(name.to_owned()) {
            return;
        }
        self.inet
            .line(format_args!("add chain inet {TABLE} {name}"));
        for line in lines {
            self.inet.rule(name, line);
        }
    }
}

/// Protocols with type and code of an echo request: 8 and 0, in IPv6 128 and 0.
const ECHO: [(&str, u16); 2] = [("icmp", 0x0800), ("icmpv6", 0x8000)];

/// The addresses about which the same rules are.
fn by_rules(addresses: Addresses) -> BTreeMap<Vec<usize>, Ranges> {
    let mut kinds: BTreeMap<Vec<usize>, Ranges> = BTreeMap::new();
    for (range, rules) in addresses {
        kinds.entry(rules).or_default().push(range);
    }
    kinds
}

/// The words for the address at one end of a packet's connection.
fn address(v4: bool, end: End) -> String {
    let family = if v4 { "ip" } else { "ip6" };
    let end = match end {
        End::From => "saddr",
        End::To => "daddr",
    };
    format!("ct original {family} {end}")
}

/// A line that leads from addresses to chains.
fn leads(address: &str, mut elements: Vec<(Range, String)>, v4: bool) -> String {
    elements.sort_unstable();
    let elements: Vec<String> = elements
        .into_iter()
        .map(|(range, chain)| format!("{} : goto {chain}", element(range, v4)))
        .collect();
    format!("{address} vmap {{ {} }}", elements.join(", "))
}

fn family(v4: bool) -> u8 {
    if v4 { 4 } else { 6 }
}

/// A name for what these lines say.
fn hash(lines: &[String]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update("\n");
    }
    let hash = hash.finalize();
    data_encoding::HEXLOWER.encode(&hash[..NAME_BYTES])
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
