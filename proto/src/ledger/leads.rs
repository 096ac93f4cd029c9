//! Where names may lead, from rules 1 on (S28): to the own addresses of the
//! node whose name it is, or of one that it is shared with and that runs it.
//! Nobody's name leads to a node that didn't say so, nor, without an admin's
//! word, to a machine beside the mesh: a page that is opened under the name
//! could read what is there (DNS rebinding).
//!
//! An admin's word is an admin's own record, or a grant of addresses in the
//! invite. What was there before rules 1 stands, but for an instance at the
//! overlay address of another node.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    place::label_of,
    record::{RecordData, UserRecord},
    refusal::Refusal,
    request::Role,
    state::{NameKind, State},
};
use crate::{
    id::NodeId,
    name::Label,
    zone::{DomainName, Mx, Srv},
};

impl State {
    /// Addresses beside the mesh that `node`'s names may lead to, by its invite.
    pub fn granted_addresses(&self, node: NodeId) -> impl Iterator<Item = &IpNet> {
        self.extension.addresses.get(&node).into_iter().flatten()
    }

    pub(super) fn grant_addresses(&mut self, node: NodeId, addresses: BTreeSet<IpNet>) {
        if !addresses.is_empty() {
            self.extension.addresses.insert(node, addresses);
        }
    }

    pub(super) fn forget_addresses(&mut self, node: NodeId) {
        self.extension.addresses.remove(&node);
    }

    /// Remembers what was there before names had to lead to their owners: up to
    /// the batch with this index.
    pub(super) fn let_stand(&mut self, index: u64) {
        self.extension.stands_until = index;
    }

    /// Whether a service's name is `node`'s own, or shared with it.
    pub fn may_serve(&self, node: NodeId, name: &Label) -> bool {
        self.names.get(name).is_some_and(|held| {
            held.kind == NameKind::Service && (held.owner == node || held.shared.contains(&node))
        })
    }

    /// Whether an instance of `name` that `node` announces at `address` is
    /// served.
    pub fn instance_counts(&self, node: NodeId, name: &Label, address: IpAddr) -> bool {
        if self.rules == 0 || self.is_admin(node) && !self.is_overlay(address) {
            return true;
        }
        self.is_allowed(node, address)
            || !self.is_overlay(address) && self.is_vouched(node, name, address)
    }

    /// Whether a name that `node` may use was there before rules 1, or an admin
    /// added a record with this address to it.
    fn is_vouched(&self, node: NodeId, name: &Label, address: IpAddr) -> bool {
        let Some(held) = self.names.get(name) else {
            return false;
        };
        if !self.may_serve(node, name) {
            return false;
        }
        let labels = self.domain.as_str().split('.').map(str::as_bytes);
        let full = std::iter::once(name.as_str().as_bytes()).chain(labels);
        let records = DomainName::from_labels(full).and_then(|name| self.records.get(&name));
        let by_admin = |record: &UserRecord| {
            let is_same = match record.data {
                RecordData::A(ip) => IpAddr::V4(ip) == address,
                RecordData::Aaaa(ip) => IpAddr::V6(ip) == address,
                _ => false,
            };
            is_same && self.was_admin(record.owner)
        };
        held.since < self.extension.stands_until
            || records.is_some_and(|all| all.iter().any(by_admin))
    }

    /// Whether a user's record is served: what it says was allowed when it was
    /// added, and names and addresses change hands.
    pub fn record_counts(&self, record: &UserRecord) -> bool {
        if self.rules == 0 || record.since < self.extension.stands_until {
            return true;
        }
        if self.members.contains_key(&record.owner) {
            return self.check_lead(record.owner, &record.data).is_ok();
        }
        // Addresses of the overlay may be somebody else's by now.
        match record.data {
            RecordData::A(ip) if self.is_overlay(ip.into()) => false,
            RecordData::Aaaa(ip) if self.is_overlay(ip.into()) => false,
            RecordData::Txt(_)
            | RecordData::Caa(_)
            | RecordData::Sshfp(_)
            | RecordData::Tlsa(_) => true,
            RecordData::Svcb(ref svcb) | RecordData::Https(ref svcb)
                if svcb.hints().any(|ip| self.is_overlay(ip)) =>
            {
                false
            }
            _ => self.was_admin(record.owner),
        }
    }

    /// Whether a node is an admin, or was one until it left.
    fn was_admin(&self, node: NodeId) -> bool {
        if self.members.contains_key(&node) {
            return self.is_admin(node);
        }
        if let Some(since) = self.extension.appointments.since.get(&node) {
            return since.is_some();
        }
        // The founder has no inviter, and may leave once it has invited an admin.
        let mut inviters = self.inviters.values();
        self.inviters.contains_key(&node) || inviters.any(|inviter| *inviter == node)
    }

    /// Whether `node` may add a record that says this.
    pub(super) fn check_lead(&self, node: NodeId, data: &RecordData) -> Result<(), Refusal> {
        if self.rules == 0 || self.is_admin(node) {
            return Ok(());
        }
        match data {
            RecordData::A(ip) => self.check_address(node, IpAddr::V4(*ip)),
            RecordData::Aaaa(ip) => self.check_address(node, IpAddr::V6(*ip)),
            RecordData::Cname(target)
            | RecordData::Srv(Srv { target, .. })
            | RecordData::Mx(Mx {
                exchange: target, ..
            }) => self.check_target(node, target),
            RecordData::Svcb(svcb) | RecordData::Https(svcb) => {
                svcb.hints()
                    .try_for_each(|ip| self.check_address(node, ip))?;
                self.check_target(node, &svcb.target)
            }
            RecordData::Txt(_)
            | RecordData::Caa(_)
            | RecordData::Sshfp(_)
            | RecordData::Tlsa(_) => Ok(()),
        }
    }

    fn check_address(&self, node: NodeId, address: IpAddr) -> Result<(), Refusal> {
        if self.is_allowed(node, address) {
            Ok(())
        } else if self.is_overlay(address) {
            Err(Refusal::OthersAddress(address))
        } else {
            Err(Refusal::ForeignAddress(address))
        }
    }

    /// Whether an address is the node's own, or beside the mesh and granted to it.
    fn is_allowed(&self, node: NodeId, address: IpAddr) -> bool {
        let Some(member) = self.members.get(&node) else {
            return false;
        };
        if self.is_overlay(address) {
            return address == IpAddr::V4(member.ipv4) || address == IpAddr::V6(member.ipv6);
        }
        // Whoever brings a network speaks for what is in it.
        let mut granted = self.granted_addresses(node).chain(&member.routes);
        granted.any(|net| net.contains(&address))
    }

    /// Whether an address is of the overlay, also in the forms in which IPv6
    /// addresses stand for IPv4 ones.
    fn is_overlay(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4.contains(&v4),
            IpAddr::V6(v6) => {
                self.mesh.ula().contains(&v6)
                    || embedded(v6).is_some_and(|v4| self.ipv4.contains(&v4))
            }
        }
    }

    /// Inside, an alias leads to a name of the node's own, or one that its owner
    /// shares with it; elsewhere, to any address, and so needs a grant of all.
    fn check_target(&self, node: NodeId, target: &DomainName) -> Result<(), Refusal> {
        // "No service here" (RFC 2782, RFC 7505).
        if target.labels().next().is_none() {
            return Ok(());
        }
        if self.is_inside(target) {
            let held = label_of(self, target).and_then(|label| self.names.get(&label));
            let agreed = held.is_some_and(|held| held.owner == node || held.shared.contains(&node));
            return if agreed {
                Ok(())
            } else {
                Err(Refusal::OthersName(target.to_string()))
            };
        }
        let member = self.members.get(&node);
        let routes = member.into_iter().flat_map(|member| &member.routes);
        let all: Vec<&IpNet> = self.granted_addresses(node).chain(routes).collect();
        let whole = |v4: bool| {
            let mut nets = all.iter();
            nets.any(|net| net.prefix_len() == 0 && net.addr().is_ipv4() == v4)
        };
        if whole(true) && whole(false) {
            Ok(())
        } else {
            Err(Refusal::ForeignName(target.to_string()))
        }
    }

    fn is_inside(&self, name: &DomainName) -> bool {
        let labels = self.domain.as_str().split('.').map(str::as_bytes);
        DomainName::from_labels(labels).is_some_and(|domain| name.is_within(&domain))
    }

    fn is_admin(&self, node: NodeId) -> bool {
        let member = self.members.get(&node);
        member.is_some_and(|member| member.roles.contains(&Role::Admin))
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped or compatible
/// (RFC 4291 §2.5.5), by NAT64's well-known prefix (RFC 6052 §2.1), or by 6to4
/// (RFC 3056 §2).
fn embedded(address: Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let bits = u32::from(high) << 16 | u32::from(low);
        Some(bits.into())
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            of(high, low)
        }
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}
