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
use innermesh_proto::{head::Instance, limits, name::Label, zone::ServiceType};

use super::{docker::ContainerService, health::Health};

#[derive(Default)]
pub(super) struct InForce {
    pub services: BTreeMap<Label, Service>,
    /// Those that labels of containers describe; what a person described by the
    /// same name stands before them.
    pub containers: BTreeMap<Label, ContainerService>,
    pub local: Vec<IpAddr>,
    pub damaged: BTreeMap<PathBuf, SpecError>,
    added: u64,
}

/// Who described a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody by `agent service add`.
    Added,
    /// The configuration, where alone it can be changed.
    Configured,
    /// The labels of a container, where alone it can be changed.
    Container,
}

pub(super) struct Service {
    pub spec: Spec,
    pub origin: Origin,
    /// Whether somebody else checks it, who decides its health then.
    pub is_judged: bool,
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
    pub origin: Origin,
    /// Whether it counts as healthy.
    pub healthy: bool,
    /// Why its last check failed, if it did.
    pub last_error: Option<String>,
    /// Since when it is healthy or not, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Why a container's service doesn't count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Displaced {
    #[error("this node has a service of that name that a person described, which counts")]
    ByHand,
    #[error("this node has as many services as a node may have")]
    NoRoom,
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
    /// Adds one that a person described, or puts it in place of that of its name;
    /// its check is due at once. `wall_ms` is in milliseconds since 1970.
    pub fn put(&mut self, spec: Spec, origin: Origin, now: Mono, wall_ms: u64) {
        let has_check = spec.check.is_some();
        self.insert(spec, origin, has_check.then_some(now), wall_ms);
    }

    fn insert(&mut self, spec: Spec, origin: Origin, due: Option<Mono>, wall_ms: u64) {
        self.added += 1;
        let service = Service {
            origin,
            is_judged: false,
            health: Health::new(spec.check.is_some(), wall_ms),
            number: self.added,
            due,
            spec,
        };
        self.services.insert(service.spec.name.clone(), service);
    }

    /// How many a person described.
    pub fn described(&self) -> usize {
        let all = self.services.values();
        all.filter(|service| service.origin != Origin::Container)
            .count()
    }

    /// Has the services of containers stand wherever no person's does, as far as
    /// there is room.
    pub fn fill_in(&mut self, now: Mono, wall_ms: u64) {
        let Self {
            services,
            containers,
            ..
        } = self;
        services.retain(|name, service| {
            service.origin != Origin::Container || containers.contains_key(name)
        });
        let mut room = limits::NAMES_PER_NODE.saturating_sub(self.described());
        for (name, wanted) in self.containers.clone() {
            let there = self.services.get(&name);
            if there.is_some_and(|there| there.origin != Origin::Container) {
                continue;
            }
            if room == 0 {
                self.services.remove(&name);
                continue;
            }
            room -= 1;
            let is_judged = wanted.health.is_some();
            let is_same =
                |there: &Service| there.spec == wanted.spec && there.is_judged == is_judged;
            if !there.is_some_and(is_same) {
                let due = (!is_judged && wanted.spec.check.is_some()).then_some(now);
                self.insert(wanted.spec, Origin::Container, due, wall_ms);
            }
            if let Some(service) = self.services.get_mut(&name)
                && let Some(health) = wanted.health
            {
                service.is_judged = true;
                service.health.set(health, wall_ms);
            }
        }
    }

    /// Services of containers that don't count, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (&ContainerService, Displaced)> {
        self.containers.iter().filter_map(|(name, wanted)| {
            match self.services.get(name).map(|there| there.origin) {
                Some(Origin::Container) => None,
                Some(_) => Some((wanted, Displaced::ByHand)),
                None => Some((wanted, Displaced::NoRoom)),
            }
        })
    }

    /// Makes checks due whose results were lost with an earlier run.
    pub fn resume(&mut self, now: Mono) {
        for service in self.services.values_mut() {
            if service.spec.check.is_some() && !service.is_judged {
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

    /// What they speak, where that is to be announced.
    pub fn types(&self) -> BTreeMap<Label, ServiceType> {
        let services = self.services.iter();
        services
            .filter_map(|(name, service)| Some((name.clone(), service.spec.announced_type()?)))
            .collect()
    }

    pub fn unchecked(&self) -> BTreeSet<Label> {
        let unchecked = self.services.iter();
        unchecked
            .filter(|(_, service)| service.spec.check.is_none() && !service.is_judged)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Service {
    pub fn status(&self) -> ServiceStatus {
        ServiceStatus {
            spec: self.spec.clone(),
            origin: self.origin,
            healthy: self.health.is_healthy(),
            last_error: self.health.last_error().map(str::to_owned),
            since_ms: self.health.since_ms(),
        }
    }
}
