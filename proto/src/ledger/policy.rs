//! The mesh's policy as a fact: one text for all, whose newest is in force.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::state::{NameKind, State};
use crate::{
    id::{self, NodeId},
    name::Label,
    policy::{
        DeviceEntry, Directory, InstanceEntry, NodeEntry, Policy, ServiceEntry, ServicePorts,
    },
};

/// The text of a policy, as an admin asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText(pub String);

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFact {
    pub text: String,
    /// Who set it.
    pub by: NodeId,
    /// When, in milliseconds of ledger time.
    pub at_ms: u64,
    /// How many there were, with this one.
    pub number: u64,
}

/// What the state holds of it; a clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyInForce(Option<Arc<Read>>);

#[derive(Debug)]
struct Read {
    fact: PolicyFact,
    policy: Arc<Policy>,
}

impl PolicyInForce {
    pub fn new(fact: PolicyFact, policy: Policy) -> Self {
        let policy = Arc::new(policy);
        Self(Some(Arc::new(Read { fact, policy })))
    }
}

/// The text says what was read from it.
impl PartialEq for PolicyInForce {
    fn eq(&self, other: &Self) -> bool {
        let fact = |one: &Self| one.0.as_ref().map(|read| read.fact.clone());
        match (&self.0, &other.0) {
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => true,
            _ => fact(self) == fact(other),
        }
    }
}

impl Eq for PolicyInForce {}

impl Serialize for PolicyInForce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().map(|read| &read.fact).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PolicyInForce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(fact) = Option::<PolicyFact>::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        let policy = Policy::parse(&fact.text).map_err(D::Error::custom)?;
        Ok(Self::new(fact, policy))
    }
}

impl State {
    /// The policy in force; none where the defaults are.
    pub fn policy(&self) -> Option<&PolicyFact> {
        self.in_force().map(|read| &read.fact)
    }

    /// What the policy in force says, or the defaults.
    pub fn rules_of_access(&self) -> Arc<Policy> {
        self.in_force()
            .map_or_else(Arc::default, |read| read.policy.clone())
    }

    fn in_force(&self) -> Option<&Read> {
        self.extension.access.policy.0.as_deref()
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
        let Some(read) = self.in_force() else {
            return false;
        };
        read.policy.may_add_devices(&member.name)
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
        }
    }

    fn device_entries(&self) -> BTreeMap<Label, DeviceEntry> {
        let devices = self.devices().map(|(_, device)| {
            let entry = DeviceEntry {
                addresses: [device.ipv4.into(), device.ipv6.into()].into(),
                gateways: device.profile.gateways.keys().copied().collect(),
                routes: device.profile.routes.clone(),
                groups: device.groups.clone(),
            };
            (device.name.clone(), entry)
        });
        devices.collect()
    }

    fn route_entries(&self) -> BTreeMap<IpNet, BTreeSet<NodeId>> {
        let routes = self.routes();
        routes
            .map(|(net, gateways)| (*net, gateways.clone()))
            .collect()
    }
}
