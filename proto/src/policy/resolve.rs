//! From the names of a policy to addresses and ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    directory::{Directory, ServicePorts, Unknown},
    model::{Policy, Subject, Target},
};
use crate::{filter::access::Ports, name::Label};

/// A policy, and what there is by its names.
pub(super) struct Resolver<'p> {
    pub policy: &'p Policy,
    pub directory: &'p Directory,
    pub unknown: Unknown,
}

/// Addresses by which ports of theirs are meant.
pub(super) type Reached = BTreeMap<BTreeSet<Ports>, BTreeSet<IpNet>>;

impl Resolver<'_> {
    /// Addresses from which a subject sends. A service has none: what it sends
    /// comes from its node.
    pub fn sources(&self, subject: &Subject) -> BTreeSet<IpNet> {
        let mut found = BTreeSet::new();
        for leaf in self.leaves(subject) {
            found.extend(self.machines(&leaf));
        }
        found
    }

    /// Addresses and ports of what a target names.
    pub fn target(&self, target: &Target) -> Reached {
        let mut reached = Reached::new();
        let all = || BTreeSet::from([Ports::All]);
        for leaf in self.leaves(&target.subject) {
            let machines = match &leaf {
                Subject::Name(name) if self.directory.is_internet(name) => {
                    self.directory.internet()
                }
                _ => self.machines(&leaf),
            };
            if !machines.is_empty() {
                let ports = target.ports.clone().unwrap_or_else(all);
                reached.entry(ports).or_default().extend(machines);
            }
            let Subject::Name(name) = &leaf else { continue };
            let service = self.directory.services.get(name);
            for instance in service.into_iter().flat_map(|service| &service.instances) {
                let own = match (instance.ports, self.unknown) {
                    (ServicePorts::Known(ports), _) => Some([ports].into()),
                    (ServicePorts::Unknown, Unknown::All) => Some(all()),
                    (ServicePorts::Unknown, Unknown::Nothing) => None,
                };
                if let Some(ports) = target.ports.clone().or(own) {
                    let addresses = hosts(&instance.addresses);
                    reached.entry(ports).or_default().extend(addresses);
                }
            }
        }
        reached
    }

    /// All addresses of what a target names that says which ports.
    pub fn addresses(&self, subject: &Subject) -> BTreeSet<IpNet> {
        let target = Target {
            subject: subject.clone(),
            ports: Some([Ports::All].into()),
        };
        self.target(&target).into_values().flatten().collect()
    }

    /// Addresses of nodes, devices and networks.
    fn machines(&self, leaf: &Subject) -> BTreeSet<IpNet> {
        let directory = self.directory;
        match leaf {
            Subject::Members => {
                let nodes = directory.nodes.values();
                nodes.flat_map(|node| hosts(&node.addresses)).collect()
            }
            Subject::Devices => {
                let devices = directory.devices.values();
                devices
                    .flat_map(|device| hosts(&device.addresses))
                    .collect()
            }
            Subject::Name(name) => {
                let node = directory.nodes.get(name).map(|node| &node.addresses);
                let device = directory.devices.get(name).map(|device| &device.addresses);
                let addresses = node.or(device);
                addresses
                    .map(|all| hosts(all).collect())
                    .unwrap_or_default()
            }
            Subject::Net(net) => [*net].into(),
            Subject::Group(_) => BTreeSet::new(),
        }
    }

    /// What isn't a group in a subject: each group is opened once, however often
    /// it is named.
    pub fn leaves(&self, subject: &Subject) -> BTreeSet<Subject> {
        let mut leaves = BTreeSet::new();
        let mut seen: BTreeSet<&Label> = BTreeSet::new();
        let mut open = vec![subject];
        while let Some(subject) = open.pop() {
            let Subject::Group(name) = subject else {
                leaves.insert(subject.clone());
                continue;
            };
            if !seen.insert(name) {
                continue;
            }
            let group = self.policy.groups.get(name);
            open.extend(group.into_iter().flat_map(|group| &group.members));
            let devices = self.directory.devices.iter();
            let within = devices.filter(|(_, device)| device.groups.contains(name));
            leaves.extend(within.map(|(device, _)| Subject::Name(device.clone())));
        }
        leaves
    }
}

/// Single addresses as networks.
pub(super) fn hosts(addresses: &BTreeSet<IpAddr>) -> impl Iterator<Item = IpNet> {
    addresses.iter().copied().map(IpNet::from)
}

impl Policy {
    /// Whether it lets a member add devices of its own.
    pub fn may_add_devices(&self, node: &Label) -> bool {
        let directory = Directory::default();
        let resolver = Resolver {
            policy: self,
            directory: &directory,
            unknown: Unknown::Nothing,
        };
        let named = Subject::Name(node.clone());
        self.may_add_devices.iter().any(|subject| {
            let leaves = resolver.leaves(subject);
            leaves.contains(&Subject::Members) || leaves.contains(&named)
        })
    }
}
