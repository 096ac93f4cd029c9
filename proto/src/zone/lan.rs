//! What a LAN is told of the mesh: its names, with the addresses that they have there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{InstanceRecord, Rdata, ZoneInput};
use crate::name::Label;

/// Who is where in the LANs that ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanAddresses {
    /// Those of the node that answers.
    pub own: BTreeSet<IpAddr>,
    /// Those at which it has reached others, each by its certificate.
    pub reached: BTreeMap<Label, BTreeSet<IpAddr>>,
}

impl ZoneInput {
    /// The same names for hosts of `nets`. No overlay address is among the answers, nor
    /// one at which nobody was reached: elsewhere another host has it.
    pub fn for_lan(mut self, lan: &LanAddresses, nets: &[IpNet]) -> Self {
        let within = |ip: &IpAddr| nets.iter().any(|net| net.contains(ip));
        let there: BTreeMap<Label, Vec<IpAddr>> = lan
            .reached
            .iter()
            .map(|(node, all)| (node.clone(), all.iter().copied().filter(within).collect()))
            .collect();
        let (ipv4, ula) = (self.ipv4, self.ula);
        let is_overlay = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ipv4.contains(ip),
            IpAddr::V6(ip) => ula.contains(ip),
        };
        // One elsewhere than at its node, such as a printer, is in the LAN if its node is.
        let move_to_lan = |instance: &mut InstanceRecord| {
            let node = there.get(&instance.node).cloned().unwrap_or_default();
            if instance.addresses.iter().any(is_overlay) {
                instance.addresses = node;
            } else if node.is_empty() {
                instance.addresses.clear();
            } else {
                instance.addresses.retain(within);
            }
            !instance.addresses.is_empty()
        };
        for (label, node) in &mut self.nodes {
            node.addresses = there.get(label).cloned().unwrap_or_default();
            for instances in node.own_services.values_mut() {
                instances.retain_mut(move_to_lan);
            }
        }
        for service in self.services.values_mut() {
            service.instances.retain_mut(move_to_lan);
        }
        for device in self.devices.values_mut() {
            device.clear();
        }
        let leads_in = |data: &Rdata| match data {
            Rdata::A(ip) => is_overlay(&(*ip).into()),
            Rdata::Aaaa(ip) => is_overlay(&(*ip).into()),
            Rdata::Svcb(data) | Rdata::Https(data) => data.hints().any(|ip| is_overlay(&ip)),
            _ => false,
        };
        let withheld = &mut self.withheld;
        for (name, records) in &mut self.records {
            records.retain(|data| {
                let is_told = !leads_in(data);
                if !is_told {
                    withheld.insert((name.clone(), data.record_type()));
                }
                is_told
            });
        }
        self.front = Some(lan.own.iter().copied().filter(within).collect());
        self
    }
}
