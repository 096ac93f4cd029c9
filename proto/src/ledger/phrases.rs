//! Parts of the sentences that tell what happened.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    record::RecordData,
    request::{Admit, Role, RoleChange},
};
use crate::zone::DomainName;

pub(super) fn admitted(who: &str, admit: &Admit) -> String {
    let roles = with_roles(&admit.roles);
    format!("{who} let {} in{roles}, by its code", admit.name)
}

pub(super) fn with_addresses(addresses: &BTreeSet<IpNet>) -> String {
    if addresses.is_empty() {
        return String::new();
    }
    let nets: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!(", its names may lead to {}", nets.join(", "))
}

pub(super) fn by_root(change: &RoleChange) -> &'static str {
    if change.root.is_some() {
        ", by the root's signature"
    } else {
        ""
    }
}

pub(super) fn with_roles(roles: &BTreeSet<Role>) -> String {
    if roles.is_empty() {
        String::new()
    } else {
        format!(" as {}", list(roles.iter()))
    }
}

pub(super) fn list(items: impl Iterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    match &items[..] {
        [] => "nothing".into(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

pub(super) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("one {what}"),
        _ => format!("{number} {what}s"),
    }
}

pub(super) fn record(name: &DomainName, data: &RecordData) -> String {
    format!("{name} {} {data}", data.record_type())
}
