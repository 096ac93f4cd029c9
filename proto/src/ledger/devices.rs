//! What the state knows of devices.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use super::{
    access::Access,
    device::{Device, DeviceId, Holder},
    state::State,
};
use crate::{id::NodeId, name::Label, tunnel::TunnelKey};

/// What is known of devices.
impl State {
    pub(super) fn access(&self) -> &Access {
        &self.extension.access
    }

    pub fn devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.access().devices.iter()
    }

    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.access().devices.get(id)
    }

    pub fn device_by_key(&self, key: &TunnelKey) -> Option<(DeviceId, &Device)> {
        let id = *self.access().device_keys.get(key)?;
        Some((id, self.device(&id)?))
    }

    pub fn device_by_name(&self, name: &Label) -> Option<(DeviceId, &Device)> {
        let mut devices = self.devices();
        let (id, device) = devices.find(|(_, device)| device.name == *name)?;
        Some((*id, device))
    }

    pub fn devices_of(&self, owner: NodeId) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices()
            .filter(move |(_, device)| device.owner == owner)
    }

    /// Whether somebody has an overlay address: a node, a device, or the end of a
    /// link by which a public node forwards.
    pub fn is_given(&self, address: IpAddr) -> bool {
        self.holder_of_address(address).is_some() || self.is_of_link(address)
    }

    /// Whose an overlay address is.
    pub fn holder_of_address(&self, address: IpAddr) -> Option<Holder> {
        let device = |matches: &dyn Fn(&Device) -> bool| {
            let mut devices = self.devices();
            let found = devices.find(|(_, device)| matches(device));
            found.map(|(id, _)| Holder::Device(*id))
        };
        match address {
            IpAddr::V4(ip) => match self.addresses.get(&ip) {
                Some(node) => Some(Holder::Node(*node)),
                None => {
                    let id = self.access().device_addresses.get(&ip);
                    id.map(|id| Holder::Device(*id))
                }
            },
            IpAddr::V6(ip) => {
                let mut members = self.members.iter();
                let node = members.find(|(_, member)| member.ipv6 == ip);
                node.map(|(node, _)| Holder::Node(*node))
                    .or_else(|| device(&|device| device.ipv6 == ip))
            }
        }
    }
}
