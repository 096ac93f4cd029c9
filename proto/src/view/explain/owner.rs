//! Whose names and records these are.

use std::net::IpAddr;

use super::{Condition, LanView, RecordOwner, condition};
use crate::{
    id::NodeId,
    ledger::record::UserRecord,
    name::Label,
    view::MeshView,
    zone::{DomainName, InstanceRecord, Protocol, Rdata, Record, ServiceType},
};

/// Where a name stands.
pub(super) enum Subject {
    Mesh,
    Node(Label),
    Device(Label),
    /// Of the node with the id only, where there is one.
    Service(Label, Option<NodeId>),
    /// At or below `_<type>._<protocol>`, or a service's SRV record there.
    Found {
        service: Option<Label>,
        spoken: String,
        protocol: Protocol,
    },
    Other,
}

impl MeshView {
    pub(super) fn subject(&self, name: &DomainName) -> Subject {
        let domain = self.ledger.domain.as_str().split('.').map(str::as_bytes);
        let domain: Vec<&[u8]> = domain.collect();
        let mut labels: Vec<&[u8]> = name.labels().collect();
        let Some(own) = labels.len().checked_sub(domain.len()) else {
            return Subject::Other;
        };
        if labels.split_off(own) != domain {
            return Subject::Other;
        }
        let Some(top) = labels.pop().and_then(text) else {
            return Subject::Mesh;
        };
        if let Some(protocol) = top.strip_prefix('_').and_then(|it| it.parse().ok()) {
            return found(&labels, protocol);
        }
        if labels.is_empty() && matches!(top, "acme" | "ca" | "ns") {
            return Subject::Mesh;
        }
        let Ok(label) = top.parse::<Label>() else {
            return Subject::Other;
        };
        if let Some((node, member)) = self.ledger.member_by_name(&label) {
            let below = labels.last().copied().and_then(text);
            let transport = below.and_then(|below| below.strip_prefix('_'));
            let service = match transport.map(str::parse::<Protocol>) {
                Some(Ok(_)) => labels.iter().rev().nth(1).copied().and_then(text),
                _ => below,
            };
            let service = service.and_then(|it| it.trim_start_matches('_').parse().ok());
            return match service {
                Some(service) if self.announces(&node, &service) => {
                    Subject::Service(service, Some(node))
                }
                _ => Subject::Node(member.name.clone()),
            };
        }
        if self.ledger.device_by_name(&label).is_some() {
            return Subject::Device(label);
        }
        Subject::Service(label, None)
    }

    fn announces(&self, node: &NodeId, service: &Label) -> bool {
        let view = self.nodes.get(node);
        view.is_some_and(|view| view.announcement.services.contains_key(service))
    }

    pub(super) fn owner(&self, record: &Record, lan: Option<LanView<'_>>) -> Option<RecordOwner> {
        let mut users = self.written_for(&record.name).iter();
        let by_user = users
            .find(|user| user.data.rdata() == record.data && self.is_served(user))
            .map(|user| RecordOwner::User(self.ledger.name_of(user.owner)));
        let by_itself = match self.subject(&record.name) {
            Subject::Mesh => Some(RecordOwner::Mesh),
            Subject::Node(node) => Some(RecordOwner::Node(node)),
            Subject::Device(device) => Some(RecordOwner::Device(device)),
            Subject::Service(service, on) => self.instances_with(&service, on, record, lan),
            Subject::Found {
                service: Some(service),
                ..
            } => self.instances_with(&service, None, record, lan),
            // RFC 2782's names have the service's own.
            Subject::Found {
                service: None,
                spoken,
                ..
            } if matches!(record.data, Rdata::Srv(_)) => {
                let service = spoken.parse().ok();
                service.and_then(|service| self.instances_with(&service, None, record, lan))
            }
            Subject::Found { service: None, .. } => self.pointed_at(&record.data),
            Subject::Other => match &record.data {
                Rdata::Ptr(host) => self.pointed_host(host),
                _ => Some(RecordOwner::Mesh),
            },
        };
        // A service's addresses stand before what users wrote; of all else what they wrote
        // stands in place of what follows by itself.
        let is_first = matches!(record.data, Rdata::A(_) | Rdata::Aaaa(_) | Rdata::Srv(_))
            && matches!(by_itself, Some(RecordOwner::Service { .. }));
        if is_first {
            by_itself
        } else {
            by_user.or(by_itself)
        }
    }

    /// What users wrote at a name, or at the wildcard that stands for it.
    fn written_for(&self, name: &DomainName) -> &[UserRecord] {
        if let Some(all) = self.ledger.records.get(name) {
            return all;
        }
        let mut above = name.parent();
        while let Some(ancestor) = above {
            let wildcard = ancestor.child(b"*");
            if let Some(all) = wildcard.and_then(|it| self.ledger.records.get(&it)) {
                return all;
            }
            above = ancestor.parent();
        }
        &[]
    }

    /// The instances of a service that a record is of: good ones, while there are any.
    fn instances_with(
        &self,
        service: &Label,
        on: Option<NodeId>,
        record: &Record,
        lan: Option<LanView<'_>>,
    ) -> Option<RecordOwner> {
        let mut nodes = Vec::new();
        for (node, view) in &self.nodes {
            let is_meant = match on {
                Some(on) => *node == on,
                None => self.ledger.may_serve(*node, service),
            };
            if !is_meant || self.held.contains_key(node) {
                continue;
            }
            if let Some(instance) = self.instance(node, service)
                && says(&instance, service, &record.data, lan)
            {
                let condition = condition(view.live, instance.healthy);
                nodes.push((instance.node, condition));
            }
        }
        if nodes.iter().any(|(_, it)| *it == Condition::Good) {
            nodes.retain(|(_, it)| *it == Condition::Good);
        }
        let service = service.clone();
        (!nodes.is_empty()).then_some(RecordOwner::Service { service, nodes })
    }

    /// Whose name a pointer of DNS-SD leads to.
    fn pointed_at(&self, data: &Rdata) -> Option<RecordOwner> {
        let Rdata::Ptr(target) = data else {
            return Some(RecordOwner::Mesh);
        };
        match self.subject(target) {
            Subject::Found {
                service: Some(service),
                ..
            } => Some(RecordOwner::Service {
                service,
                nodes: Vec::new(),
            }),
            _ => Some(RecordOwner::Mesh),
        }
    }

    /// Whose address a pointer of the reverse tree is at.
    fn pointed_host(&self, host: &DomainName) -> Option<RecordOwner> {
        Some(match self.subject(host) {
            Subject::Node(node) => RecordOwner::Node(node),
            Subject::Device(device) => RecordOwner::Device(device),
            _ => RecordOwner::Mesh,
        })
    }
}

/// What stands below `_tcp` or `_udp`.
fn found(above: &[&[u8]], protocol: Protocol) -> Subject {
    let spoken = above.last().copied().and_then(text);
    let Some(spoken) = spoken.and_then(|it| it.strip_prefix('_')) else {
        return Subject::Mesh;
    };
    if spoken == "dns-sd" {
        return Subject::Mesh;
    }
    let service = above.iter().rev().nth(1).copied().and_then(text);
    Subject::Found {
        service: service.and_then(|it| it.parse().ok()),
        spoken: spoken.to_owned(),
        protocol,
    }
}

/// Whether an instance is one that a record of its service's names is of.
fn says(
    instance: &InstanceRecord,
    service: &Label,
    data: &Rdata,
    lan: Option<LanView<'_>>,
) -> bool {
    let has = |ip: IpAddr| {
        let reached = lan.and_then(|lan| lan.addresses.reached.get(&instance.node));
        instance.addresses.contains(&ip) || reached.is_some_and(|all| all.contains(&ip))
    };
    match data {
        Rdata::A(ip) => has((*ip).into()),
        Rdata::Aaaa(ip) => has((*ip).into()),
        Rdata::Srv(srv) => {
            let first = srv.target.labels().next();
            let is_its = [service, &instance.node].map(|it| Some(it.as_str().as_bytes()));
            srv.port == instance.port && is_its.contains(&first)
        }
        Rdata::Https(_) => instance
            .service_type
            .as_ref()
            .is_some_and(ServiceType::is_https),
        Rdata::Txt(strings) => strings.concat().is_empty(),
        _ => false,
    }
}

fn text(label: &[u8]) -> Option<&str> {
    std::str::from_utf8(label).ok()
}
