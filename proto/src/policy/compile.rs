//! From a policy to what one node enforces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    directory::{Directory, ServicePorts, Unknown},
    error::PolicyError,
    model::{Policy, Subject, Target},
    resolve::{Reached, Resolver, hosts},
};
use crate::{
    filter::access::{AccessPlan, AccessRule, Ports},
    id::NodeId,
    limits,
};

/// The label of what devices reach of their gateway, whatever a policy says.
pub const GATEWAY: &str = "gateway";
/// The label of what devices reach of services without a rule.
pub const SERVICES: &str = "services";
/// The label of the networks that devices were given.
pub const ROUTES: &str = "routes";
/// The label of what devices send to the internet that send everything by gateways.
pub const FULL_TUNNEL: &str = "full_tunnel";

/// The node that enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub me: NodeId,
    /// Its overlay addresses.
    pub own: BTreeSet<IpAddr>,
    /// Whether it forwards for devices and networks.
    pub is_gateway: bool,
    /// Whether it forwards to the internet.
    pub is_exit: bool,
    /// What it serves to its devices: names, the CA's page, ACME.
    pub served: BTreeSet<Ports>,
}

/// What `place` enforces: flows to itself and, on a gateway, those from and to its
/// devices and the networks behind it.
pub fn compile(policy: &Policy, directory: &Directory, place: &Place) -> AccessPlan {
    let mut plan = build(policy, directory, Unknown::Nothing, &place.served);
    if plan.looks_at_nothing() {
        return AccessPlan::open();
    }
    let mut mine = BTreeSet::new();
    if place.is_gateway {
        for device in directory.devices.values() {
            if device.gateways.contains(&place.me) {
                mine.extend(hosts(&device.addresses));
            }
        }
        for (net, gateways) in &directory.routes {
            if gateways.contains(&place.me) {
                mine.insert(*net);
            }
        }
    }
    let own = hosts(&place.own).chain(hosts(&directory.resolvers));
    let mut here: BTreeSet<IpNet> = own.chain(mine.iter().copied()).collect();
    if place.is_exit {
        here.extend(directory.internet());
    }
    restrict(&mut plan, &mine, &here);
    if !plan.is_bounded() {
        // Such a policy is refused when it is set, with room for what is added to
        // the mesh later: this allows less than it says, and never more.
        plan.rules.clear();
        plan.sets.clear();
    }
    plan
}

/// What a policy says of all flows, wherever it is enforced.
pub fn everywhere(policy: &Policy, directory: &Directory) -> AccessPlan {
    build(policy, directory, Unknown::Nothing, &usual())
}

/// What agents serve to devices unless they are configured otherwise.
pub(super) fn usual() -> BTreeSet<Ports> {
    let tcp = |port| Ports::Tcp(port, port);
    [tcp(53), Ports::Udp(53, 53), tcp(7443), tcp(7480)].into()
}

pub(super) fn build(
    policy: &Policy,
    directory: &Directory,
    unknown: Unknown,
    served: &BTreeSet<Ports>,
) -> AccessPlan {
    let resolver = Resolver {
        policy,
        directory,
        unknown,
    };
    let mut builder = Builder {
        resolver,
        plan: AccessPlan {
            members_open: policy.default.members_open,
            has_others: !directory.devices.is_empty() || !directory.routes.is_empty(),
            ..AccessPlan::default()
        },
        known: BTreeMap::new(),
        sources: BTreeMap::new(),
        addresses: BTreeMap::new(),
        targets: BTreeMap::new(),
    };
    for device in directory.devices.values() {
        builder.plan.devices.extend(hosts(&device.addresses));
    }
    builder.gateways(served);
    for rule in &policy.rules {
        builder.rule(&rule.label(), &rule.from, &rule.to);
    }
    if policy.default.devices_reach_services {
        builder.services();
    }
    builder.routes();
    builder.full_tunnels();
    builder.plan
}

/// Whether a policy stays within what a node enforces.
///
/// # Errors
/// [`PolicyError::TooWide`].
pub(super) fn check_width(policy: &Policy, directory: &Directory) -> Result<(), PolicyError> {
    let plan = build(policy, directory, Unknown::All, &usual());
    // A gateway has each rule twice: for what it sends on, and for what it is sent.
    let half = plan.rules.len() * 2 <= limits::ACCESS_RULES;
    let addresses: usize = plan.sets.iter().map(BTreeSet::len).sum();
    if half && addresses * 2 <= limits::ACCESS_ADDRESSES {
        return Ok(());
    }
    Err(PolicyError::TooWide)
}

struct Builder<'p> {
    resolver: Resolver<'p>,
    plan: AccessPlan,
    /// Sets by what is in them.
    known: BTreeMap<BTreeSet<IpNet>, usize>,
    sources: BTreeMap<&'p Subject, Option<usize>>,
    /// All that a subject names, which most targets differ from by ports alone.
    addresses: BTreeMap<&'p Subject, Option<usize>>,
    targets: BTreeMap<&'p Target, Vec<(BTreeSet<Ports>, usize)>>,
}

impl<'p> Builder<'p> {
    fn rule(&mut self, label: &str, from: &'p [Subject], to: &'p [Target]) {
        let from: BTreeSet<usize> = from.iter().filter_map(|one| self.source(one)).collect();
        let mut by_ports: BTreeMap<BTreeSet<Ports>, BTreeSet<usize>> = BTreeMap::new();
        for target in to {
            for (ports, set) in self.target(target) {
                by_ports.entry(ports).or_default().insert(set);
            }
        }
        for (ports, to) in by_ports {
            self.add(label, from.clone(), to, ports);
        }
    }

    fn add(
        &mut self,
        label: &str,
        from: BTreeSet<usize>,
        to: BTreeSet<usize>,
        ports: BTreeSet<Ports>,
    ) {
        if !from.is_empty() && !to.is_empty() && !ports.is_empty() {
            self.plan.rules.push(AccessRule {
                label: label.to_owned(),
                from,
                to,
                ports,
            });
        }
    }

    /// Each device and what its gateways serve it.
    fn gateways(&mut self, served: &BTreeSet<Ports>) {
        let directory = self.resolver.directory;
        for node in directory.nodes.values() {
            let devices = directory.devices.values();
            let devices = devices.filter(|device| device.gateways.contains(&node.id));
            let from = devices
                .flat_map(|device| hosts(&device.addresses))
                .collect();
            let to = hosts(&node.addresses).chain(hosts(&directory.resolvers));
            let to = to.collect();
            let (from, to) = (self.set(from), self.set(to));
            self.add(
                GATEWAY,
                from.into_iter().collect(),
                to.into_iter().collect(),
                served.clone(),
            );
        }
    }

    fn services(&mut self) {
        let directory = self.resolver.directory;
        let mut reached = Reached::new();
        let services = directory.services.values();
        for instance in services.flat_map(|service| &service.instances) {
            let ports = match (instance.ports, self.resolver.unknown) {
                (ServicePorts::Known(ports), _) => ports,
                (ServicePorts::Unknown, Unknown::All) => Ports::All,
                (ServicePorts::Unknown, Unknown::Nothing) => continue,
            };
            let addresses = hosts(&instance.addresses);
            reached.entry([ports].into()).or_default().extend(addresses);
        }
        let from: BTreeSet<usize> = self.set(self.plan.devices.clone()).into_iter().collect();
        for (ports, to) in reached {
            let to = self.set(to).into_iter().collect();
            self.add(SERVICES, from.clone(), to, ports);
        }
    }

    /// Networks that devices were given when they were added.
    fn routes(&mut self) {
        let directory = self.resolver.directory;
        let mut alike: BTreeMap<&BTreeSet<IpNet>, BTreeSet<IpNet>> = BTreeMap::new();
        for device in directory.devices.values() {
            let from = alike.entry(&device.routes).or_default();
            from.extend(hosts(&device.addresses));
        }
        for (nets, from) in alike {
            let (from, to) = (self.set(from), self.set(nets.clone()));
            let all = [Ports::All].into();
            self.add(
                ROUTES,
                from.into_iter().collect(),
                to.into_iter().collect(),
                all,
            );
        }
    }

    /// Devices that were added to send everything by their gateways.
    fn full_tunnels(&mut self) {
        let directory = self.resolver.directory;
        if directory.exits.is_empty() {
            return;
        }
        let devices = directory.devices.values();
        let devices = devices.filter(|device| device.full_tunnel);
        let from = devices
            .flat_map(|device| hosts(&device.addresses))
            .collect();
        let (from, to) = (self.set(from), self.set(directory.internet()));
        self.add(
            FULL_TUNNEL,
            from.into_iter().collect(),
            to.into_iter().collect(),
            [Ports::All].into(),
        );
    }

    fn source(&mut self, subject: &'p Subject) -> Option<usize> {
        if let Some(known) = self.sources.get(subject) {
            return *known;
        }
        let set = self.set(self.resolver.sources(subject));
        self.sources.insert(subject, set);
        set
    }

    fn target(&mut self, target: &'p Target) -> Vec<(BTreeSet<Ports>, usize)> {
        if let Some(ports) = &target.ports {
            let set = self.addresses(&target.subject);
            return set.map(|set| (ports.clone(), set)).into_iter().collect();
        }
        if let Some(known) = self.targets.get(target) {
            return known.clone();
        }
        let reached = self.resolver.target(target).into_iter();
        let sets: Vec<_> = reached
            .filter_map(|(ports, nets)| Some((ports, self.set(nets)?)))
            .collect();
        self.targets.insert(target, sets.clone());
        sets
    }

    fn addresses(&mut self, subject: &'p Subject) -> Option<usize> {
        if let Some(known) = self.addresses.get(subject) {
            return *known;
        }
        let set = self.set(self.resolver.addresses(subject));
        self.addresses.insert(subject, set);
        set
    }

    /// The number of a set; none for one without anything.
    fn set(&mut self, nets: BTreeSet<IpNet>) -> Option<usize> {
        set(&mut self.known, &mut self.plan.sets, nets)
    }
}

fn set(
    known: &mut BTreeMap<BTreeSet<IpNet>, usize>,
    sets: &mut Vec<BTreeSet<IpNet>>,
    nets: BTreeSet<IpNet>,
) -> Option<usize> {
    if nets.is_empty() {
        return None;
    }
    if let Some(number) = known.get(&nets) {
        return Some(*number);
    }
    let number = sets.len();
    sets.push(nets.clone());
    known.insert(nets, number);
    Some(number)
}

/// Leaves what is about flows from `mine` or to `here`.
fn restrict(plan: &mut AccessPlan, mine: &BTreeSet<IpNet>, here: &BTreeSet<IpNet>) {
    let sets = std::mem::take(&mut plan.sets);
    let rules = std::mem::take(&mut plan.rules);
    let (mine, here) = (Within::new(mine), Within::new(here));
    let mut parts: BTreeMap<(usize, Part), Option<usize>> = BTreeMap::new();
    let mut known = BTreeMap::new();
    let mut part = |plan: &mut AccessPlan, all: &BTreeSet<usize>, which: Part| -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for number in all {
            let part = *parts.entry((*number, which)).or_insert_with(|| {
                let nets = sets.get(*number)?;
                let nets = match which {
                    Part::All => nets.clone(),
                    Part::Mine => mine.part_of(nets),
                    Part::Here => here.part_of(nets),
                };
                set(&mut known, &mut plan.sets, nets)
            });
            found.extend(part);
        }
        found
    };
    for rule in rules {
        for (from, to) in [(Part::Mine, Part::All), (Part::All, Part::Here)] {
            let from = part(plan, &rule.from, from);
            let to = if from.is_empty() {
                continue;
            } else {
                part(plan, &rule.to, to)
            };
            if !to.is_empty() {
                plan.rules.push(AccessRule {
                    from,
                    to,
                    label: rule.label.clone(),
                    ports: rule.ports.clone(),
                });
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    All,
    Mine,
    Here,
}

/// Networks in which others are looked for.
struct Within<'n> {
    all: &'n BTreeSet<IpNet>,
    wide: Vec<IpNet>,
}

impl<'n> Within<'n> {
    fn new(all: &'n BTreeSet<IpNet>) -> Self {
        let is_wide = |net: &&IpNet| net.prefix_len() < net.max_prefix_len();
        let wide = all.iter().filter(is_wide).copied().collect();
        Self { all, wide }
    }

    /// What of `nets` lies in these.
    fn part_of(&self, nets: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        let mut found = BTreeSet::new();
        for net in nets {
            if self.all.contains(net) || self.wide.iter().any(|wide| wide.contains(net)) {
                found.insert(*net);
            } else if net.prefix_len() < net.max_prefix_len() {
                found.extend(self.all.iter().filter(|own| net.contains(*own)));
            }
        }
        found
    }
}
