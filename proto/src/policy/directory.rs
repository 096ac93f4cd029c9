//! What the mesh has by the names that a policy uses.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::target::INTERNET;
use crate::{
    filter::{access::Ports, internet},
    id::NodeId,
    name::Label,
};

/// Nodes, devices, services and networks, as they are known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The overlay's.
    pub networks: BTreeSet<IpNet>,
    /// The resolver's addresses, which are each node's.
    pub resolvers: BTreeSet<IpAddr>,
    pub nodes: BTreeMap<Label, NodeEntry>,
    pub devices: BTreeMap<Label, DeviceEntry>,
    pub services: BTreeMap<Label, ServiceEntry>,
    /// Networks behind gateways, and which those are.
    pub routes: BTreeMap<IpNet, BTreeSet<NodeId>>,
    /// Nodes that lead to the internet.
    pub exits: BTreeSet<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    pub id: NodeId,
    pub addresses: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceEntry {
    pub addresses: BTreeSet<IpAddr>,
    pub gateways: BTreeSet<NodeId>,
    /// Networks beyond the overlay that it may reach.
    pub routes: BTreeSet<IpNet>,
    /// Whether it sends everything by its gateways, also what is for the internet.
    pub full_tunnel: bool,
    /// Groups that the ledger has it in.
    pub groups: BTreeSet<Label>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    pub instances: BTreeSet<InstanceEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceEntry {
    pub addresses: BTreeSet<IpAddr>,
    pub ports: ServicePorts,
}

/// The ports of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServicePorts {
    /// As it is announced.
    Known(Ports),
    /// The ledger doesn't know them.
    Unknown,
}

/// What ports are taken to be that aren't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    All,
    Nothing,
}

impl Directory {
    /// Everything that has a name, in one namespace.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let nodes = self.nodes.keys().chain(self.devices.keys());
        nodes.chain(self.services.keys()).map(Label::as_str)
    }

    /// Whether a name stands for what exits lead to: nothing in the mesh has it, and
    /// there is an exit.
    pub fn is_internet(&self, name: &Label) -> bool {
        name.as_str() == INTERNET && !self.has(name) && !self.exits.is_empty()
    }

    /// What exits lead to: no part of the mesh, and no network behind a gateway.
    pub fn internet(&self) -> BTreeSet<IpNet> {
        internet(self.networks.iter().chain(self.routes.keys()).copied())
    }

    pub fn has(&self, name: &Label) -> bool {
        self.nodes.contains_key(name)
            || self.devices.contains_key(name)
            || self.services.contains_key(name)
    }

    /// Whether there are ports that only gossip knows.
    pub(super) fn knows_all_ports(&self) -> bool {
        let mut instances = self
            .services
            .values()
            .flat_map(|service| &service.instances);
        instances.all(|instance| instance.ports != ServicePorts::Unknown)
    }
}
