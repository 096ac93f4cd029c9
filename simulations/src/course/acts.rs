//! What is done to the mesh, one act at a time. What people ask of an agent
//! goes on beside it: a machine that is cut off may take long to answer.

#![allow(missing_docs, reason = "the names say it")]

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use innermesh_agent::{
    control::services::{ServiceAddRequest, ServiceRmRequest},
    host::Clock,
    node::Agent,
    services::Spec,
};
use innermesh_proto::{certificate::Serial, crypto::Hash, ledger::RULES};

use super::{Course, EXCUSED, FRESH, REFETCH};
use crate::{
    Machine,
    byzantine::{Byzantine, Lie},
    clock,
    disk::Fault,
    memory, mesh, net,
    schedule::Act,
    world::PORT,
};

/// What an agent answered to its user.
pub(super) struct Done {
    pub node: usize,
    pub what: Asked,
    pub answer: Result<(), String>,
}

/// What its user asked of an agent.
#[derive(Debug)]
pub(super) enum Asked {
    /// To add a service.
    Add(u32),
    Remove(u32),
    /// To ask for a name.
    Claim(String),
    /// To ask for a name, with an answer soon.
    ClaimInTime(String),
    /// To ask for a name that it was refused. With it, whether it had been given
    /// back before that was asked, and the refusal says that somebody has it.
    RefusedClaim(String, bool),
    /// To give a name back.
    GiveBack(String),
    /// To ask for a certificate for the key with this hash.
    Issue(Hash),
    /// To have the certificate with this serial number, for the key with this
    /// hash, revoked.
    Revoke(Serial, Hash),
    /// To have a machine promoted, or demoted.
    Roster,
    /// To have a machine evicted.
    Evict(usize),
    /// That a machine be an admin, or none; with what it is then, if that changed.
    Admin(usize, Option<bool>),
    /// That a policy be in force.
    Policy,
    /// That a machine be a gateway, that it bring a LAN.
    Gateway,
    Relay,
    Route,
    /// That it bring a part of a LAN, which must be refused.
    PartOfRoute,
    /// To add the phone, or remove it.
    Phone,
    NoPhone,
}

impl Course<'_> {
    /// Does one thing, and counts it if it happened.
    pub(super) async fn act(&mut self, act: &Act) {
        let done = match act {
            Act::Crash(node) => self.crash(*node).await,
            Act::Stop(node) => match self.agents[*node].clone() {
                Some(agent) => {
                    // Its disk may stop in what it writes last.
                    let mut stopped = self.machines[*node].disk.stopped();
                    tokio::select! {
                        biased;
                        () = agent.stop() => {}
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                    }
                    self.crash(*node).await
                }
                None => false,
            },
            Act::Start(node) => self.start(*node).await,
            Act::Cut(from, to) => {
                for (from, to) in from.iter().flat_map(|a| to.iter().map(move |b| (a, b))) {
                    let (from, to) = (self.machines[*from].place, self.machines[*to].place);
                    self.world.wire.cut(from, to);
                }
                true
            }
            Act::Links(link) => {
                self.world.wire.set_usual(*link);
                true
            }
            Act::Heal => {
                self.world.wire.heal();
                true
            }
            Act::Add(node, service) => self.add(*node, *service),
            Act::Remove(node, service) => self.remove(*node, *service),
            Act::DiskFull(node) => self.disk(*node, Some(Fault::Full)),
            Act::DiskSync(node) => self.disk(*node, Some(Fault::Sync)),
            Act::DiskWorks(node) => self.disk(*node, None),
            Act::DiskStops(node, writes) => {
                if self.agents[*node].is_some() {
                    self.machines[*node].disk.stop_after(*writes);
                }
                // It counts once it has happened.
                false
            }
            Act::BitFlip(node) => self.rot(*node).await,
            Act::Snapshot(node) => {
                self.machines[*node].disk.snapshot();
                true
            }
            Act::Rollback(node) => self.rollback(*node).await,
            Act::ClockStep(node, by_ms) => {
                self.machines[*node].clock.jump(*by_ms);
                self.wrong_clocks = true;
                true
            }
            Act::ClockDrift(node, ppm) => {
                self.machines[*node].clock.drift(*ppm);
                self.wrong_clocks = true;
                true
            }
            Act::Days(days) => {
                const DAY_MS: i64 = 24 * 3600 * 1000;
                self.days += u64::from(*days);
                self.model.pass(u64::from(*days));
                for machine in &self.machines {
                    machine.clock.jump(i64::from(*days) * DAY_MS);
                }
                true
            }
            Act::Pause(node, ms) => self.still(*node, *ms, false),
            Act::Suspend(node, ms) => self.still(*node, *ms, true),
            Act::Roam(node) => {
                self.machines[*node].roam();
                true
            }
            Act::Nat(node, class) => {
                let machine = &self.machines[*node];
                let public = net::elsewhere(machine.address, 0xffff);
                self.world.wire.set_nat(machine.place, *class, public);
                true
            }
            Act::Rebind(node) => self.world.wire.rebind_nat(self.machines[*node].place),
            Act::Lie(liar, to, lie) => self.lie(*liar, *to, *lie).await,
            Act::Contest(rivals) => self.contest(*rivals, None).await,
            Act::ContestWithout(rivals, ms) => {
                let after = Duration::from_millis(*ms);
                self.contest(*rivals, Some(after)).await
            }
            Act::LeaderCrash => match self.leader() {
                Some(node) => {
                    self.checker.lost_leader();
                    self.crash(node).await
                }
                None => false,
            },
            Act::LeaderStops(writes) => {
                if let Some(node) = self.leader() {
                    self.machines[node].disk.stop_after(*writes);
                }
                // It counts once it has happened.
                false
            }
            Act::LeaderClock(by_ms) => match self.leader() {
                Some(node) => {
                    self.machines[node].clock.jump(*by_ms);
                    self.wrong_clocks = true;
                    true
                }
                None => false,
            },
            Act::ClocksRight => {
                const DAY_MS: i64 = 24 * 3600 * 1000;
                for machine in &self.machines {
                    machine.clock.set_right(self.days as i64 * DAY_MS);
                }
                true
            }
            Act::StartAll => {
                let mut started = false;
                for node in 0..self.machines.len() {
                    started |= self.start(node).await;
                }
                started
            }
            Act::Promote(node) => self.promote(*node),
            Act::Demote(node) => self.demote(*node),
            Act::GiveAdmin(by, node) => self.change_admin(*by, *node, true),
            Act::Policy(number) => self.set_policy(*number),
            Act::Talk(from, to) => self.begin_talk(*from, *to),
            Act::Relay(node) => self.relay(*node),
            Act::Gateway(node) => self.gateway(*node),
            Act::AddPhone(gateways) => self.add_phone(gateways),
            Act::RemovePhone => self.remove_phone(),
            Act::Tap(node) => self.tap(*node),
            Act::TapAnother => self.tap_another(),
            Act::Bring(node) => self.bring(*node),
            Act::BringPart(node) => self.bring_part(*node),
            Act::Stands(node, is_there) => self.stands(*node, *is_there),
            Act::GatewayCrash => self.crash_gateway().await,
            Act::Switched => self.must_have_switched(),
            Act::Noticed(node) => self.must_have_noticed(*node),
            Act::TakeAdmin(by, node) => self.change_admin(*by, *node, false),
            Act::TakeAdminByRoot(node) => self.take_admin_by_root(*node),
            Act::Claim(node, name) => self.claim(*node, format!("n{name}")),
            Act::ClaimInTime(node, name) => self.claim_in_time(*node, format!("p{name}")),
            Act::GiveBack(node, name) => self.give_back(*node, format!("n{name}")),
            Act::LeaderOnlyFor(node) => match self.leader() {
                Some(leader) if leader != *node => {
                    let pair = [leader, *node];
                    let others = (0..self.machines.len()).filter(|one| !pair.contains(one));
                    for (one, other) in others.flat_map(|other| pair.map(|one| (one, other))) {
                        let (one, other) = (self.machines[one].place, self.machines[other].place);
                        self.world.wire.cut(one, other);
                        self.world.wire.cut(other, one);
                    }
                    true
                }
                _ => false,
            },
            Act::Rivals(nodes, name) => {
                let asked = nodes
                    .iter()
                    .map(|node| self.claim(*node, format!("r{name}")));
                // All of them, also when the first can't.
                asked.fold(false, |one, other| one | other)
            }
            Act::Issue(node) => self.issue(*node),
            Act::Revoke(node) => self.revoke(*node),
            Act::Decides => self.must_decide().await,
            Act::Evict(node) => self.evict(*node),
            Act::Clone(node) => self.copy(*node).await,
            Act::Upgrade(node) => {
                self.machines[*node].rules = RULES;
                self.agents[*node].is_none()
            }
            Act::Lose(node) => self.lose(*node).await,
            Act::Recover(node) => self.recover(*node).await,
        };
        if done {
            self.trace.count(act.kind());
            self.trace.event(act.kind(), &act.to_string());
        }
    }

    pub(super) async fn crash(&mut self, node: usize) -> bool {
        let Some(agent) = self.agents[node].take() else {
            return false;
        };
        for asked in self.asking.remove(&node).into_iter().flatten() {
            asked.abort();
        }
        if !self.copied.contains(&self.ids[node]) {
            self.checker.signs(&agent);
        }
        self.machines[node].crash().await;
        drop(agent);
        true
    }

    /// A member tells another agent something that isn't so. Its own agent is
    /// stopped before its first lie.
    async fn lie(&mut self, liar: usize, to: usize, lie: Lie) -> bool {
        if liar == 0 || liar == to || self.agents[to].is_none() {
            return false;
        }
        if !self.liars.contains_key(&liar) {
            let Some(agent) = self.agents[liar].clone() else {
                return false;
            };
            self.crash(liar).await;
            self.checker.lies(self.ids[liar]);
            self.model.forget(liar);
            let identity = Byzantine::new(&self.machines[liar], &agent).await;
            self.liars.insert(liar, identity);
        }
        let address = SocketAddr::new(self.machines[to].address, PORT);
        let Some(byzantine) = self.liars.get_mut(&liar) else {
            return false;
        };
        let told = byzantine.tell(address, lie).await;
        if told {
            self.trace.count(lie.name());
        }
        // What the liar itself had to ask for doesn't count.
        memory::take_largest();
        told
    }

    /// The disk of a machine has stopped in the middle of a write.
    pub(super) async fn stopped(&mut self, node: usize) {
        self.crash(node).await;
        self.trace.count("crash in a write");
        let words = format!("node{node} stops in the middle of a write");
        self.trace.event("crash in a write", &words);
    }

    async fn start(&mut self, node: usize) -> bool {
        let gone = self.liars.contains_key(&node)
            || self.evicted.contains(&node)
            || self.lost.contains(&node);
        if self.agents[node].is_some() || gone {
            return false;
        }
        let machine = &self.machines[node];
        let mut stopped = machine.disk.stopped();
        let built = tokio::select! {
            biased;
            built = Agent::build(machine.config(), machine.host.clone()) => Some(built),
            _ = stopped.wait_for(|stopped| *stopped) => None,
            // It fetches its ledger again, and nobody that is reached can help:
            // a later step or the end tries again.
            () = tokio::time::sleep(REFETCH) => {
                self.trace.event("no start", &format!("node{node} waits for its ledger"));
                self.machines[node].crash().await;
                return false;
            }
        };
        match built {
            Some(Ok(agent)) => {
                if let Err(seen) = self.checker.started(node, &agent) {
                    self.violated(node, seen);
                }
                self.versions[node] = None;
                self.conclusions[node].0 = None;
                self.batches[node] = agent.batches();
                self.agents[node] = Some(agent);
                self.fresh.insert(node, clock::now() + FRESH);
                self.excused.insert(self.ids[node], clock::now() + EXCUSED);
                true
            }
            Some(Err(error)) => {
                // A disk that can't be written is a reason; a later step or
                // the end tries again.
                let words = format!("node{node}: {error}");
                self.trace.event("no start", &words);
                self.machines[node].crash().await;
                false
            }
            None => {
                self.machines[node].crash().await;
                self.trace.count("crash in a write");
                let words = format!("node{node} stops in the middle of its start");
                self.trace.event("crash in a write", &words);
                false
            }
        }
    }

    fn disk(&mut self, node: usize, fault: Option<Fault>) -> bool {
        if fault.is_some() {
            self.sick.insert(node);
        }
        self.machines[node].disk.set_fault(fault);
        true
    }

    async fn rot(&mut self, node: usize) -> bool {
        self.crash(node).await;
        let Some(file) = self.machines[node].disk.rot(&mut self.random) else {
            return false;
        };
        self.damaged.insert(node);
        // What it held may be gone, and its services with it.
        self.model.forget(node);
        self.checker.restored(self.ids[node]);
        let words = format!("node{node} loses a bit of {}", file.display());
        self.trace.event("bit", &words);
        true
    }

    async fn rollback(&mut self, node: usize) -> bool {
        self.crash(node).await;
        if !self.machines[node].disk.restore() {
            return false;
        }
        self.model.forget(node);
        self.checker.restored(self.ids[node]);
        true
    }

    fn still(&mut self, node: usize, ms: u64, asleep: bool) -> bool {
        let long = Duration::from_millis(ms);
        self.machines[node].still(long, asleep);
        let until = clock::now() + long;
        self.still_until = self.still_until.max(Some(until));
        self.excused.insert(self.ids[node], until + EXCUSED);
        true
    }

    fn add(&mut self, node: usize, service: u32) -> bool {
        let Some(agent) = &self.agents[node] else {
            return false;
        };
        let (control, name) = (agent.control(), format!("s{service}"));
        let clock = self.machines[node].clock.clone();
        let port = 8000 + (service % 1000) as u16;
        self.model.unknown.insert(service, node);
        let asking = self.asked.spawn(async move {
            let name = name.parse().expect("a label");
            // Who stands still hears its user later.
            clock.sleep(Duration::ZERO).await;
            let answer = control.ask(ServiceAddRequest(Spec::new(name, port))).await;
            Done {
                node,
                what: Asked::Add(service),
                answer: answer.map(|_| ()).map_err(|e| e.to_string()),
            }
        });
        self.asking.entry(node).or_default().push(asking);
        true
    }

    fn remove(&mut self, node: usize, service: u32) -> bool {
        let Some(agent) = &self.agents[node] else {
            return false;
        };
        if self.model.services.remove(&service).is_none() {
            return false;
        }
        let (control, name) = (agent.control(), format!("s{service}"));
        let clock = self.machines[node].clock.clone();
        self.model.unknown.insert(service, node);
        let asking = self.asked.spawn(async move {
            let name = name.parse().expect("a label");
            // Who stands still hears its user later.
            clock.sleep(Duration::ZERO).await;
            let answer = control
                .ask(ServiceRmRequest {
                    name,
                    release: false,
                })
                .await;
            Done {
                node,
                what: Asked::Remove(service),
                answer: answer.map(|_| ()).map_err(|e| e.to_string()),
            }
        });
        self.asking.entry(node).or_default().push(asking);
        true
    }

    /// Takes in what agents have answered to their users. What was
    /// acknowledged stands, granted now or later; what wasn't may be or not.
    pub(super) fn answers(&mut self) {
        while let Some(joined) = self.asked.try_join_next() {
            // Its machine crashed before it answered.
            let Ok(done) = joined else { continue };
            let Done { node, what, answer } = done;
            if let (Asked::ClaimInTime(name), Err(error)) = (&what, &answer) {
                let words = format!("{name} wasn't decided in time: {error}");
                self.violated(node, ("S24", words));
            }
            if let Asked::RefusedClaim(name, is_stale) = &what {
                self.refused_claim(node, name.clone(), *is_stale);
            }
            if let Err(error) = answer {
                let words = format!("node{node}, {what:?}: {error}");
                self.trace.event("refused", &words);
                continue;
            }
            match what {
                // Nobody has to know what an evicted machine was told.
                Asked::Add(_) | Asked::Remove(_) if self.evicted.contains(&node) => {}
                Asked::Add(service) => {
                    // Unless its machine was rolled back meanwhile.
                    if self.model.unknown.remove(&service).is_some() {
                        self.model.services.insert(service, node);
                    }
                }
                Asked::Remove(service) => {
                    if self.model.unknown.remove(&service).is_some() {
                        self.model.removed.insert(service, node);
                    }
                }
                Asked::Claim(name) | Asked::ClaimInTime(name) => self.claimed(node, name),
                Asked::GiveBack(name) => {
                    self.model.given_back.insert(name);
                }
                Asked::Roster | Asked::Policy | Asked::RefusedClaim(..) => {}
                Asked::Gateway | Asked::Relay | Asked::Route => {}
                Asked::PartOfRoute => self.took_part(),
                Asked::Phone => self.told_of_phone(true),
                Asked::NoPhone => self.told_of_phone(false),
                Asked::Issue(key) => {
                    self.model.issued.insert(key, true);
                }
                Asked::Revoke(serial, key) => {
                    self.model.revoked.insert(serial, key);
                }
                Asked::Evict(node) => {
                    self.model.evicted.insert(self.ids[node]);
                }
                Asked::Admin(node, is_admin) => {
                    let told = self.model.admins.entry(self.ids[node]).or_default();
                    told.answer(is_admin);
                }
            }
        }
    }

    /// New machines try to join at the same time with one token for one use.
    /// The leader's power fails meanwhile if that is to be.
    async fn contest(&mut self, rivals: usize, without_leader: Option<Duration>) -> bool {
        let Some(founder) = self.agents[0].clone() else {
            return false;
        };
        let token = match mesh::invite(&founder).await {
            Ok(token) => token,
            Err(error) => {
                self.trace.event("refused", &format!("an invite: {error}"));
                return false;
            }
        };
        // Who lost one race never comes again: it may be a member by now.
        let first = self.machines.len() + self.lost_races;
        self.lost_races += rivals;
        let machines: Vec<Machine> = (first..first + rivals)
            .map(|number| self.world.machine(&format!("rival{number}")))
            .collect();
        let joining = machines
            .iter()
            .map(|machine| mesh::join_with(machine, "node0", token.clone()));
        let joining = join_all(joining);
        let answers = match without_leader {
            None => joining.await,
            Some(after) => {
                let failing = async {
                    tokio::time::sleep(after).await;
                    if let Some(node) = self.leader()
                        && self.crash(node).await
                    {
                        self.trace.count("leader crash");
                    }
                };
                futures_util::future::join(joining, failing).await.0
            }
        };
        let mut winners = 0;
        for (machine, joined) in machines.into_iter().zip(answers) {
            match joined {
                Ok(agent) => {
                    winners += 1;
                    self.lost_races -= 1;
                    self.member(machine, agent);
                }
                Err(error) => {
                    let words = format!("{}: {error}", machine.name);
                    self.trace.event("refused", &words);
                }
            }
        }
        // Without a leader a join may be decided and nobody told.
        if winners > 1 || (winners == 0 && without_leader.is_none()) {
            let words = format!("{winners} of {rivals} joined with one token for one use");
            self.violated(0, ("S18", words));
        }
        true
    }
}
