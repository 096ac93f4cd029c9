//! Who may add a device, with what, and who may change it.

use super::{asking::AskingMember, join::free_ipv4, names::free_name, routes::check_net};
use crate::{
    id::NodeId,
    ledger::{
        device::{AddDevice, ChangeDevice, Device, DeviceChange, DeviceId, Profile},
        effect::Effect,
        refusal::Refusal,
        request::Role,
        state::State,
    },
    limits,
    tunnel::TunnelKey,
};

pub(super) fn rule_add(
    state: &State,
    author: AskingMember<'_>,
    mut add: AddDevice,
) -> Result<Effect, Refusal> {
    if !author.is_admin() && (author.node != add.owner || !state.may_add_devices(author.node)) {
        return Err(Refusal::DeviceNotAllowed);
    }
    if !state.members.contains_key(&add.owner) {
        return Err(Refusal::NoSuchOwner);
    }
    if state.devices_of(add.owner).count() >= limits::DEVICES_PER_OWNER {
        return Err(Refusal::TooManyDevices);
    }
    let all = state.devices().count();
    if all >= limits::DEVICES {
        return Err(Refusal::TooManyDevices);
    }
    add.name = free_name(state, &author.member.names, &add.name)?;
    check_key(state, add.key)?;
    let id = DeviceId::of(&add.key);
    if state.device(&id).is_some() {
        return Err(Refusal::DeviceKey);
    }
    check_profile(state, &add.profile)?;
    check_groups(add.groups.len())?;
    check_expiry(state, add.expires_ms)?;
    let ipv4 = free_ipv4(state.ipv4, |ip| state.is_taken(ip), NodeId(id.0));
    let ipv4 = ipv4.ok_or(Refusal::AddressesExhausted)?;
    Ok(Effect::AddDevice(Box::new(add), ipv4))
}

pub(super) fn rule_change(
    state: &State,
    author: AskingMember<'_>,
    change: ChangeDevice,
) -> Result<Effect, Refusal> {
    let device = state.device(&change.device).ok_or(Refusal::NoSuchDevice)?;
    let is_own = device.owner == author.node || author.is_admin();
    if let DeviceChange::Switched(key) = change.change {
        return rule_switched(author, change.device, device, key);
    }
    if !is_own {
        return Err(Refusal::NotYourDevice);
    }
    let checked = match change.change {
        DeviceChange::Rename(name) if name == device.name => return Ok(Effect::Nothing),
        DeviceChange::Rename(name) => {
            DeviceChange::Rename(free_name(state, &author.member.names, &name)?)
        }
        DeviceChange::Renew(next) => {
            let is_again = device
                .next
                .as_ref()
                .is_some_and(|held| held.key == next.key);
            if !is_again {
                check_key(state, next.key)?;
            }
            check_profile(state, &next.profile)?;
            DeviceChange::Renew(next)
        }
        DeviceChange::Profile(profile) => {
            check_profile(state, &profile)?;
            DeviceChange::Profile(profile)
        }
        // Groups are what a policy gives rights by.
        DeviceChange::Groups(groups) => {
            author.require_admin()?;
            check_groups(groups.len())?;
            DeviceChange::Groups(groups)
        }
        DeviceChange::Expires(expires_ms) => {
            author.require_admin()?;
            check_expiry(state, expires_ms)?;
            DeviceChange::Expires(expires_ms)
        }
        DeviceChange::Switched(_) => return Err(Refusal::NoSuchDevice),
    };
    Ok(Effect::ChangeDevice(change.device, Box::new(checked)))
}

/// By a gateway that the device's next configuration leads to.
fn rule_switched(
    author: AskingMember<'_>,
    id: DeviceId,
    device: &Device,
    key: TunnelKey,
) -> Result<Effect, Refusal> {
    if device.key == key {
        return Ok(Effect::Nothing);
    }
    let next = device.next.as_ref().filter(|next| next.key == key);
    let next = next.ok_or(Refusal::NoSuchDevice)?;
    if !next.profile.gateways.contains_key(&author.node) {
        return Err(Refusal::NotYourDevice);
    }
    Ok(Effect::ChangeDevice(
        id,
        Box::new(DeviceChange::Switched(key)),
    ))
}

pub(super) fn rule_remove(
    state: &State,
    author: AskingMember<'_>,
    id: DeviceId,
) -> Result<Effect, Refusal> {
    let device = state.device(&id).ok_or(Refusal::NoSuchDevice)?;
    if device.owner != author.node && !author.is_admin() {
        return Err(Refusal::NotYourDevice);
    }
    Ok(Effect::RemoveDevice(id))
}

/// S26: a key belongs to one node or device.
fn check_key(state: &State, key: TunnelKey) -> Result<(), Refusal> {
    let taken = state.tunnel_key_holder(&key).is_some()
        || state.device_by_key(&key).is_some()
        || state.publish_link_by_key(&key).is_some();
    if taken || key.0 == [0; 32] {
        return Err(Refusal::DeviceKey);
    }
    Ok(())
}

fn check_profile(state: &State, profile: &Profile) -> Result<(), Refusal> {
    if !(1..=limits::DEVICE_GATEWAYS).contains(&profile.gateways.len())
        || profile.routes.len() > limits::DEVICE_ROUTES
    {
        return Err(Refusal::DeviceBounds);
    }
    for (node, gateway) in &profile.gateways {
        let member = state.members.get(node).ok_or(Refusal::NoSuchGateway)?;
        if !member.roles.contains(&Role::Gateway) {
            return Err(Refusal::NotGateway(member.name.clone()));
        }
        let is_plain = gateway.endpoint.chars().all(|c| c.is_ascii_graphic());
        if !is_plain
            || gateway.endpoint.len() > limits::DEVICE_ENDPOINT_BYTES
            || gateway.secret.0.len() > limits::DEVICE_SECRET_BYTES
        {
            return Err(Refusal::DeviceBounds);
        }
    }
    profile
        .routes
        .iter()
        .try_for_each(|net| check_net(state, net))
}

fn check_groups(groups: usize) -> Result<(), Refusal> {
    if groups > limits::DEVICE_GROUPS {
        return Err(Refusal::DeviceBounds);
    }
    Ok(())
}

fn check_expiry(state: &State, expires_ms: Option<u64>) -> Result<(), Refusal> {
    if expires_ms.is_some_and(|at_ms| at_ms <= state.stamp_ms) {
        return Err(Refusal::Expired);
    }
    Ok(())
}

impl State {
    /// Whether an IPv4 address of the overlay is a node's, a device's or a link's.
    pub(in crate::ledger) fn is_taken(&self, ip: std::net::Ipv4Addr) -> bool {
        self.is_given(ip.into())
    }
}
