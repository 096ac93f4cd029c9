//! NAT rules of others that put another source in place of overlay addresses, or
//! of those of a LAN: each rule is held against the kinds of packets that a gateway
//! forwards. Rules by marks and states of connections say nothing about that, and
//! are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use innermesh_proto::{
    filter::{FilterPlan, nft::TABLE},
    limits,
};
use ipnet::IpNet;
use serde_json::Value;

use super::listed::Listed;

/// A rule of somebody else's that rewrites sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rewriter {
    /// Whose it is, and where.
    pub owner: String,
    /// What it rewrites.
    pub what: Rewritten,
    /// The command that has it leave the overlay alone; `None` where there is no
    /// such command.
    pub command: Option<String>,
}

/// Which packets have their sources rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rewritten {
    /// Of nodes and devices, on their way to a LAN.
    ToLan,
    /// Of a LAN's hosts, on their way into the tunnel.
    FromLan,
    /// Between nodes and devices.
    Within,
    /// Of strangers, on their way to what is published.
    FromStrangers,
}

/// What a gateway forwards.
struct Kind {
    what: Rewritten,
    inward: String,
    outward: String,
    source: IpNet,
    destination: IpNet,
}

/// Whether a rule's conditions hold for packets of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Never,
    ForSome,
    ForAll,
}

/// A NAT rule.
struct Rule {
    conditions: Vec<Condition>,
    does: Does,
    handle: Option<u64>,
}

enum Condition {
    Inward(Names),
    Outward(Names),
    Source(Nets),
    Destination(Nets),
    /// Only packets of this family.
    Family(bool),
    /// Of the packets of a kind, some.
    Some,
    /// By something that isn't read.
    Unknown,
}

struct Names {
    names: Vec<String>,
    is: bool,
}

struct Nets {
    nets: Vec<IpNet>,
    is: bool,
}

enum Does {
    Rewrite,
    Lead(BTreeSet<String>),
    Stop,
    Nothing,
}

type Chains = BTreeMap<(String, String, String), Vec<Rule>>;

/// Those of all base chains, as `nft -j list ruleset` and `iptables-legacy-save`
/// (and its like for IPv6) list them.
pub fn rewriters(plan: &FilterPlan, ruleset: &str, legacy: &str) -> Vec<Rewriter> {
    let kinds = kinds(plan);
    let (mut bases, mut chains) = read(ruleset);
    read_legacy(legacy, &mut bases, &mut chains);
    let mut found = BTreeSet::new();
    for base in &bases {
        let overlay = plan.networks.iter();
        let overlay: Vec<IpNet> = overlay.copied().collect();
        for kind in &kinds {
            let mut look = Look {
                chains: &chains,
                kind,
                found: BTreeSet::new(),
                steps: 0,
            };
            look.chain(base);
            for (chain, handle) in look.found {
                found.insert(told(&chain, handle, kind.what, &overlay));
            }
        }
    }
    found.into_iter().take(limits::OTHER_FILTERS).collect()
}

/// Each kind of packets that this gateway forwards.
fn kinds(plan: &FilterPlan) -> Vec<Kind> {
    let tunnel = plan.interface.to_string();
    let mut kinds = from_strangers(plan);
    let Some(gateway) = &plan.gateway else {
        return kinds;
    };
    for net in &plan.networks {
        kinds.push(Kind {
            what: Rewritten::Within,
            inward: tunnel.clone(),
            outward: tunnel.clone(),
            source: *net,
            destination: *net,
        });
        let of_family = |other: &IpNet| other.addr().is_ipv4() == net.addr().is_ipv4();
        for lan in gateway.lans.iter().filter(|lan| of_family(&lan.net)) {
            let interface = lan.interface.to_string();
            kinds.push(Kind {
                what: Rewritten::ToLan,
                inward: tunnel.clone(),
                outward: interface.clone(),
                source: *net,
                destination: lan.net,
            });
            kinds.push(Kind {
                what: Rewritten::FromLan,
                inward: interface,
                outward: tunnel.clone(),
                source: lan.net,
                destination: *net,
            });
        }
    }
    kinds
}

/// What a public node forwards: by any interface, to where its ports lead.
fn from_strangers(plan: &FilterPlan) -> Vec<Kind> {
    let to: BTreeSet<IpNet> = plan
        .publish
        .ports
        .iter()
        .map(|port| port.to.into())
        .collect();
    let mut kinds = Vec::new();
    for destination in to {
        // Documentation's, which stand for any address of the internet.
        let source = match destination {
            IpNet::V4(_) => IpNet::from(IpAddr::from([203, 0, 113, 1])),
            IpNet::V6(_) => IpNet::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
        };
        kinds.extend(plan.publish.outer.iter().map(|inward| Kind {
            what: Rewritten::FromStrangers,
            inward: inward.to_string(),
            outward: plan.interface.to_string(),
            source,
            destination,
        }));
    }
    kinds
}

/// A walk through chains with packets of one kind.
struct Look<'c> {
    chains: &'c Chains,
    kind: &'c Kind,
    found: BTreeSet<((String, String, String), Option<u64>)>,
    steps: usize,
}

impl Look<'_> {
    /// Whether all packets of the kind end here.
    fn chain(&mut self, id: &(String, String, String)) -> bool {
        // Chains can't lead in circles; this bounds what many of them cost.
        const STEPS: usize = 20_000;
        let family = id.0.as_str();
        let v4 = self.kind.source.addr().is_ipv4();
        if family != "inet" && family != if v4 { "ip" } else { "ip6" } {
            return false;
        }
        let chains = self.chains;
        for rule in chains.get(id).into_iter().flatten() {
            self.steps += 1;
            if self.steps > STEPS {
                return true;
            }
            let all = rule.conditions.iter();
            let holds = all.map(|condition| condition.holds(self.kind)).min();
            let holds = holds.unwrap_or(Holds::ForAll);
            if holds == Holds::Never {
                continue;
            }
            let ends = match &rule.does {
                Does::Rewrite => {
                    self.found.insert((id.clone(), rule.handle));
                    true
                }
                Does::Stop => true,
                Does::Lead(targets) => {
                    let mut ends = !targets.is_empty();
                    for target in targets {
                        let next = (id.0.clone(), id.1.clone(), target.clone());
                        ends &= self.chain(&next);
                    }
                    ends
                }
                Does::Nothing => false,
            };
            if ends && holds == Holds::ForAll {
                return true;
            }
        }
        false
    }
}

impl Condition {
    fn holds(&self, kind: &Kind) -> Holds {
        match self {
            Self::Inward(names) => names.hold(&kind.inward),
            Self::Outward(names) => names.hold(&kind.outward),
            Self::Source(nets) => nets.hold(&kind.source),
            Self::Destination(nets) => nets.hold(&kind.destination),
            Self::Family(v4) if *v4 == kind.source.addr().is_ipv4() => Holds::ForAll,
            Self::Family(_) | Self::Unknown => Holds::Never,
            Self::Some => Holds::ForSome,
        }
    }
}

impl Names {
    fn hold(&self, name: &str) -> Holds {
        let is = |word: &String| match word.strip_suffix(['*', '+']) {
            Some(begin) => name.starts_with(begin),
            None => word == name,
        };
        if self.names.iter().any(is) == self.is {
            Holds::ForAll
        } else {
            Holds::Never
        }
    }
}

impl Nets {
    fn hold(&self, of: &IpNet) -> Holds {
        let covered = self.nets.iter().any(|net| net.contains(of));
        let met = self.nets.iter().any(|net| of.contains(net)) || covered;
        match (self.is, covered, met) {
            (true, true, _) | (false, _, false) => Holds::ForAll,
            (true, false, false) | (false, true, _) => Holds::Never,
            (_, false, true) => Holds::ForSome,
        }
    }
}

/// Base chains of NAT behind routing, and the rules of all chains.
fn read(ruleset: &str) -> (Vec<(String, String, String)>, Chains) {
    let (mut bases, mut chains) = (Vec::new(), Chains::new());
    let items = Listed::parse(ruleset).map(|listed| listed.nftables);
    for item in items.into_iter().flatten() {
        if let Some(chain) = item.chain.filter(|chain| chain.table != TABLE) {
            let is_base = chain.kind.as_deref() == Some("nat")
                && chain.hook.as_deref() == Some("postrouting");
            if is_base {
                bases.push((chain.family, chain.table, chain.name));
            }
        }
        if let Some(rule) = item.rule.filter(|rule| rule.table != TABLE) {
            let read = Rule {
                conditions: rule.expr.iter().filter_map(condition).collect(),
                does: does(&rule.expr),
                handle: rule.handle,
            };
            let id = (rule.family, rule.table, rule.chain);
            chains.entry(id).or_default().push(read);
        }
    }
    (bases, chains)
}

fn does(expressions: &[Value]) -> Does {
    let mut does = Does::Nothing;
    for expression in expressions {
        let xt = expression.get("xt").and_then(|xt| {
            let is_target = xt.get("type")?.as_str()? == "target";
            xt.get("name")?.as_str().filter(|_| is_target)
        });
        let rewrites = ["masquerade", "snat"]
            .iter()
            .any(|word| expression.get(word).is_some());
        let stops = ["accept", "return", "drop", "reject"]
            .iter()
            .any(|word| expression.get(word).is_some());
        if rewrites || matches!(xt, Some("MASQUERADE" | "SNAT" | "NETMAP")) {
            does = Does::Rewrite;
        } else if stops {
            does = Does::Stop;
        }
        for lead in ["jump", "goto"] {
            let target = expression.get(lead).and_then(|lead| lead.get("target"));
            if let Some(target) = target.and_then(Value::as_str) {
                does = Does::Lead([target.to_owned()].into());
            }
        }
        if let Some(map) = expression.get("vmap") {
            let mut texts = Vec::new();
            super::listed::all_texts(map, 0, &mut texts);
            does = Does::Lead(texts.into_iter().map(str::to_owned).collect());
        }
    }
    does
}

/// `None` for what is no condition.
fn condition(expression: &Value) -> Option<Condition> {
    if let Some(xt) = expression.get("xt") {
        let is_match = xt.get("type").and_then(Value::as_str) == Some("match");
        return is_match.then_some(Condition::Unknown);
    }
    if expression.get("vmap").is_some() {
        return Some(Condition::Some);
    }
    let matched = expression.get("match")?;
    let (left, right) = (matched.get("left")?, matched.get("right")?);
    let is = match matched.get("op").and_then(Value::as_str) {
        Some("==" | "in") => true,
        Some("!=") => false,
        _ => return Some(Condition::Unknown),
    };
    if let Some(key) = left.get("meta").and_then(|meta| meta.get("key")) {
        let mut texts = Vec::new();
        super::listed::all_texts(right, 0, &mut texts);
        let names = || Names {
            names: texts.iter().map(|text| (*text).to_owned()).collect(),
            is,
        };
        return Some(match key.as_str() {
            Some("iifname" | "iif") => Condition::Inward(names()),
            Some("oifname" | "oif") => Condition::Outward(names()),
            Some("nfproto") if is => Condition::Family(right.as_str() == Some("ipv4")),
            Some("l4proto" | "length" | "pkttype") => Condition::Some,
            _ => Condition::Unknown,
        });
    }
    let payload = left.get("payload")?;
    let text = |of: &str| payload.get(of).and_then(Value::as_str);
    let v4 = match text("protocol") {
        Some("ip") => true,
        Some("ip6") => false,
        Some("tcp" | "udp" | "icmp" | "icmpv6" | "th" | "sctp") => return Some(Condition::Some),
        _ => return Some(Condition::Unknown),
    };
    let end = text("field");
    let Some(nets) = nets(right) else {
        return Some(Condition::Unknown);
    };
    let nets = Nets { nets, is };
    let none = nets.nets.iter().any(|net| net.addr().is_ipv4() != v4);
    Some(match end {
        _ if none => Condition::Unknown,
        Some("saddr") => Condition::Source(nets),
        Some("daddr") => Condition::Destination(nets),
        _ => Condition::Some,
    })
}

/// The networks that a value stands for; `None` where they aren't listed there.
fn nets(value: &Value) -> Option<Vec<IpNet>> {
    if let Some(text) = value.as_str() {
        return Some(vec![net(text)?]);
    }
    if let Some(prefix) = value.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let address = prefix.get("addr")?.as_str()?.parse().ok()?;
        return Some(vec![IpNet::new(address, length).ok()?.trunc()]);
    }
    let set = value.get("set")?.as_array()?;
    let all: Option<Vec<Vec<IpNet>>> = set.iter().map(nets).collect();
    Some(all?.into_iter().flatten().collect())
}

fn net(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().map(|net| net.trunc());
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The NAT tables of the older iptables, as its `-save` prints them: IPv4's, and
/// behind a line `IPV6` those of IPv6.
fn read_legacy(text: &str, bases: &mut Vec<(String, String, String)>, chains: &mut Chains) {
    let mut family = "ip";
    let mut any = BTreeSet::new();
    for line in text.lines() {
        if line == "IPV6" {
            family = "ip6";
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["-A", chain, rest @ ..] = words.as_slice() {
            let id = (family.to_owned(), LEGACY.to_owned(), (*chain).to_owned());
            chains
                .entry(id)
                .or_default()
                .push(legacy_rule(rest, family == "ip"));
            any.insert(family);
        }
    }
    let base = |family: &&str| {
        let [family, table, chain] = [*family, LEGACY, "POSTROUTING"].map(str::to_owned);
        (family, table, chain)
    };
    bases.extend(any.iter().map(base));
}

/// Stands for the table of the older iptables, which nftables has none of.
const LEGACY: &str = "(legacy)";

fn legacy_rule(words: &[&str], v4: bool) -> Rule {
    let (mut conditions, mut does, mut is) = (Vec::new(), Does::Nothing, true);
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let value = match word {
            "!" => {
                is = false;
                continue;
            }
            _ => words.next().unwrap_or_default(),
        };
        let names = || Names {
            names: vec![value.to_owned()],
            is,
        };
        let nets = || {
            let net = net(value).filter(|net| net.addr().is_ipv4() == v4);
            net.map(|net| Nets {
                nets: vec![net],
                is,
            })
        };
        match word {
            "-i" => conditions.push(Condition::Inward(names())),
            "-o" => conditions.push(Condition::Outward(names())),
            "-s" => conditions.push(nets().map_or(Condition::Unknown, Condition::Source)),
            "-d" => conditions.push(nets().map_or(Condition::Unknown, Condition::Destination)),
            "-p" => conditions.push(Condition::Some),
            "-j" | "-g" => {
                does = match value {
                    "MASQUERADE" | "SNAT" | "NETMAP" => Does::Rewrite,
                    "ACCEPT" | "RETURN" | "DROP" => Does::Stop,
                    chain => Does::Lead([chain.to_owned()].into()),
                };
                // What follows says how.
                break;
            }
            "-m" if matches!(value, "tcp" | "udp" | "comment") => {}
            "--dport" | "--sport" => conditions.push(Condition::Some),
            "--comment" => {
                // A comment of several words is quoted.
                let mut last = value;
                while value.starts_with('"') && !last.ends_with('"') {
                    match words.next() {
                        Some(next) => last = next,
                        None => break,
                    }
                }
            }
            _ => conditions.push(Condition::Unknown),
        }
        is = true;
    }
    Rule {
        conditions,
        does,
        handle: None,
    }
}

fn told(
    (family, table, chain): &(String, String, String),
    handle: Option<u64>,
    what: Rewritten,
    overlay: &[IpNet],
) -> Rewriter {
    let v4 = family != "ip6";
    let program = if v4 { "iptables" } else { "ip6tables" };
    let exempt = |program: &str| {
        let nets = overlay.iter().filter(|net| net.addr().is_ipv4() == v4);
        let commands = nets.flat_map(|net| {
            ["-s", "-d"].map(|end| format!("{program} -t nat -I POSTROUTING {end} {net} -j ACCEPT"))
        });
        commands.collect::<Vec<_>>().join(" && ")
    };
    let (owner, command) = if table == LEGACY {
        let program = format!("{program}-legacy");
        (
            format!("the chain {chain} of {program}"),
            Some(exempt(&program)),
        )
    } else if table == "firewalld" {
        let zone = chain
            .strip_prefix("nat_POST_")
            .and_then(|rest| rest.strip_suffix("_allow"));
        let command = zone.filter(|zone| is_plain(zone)).map(|zone| {
            format!(
                "firewall-cmd --permanent --zone={zone} --remove-masquerade && firewall-cmd --reload"
            )
        });
        ("firewalld".to_owned(), command)
    } else if table == "nat" && family != "inet" && chain.chars().all(|c| !c.is_ascii_lowercase()) {
        (
            format!("the chain {chain} of {program}"),
            Some(exempt(program)),
        )
    } else if [family, table, chain]
        .into_iter()
        .all(|name| is_plain(name))
    {
        let command = handle
            .map(|handle| format!("nft delete rule {family} {table} {chain} handle {handle}"));
        (format!("the nftables table {family} {table}"), command)
    } else {
        let owner = "an nftables table with a name that isn't shown";
        (owner.to_owned(), None)
    };
    Rewriter {
        owner,
        what,
        command,
    }
}

/// A name goes into a command only where a shell takes it for nothing else.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests;
