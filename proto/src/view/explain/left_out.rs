//! What could be answered, and why it isn't.

use std::collections::{BTreeMap, BTreeSet};

use super::{Candidate, Condition, LanView, LeftOut, LeftOutReason, condition, owner::Subject};
use crate::{
    head::Instance,
    id::NodeId,
    ledger::{record::UserRecord, state::NameKind},
    name::Label,
    view::MeshView,
    zone::{
        DomainName, Protocol, Rdata, Record, RecordType, ServiceRecords, ServiceState, ServiceType,
        ZoneInput,
    },
};

/// What of a service is asked for.
#[derive(Clone, Copy)]
enum Wanted<'w> {
    Any,
    By(Protocol),
    Speaking(Protocol, &'w str),
}

impl MeshView {
    pub(super) fn left_out_of(
        &self,
        subject: &Subject,
        rtype: RecordType,
        lan: Option<LanView<'_>>,
    ) -> Vec<LeftOut> {
        match subject {
            Subject::Node(label) => self.node_left_out(label, lan).into_iter().collect(),
            Subject::Service(service, on) => {
                let wanted = match rtype {
                    RecordType::HTTPS => Wanted::Speaking(Protocol::Tcp, "https"),
                    RecordType::A | RecordType::AAAA | RecordType::SRV => Wanted::Any,
                    _ => return Vec::new(),
                };
                self.instances_left_out(service, *on, wanted, lan)
            }
            Subject::Found {
                service: Some(service),
                spoken,
                protocol,
            } => {
                let wanted = Wanted::Speaking(*protocol, spoken);
                self.instances_left_out(service, None, wanted, lan)
            }
            // RFC 2782's names have the service's own.
            Subject::Found {
                service: None,
                spoken,
                protocol,
            } if rtype == RecordType::SRV => match spoken.parse() {
                Ok(service) => self.instances_left_out(&service, None, Wanted::By(*protocol), lan),
                Err(_) => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn node_left_out(&self, label: &Label, lan: Option<LanView<'_>>) -> Option<LeftOut> {
        let (node, _) = self.ledger.member_by_name(label)?;
        let is_there = |lan: LanView<'_>| {
            let reached = lan.addresses.reached.get(label).into_iter().flatten();
            let mut reached = reached.filter(|ip| lan.nets.iter().any(|net| net.contains(*ip)));
            reached.next().is_some()
        };
        let why = if self.held.contains_key(&node) {
            LeftOutReason::Held
        } else if lan.is_some_and(|lan| !is_there(lan)) {
            LeftOutReason::NotInLan
        } else {
            return None;
        };
        let what = Candidate::Node(label.clone());
        Some(LeftOut { what, why })
    }

    /// Instances that aren't answered: of a good one nothing is said, and of the others
    /// only where there is a better one.
    fn instances_left_out(
        &self,
        service: &Label,
        on: Option<NodeId>,
        wanted: Wanted<'_>,
        lan: Option<LanView<'_>>,
    ) -> Vec<LeftOut> {
        let in_lan = lan.map(|lan| self.nodes_in_lan(service, lan));
        let mut left_out = Vec::new();
        let mut weak = Vec::new();
        let mut is_any_good = false;
        for (node, view) in &self.nodes {
            let Some(member) = self.ledger.members.get(node) else {
                continue;
            };
            let Some(instance) = view.announcement.services.get(service) else {
                continue;
            };
            if on.is_some_and(|on| on != *node) {
                continue;
            }
            let what = Candidate::Instance {
                service: service.clone(),
                node: member.name.clone(),
            };
            let spoken = view.announcement.service_type(service, instance);
            let is_absent = in_lan
                .as_ref()
                .is_some_and(|all| !all.contains(&member.name));
            let is_own = on.is_some();
            if let Some(why) = self.excluded(node, service, instance, is_own) {
                left_out.push(LeftOut { what, why });
            } else if is_absent {
                let why = LeftOutReason::NotInLan;
                left_out.push(LeftOut { what, why });
            } else {
                let unwanted = unwanted(wanted, instance, spoken.as_ref());
                let condition = condition(view.live, instance.healthy);
                // What a service speaks is told of the instances of its addresses.
                let counts = unwanted.is_none() || matches!(wanted, Wanted::Speaking(..));
                is_any_good |= counts && condition == Condition::Good;
                match (unwanted, condition) {
                    (Some(why), _) => left_out.push(LeftOut { what, why }),
                    (None, Condition::NotLive) => weak.push((what, LeftOutReason::NotLive)),
                    (None, Condition::Unhealthy) => weak.push((what, LeftOutReason::Unhealthy)),
                    (None, Condition::Good) => {}
                }
            }
        }
        if is_any_good {
            let weak = weak.into_iter().map(|(what, why)| LeftOut { what, why });
            left_out.extend(weak);
        }
        if on.is_none() {
            left_out.extend(self.unheard(service));
        }
        left_out
    }

    /// Why a node's instance doesn't count at all.
    fn excluded(
        &self,
        node: &NodeId,
        service: &Label,
        instance: &Instance,
        is_own: bool,
    ) -> Option<LeftOutReason> {
        if self.held.contains_key(node) {
            return Some(LeftOutReason::Held);
        }
        if !is_own && !self.ledger.may_serve(*node, service) {
            return Some(match self.ledger.names.get(service) {
                None => LeftOutReason::NotGranted,
                Some(name) if name.kind == NameKind::Service => LeftOutReason::NotShared {
                    owner: self.ledger.name_of(name.owner),
                },
                Some(_) => LeftOutReason::NameTaken,
            });
        }
        if self.instance(node, service).is_none() {
            return instance.address.map(LeftOutReason::Address);
        }
        None
    }

    /// Who may run it and wasn't heard yet.
    fn unheard(&self, service: &Label) -> Vec<LeftOut> {
        let Some(name) = self.ledger.names.get(service) else {
            return Vec::new();
        };
        if name.kind != NameKind::Service {
            return Vec::new();
        }
        let holders = self.holders(name).filter_map(|node| {
            let member = self.ledger.members.get(node)?;
            let is_known = self.nodes.get(node).is_some_and(|view| !view.loading);
            let what = Candidate::Instance {
                service: service.clone(),
                node: member.name.clone(),
            };
            let why = LeftOutReason::Unheard;
            (!is_known).then_some(LeftOut { what, why })
        });
        holders.collect()
    }

    /// The nodes of a service's instances that a LAN is told.
    fn nodes_in_lan(&self, service: &Label, lan: LanView<'_>) -> BTreeSet<Label> {
        let instances = self.nodes.keys();
        let instances = instances.filter_map(|node| self.instance(node, service));
        let records = ServiceRecords {
            state: ServiceState::Known,
            instances: instances.collect(),
            wildcard: false,
        };
        let input = ZoneInput {
            domain: self.ledger.domain.clone(),
            ipv4: self.ledger.ipv4,
            ula: self.ula(),
            serial: 0,
            loading: false,
            nodes: BTreeMap::new(),
            services: [(service.clone(), records)].into(),
            records: BTreeMap::new(),
            ttls: BTreeMap::new(),
            member_aliases: BTreeSet::new(),
            devices: BTreeMap::new(),
            front: None,
            withheld: BTreeSet::new(),
        };
        let told = input.for_lan(lan.addresses, lan.nets);
        let instances = told.services.into_values().flat_map(|all| all.instances);
        instances.map(|instance| instance.node).collect()
    }

    pub(super) fn records_left_out(
        &self,
        name: &DomainName,
        rtype: RecordType,
        answers: &[Record],
        lan: Option<LanView<'_>>,
    ) -> Vec<LeftOut> {
        let all = self.ledger.records.get(name).into_iter().flatten();
        let meant = all.filter(|user| {
            let own = user.data.record_type();
            own == rtype || own == RecordType::CNAME
        });
        let is_answered = |user: &UserRecord| {
            let data = user.data.rdata();
            answers.iter().any(|it| it.name == *name && it.data == data)
        };
        let left_out = meant.filter(|user| !is_answered(user)).map(|user| {
            let data = user.data.rdata();
            let leads_in = match &data {
                Rdata::A(_) | Rdata::Aaaa(_) => self.is_overlay(&data),
                Rdata::Svcb(svcb) | Rdata::Https(svcb) => svcb.hints().any(|ip| self.is_inner(ip)),
                _ => false,
            };
            let why = if self.held.contains_key(&user.owner) {
                LeftOutReason::Held
            } else if !self.ledger.record_counts(user) {
                LeftOutReason::NotAllowed
            } else if lan.is_some() && leads_in {
                LeftOutReason::NotInLan
            } else {
                LeftOutReason::Displaced
            };
            let by = self.ledger.name_of(user.owner);
            let what = Candidate::Record { data, by };
            LeftOut { what, why }
        });
        left_out.collect()
    }
}

fn unwanted(
    wanted: Wanted<'_>,
    instance: &Instance,
    spoken: Option<&ServiceType>,
) -> Option<LeftOutReason> {
    match wanted {
        Wanted::By(protocol) | Wanted::Speaking(protocol, _) if protocol != instance.protocol => {
            Some(LeftOutReason::Transport(instance.protocol))
        }
        Wanted::Speaking(_, wanted) if spoken.is_none_or(|it| it.as_str() != wanted) => {
            Some(LeftOutReason::Type)
        }
        _ => None,
    }
}
