//! What is done to those who decide, and to who may: promotions, evictions,
//! copies of machines, names that several ask for.

use std::time::Duration;

use innermesh_agent::{
    control::members::{EvictRequest, EvictionState},
    node::Agent,
};
use innermesh_proto::{
    crypto::Hash,
    id::NodeId,
    ledger::{
        Content, Outcome, Refusal, Role,
        request::{Certify, RoleChange},
    },
};
use tokio::time::Instant;

use super::{
    Course,
    acts::{Asked, Done},
};
use crate::{Machine, check::CERTIFICATE_DAYS, clock, mesh, violation::Seen};

/// Within how long somebody must have told of a copy (S10).
const TOLD: Duration = Duration::from_secs(30);
/// How long the mesh may take to decide at the end (L3), with all faults over.
const DECIDES: Duration = Duration::from_secs(30);

/// Within how long an honest request is decided, whatever a member does (S24).
const IN_TIME: Duration = Duration::from_secs(3);

/// A copy of a machine, with the same identity.
pub(super) struct Copy {
    machine: Machine,
    agent: Agent,
    of: usize,
    /// Since when both run.
    since: Option<Instant>,
}

impl Course<'_> {
    /// The machine that leads, as it says itself; of several the newest.
    pub(super) fn leader(&self) -> Option<usize> {
        let agents = self.agents.iter().enumerate();
        let leads = agents.filter_map(|(node, agent)| {
            let council = agent.as_ref()?.raft_status().borrow().clone();
            council.leads.then_some((council.term, node))
        });
        leads.max().map(|(_, node)| node)
    }

    /// Makes the roster as large as it is to be.
    pub(super) async fn grow_roster(&mut self, founder: &Agent) {
        let Some(root) = self.root.clone() else {
            return;
        };
        for node in 1..self.schedule.ca.min(self.machines.len()) {
            let promoted = mesh::promote(founder, &root, &self.machines[node].host).await;
            if let Err(error) = promoted {
                let words = format!("node{node} can't be promoted: {error}");
                self.violated(0, ("L3", words));
                return;
            }
        }
        let until = clock::now() + DECIDES;
        while self.violation.is_none() && !self.has_roster() {
            if clock::now() > until {
                let words = format!("there is no roster of {}", self.schedule.ca);
                self.violated(0, ("L3", words));
            }
            tokio::time::sleep(super::LOOK).await;
            self.look().await;
        }
    }

    fn has_roster(&self) -> bool {
        let mut agents = self.agents.iter().flatten();
        agents.all(|agent| agent.view().borrow().ledger.roster.len() == self.schedule.ca)
    }

    /// Has an agent's user ask for something that the ledger decides.
    fn ask(&mut self, node: usize, what: Asked, content: Content) -> bool {
        let Some(agent) = self.agents[node].clone() else {
            return false;
        };
        let asking = self.asked.spawn(async move {
            let answer = mesh::ask(&agent, &content).await;
            Done { node, what, answer }
        });
        self.asking.entry(node).or_default().push(asking);
        true
    }

    pub(super) fn claim(&mut self, node: usize, name: String) -> bool {
        let Some(agent) = self.agents[node].clone() else {
            return false;
        };
        let content = Content::Claim(name.parse().expect("a label"));
        let key = (name.clone(), self.ids[node]);
        *self.model.asked.entry(key).or_default() += 1;
        let is_free = self.model.given_back.contains(&name);
        let asking = self.asked.spawn(async move {
            let (what, answer) = match mesh::decided(&agent, &content).await {
                Ok(Outcome::Refused(refusal)) => {
                    let is_stale = is_free && matches!(refusal, Refusal::NameTaken { .. });
                    let words = refusal.to_string();
                    (Asked::RefusedClaim(name, is_stale), Err(words))
                }
                Ok(_) => (Asked::Claim(name), Ok(())),
                Err(error) => (Asked::Claim(name), Err(error.to_string())),
            };
            Done { node, what, answer }
        });
        self.asking.entry(node).or_default().push(asking);
        true
    }

    /// Gives a name back that the machine was told that it has.
    pub(super) fn give_back(&mut self, node: usize, name: String) -> bool {
        let id = self.ids[node];
        if self.model.claims.get(&name) != Some(&id) {
            return false;
        }
        self.model.claims.remove(&name);
        let label = name.parse().expect("a label");
        self.ask(node, Asked::GiveBack(name), Content::Release(label))
    }

    /// A machine was refused a name, it was told: it isn't given it later. Nor
    /// has anybody a name that was given back and that no other asked for.
    pub(super) fn refused_claim(&mut self, node: usize, name: String, is_stale: bool) {
        let id = self.ids[node];
        let has_other = |owner: &NodeId| *owner != id;
        if is_stale && !self.model.claims.get(&name).is_some_and(has_other) {
            let words = format!("it was told that {name} is taken, which was given back before");
            self.violated(node, ("S8", words));
        }
        let key = (name, id);
        if self.model.asked.get(&key) == Some(&1) {
            self.model.refused.insert(key);
        }
    }

    /// As [`Self::claim`]: whatever others do, there is an answer soon (S24).
    pub(super) fn claim_in_time(&mut self, node: usize, name: String) -> bool {
        let Some(agent) = self.agents[node].clone() else {
            return false;
        };
        let label = name.parse().expect("a label");
        let asking = self.asked.spawn(async move {
            let content = Content::Claim(label);
            let answer = tokio::time::timeout(IN_TIME, mesh::ask(&agent, &content)).await;
            Done {
                node,
                what: Asked::ClaimInTime(name),
                answer: answer.unwrap_or_else(|_| Err(format!("no answer in {IN_TIME:?}"))),
            }
        });
        self.asking.entry(node).or_default().push(asking);
        true
    }

    /// The ledger gave a machine a name, it was told.
    pub(super) fn claimed(&mut self, node: usize, name: String) {
        if self.evicted.contains(&node) || self.lost.contains(&node) {
            return;
        }
        let owner = self.ids[node];
        let before = self.model.claims.insert(name.clone(), owner);
        if before.is_some_and(|before| before != owner) {
            self.violated(node, ("S8", format!("two machines were given {name}")));
        }
    }

    /// A certificate for the machine's own name and a key that it never had
    /// before.
    pub(super) fn issue(&mut self, node: usize) -> bool {
        let Some(agent) = &self.agents[node] else {
            return false;
        };
        let ledger = agent.view().borrow().ledger.clone();
        let Some(member) = ledger.members.get(&self.ids[node]) else {
            return false;
        };
        let spki = self.machines[node].host.keys.generate_p256().spki();
        let key = Hash::of(&spki);
        self.model.issued.insert(key, false);
        let certify = Certify {
            spki,
            names: [format!("{}.{}", member.name, ledger.domain)].into(),
            days: CERTIFICATE_DAYS,
        };
        self.ask(node, Asked::Issue(key), Content::Certify(certify))
    }

    /// The end of the newest certificate of the machine's, other than its
    /// membership.
    pub(super) fn revoke(&mut self, node: usize) -> bool {
        let Some(agent) = &self.agents[node] else {
            return false;
        };
        let ledger = agent.view().borrow().ledger.clone();
        let owner = self.ids[node];
        let issued = ledger.certificates.iter().filter(|(serial, issued)| {
            issued.owner == owner
                && self.model.issued.contains_key(&issued.key_hash)
                && !ledger.is_revoked(serial, issued)
        });
        let newest = issued.max_by_key(|(serial, issued)| (issued.not_before_ms, **serial));
        let Some((serial, key)) = newest.map(|(serial, issued)| (*serial, issued.key_hash)) else {
            return false;
        };
        self.ask(node, Asked::Revoke(serial, key), Content::Revoke(serial))
    }

    /// The ledger decides now, or nothing is right.
    pub(super) async fn must_decide(&mut self) -> bool {
        if let Err((node, seen)) = self.decides().await {
            self.violated(node, seen);
        }
        true
    }

    pub(super) fn promote(&mut self, node: usize) -> bool {
        let (Some(admin), Some(root)) = (self.agents[0].clone(), self.root.clone()) else {
            return false;
        };
        if self.agents[node].is_none() {
            return false;
        }
        let host = self.machines[node].host.clone();
        let asking = self.asked.spawn(async move {
            let answer = mesh::promote(&admin, &root, &host).await;
            Done {
                node: 0,
                what: Asked::Roster,
                answer,
            }
        });
        self.asking.entry(0).or_default().push(asking);
        true
    }

    pub(super) fn demote(&mut self, node: usize) -> bool {
        self.take_by_root(Asked::Roster, node, Role::Ca)
    }

    /// Takes a role with the root's word, asked for by the first machine.
    fn take_by_root(&mut self, what: Asked, of: usize, role: Role) -> bool {
        let (Some(admin), Some(root)) = (self.agents[0].clone(), self.root.clone()) else {
            return false;
        };
        let id = self.ids[of];
        let asking = self.asked.spawn(async move {
            let answer = mesh::take_by_root(&admin, &root, id, role).await;
            Done {
                node: 0,
                what,
                answer,
            }
        });
        self.asking.entry(0).or_default().push(asking);
        true
    }

    pub(super) fn take_admin_by_root(&mut self, node: usize) -> bool {
        self.model.admins.entry(self.ids[node]).or_default().ask();
        self.take_by_root(Asked::Admin(node, Some(false)), node, Role::Admin)
    }

    pub(super) fn change_admin(&mut self, by: usize, node: usize, is_admin: bool) -> bool {
        let Some(agent) = self.agents[by].clone() else {
            return false;
        };
        self.model.admins.entry(self.ids[node]).or_default().ask();
        let change = RoleChange {
            node: self.ids[node],
            role: Role::Admin,
            root: None,
        };
        let content = if is_admin {
            Content::GiveRole(change)
        } else {
            Content::TakeRole(change)
        };
        let asking = self.asked.spawn(async move {
            let decided = mesh::decided(&agent, &content).await;
            let is_done = matches!(decided, Ok(Outcome::Done(_)));
            Done {
                node: by,
                what: Asked::Admin(node, is_done.then_some(is_admin)),
                answer: decided.map(drop).map_err(|error| error.to_string()),
            }
        });
        self.asking.entry(by).or_default().push(asking);
        true
    }

    pub(super) fn evict(&mut self, node: usize) -> bool {
        let Some(admin) = &self.agents[0] else {
            return false;
        };
        let control = admin.control();
        let request = EvictRequest {
            node: self.machines[node].name.parse().expect("a label"),
            root: None,
        };
        let asking = self.asked.spawn(async move {
            let answer = match control.ask(request).await {
                Ok(evicted) if evicted.state == EvictionState::Evicted => Ok(()),
                Ok(evicted) => Err(format!("{:?}", evicted.state)),
                Err(error) => Err(error.to_string()),
            };
            Done {
                node: 0,
                what: Asked::Evict(node),
                answer,
            }
        });
        self.asking.entry(0).or_default().push(asking);
        // From now on it may be one no more, whatever the answer.
        self.evicted.insert(node);
        self.members.remove(&node);
        self.model.forget(node);
        let id = self.ids[node];
        self.model.claims.retain(|_, owner| *owner != id);
        true
    }

    /// Has evictions decided that may not have been.
    pub(super) async fn finish_evictions(&mut self) {
        for node in self.evicted.clone() {
            let id = self.ids[node];
            let until = clock::now() + DECIDES;
            while !self.model.evicted.contains(&id) && self.violation.is_none() {
                let admin = self.agents[0].as_ref();
                let members = admin.map(|admin| admin.view().borrow().ledger.clone());
                if members.is_some_and(|ledger| !ledger.members.contains_key(&id)) {
                    self.model.evicted.insert(id);
                } else if clock::now() > until {
                    let words = format!("node{node} can't be evicted");
                    self.violated(0, ("L3", words));
                } else {
                    self.evict(node);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    self.look().await;
                }
            }
        }
    }

    /// What a machine that is lost was told counts for nothing.
    pub(super) async fn lose(&mut self, node: usize) -> bool {
        if !self.crash(node).await {
            return false;
        }
        self.lost.insert(node);
        self.model.forget(node);
        let id = self.ids[node];
        self.model.claims.retain(|_, owner| *owner != id);
        true
    }

    pub(super) async fn recover(&mut self, node: usize) -> bool {
        let (Some(agent), Some(root)) = (self.agents[node].clone(), self.root.clone()) else {
            return false;
        };
        match mesh::recover(&agent, &root).await {
            Ok(()) => true,
            Err(error) => {
                let words = format!("node{node} can't go on alone: {error}");
                self.violated(node, ("L3", words));
                false
            }
        }
    }

    /// Starts a copy of a machine beside it.
    pub(super) async fn copy(&mut self, of: usize) -> bool {
        if self.agents[of].is_none() {
            return false;
        }
        let name = format!("copy{}-of-node{of}", self.copies.len());
        let machine = self.world.machine(&name);
        machine.disk.copy_of(&self.machines[of].disk);
        match Agent::build(machine.config(), machine.host.clone()).await {
            Ok(agent) => {
                // Two sign in its name from now on.
                self.copied.insert(self.ids[of]);
                self.checker.lies(self.ids[of]);
                self.copies.push(Copy {
                    machine,
                    agent,
                    of,
                    since: None,
                });
                true
            }
            Err(error) => {
                self.trace.event("no start", &format!("{name}: {error}"));
                false
            }
        }
    }

    /// A copy is told of by everybody, if both have run for long enough.
    pub(super) fn watch_copies(&mut self) {
        let told = |agent: &Agent, id: NodeId| agent.conflicts().contains(&id);
        let mut silent = None;
        for copy in &mut self.copies {
            let id = self.ids[copy.of];
            if self.agents[copy.of].is_none() {
                copy.since = None;
                continue;
            }
            let since = *copy.since.get_or_insert_with(clock::now);
            let mut all = self.agents.iter().flatten().chain([&copy.agent]);
            if clock::now() > since + TOLD && !all.all(|agent| told(agent, id)) {
                silent = Some(copy.of);
            }
        }
        if let Some(node) = silent {
            let words = format!("a copy of node{node} runs, and not everybody tells");
            self.violated(node, ("S10", words));
        }
    }

    /// Whoever runs two copies of a machine stops one, and starts the other
    /// again.
    pub(super) async fn end_copies(&mut self) {
        for copy in std::mem::take(&mut self.copies) {
            let Copy {
                mut machine,
                agent,
                of,
                ..
            } = copy;
            machine.crash().await;
            drop(agent);
            self.checker.restored(self.ids[of]);
            self.crash(of).await;
        }
    }

    /// With all faults over the ledger decides what is asked (L3).
    pub(super) async fn decides(&mut self) -> Result<(), (usize, Seen)> {
        let Some(asker) = self.agents.iter().flatten().next().cloned() else {
            return Ok(());
        };
        if self.schedule.ca == 1 {
            return Ok(());
        }
        let content = Content::Claim("last".parse().expect("a label"));
        let until = clock::now() + DECIDES;
        loop {
            match mesh::ask(&asker, &content).await {
                Ok(()) => return Ok(()),
                Err(error) if clock::now() > until => {
                    let words = format!("nothing is decided any more: {error}");
                    return Err((0, ("L3", words)));
                }
                Err(_) => self.look().await,
            }
        }
    }
}
