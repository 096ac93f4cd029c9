//! Devices and routes in the state, from rules 4 on, and how they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::IpNet;

use super::{
    device::{AddDevice, Device, DeviceChange, DeviceId},
    effect::Effect,
    refusal::Refusal,
    request::Author,
    route::RouteChange,
    sizes::{added_bytes, device_bytes, name_bytes, route_bytes},
    state::{Name, NameKind, State},
};
use crate::{codec, id::NodeId, limits, tunnel::TunnelKey};

/// Devices.
impl State {
    pub(super) fn add_device(&mut self, add: AddDevice, ipv4: Ipv4Addr, index: u64) {
        let id = DeviceId::of(&add.key);
        let device = Device {
            ipv4,
            ipv6: id.ipv6(&self.mesh),
            name: add.name,
            owner: add.owner,
            key: add.key,
            next: None,
            profile: add.profile,
            groups: add.groups,
            added_ms: self.stamp_ms,
            expires_ms: add.expires_ms,
        };
        self.name_device(&device, index);
        self.extension.access.device_addresses.insert(ipv4, id);
        self.put_device(id, device);
    }

    fn name_device(&mut self, device: &Device, index: u64) {
        let name = Name {
            kind: NameKind::Device,
            owner: device.owner,
            shared: BTreeSet::new(),
            since: index,
        };
        self.give_name(device.name.clone(), name);
    }

    pub(super) fn change_device(&mut self, id: DeviceId, change: DeviceChange, index: u64) {
        let Some(mut device) = self.device(&id).cloned() else {
            return;
        };
        self.take_device(id);
        match change {
            DeviceChange::Rename(name) => {
                self.release(&device.name);
                device.name = name;
                self.name_device(&device, index);
            }
            DeviceChange::Renew(next) => device.next = Some(next),
            DeviceChange::Switched(_) => {
                if let Some(next) = device.next.take() {
                    device.key = next.key;
                    device.profile = next.profile;
                }
            }
            DeviceChange::Profile(profile) => device.profile = profile,
            DeviceChange::Groups(groups) => device.groups = groups,
            DeviceChange::Expires(expires_ms) => device.expires_ms = expires_ms,
        }
        self.put_device(id, device);
    }

    pub(super) fn remove_device(&mut self, id: DeviceId) {
        let Some(device) = self.device(&id).cloned() else {
            return;
        };
        self.take_device(id);
        let addresses = &mut self.extension.access.device_addresses;
        addresses.remove(&device.ipv4);
        self.release(&device.name);
    }

    pub(super) fn remove_devices_of(&mut self, owner: NodeId) {
        let own: Vec<DeviceId> = self.devices_of(owner).map(|(id, _)| *id).collect();
        for id in own {
            self.remove_device(id);
        }
    }

    /// Takes devices out whose time is over.
    pub(super) fn expire_devices(&mut self) {
        let stamp_ms = self.stamp_ms;
        let over = |device: &Device| device.expires_ms.is_some_and(|at_ms| at_ms < stamp_ms);
        let gone = self.devices().filter(|(_, device)| over(device));
        let gone: Vec<DeviceId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.remove_device(id);
        }
    }

    fn put_device(&mut self, id: DeviceId, device: Device) {
        self.charge(device.owner, device_bytes(&device));
        let access = &mut self.extension.access;
        for (key, _) in device.keys() {
            access.device_keys.insert(key, id);
        }
        access.devices.insert(id, device);
    }

    fn take_device(&mut self, id: DeviceId) {
        let Some(device) = self.device(&id).cloned() else {
            return;
        };
        let access = &mut self.extension.access;
        for (key, _) in device.keys() {
            access.device_keys.remove(&key);
        }
        access.devices.remove(&id);
        self.refund(device.owner, device_bytes(&device));
    }
}

/// Routes.
impl State {
    /// Networks beside the overlay, and the gateways that bring them.
    pub fn routes(&self) -> impl Iterator<Item = (&IpNet, &BTreeSet<NodeId>)> {
        self.extension.access.routes.iter()
    }

    pub(super) fn add_route(&mut self, add: RouteChange) {
        let routes = &mut self.extension.access.routes;
        let mut gateways = routes.get(&add.net).cloned().unwrap_or_default();
        if gateways.insert(add.gateway) {
            routes.insert(add.net, gateways);
            self.charge(add.gateway, route_bytes());
        }
    }

    pub(super) fn remove_route(&mut self, remove: RouteChange) {
        let routes = &mut self.extension.access.routes;
        let mut gateways = routes.get(&remove.net).cloned().unwrap_or_default();
        if !gateways.remove(&remove.gateway) {
            return;
        }
        if gateways.is_empty() {
            routes.remove(&remove.net);
        } else {
            routes.insert(remove.net, gateways);
        }
        self.refund(remove.gateway, route_bytes());
    }

    pub(super) fn remove_routes_of(&mut self, gateway: NodeId) {
        let own = self.routes();
        let own = own.filter(|(_, gateways)| gateways.contains(&gateway));
        let own: Vec<IpNet> = own.map(|(net, _)| *net).collect();
        for net in own {
            self.remove_route(RouteChange { net, gateway });
        }
    }
}

impl State {
    /// Whether a device or a route that comes or changes stays within the share of
    /// its owner.
    pub(super) fn check_access_share(
        &self,
        author: Author,
        effect: &Effect,
    ) -> Result<(), Refusal> {
        self.check_requests(author, limits::REQUESTS_PER_NODE)?;
        match effect {
            Effect::AddDevice(add, _) => {
                self.check_names(add.owner)?;
                let bytes = name_bytes(&add.name, 0) + added_bytes(add);
                self.check_bytes(add.owner, bytes)
            }
            Effect::ChangeDevice(id, change) => {
                let owner = self.device(id).map(|device| device.owner);
                let bytes = codec::encode(change).len() as u64;
                owner.map_or(Ok(()), |owner| self.check_bytes(owner, bytes))
            }
            Effect::AddRoute(add) => self.check_bytes(add.gateway, route_bytes()),
            _ => Ok(()),
        }
    }

    /// What devices and routes count for, by whose share.
    pub(super) fn access_bytes(&self) -> Vec<(NodeId, u64)> {
        let devices = self.devices();
        let devices = devices.map(|(_, device)| (device.owner, device_bytes(device)));
        let routes = self.routes().flat_map(|(_, gateways)| gateways);
        let routes = routes.map(|gateway| (*gateway, route_bytes()));
        devices.chain(routes).collect()
    }

    /// Whether what is kept twice says the same, of members only.
    pub(super) fn access_agrees(&self) -> bool {
        let access = &self.extension.access;
        let devices = || access.devices.iter();
        let keys: BTreeMap<TunnelKey, DeviceId> = devices()
            .flat_map(|(id, device)| device.keys().map(|(key, _)| (key, *id)))
            .collect();
        let addresses: BTreeMap<Ipv4Addr, DeviceId> =
            devices().map(|(id, device)| (device.ipv4, *id)).collect();
        let named = |device: &Device| {
            self.names
                .get(&device.name)
                .is_some_and(|held| held.kind == NameKind::Device && held.owner == device.owner)
        };
        let names = self.names.values();
        let names = names.filter(|held| held.kind == NameKind::Device).count();
        access.device_keys.iter().eq(keys.iter())
            && access.device_addresses.iter().eq(addresses.iter())
            && names == access.devices.len()
            && addresses.len() == names
            && keys.keys().all(|key| self.tunnel_key_holder(key).is_none())
            && addresses.keys().all(|ip| !self.addresses.contains_key(ip))
            && devices()
                .all(|(_, device)| named(device) && self.members.contains_key(&device.owner))
            && self.routes().all(|(_, gateways)| {
                !gateways.is_empty() && gateways.iter().all(|node| self.members.contains_key(node))
            })
    }
}
