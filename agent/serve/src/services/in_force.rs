//! The services in force, and which check is due: pure.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use innermesh_control::{
    check::Check,
    spec::{Spec, SpecError},
};
use innermesh_host::Mono;
use innermesh_proto::{head::Instance, name::Label};

use super::health::Health;

#[derive(Default)]
pub(super) struct InForce {
    pub services: BTreeMap<Label, Service>,
    pub local: Vec<IpAddr>,
    pub damaged: BTreeMap<PathBuf, SpecError>,
    added: u64,
}

pub(super) struct Service {
    pub spec: Spec,
    pub configured: bool,
    pub health: Health,
    /// Tells this description's checks from an earlier one's.
    pub number: u64,
    /// When it is checked next; `None` without a check, and during one.
    pub due: Option<Mono>,
}

/// A service as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    pub spec: Spec,
    /// Whether it stands in the configuration, where alone it can be changed.
    pub configured: bool,
    /// Whether it counts as healthy.
    pub healthy: bool,
    /// Why its last check failed, if it did.
    pub last_error: Option<String>,
    /// Since when it is healthy or not, in milliseconds since 1970.
    pub since_ms: u64,
}

/// One check that is due.
pub(super) struct Probe {
    pub name: Label,
    pub number: u64,
    pub check: Check,
    pub ips: Vec<IpAddr>,
    pub port: u16,
}

impl InForce {
    /// Adds one, or puts it in place of that of its name; its check is due at once.
    /// `wall_ms` is in milliseconds since 1970.
    pub fn put(&mut self, spec: Spec, configured: bool, now: Mono, wall_ms: u64) {
        self.added += 1;
        let service = Service {
            configured,
            health: Health::new(spec.check.is_some(), wall_ms),
            number: self.added,
            due: spec.check.is_some().then_some(now),
            spec,
        };
        self.services.insert(service.spec.name.clone(), service);
    }

    /// Makes checks due whose results were lost with an earlier run.
    pub fn resume(&mut self, now: Mono) {
        for service in self.services.values_mut() {
            if service.spec.check.is_some() {
                service.due.get_or_insert(now);
            }
        }
    }

    /// At most `room` checks that are due, the longest waiting first, and when
    /// the next one is, unless that must wait for room.
    pub fn take_due(&mut self, now: Mono, room: usize) -> (Vec<Probe>, Option<Mono>) {
        let mut waiting: Vec<(Mono, Label)> = self
            .services
            .iter()
            .filter_map(|(name, service)| Some((service.due?, name.clone())))
            .collect();
        waiting.sort_unstable();
        let due = waiting.partition_point(|(due, _)| *due <= now);
        let next = if due <= room {
            waiting.get(due).map(|(due, _)| *due)
        } else {
            None
        };
        let probes = waiting.into_iter().take(due.min(room));
        (
            probes.filter_map(|(_, name)| self.start(&name)).collect(),
            next,
        )
    }

    fn start(&mut self, name: &Label) -> Option<Probe> {
        let service = self.services.get_mut(name)?;
        service.due = None;
        Some(Probe {
            name: name.clone(),
            number: service.number,
            check: service.spec.check.clone()?,
            ips: match service.spec.address {
                Some(address) => vec![address],
                None if self.local.is_empty() => vec![Ipv4Addr::LOCALHOST.into()],
                None => self.local.clone(),
            },
            port: service.spec.port,
        })
    }

    pub fn instances(&self) -> BTreeMap<Label, Instance> {
        self.services
            .iter()
            .map(|(name, service)| {
                (
                    name.clone(),
                    service.spec.instance(service.health.is_healthy()),
                )
            })
            .collect()
    }

    pub fn unchecked(&self) -> BTreeSet<Label> {
        let unchecked = self.services.iter();
        unchecked
            .filter(|(_, service)| service.spec.check.is_none())
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Service {
    pub fn status(&self) -> ServiceStatus {
        ServiceStatus {
            spec: self.spec.clone(),
            configured: self.configured,
            healthy: self.health.is_healthy(),
            last_error: self.health.last_error().map(str::to_owned),
            since_ms: self.health.since_ms(),
        }
    }
}
