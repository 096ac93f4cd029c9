//! What the state says of the policy, and to it.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    policy::{PolicyFact, PolicyInForce},
    role::Role,
    state::{NameKind, State},
};
use crate::{
    id::{self, NodeId},
    name::Label,
    policy::{
        DeviceEntry, Directory, InstanceEntry, NodeEntry, Policy, ServiceEntry, ServicePorts,
    },
};

impl State {
    /// The policy in force; none where the defaults are.
    pub fn policy(&self) -> Option<&PolicyFact> {
        self.in_force().fact()
    }

    /// What the policy in force says, or the defaults.
    pub fn rules_of_access(&self) -> Arc<Policy> {
        self.in_force().policy().cloned().unwrap_or_default()
    }

    fn in_force(&self) -> &PolicyInForce {
        &self.extension.access.policy
    }

    pub(super) fn set_policy(&mut self, (text, policy): (String, Policy), by: NodeId) {
        let fact = PolicyFact {
            text,
            by,
            at_ms: self.stamp_ms,
            number: self.policy().map_or(0, |held| held.number) + 1,
        };
        self.extension.access.policy = PolicyInForce::new(fact, policy);
    }

    /// Whether the policy lets a member add devices of its own.
    pub fn may_add_devices(&self, node: NodeId) -> bool {
        let Some(member) = self.members.get(&node) else {
            return false;
        };
        let policy = self.in_force().policy();
        policy.is_some_and(|policy| policy.may_add_devices(&member.name))
    }

    /// What there is by the names that a policy uses, as far as the ledger knows
    /// it: of services it doesn't know the ports.
    pub fn directory(&self) -> Directory {
        let addresses = |node: &NodeId| -> BTreeSet<IpAddr> {
            let member = self.members.get(node);
            let addresses = member.map(|member| [member.ipv4.into(), member.ipv6.into()]);
            addresses.into_iter().flatten().collect()
        };
        let nodes = self.members.iter().map(|(node, member)| {
            let entry = NodeEntry {
                id: *node,
                addresses: addresses(node),
            };
            (member.name.clone(), entry)
        });
        let services = self.names.iter();
        let services = services.filter(|(_, name)| name.kind == NameKind::Service);
        let services = services.map(|(label, name)| {
            let holders = std::iter::once(&name.owner).chain(&name.shared);
            let instances = holders.map(|node| InstanceEntry {
                addresses: addresses(node),
                ports: ServicePorts::Unknown,
            });
            let instances = instances.collect();
            (label.clone(), ServiceEntry { instances })
        });
        Directory {
            networks: [IpNet::V4(self.ipv4.trunc()), IpNet::V6(self.mesh.ula())].into(),
            resolvers: [
                IpAddr::V4(id::resolver_v4(self.ipv4)),
                IpAddr::V6(self.mesh.resolver_v6()),
            ]
            .into(),
            nodes: nodes.collect(),
            services: services.collect(),
            devices: self.device_entries(),
            routes: self.route_entries(),
            exits: self.exits(),
        }
    }

    fn device_entries(&self) -> BTreeMap<Label, DeviceEntry> {
        let devices = self.devices().map(|(_, device)| {
            let entry = DeviceEntry {
                addresses: [device.ipv4.into(), device.ipv6.into()].into(),
                gateways: device.profile.gateways.keys().copied().collect(),
                routes: device.profile.routes.clone(),
                full_tunnel: device.profile.full_tunnel,
                groups: device.groups.clone(),
            };
            (device.name.clone(), entry)
        });
        devices.collect()
    }

    fn exits(&self) -> BTreeSet<NodeId> {
        let members = self.members.iter();
        let exits = members.filter(|(_, member)| member.roles.contains(&Role::Exit));
        exits.map(|(node, _)| *node).collect()
    }

    fn route_entries(&self) -> BTreeMap<IpNet, BTreeSet<NodeId>> {
        let routes = self.routes();
        routes
            .map(|(net, gateways)| (*net, gateways.clone()))
            .collect()
    }
}
