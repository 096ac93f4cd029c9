//! Filters of others that drop what ours lets pass: that they do is counted
//! (`proto::filter::nft::Passage`), whose they are and what opens them is
//! concluded from the ruleset. None of them is ever changed.

mod listed;
mod rewriters;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use innermesh_proto::{
    filter::{
        Interface,
        nft::{Passage, TABLE},
    },
    limits,
};
use serde_json::Value;

use self::listed::{Listed, all_texts};
pub use self::rewriters::{Rewriter, Rewritten, rewriters};

/// Packets of one way and address family that somebody else's filter dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which way they went.
    pub passage: Passage,
    /// Whether they were IPv4's.
    pub v4: bool,
    /// How many, since our tables were made.
    pub packets: u64,
    /// Whose filters drop on that way, without a word of the tunnel. Empty
    /// where they name the tunnel's interface: then they are meant so.
    pub by: Vec<Other>,
}

/// A filter of somebody else's that drops.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Other {
    /// Whose it is.
    pub owner: Owner,
    /// The command that has it let the tunnel's packets pass; `None` where
    /// there is no such command.
    pub command: Option<String>,
}

/// Whose a filter is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// ufw's chains.
    Ufw,
    /// firewalld's table.
    Firewalld,
    /// The chain `FORWARD`, to which Docker gives the policy `drop`.
    Docker,
    /// Another chain of iptables.
    Iptables(&'static str),
    /// A table of nftables.
    Nftables(String),
    /// A filter that isn't found in nftables.
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ufw => f.write_str("ufw"),
            Self::Firewalld => f.write_str("firewalld"),
            Self::Docker => f.write_str("Docker's policy for forwarded packets"),
            Self::Iptables(chain) => write!(f, "the chain {chain} of iptables"),
            Self::Nftables(table) => write!(f, "the nftables table {table}"),
            Self::Unknown => f.write_str("a filter that nftables doesn't list"),
        }
    }
}

/// The name of firewalld's table.
const FIREWALLD: &str = "firewalld";

/// What others dropped, of two readings of our counters: the second may be
/// later than the first, so that no packet on its way counts as dropped.
pub fn missing(
    before: &BTreeMap<String, u64>,
    behind: &BTreeMap<String, u64>,
) -> BTreeMap<(Passage, bool), u64> {
    let mut found = BTreeMap::new();
    for passage in Passage::ALL {
        for v4 in [true, false] {
            let [first, last] = passage.counters(v4);
            let packets = |from: &BTreeMap<String, u64>, name| from.get(name).copied();
            let (Some(passed), Some(arrived)) = (packets(before, &first), packets(behind, &last))
            else {
                continue;
            };
            if passed > arrived {
                found.insert((passage, v4), passed - arrived);
            }
        }
    }
    found
}

/// Whose filters they were, by what `nft -j list ruleset` prints; `legacy`
/// where the older tables of iptables are in use, which it doesn't list.
pub fn conclude(
    missing: &BTreeMap<(Passage, bool), u64>,
    ruleset: &str,
    legacy: bool,
    tunnel: &Interface,
) -> Vec<Lost> {
    let ruleset = Ruleset::parse(ruleset).unwrap_or_default();
    let lost = missing.iter().map(|((passage, v4), packets)| Lost {
        passage: *passage,
        v4: *v4,
        packets: *packets,
        by: ruleset.droppers(*passage, *v4, legacy, tunnel),
    });
    lost.collect()
}

/// Filters that drop what a gateway forwards unless they are told otherwise; none
/// where they name the tunnel.
pub fn forward_droppers(ruleset: &str, tunnel: &Interface) -> Vec<Lost> {
    let Some(ruleset) = Ruleset::parse(ruleset) else {
        return Vec::new();
    };
    let ways = [true, false].map(|v4| Lost {
        passage: Passage::Through,
        v4,
        packets: 0,
        by: ruleset.policies(v4, tunnel),
    });
    ways.into_iter()
        .filter(|lost| !lost.by.is_empty())
        .collect()
}

/// All chains of others.
#[derive(Debug, Default)]
struct Ruleset(BTreeMap<ChainId, Chain>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ChainId {
    family: String,
    table: String,
    name: String,
}

#[derive(Debug, Default)]
struct Chain {
    hook: Option<String>,
    drops: bool,
    /// Whether it drops what none of its rules decides.
    closed: bool,
    /// Interfaces that packets come in by or go out by, as rules name them.
    inward: BTreeSet<String>,
    outward: BTreeSet<String>,
    /// Chains of the same table that it leads to.
    leads_to: BTreeSet<String>,
}

impl Ruleset {
    fn parse(text: &str) -> Option<Self> {
        let listed = Listed::parse(text)?;
        let mut chains: BTreeMap<ChainId, Chain> = BTreeMap::new();
        for item in listed.nftables {
            if let Some(told) = item.chain.filter(|told| told.table != TABLE) {
                let id = ChainId {
                    family: told.family,
                    table: told.table,
                    name: told.name,
                };
                let chain = chains.entry(id).or_default();
                chain.hook = told.hook.filter(|_| told.kind.as_deref() == Some("filter"));
                chain.closed |= told.policy.as_deref() == Some("drop");
                chain.drops |= chain.closed;
            }
            if let Some(rule) = item.rule.filter(|rule| rule.table != TABLE) {
                let id = ChainId {
                    family: rule.family,
                    table: rule.table,
                    name: rule.chain,
                };
                chains.entry(id).or_default().take(&rule.expr);
            }
        }
        Some(Self(chains))
    }

    fn droppers(&self, passage: Passage, v4: bool, legacy: bool, tunnel: &Interface) -> Vec<Other> {
        let hook = match passage {
            Passage::In => "input",
            Passage::Through => "forward",
            Passage::Out => "output",
        };
        let concerns = |family: &str| family == "inet" || family == if v4 { "ip" } else { "ip6" };
        let mut found = BTreeSet::new();
        let mut meant = false;
        for (id, chain) in &self.0 {
            if chain.hook.as_deref() != Some(hook) || !concerns(&id.family) {
                continue;
            }
            let all = self.reached(id);
            if !all.values().any(|chain| chain.drops) {
                continue;
            }
            let names = |of: fn(&Chain) -> &BTreeSet<String>| {
                let mut all = all.values().flat_map(|chain| of(chain));
                all.any(|name| is_named(name, tunnel))
            };
            let named = match passage {
                Passage::In => names(|chain| &chain.inward),
                Passage::Out => names(|chain| &chain.outward),
                Passage::Through => names(|chain| &chain.inward) && names(|chain| &chain.outward),
            };
            // Who gives the tunnel a zone of firewalld decides all ways by that.
            if named || (id.table == FIREWALLD && self.firewalld_names(id, tunnel)) {
                meant = true;
                continue;
            }
            let is_ufw = all.keys().any(|name| name.starts_with("ufw"));
            let has = |name: &str| {
                let id = ChainId {
                    name: name.to_owned(),
                    ..id.clone()
                };
                self.0.contains_key(&id)
            };
            found.insert(other(id, passage, is_ufw, has("DOCKER-USER"), tunnel));
        }
        if found.is_empty() && !meant {
            found.insert(if legacy {
                iptables("-legacy", passage, v4, tunnel)
            } else {
                Other {
                    owner: Owner::Unknown,
                    command: None,
                }
            });
        }
        found.into_iter().take(limits::OTHER_FILTERS).collect()
    }

    /// Whether firewalld's table of this family names the tunnel's interface.
    fn firewalld_names(&self, of: &ChainId, tunnel: &Interface) -> bool {
        let same = |id: &ChainId| (&id.family, &id.table) == (&of.family, &of.table);
        let chains = self.0.iter().filter(|(id, _)| same(id));
        let mut names = chains.flat_map(|(_, chain)| chain.inward.iter().chain(&chain.outward));
        names.any(|name| is_named(name, tunnel))
    }

    /// Chains that drop what is forwarded by their policy, without a word of the
    /// tunnel.
    fn policies(&self, v4: bool, tunnel: &Interface) -> Vec<Other> {
        let family = if v4 { "ip" } else { "ip6" };
        let closed = self.0.iter().filter(|(id, chain)| {
            let concerns = id.family == "inet" || id.family == family;
            concerns && chain.closed && chain.hook.as_deref() == Some("forward")
        });
        let silent = closed.filter(|(id, _)| {
            let all = self.reached(id);
            let names = |of: fn(&Chain) -> &BTreeSet<String>| {
                let mut all = all.values().flat_map(|chain| of(chain));
                all.any(|name| is_named(name, tunnel))
            };
            !names(|chain| &chain.inward) && !names(|chain| &chain.outward)
        });
        let told = silent.map(|(id, _)| {
            let is_ufw = self.reached(id).keys().any(|name| name.starts_with("ufw"));
            let docker = ChainId {
                name: "DOCKER-USER".to_owned(),
                ..id.clone()
            };
            let docker = self.0.contains_key(&docker);
            other(id, Passage::Through, is_ufw, docker, tunnel)
        });
        told.take(limits::OTHER_FILTERS).collect()
    }

    /// A base chain and all that it leads to, by name.
    fn reached(&self, base: &ChainId) -> BTreeMap<&str, &Chain> {
        let mut reached = BTreeMap::new();
        let mut next = vec![base.name.as_str()];
        while let Some(name) = next.pop() {
            let id = ChainId {
                name: name.to_owned(),
                ..base.clone()
            };
            if let Some((id, chain)) = self.0.get_key_value(&id)
                && reached.insert(id.name.as_str(), chain).is_none()
            {
                next.extend(chain.leads_to.iter().map(String::as_str));
            }
        }
        reached
    }
}

impl Chain {
    fn take(&mut self, expressions: &[Value]) {
        for expression in expressions {
            self.drops |= ["drop", "reject"]
                .iter()
                .any(|verdict| expression.get(verdict).is_some());
            for lead in ["jump", "goto"] {
                let target = expression.get(lead).and_then(|lead| lead.get("target"));
                self.leads_to
                    .extend(target.and_then(Value::as_str).map(str::to_owned));
            }
            let Some(matched) = expression.get("match") else {
                self.take_map(expression);
                continue;
            };
            let (left, right) = (matched.get("left"), matched.get("right"));
            let key = left.and_then(|left| left.get("meta")?.get("key")?.as_str());
            let names = match key {
                Some("iifname" | "iif") => &mut self.inward,
                Some("oifname" | "oif") => &mut self.outward,
                _ => continue,
            };
            let mut texts = Vec::new();
            right
                .into_iter()
                .for_each(|right| all_texts(right, 0, &mut texts));
            names.extend(texts.into_iter().map(str::to_owned));
        }
    }

    /// A verdict map, such as firewalld's of interfaces to zones.
    fn take_map(&mut self, expression: &Value) {
        let Some(map) = expression.get("vmap") else {
            return;
        };
        let mut texts = Vec::new();
        all_texts(map, 0, &mut texts);
        self.leads_to.extend(texts.iter().map(|t| (*t).to_owned()));
        self.inward.extend(texts.iter().map(|t| (*t).to_owned()));
        self.outward.extend(texts.iter().map(|t| (*t).to_owned()));
    }
}

/// Whether a rule's word for interfaces is this one: nftables writes `im*` for
/// all that begin so.
fn is_named(name: &str, tunnel: &Interface) -> bool {
    match name.strip_suffix('*') {
        Some(begin) => !begin.is_empty() && tunnel.as_str().starts_with(begin),
        None => name == tunnel.as_str(),
    }
}

fn other(id: &ChainId, passage: Passage, is_ufw: bool, docker: bool, tunnel: &Interface) -> Other {
    let of_iptables = id.table == "filter" && id.name.chars().all(|c| c.is_ascii_uppercase());
    if id.table == FIREWALLD {
        return Other {
            owner: Owner::Firewalld,
            command: Some(format!(
                "firewall-cmd --permanent --zone=trusted --add-interface={tunnel} && firewall-cmd \
                 --reload"
            )),
        };
    }
    if of_iptables && is_ufw {
        let command = match passage {
            Passage::In => format!("ufw allow in on {tunnel}"),
            Passage::Out => format!("ufw allow out on {tunnel}"),
            Passage::Through => {
                format!("ufw route allow in on {tunnel} && ufw route allow out on {tunnel}")
            }
        };
        return Other {
            owner: Owner::Ufw,
            command: Some(command),
        };
    }
    let v4 = id.family == "ip";
    if of_iptables && docker && passage == Passage::Through {
        let program = if v4 { "iptables" } else { "ip6tables" };
        return Other {
            owner: Owner::Docker,
            command: Some(format!(
                "{program} -I DOCKER-USER -i {tunnel} -j ACCEPT && {program} -I DOCKER-USER -o \
                 {tunnel} -j ACCEPT"
            )),
        };
    }
    if of_iptables && id.family != "inet" {
        return iptables("", passage, v4, tunnel);
    }
    nftables(id, passage, tunnel)
}

fn iptables(variant: &str, passage: Passage, v4: bool, tunnel: &Interface) -> Other {
    let program = format!("{}{variant}", if v4 { "iptables" } else { "ip6tables" });
    let (chain, ways): (_, &[&str]) = match passage {
        Passage::In => ("INPUT", &["-i"]),
        Passage::Through => ("FORWARD", &["-i", "-o"]),
        Passage::Out => ("OUTPUT", &["-o"]),
    };
    let commands: Vec<String> = ways
        .iter()
        .map(|way| format!("{program} -I {chain} {way} {tunnel} -j ACCEPT"))
        .collect();
    Other {
        owner: Owner::Iptables(chain),
        command: Some(commands.join(" && ")),
    }
}

/// A name goes into a command only where a shell takes it for nothing else.
fn nftables(id: &ChainId, passage: Passage, tunnel: &Interface) -> Other {
    let plain = |name: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (1..=64).contains(&name.len())
            && name.bytes().all(plain)
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    if ![&id.family, &id.table, &id.name].into_iter().all(plain) {
        return Other {
            owner: Owner::Nftables("with a name that isn't shown".to_owned()),
            command: None,
        };
    }
    let ways: &[&str] = match passage {
        Passage::In => &["iifname"],
        Passage::Through => &["iifname", "oifname"],
        Passage::Out => &["oifname"],
    };
    let ChainId {
        family,
        table,
        name,
    } = id;
    let commands: Vec<String> = ways
        .iter()
        .map(|way| format!("nft insert rule {family} {table} {name} {way} {tunnel} accept"))
        .collect();
    Other {
        owner: Owner::Nftables(format!("{family} {table}")),
        command: Some(commands.join(" && ")),
    }
}

#[cfg(test)]
mod tests;
