//! Which containers there are, from lists, events and inspections that come in any
//! order: pure. An inspection that was asked for before a container ended says nothing
//! of it any more, and a list says nothing of what began or ended while it was made.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use innermesh_control::finding::{Finding, code};
use innermesh_proto::{limits, name::Label};

use super::{
    ContainerService, Containers, Unwell,
    answer::{ContainerId, Event, Inspected},
    finding,
    label::{LabelError, service},
};

/// Findings that are told one by one.
const FINDINGS: usize = 10;

/// What is known of the containers with labels.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    all: BTreeMap<ContainerId, Tracked>,
    /// Those to be inspected, by when that was asked for.
    due: BTreeMap<u64, ContainerId>,
    /// Those of which something was heard since a list was asked for, and whether
    /// these are all.
    heard: BTreeSet<ContainerId>,
    heard_more: bool,
    /// How many are left out as there are too many.
    left_out: usize,
    next: u64,
}

#[derive(Debug, Default)]
struct Tracked {
    /// What was last seen of it.
    seen: Option<Seen>,
    /// Its place in `due`.
    due: Option<u64>,
    /// The inspection that counts once it is done.
    running: Option<u64>,
}

/// One container, as it was inspected.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub container: Inspected,
    /// Our labels of its image.
    pub image: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Seen {
    Container(Box<Looked>),
    /// Why its answer can't be used.
    Unusable(String),
}

/// What came of an inspection.
#[derive(Debug)]
pub(super) enum Outcome {
    Seen(Box<Looked>),
    /// There is no such container.
    Absent,
    /// Why the answer can't be used.
    Unusable(String),
    /// What was seen before counts, until the next list.
    NoAnswer,
}

/// Tells the results of inspections apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Tracker {
    /// A list is asked for.
    pub fn listing(&mut self) {
        self.heard.clear();
        self.heard_more = false;
    }

    /// Takes a list that was asked for at the last [`Tracker::listing`]: those that
    /// aren't in it are gone, and all others are inspected.
    pub fn listed(&mut self, list: Vec<ContainerId>) {
        let listed: BTreeSet<&ContainerId> = list.iter().collect();
        let gone = self.all.keys().filter(|id| !listed.contains(id));
        let gone = gone.filter(|id| !self.heard_more && !self.heard.contains(*id));
        for id in gone.cloned().collect::<Vec<_>>() {
            self.forget(&id);
        }
        self.left_out = 0;
        for id in list {
            self.ask(id);
        }
    }

    pub fn event(&mut self, event: Event) {
        if self.heard.len() < limits::DOCKER_CONTAINERS {
            self.heard.insert(event.container.clone());
        } else {
            self.heard_more = true;
        }
        if event.has_ended {
            self.forget(&event.container);
        } else {
            self.ask(event.container);
        }
    }

    fn ask(&mut self, id: ContainerId) {
        if !self.all.contains_key(&id) && self.all.len() >= limits::DOCKER_CONTAINERS {
            self.left_out += 1;
            return;
        }
        self.next += 1;
        let tracked = self.all.entry(id.clone()).or_default();
        if tracked.due.is_none() {
            tracked.due = Some(self.next);
            self.due.insert(self.next, id);
        }
    }

    fn forget(&mut self, id: &ContainerId) {
        if let Some(due) = self.all.remove(id).and_then(|tracked| tracked.due) {
            self.due.remove(&due);
        }
    }

    /// The next one to be inspected; none that is being inspected already.
    pub fn next(&mut self) -> Option<(ContainerId, Ticket)> {
        let ready = self.due.iter().find(|(_, id)| {
            let tracked = self.all.get(id);
            tracked.is_some_and(|tracked| tracked.running.is_none())
        });
        let number = *ready?.0;
        let id = self.due.remove(&number)?;
        let tracked = self.all.get_mut(&id)?;
        tracked.due = None;
        tracked.running = Some(number);
        Some((id, Ticket(number)))
    }

    /// Takes what came of an inspection.
    pub fn inspected(&mut self, id: &ContainerId, ticket: Ticket, outcome: Outcome) {
        let Some(tracked) = self.all.get_mut(id) else {
            return;
        };
        if tracked.running != Some(ticket.0) {
            return;
        }
        tracked.running = None;
        match outcome {
            Outcome::Seen(looked) => tracked.seen = Some(Seen::Container(looked)),
            Outcome::Absent if tracked.due.is_none() => self.forget(id),
            Outcome::Absent => tracked.seen = None,
            Outcome::Unusable(why) => tracked.seen = Some(Seen::Unusable(why)),
            Outcome::NoAnswer => {}
        }
    }

    /// No inspection runs any more: those that did are asked for again.
    pub fn interrupted(&mut self) {
        let running = self.all.iter_mut().filter(|(_, it)| it.running.is_some());
        let running: Vec<ContainerId> = running
            .map(|(id, tracked)| {
                tracked.running = None;
                id.clone()
            })
            .collect();
        for id in running {
            self.ask(id);
        }
    }

    /// Whether an inspection is to be made or being made.
    pub fn is_busy(&self) -> bool {
        !self.due.is_empty() || self.all.values().any(|it| it.running.is_some())
    }

    /// What all of them come to, with this node's addresses in the mesh. `is_known`
    /// is false where Docker hasn't answered for long.
    pub fn containers(&self, own: &[IpAddr], is_known: bool) -> Containers {
        let mut found: Vec<(&Inspected, Result<ContainerService, LabelError>)> = Vec::new();
        let mut problems: Vec<(String, LabelError)> = Vec::new();
        for (id, tracked) in &self.all {
            match &tracked.seen {
                Some(Seen::Container(looked)) => {
                    let read = service(&looked.container, &looked.image, own);
                    if let Some(read) = read.transpose() {
                        found.push((&looked.container, read));
                    }
                }
                Some(Seen::Unusable(why)) => {
                    let name = id.as_str().chars().take(12).collect();
                    problems.push((name, LabelError::Answer(why.clone())));
                }
                None => {}
            }
        }
        found.sort_by(|(a, _), (b, _)| (&a.started, &a.id).cmp(&(&b.started, &b.id)));
        let mut services: BTreeMap<Label, ContainerService> = BTreeMap::new();
        for (container, read) in found {
            match read {
                Ok(service) => match services.get(&service.spec.name) {
                    Some(first) => {
                        let name = service.spec.name.clone();
                        let taken = LabelError::Taken(first.container.clone(), name);
                        problems.push((service.container, taken));
                    }
                    None => {
                        services.insert(service.spec.name.clone(), service);
                    }
                },
                Err(error) => problems.push((container.name.clone(), error)),
            }
        }
        if !is_known {
            let unchecked = |it: &&mut ContainerService| {
                it.health == Some(Ok(())) || it.health.is_none() && it.spec.check.is_none()
            };
            for service in services.values_mut().filter(unchecked) {
                service.health = Some(Err(Unwell::Unknown));
            }
        }
        let findings = self.findings(problems);
        Containers { services, findings }
    }

    fn findings(&self, mut problems: Vec<(String, LabelError)>) -> Vec<Finding> {
        problems.sort_by(|(a, _), (b, _)| a.cmp(b));
        let shown = problems.iter().take(FINDINGS);
        let mut told: Vec<Finding> = shown
            .map(|(container, why)| finding(container, why))
            .collect();
        let more = problems.len().saturating_sub(FINDINGS) + self.left_out;
        if more > 0 {
            let most = limits::DOCKER_CONTAINERS;
            told.push(Finding::warning(
                code::CONTAINER_LABEL,
                format!("the labels of {more} more containers make no service"),
                format!("Mend the others first; labels of {most} containers count at most"),
            ));
        }
        told
    }
}
