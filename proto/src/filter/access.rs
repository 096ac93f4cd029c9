//! Who may reach what through the tunnel here, as addresses and ports: what a
//! policy says, compiled for one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use super::ranges::{self, Range, Ranges};
use crate::limits;

/// Which flows may pass. What no rule lets pass is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessPlan {
    /// Members reach members, and the networks behind gateways; rules are looked
    /// up for everything else.
    pub members_open: bool,
    /// Whether something that is no member may send by the tunnel: a device, or a
    /// host behind a gateway. Where nothing may, and members are open, no packet
    /// is looked at.
    pub has_others: bool,
    /// Addresses of devices: within the overlay's range, and no members.
    pub devices: BTreeSet<IpNet>,
    /// Sets of addresses, by which rules name whom they are about.
    pub sets: Vec<BTreeSet<IpNet>>,
    /// The first that fits a flow counts it.
    pub rules: Vec<AccessRule>,
}

/// Lets whatever is in a set of `from` reach `ports` of whatever is in a set of `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccessRule {
    /// Names its counter: letters, digits and `_`. Rules may share one.
    pub label: String,
    /// Indices of [`AccessPlan::sets`].
    pub from: BTreeSet<usize>,
    /// As `from`.
    pub to: BTreeSet<usize>,
    pub ports: BTreeSet<Ports>,
}

/// What may be reached of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// Each port of each protocol, those that have no ports too.
    All,
    /// From one to another.
    Tcp(u16, u16),
    Udp(u16, u16),
    /// Echo requests and nothing else; any other rule lets them pass, too.
    Icmp,
}

/// What a flow is for, by its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    Tcp(u16),
    Udp(u16),
    /// An echo request.
    Echo,
    /// Another protocol.
    Other,
}

impl Ports {
    /// Whether a flow is for them.
    pub fn contains(self, flow: Flow) -> bool {
        match (self, flow) {
            (Self::All, _) | (_, Flow::Echo) => true,
            (Self::Tcp(first, last), Flow::Tcp(port))
            | (Self::Udp(first, last), Flow::Udp(port)) => (first..=last).contains(&port),
            _ => false,
        }
    }
}

/// What lets a flow pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes<'p> {
    /// Members are open.
    Open,
    By(&'p AccessRule),
}

impl AccessPlan {
    /// What there is without a policy, devices and routed networks.
    pub fn open() -> Self {
        Self {
            members_open: true,
            ..Self::default()
        }
    }

    /// Whether it has nothing looked at.
    pub fn looks_at_nothing(&self) -> bool {
        self.members_open && !self.has_others
    }

    /// What lets a flow pass, in an overlay of these networks: rule by rule, as a
    /// packet filter that was compiled from it must.
    pub fn passes(
        &self,
        networks: &BTreeSet<IpNet>,
        from: IpAddr,
        to: IpAddr,
        flow: Flow,
    ) -> Option<Passes<'_>> {
        let within = |set: &BTreeSet<IpNet>, ip: IpAddr| set.iter().any(|net| net.contains(&ip));
        let is_member = within(networks, from) && !within(&self.devices, from);
        if self.members_open && is_member && !within(&self.devices, to) {
            return Some(Passes::Open);
        }
        let among = |sets: &BTreeSet<usize>, ip: IpAddr| {
            let mut sets = sets.iter().filter_map(|set| self.sets.get(*set));
            sets.any(|set| within(set, ip))
        };
        let mut rules = self.rules.iter();
        rules
            .find(|rule| {
                from.is_ipv4() == to.is_ipv4()
                    && rule.ports.iter().any(|ports| ports.contains(flow))
                    && among(&rule.from, from)
                    && among(&rule.to, to)
            })
            .map(Passes::By)
    }

    /// Whether it keeps every bound, and nothing in it means something else in a
    /// ruleset.
    pub fn is_bounded(&self) -> bool {
        let addresses: usize = self.sets.iter().map(BTreeSet::len).sum();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let named = |rule: &AccessRule| {
            let label = &rule.label;
            (1..=limits::ACCESS_LABEL_BYTES).contains(&label.len()) && label.bytes().all(plain)
        };
        addresses <= limits::ACCESS_ADDRESSES
            && self.rules.len() <= limits::ACCESS_RULES
            && self.rules.iter().all(named)
    }
}

/// Rules as they are looked up: by the addresses of one end, then of the other, then
/// by port. Addresses of which the same is true share what is looked up for them.
pub(super) struct Lookup<'p> {
    plan: &'p AccessPlan,
    v4: bool,
    /// The addresses of each set, in this family.
    sets: Vec<Ranges>,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    From,
    To,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::From => Self::To,
            Self::To => Self::From,
        }
    }

    fn sets(self, rule: &AccessRule) -> &BTreeSet<usize> {
        match self {
            Self::From => &rule.from,
            Self::To => &rule.to,
        }
    }
}

/// Disjoint ranges of addresses, rising, and the rules (rising) that are about them.
pub(super) type Addresses = Vec<(Range, Vec<usize>)>;

impl<'p> Lookup<'p> {
    pub fn new(plan: &'p AccessPlan, v4: bool) -> Self {
        let sets = plan.sets.iter().map(|set| ranges::of(set, v4)).collect();
        Self { plan, v4, sets }
    }

    pub fn is_v4(&self) -> bool {
        self.v4
    }

    /// The addresses that one of `rules` is about, at one end.
    pub fn addresses(&self, rules: impl Iterator<Item = usize>, end: End) -> Addresses {
        // By sets, of which an address is in few, and not by rules, of which each
        // may be about all.
        let mut of_set: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for number in rules {
            let Some(rule) = self.plan.rules.get(number) else {
                continue;
            };
            for set in end.sets(rule) {
                of_set.entry(*set).or_default().push(number);
            }
        }
        let used = of_set.keys();
        let used = used.filter_map(|set| Some((*set, self.sets.get(*set)?)));
        let atoms = ranges::atoms(used);
        let rules = |sets: &[usize]| -> Vec<usize> {
            let rules = sets.iter().filter_map(|set| of_set.get(set)).flatten();
            let rules: BTreeSet<usize> = rules.copied().collect();
            rules.into_iter().collect()
        };
        let mut known: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        let mut found: Addresses = Vec::new();
        for (range, sets) in atoms {
            let rules = known.entry(sets).or_insert_with_key(|sets| rules(sets));
            match found.last_mut() {
                // Neighbours that are alike are one.
                Some((last, before))
                    if before == rules && last.1.checked_add(1) == Some(range.0) =>
                {
                    last.1 = range.1;
                }
                _ => found.push((range, rules.clone())),
            }
        }
        found
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Tcp(0, u16::MAX) => f.write_str("tcp/*"),
            Self::Udp(0, u16::MAX) => f.write_str("udp/*"),
            Self::Tcp(first, last) if first == last => write!(f, "tcp/{first}"),
            Self::Udp(first, last) if first == last => write!(f, "udp/{first}"),
            Self::Tcp(first, last) => write!(f, "tcp/{first}-{last}"),
            Self::Udp(first, last) => write!(f, "udp/{first}-{last}"),
            Self::Icmp => f.write_str("icmp"),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Echo => f.write_str("icmp"),
            Self::Other => f.write_str("another protocol"),
        }
    }
}
