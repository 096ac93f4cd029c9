//! Who may reach what here, by the newest policy that is held here.

use std::{collections::BTreeSet, net::IpAddr};

use super::MeshView;
use crate::{
    filter::access::{AccessPlan, Flow, Ports},
    id::NodeId,
    ledger::Role,
    policy::{self, Directory, InstanceEntry, Place, ServiceEntry, ServicePorts},
    zone::Protocol,
};

impl MeshView {
    /// What the mesh has by the names that a policy uses: what the ledger says,
    /// and of services what their instances announce.
    pub fn directory(&self) -> Directory {
        let mut directory = self.ledger.directory();
        for (name, service) in &mut directory.services {
            let Some(held) = self.ledger.names.get(name) else {
                continue;
            };
            let instances = self.holders(held).filter_map(|node| {
                let instance = self.instance(node, name)?;
                let port = instance.port;
                Some(InstanceEntry {
                    addresses: instance.addresses.into_iter().collect(),
                    ports: ServicePorts::Known(match instance.protocol {
                        Protocol::Tcp => Ports::Tcp(port, port),
                        Protocol::Udp => Ports::Udp(port, port),
                    }),
                })
            });
            *service = ServiceEntry {
                instances: instances.collect(),
            };
        }
        directory
    }

    /// What this node enforces; `served` is what it serves to devices whose
    /// gateway it is. None where it is no member any more.
    pub fn place(&self, served: &BTreeSet<Ports>) -> Option<Place> {
        let own = self.own_member()?;
        Some(Place {
            me: self.me,
            own: Self::addresses(own).into_iter().collect(),
            is_gateway: own.roles.contains(&Role::Gateway),
            is_exit: own.roles.contains(&Role::Exit),
            served: served.clone(),
        })
    }

    /// Whether the policy lets this node reach anything of another.
    pub fn may_ping(&self, node: &NodeId) -> bool {
        let address = |node: &NodeId| -> Option<IpAddr> {
            let member = self.ledger.members.get(node)?;
            Some(member.ipv4.into())
        };
        let (Some(from), Some(to)) = (address(&self.me), address(node)) else {
            return false;
        };
        let directory = self.directory();
        let plan = policy::everywhere(&self.ledger.rules_of_access(), &directory);
        from == to
            || plan
                .passes(&directory.networks, from, to, Flow::Echo)
                .is_some()
    }

    /// Who reaches what through this node's tunnel.
    pub fn access_plan(&self, directory: &Directory, place: &Place) -> AccessPlan {
        policy::compile(&self.ledger.rules_of_access(), directory, place)
    }
}
