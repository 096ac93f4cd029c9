//! By which gateway a device is reached, and what its peers on gateways are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{MeshView, NodeView};
use crate::{
    hold,
    id::NodeId,
    ledger::{
        Role,
        device::{Device, DeviceId, DeviceSeen},
    },
    tunnel::{DevicePeer, TunnelKey, TunnelPeer},
};

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceHome {
    /// The gateway to which the mesh sends what is for the device.
    pub gateway: NodeId,
    /// By which of its keys it is there.
    pub key: TunnelKey,
}

impl MeshView {
    /// The devices that aren't cut off, by themselves or with the node that they
    /// belong to.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        let suspended = self.suspended_devices();
        let devices = self.ledger.devices();
        devices.filter(move |(id, device)| {
            !suspended.contains(*id) && !self.held.contains_key(&device.owner)
        })
    }

    /// Devices that somebody who may removes, and the ledger has yet to.
    pub fn suspended_devices(&self) -> BTreeSet<DeviceId> {
        let mut suspended = BTreeSet::new();
        for (author, view) in &self.nodes {
            let holds = view.announcement.device_holds.iter();
            let counts = |id: &&DeviceId| hold::may_hold_device(&self.ledger, *author, id);
            suspended.extend(holds.filter(counts).copied());
        }
        suspended
    }

    /// The gateways that may take a device in: members with the role that aren't
    /// held, in the order of their ids.
    fn gateways_of<'v>(&'v self, device: &'v Device) -> impl Iterator<Item = NodeId> + 'v {
        device
            .gateways()
            .into_iter()
            .filter(|node| self.is_gateway(node))
    }

    /// Whether a node is a gateway now.
    pub fn is_gateway(&self, node: &NodeId) -> bool {
        let member = self.ledger.members.get(node);
        member.is_some_and(|member| member.roles.contains(&Role::Gateway))
            && !self.held.contains_key(node)
    }

    /// What a gateway that is here says of a device, and when its newest handshake
    /// was, in milliseconds of this node's monotonic time, which may be before its
    /// beginning.
    fn seen_by(&self, gateway: &NodeId, id: &DeviceId) -> Option<(i128, &DeviceSeen)> {
        let view: &NodeView = self.nodes.get(gateway)?;
        if !view.live || !view.ledger_caught_up {
            return None;
        }
        let seen = view.announcement.devices.get(id)?;
        let since_ms = view.since.map_or(0, |since| since.as_millis() as i128);
        Some((since_ms - i128::from(seen.age_s) * 1000, seen))
    }

    /// Which gateway has a device: the one that saw its newest handshake, and of
    /// none that did the first that is here. All nodes come to one answer once
    /// they have heard the same, and each to one at any time (S11).
    pub fn device_home(&self, id: &DeviceId) -> Option<DeviceHome> {
        let device = self.ledger.device(id)?;
        let newest = self
            .gateways_of(device)
            .filter_map(|gateway| {
                let (at_ms, seen) = self.seen_by(&gateway, id)?;
                let (_, profile) = device.keys().find(|(key, _)| *key == seen.key)?;
                let takes_in = profile.gateways.contains_key(&gateway);
                takes_in.then_some((at_ms, gateway, seen.key))
            })
            .max_by_key(|(at_ms, gateway, _)| (*at_ms, std::cmp::Reverse(*gateway)));
        if let Some((_, gateway, key)) = newest {
            return Some(DeviceHome { gateway, key });
        }
        let is_here = |gateway: &NodeId| {
            let view = self.nodes.get(gateway);
            view.is_some_and(|view| view.live && view.ledger_caught_up)
        };
        let takes_in = |gateway: &NodeId| device.profile.gateways.contains_key(gateway);
        let gateway = self
            .gateways_of(device)
            .find(|gateway| is_here(gateway) && takes_in(gateway))?;
        Some(DeviceHome {
            gateway,
            key: device.key,
        })
    }

    /// As [`MeshView::device_home`], with what its gateway says of it; `None` where
    /// the device isn't connected.
    pub fn device_seen(&self, id: &DeviceId) -> Option<(NodeId, &DeviceSeen)> {
        let home = self.device_home(id)?;
        let (_, seen) = self.seen_by(&home.gateway, id)?;
        (seen.key == home.key).then_some((home.gateway, seen))
    }

    /// The addresses of the devices that are reached by a gateway.
    pub(super) fn devices_behind(&self, gateway: &NodeId) -> Vec<IpAddr> {
        let mut behind = Vec::new();
        if self.is_gateway(gateway) {
            for (id, device) in self.devices() {
                let home = self.device_home(id);
                if home.is_some_and(|home| home.gateway == *gateway) {
                    behind.extend(device.addresses());
                }
            }
        }
        behind
    }

    /// Devices as peers of this node, where it is a gateway of theirs: with their
    /// addresses where it has them, and without any elsewhere, so that they can
    /// come (S11).
    pub(super) fn device_peers(&self) -> BTreeMap<TunnelKey, DevicePeer> {
        let mut peers = BTreeMap::new();
        if !self.is_gateway(&self.me) {
            return peers;
        }
        for (id, device) in self.devices() {
            let home = self.device_home(id);
            for (key, profile) in device.keys() {
                let Some(gateway) = profile.gateways.get(&self.me) else {
                    continue;
                };
                let is_here = home.is_some_and(|home| home.gateway == self.me && home.key == key);
                let mut allowed_ips = BTreeSet::new();
                if is_here {
                    allowed_ips.extend(device.addresses().map(IpNet::from));
                }
                let peer = DevicePeer {
                    peer: TunnelPeer {
                        allowed_ips,
                        ..TunnelPeer::default()
                    },
                    sealed_to: gateway.key,
                    secret: gateway.secret.clone(),
                };
                peers.insert(key, peer);
            }
        }
        peers
    }
}
