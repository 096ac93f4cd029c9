//! Whether a policy lets one reach another, and by which rule.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use ipnet::IpNet;

use super::{
    compile::{FULL_TUNNEL, GATEWAY, ROUTES, SERVICES, build, usual},
    directory::{Directory, Unknown},
    model::{Policy, Rule, Subject, Target, Verdict},
    resolve::Resolver,
};
use crate::filter::access::{AccessPlan, AccessRule, Ports};

/// Who reaches what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    pub from: IpNet,
    pub to: IpNet,
    pub ports: Ports,
}

/// What is true of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub ends: Ends,
    /// None where nothing allows it.
    pub by: Option<By>,
}

/// What allows something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// `members = "open"`.
    Members,
    /// A rule by its place among the rules, from 0, and its counter's label.
    Rule(usize, String),
    /// What devices reach of their gateway.
    Gateway,
    /// `devices = "services"`.
    Services,
    /// The networks that a device was given.
    Routes,
    /// That a device sends everything by its gateways.
    FullTunnel,
}

impl By {
    /// The label of its counter; what members do isn't counted.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Members => None,
            Self::Rule(_, label) => Some(label),
            Self::Gateway => Some(GATEWAY),
            Self::Services => Some(SERVICES),
            Self::Routes => Some(ROUTES),
            Self::FullTunnel => Some(FULL_TUNNEL),
        }
    }
}

/// What a policy says of each pair that `from` and `to` name; at most `most` of
/// them, and none where one of the two names nothing.
pub fn explain(
    policy: &Policy,
    directory: &Directory,
    from: &Subject,
    to: &Target,
    most: usize,
) -> Vec<Explained> {
    let judge = Judge::new(policy, directory, Unknown::Nothing);
    let ends = judge.ends(from, to, most).unwrap_or_else(|first| first);
    let explained = ends.into_iter().map(|ends| Explained {
        by: judge.verdict(&ends, Verdict::Allow),
        ends,
    });
    explained.collect()
}

/// Judges pairs by all rules of a policy.
pub(super) struct Judge<'p> {
    policy: &'p Policy,
    resolver: Resolver<'p>,
    plan: AccessPlan,
    networks: &'p BTreeSet<IpNet>,
    /// Of each set, what is no single address.
    wide: Vec<Vec<IpNet>>,
    /// Of addresses, in which sets they lie, as a whole or in part.
    within: RefCell<BTreeMap<(IpNet, bool), BTreeSet<usize>>>,
}

impl<'p> Judge<'p> {
    pub fn new(policy: &'p Policy, directory: &'p Directory, unknown: Unknown) -> Self {
        let plan = build(policy, directory, unknown, &usual());
        let wide = plan.sets.iter().map(|set| {
            let wide = set.iter().filter(|net| !is_host(net));
            wide.copied().collect()
        });
        Self {
            wide: wide.collect(),
            policy,
            resolver: Resolver {
                policy,
                directory,
                unknown,
            },
            plan,
            networks: &directory.networks,
            within: RefCell::default(),
        }
    }

    /// All pairs that are named.
    ///
    /// # Errors
    /// The first ones, where there are more than `most`.
    pub fn ends(&self, from: &Subject, to: &Target, most: usize) -> Result<Vec<Ends>, Vec<Ends>> {
        let sources = self.resolver.sources(from);
        let reached = self.resolver.target(to);
        let mut ends = Vec::new();
        for from in &sources {
            for (ports, nets) in &reached {
                for to in nets.iter().filter(|to| is_v4(to) == is_v4(from)) {
                    for ports in ports {
                        if ends.len() >= most {
                            return Err(ends);
                        }
                        ends.push(Ends {
                            from: *from,
                            to: *to,
                            ports: *ports,
                        });
                    }
                }
            }
        }
        Ok(ends)
    }

    /// What allows a pair: for [`Verdict::Allow`] all of it, for [`Verdict::Deny`]
    /// any part of it.
    pub fn verdict(&self, ends: &Ends, verdict: Verdict) -> Option<By> {
        let whole = verdict == Verdict::Allow;
        if self.plan.members_open && self.is_between_members(ends, whole) {
            return Some(By::Members);
        }
        let (from, to) = (self.sets(&ends.from, whole), self.sets(&ends.to, whole));
        let about: Vec<&AccessRule> = self
            .plan
            .rules
            .iter()
            .filter(|rule| !rule.from.is_disjoint(&from) && !rule.to.is_disjoint(&to))
            .collect();
        let rule = if whole {
            first_of_whole(&about, ends.ports)
        } else {
            about.iter().copied().find(|rule| {
                let mut all = rule.ports.iter();
                all.any(|ports| overlap(*ports, ends.ports))
            })
        }?;
        Some(match &*rule.label {
            GATEWAY => By::Gateway,
            SERVICES => By::Services,
            ROUTES => By::Routes,
            FULL_TUNNEL => By::FullTunnel,
            label => {
                let labelled = |rule: &Rule| rule.label() == label;
                let number = self.policy.rules.iter().position(labelled);
                By::Rule(number.unwrap_or_default(), label.to_owned())
            }
        })
    }

    fn is_between_members(&self, ends: &Ends, whole: bool) -> bool {
        let networks = self.networks.iter();
        let within = |net: &IpNet| {
            let mut networks = networks.clone();
            networks.any(|all| all.contains(net) || !whole && net.contains(all))
        };
        // Devices are single addresses, of which a network is never nothing but some.
        let devices = &self.plan.devices;
        let is_device = |net: &IpNet| match (is_host(net), whole) {
            (true, _) => devices.contains(net),
            (false, true) => devices.iter().any(|device| net.contains(device)),
            (false, false) => false,
        };
        within(&ends.from) && !is_device(&ends.from) && !is_device(&ends.to)
    }

    /// The sets that a network lies in, or of which a part lies in it.
    fn sets(&self, net: &IpNet, whole: bool) -> BTreeSet<usize> {
        let mut known = self.within.borrow_mut();
        let sets = known.entry((*net, whole)).or_insert_with(|| {
            let holds = |(set, wide): &(&BTreeSet<IpNet>, &Vec<IpNet>)| {
                set.contains(net)
                    || wide.iter().any(|one| one.contains(net))
                    || !whole && !is_host(net) && set.iter().any(|one| net.contains(one))
            };
            let sets = self.plan.sets.iter().zip(&self.wide).enumerate();
            let sets = sets.filter(|(_, set)| holds(set));
            sets.map(|(number, _)| number).collect()
        });
        sets.clone()
    }
}

/// The rule by which the first part of the ports is allowed, if all of them are.
fn first_of_whole<'r>(rules: &[&'r AccessRule], ports: Ports) -> Option<&'r AccessRule> {
    let of = |ports: Ports| match ports {
        Ports::Tcp(first, last) => Some((true, first, last)),
        Ports::Udp(first, last) => Some((false, first, last)),
        Ports::All | Ports::Icmp => None,
    };
    let Some((tcp, first, last)) = of(ports) else {
        let covers = |rule: &&&AccessRule| match ports {
            // A rule for some ports lets echo requests pass.
            Ports::Icmp => true,
            _ => rule.ports.contains(&Ports::All),
        };
        return rules.iter().find(covers).copied();
    };
    let covering = |port: u16| {
        rules.iter().copied().find(|rule| {
            rule.ports.iter().any(|ports| match of(*ports) {
                Some((other, first, last)) => other == tcp && (first..=last).contains(&port),
                None => *ports == Ports::All,
            })
        })
    };
    // What is true of ports changes only where a rule's begin or end.
    let mut edges = BTreeSet::from([first]);
    for ports in rules.iter().flat_map(|rule| &rule.ports) {
        if let Some((_, begin, end)) = of(*ports) {
            edges.insert(begin);
            edges.extend(end.checked_add(1));
        }
    }
    let within = edges.range(first..=last);
    let mut found = None;
    for port in within {
        let rule = covering(*port)?;
        found.get_or_insert(rule);
    }
    found
}

fn overlap(one: Ports, other: Ports) -> bool {
    match (one, other) {
        (Ports::Tcp(a, b), Ports::Tcp(c, d)) | (Ports::Udp(a, b), Ports::Udp(c, d)) => {
            a <= d && c <= b
        }
        (Ports::Tcp(..), Ports::Udp(..)) | (Ports::Udp(..), Ports::Tcp(..)) => false,
        _ => true,
    }
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn is_v4(net: &IpNet) -> bool {
    net.addr().is_ipv4()
}
