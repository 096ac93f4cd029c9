//! Devices, routes, the policy and what is published in the sentences that tell what happened.

use super::{
    device::{ChangeDevice, DeviceChange, DeviceId},
    phrases::count,
    policy::PolicyText,
    publish::{PublicPort, Publish},
    request::Content,
    state::State,
};
use crate::policy::Policy;

/// What is asked, behind "asked to"; empty for what is about none of them.
pub(super) fn access_wish(before: &State, content: &Content) -> String {
    match content {
        Content::AddDevice(add) => format!(
            "add the device {} of {}",
            add.name,
            before.name_of(add.owner)
        ),
        Content::ChangeDevice(change) => changing(before, change),
        Content::RemoveDevice(id) => format!("remove the device {}", device(before, id)),
        Content::AddRoute(add) => format!(
            "have {} bring the network {}",
            before.name_of(add.gateway),
            add.net
        ),
        Content::RemoveRoute(remove) => format!(
            "have {} bring the network {} no longer",
            before.name_of(remove.gateway),
            remove.net
        ),
        Content::Policy(text) => format!("set {}", policy(text)),
        Content::Publish(publish) => format!("publish {}", published(before, publish)),
        Content::Unpublish(at) => format!("no longer publish {}", port(before, *at)),
        Content::PublishKey(set) => {
            format!("have a key for what {} publishes", before.name_of(set.on))
        }
        _ => String::new(),
    }
}

/// What was done, by `who`; empty for what is about none of them.
pub(super) fn access_done(who: &str, before: &State, content: &Content) -> String {
    match content {
        Content::AddDevice(add) => format!(
            "{who} added the device {} of {}",
            add.name,
            before.name_of(add.owner)
        ),
        Content::ChangeDevice(change) => changed(who, before, change),
        Content::RemoveDevice(id) => format!("{who} removed the device {}", device(before, id)),
        Content::AddRoute(add) => format!(
            "{who} had {} bring the network {}",
            before.name_of(add.gateway),
            add.net
        ),
        Content::RemoveRoute(remove) => format!(
            "{who} had {} bring the network {} no longer",
            before.name_of(remove.gateway),
            remove.net
        ),
        Content::Policy(text) => format!("{who} set {}", policy(text)),
        Content::Publish(publish) => format!("{who} published {}", published(before, publish)),
        Content::Unpublish(at) => format!("{who} ended the publishing of {}", port(before, *at)),
        Content::PublishKey(set) => format!(
            "{who} has a new key for what {} publishes",
            before.name_of(set.on)
        ),
        _ => String::new(),
    }
}

/// A policy by how much it says: its text may be long.
fn policy(text: &PolicyText) -> String {
    match Policy::parse(&text.0) {
        Ok(policy) => format!(
            "the policy, with {} and {}",
            count(policy.rules.len(), "rule"),
            count(policy.tests.len(), "test")
        ),
        Err(_) => "a policy that is none".into(),
    }
}

/// Where a port leads, and where it is.
fn published(before: &State, publish: &Publish) -> String {
    let how = if publish.proxy_protocol {
        " with the PROXY protocol"
    } else {
        ""
    };
    let at = port(before, publish.at);
    format!("{}:{} at {at}{how}", publish.name, publish.to_port)
}

fn port(before: &State, at: PublicPort) -> String {
    format!("port {} of {}", at.port, before.name_of(at.on))
}

fn device(state: &State, id: &DeviceId) -> String {
    let device = state.device(id);
    device.map_or_else(|| id.to_string(), |device| device.name.to_string())
}

fn changing(before: &State, change: &ChangeDevice) -> String {
    let name = device(before, &change.device);
    match &change.change {
        DeviceChange::Rename(to) => format!("rename the device {name} to {to}"),
        DeviceChange::Renew(_) => format!("give the device {name} a new key"),
        DeviceChange::Switched(_) => format!("end the old key of the device {name}"),
        DeviceChange::Profile(_) => format!("give the device {name} another configuration"),
        DeviceChange::Groups(_) => format!("change the groups of the device {name}"),
        DeviceChange::Expires(_) => format!("change when the device {name} expires"),
    }
}

fn changed(who: &str, before: &State, change: &ChangeDevice) -> String {
    let name = device(before, &change.device);
    match &change.change {
        DeviceChange::Rename(to) => format!("{who} renamed the device {name} to {to}"),
        DeviceChange::Renew(_) => format!("{who} gave the device {name} a new key"),
        DeviceChange::Switched(_) => {
            format!("{who} saw the new key of the device {name} in use; the old one ended")
        }
        DeviceChange::Profile(_) => format!("{who} gave the device {name} another configuration"),
        DeviceChange::Groups(_) => format!("{who} changed the groups of the device {name}"),
        DeviceChange::Expires(_) => format!("{who} changed when the device {name} expires"),
    }
}
