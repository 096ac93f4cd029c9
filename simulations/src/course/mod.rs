//! A run under way: the mesh is made, the schedule is done to it while all
//! machines are looked at, faults end, and all must agree again.

#![allow(missing_docs, reason = "the names say it")]

mod access;
mod acts;
mod devices;
mod noticed;
mod packets;
mod phone;
mod roster;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use innermesh_agent::{ca::Root, node::Agent};
use innermesh_proto::{id::NodeId, ledger::Batch, limits};
use tokio::{
    sync::broadcast,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use self::{acts::Done, packets::Packets, phone::Phone, roster::Copy};
use crate::{
    Machine, World,
    byzantine::Byzantine,
    check::{self, Checker, Member, Model, Running},
    clock, memory, mesh,
    outcome::{Outcome, Sample, Spread},
    panics,
    random::Random,
    scenario::{self, Scenario},
    schedule::{Act, Schedule},
    trace::Trace,
    violation::{Seen, Violation},
    world::START_MS,
};

/// How often all machines are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long after the last fault all must agree (L1).
const HEALED: Duration = Duration::from_secs(60);
/// Machines that join at the same time at most: the first one has room for few
/// more that aren't members.
const TOGETHER: usize = limits::STRANGERS - 4;
/// How often it is looked whether they do.
const AGREED: Duration = Duration::from_millis(250);
/// What a person reads whose request is one of too many, and how long and how often it is
/// asked again.
const TRY_AGAIN: &str = "try again in";
const JOIN_PAUSE: Duration = Duration::from_secs(10);
const JOIN_TRIES: u32 = 200;
/// How long the mesh is left alone before and after, to compare its traffic.
const QUIET: Duration = Duration::from_secs(10);
/// How much more than before it may send afterwards (L5).
const MORE: f64 = 3.0;
/// A liar's heads have no word of links, as those of older builds, and all others keep
/// leases beside their links for ten minutes: what that costs at the least, in bytes a
/// second from each node to each other. It is no storm.
const LEASED: usize = 200;
/// How long after a machine stood still others may take it for dead.
const EXCUSED: Duration = Duration::from_secs(20);
/// How long after its start an agent may not have heard of all others.
const FRESH: Duration = Duration::from_secs(5);
/// How long a machine whose ledger is damaged is waited for.
const REFETCH: Duration = Duration::from_secs(20);

/// A run.
pub struct Course<'a> {
    schedule: &'a Schedule,
    scenario: Option<&'static Scenario>,
    world: World,
    trace: Trace,
    random: Random,
    machines: Vec<Machine>,
    agents: Vec<Option<Agent>>,
    ids: Vec<NodeId>,
    members: BTreeMap<usize, Member>,
    /// What each agent's ledger takes in.
    batches: Vec<broadcast::Receiver<Arc<Batch>>>,
    /// Of the view that each machine had when it was last looked at.
    versions: Vec<Option<u64>>,
    /// What the newest view of each said, in few words, and its version.
    conclusions: Vec<(Option<u64>, String)>,
    /// The machine with which the next look begins.
    next: usize,
    /// Machines whose disk failed since their agent's start: a writer that
    /// failed stays stopped until then.
    sick: BTreeSet<usize>,
    /// Machines that lost a bit on their disk and may refuse to start.
    damaged: BTreeSet<usize>,
    /// Until when a machine may be taken for dead although it runs.
    excused: BTreeMap<NodeId, Instant>,
    /// When the last machine that stands still goes on.
    still_until: Option<Instant>,
    /// Until when a machine may not have heard of others since its start.
    fresh: BTreeMap<usize, Instant>,
    /// Days by which all wall clocks were moved on.
    days: u64,
    /// Whether some machine's wall clock is wrong.
    wrong_clocks: bool,
    /// Members that lie, and run no agent any more.
    liars: BTreeMap<usize, Byzantine>,
    /// The mesh's root, where machines are to be promoted.
    root: Option<Arc<Root>>,
    /// Members that were evicted, or perhaps were.
    evicted: BTreeSet<usize>,
    /// Machines that are lost for good.
    lost: BTreeSet<usize>,
    /// Machines that tried to join in vain.
    lost_races: usize,
    /// Members in whose name a copy signed, too.
    copied: BTreeSet<NodeId>,
    /// Copies of machines that run.
    copies: Vec<Copy>,
    asked: JoinSet<Done>,
    /// What each machine was asked, which ends with it.
    asking: BTreeMap<usize, Vec<AbortHandle>>,
    checker: Checker,
    model: Model,
    phone: Phone,
    packets: Packets,
    samples: Vec<Sample>,
    violation: Option<Violation>,
}

impl<'a> Course<'a> {
    /// Nothing has happened yet; `whole` keeps the whole trace.
    pub fn new(schedule: &'a Schedule, whole: bool) -> Self {
        let mut world = World::of(schedule.seed, schedule.profile);
        let scenario = scenario::find(&schedule.scenario);
        if scenario.is_some_and(|scenario| scenario.carries) {
            world.carry_packets();
        }
        let trace = Trace::new(whole);
        let observer = trace.clone();
        world.wire.observe(Box::new(move |passing| {
            let fate = passing.fate.name();
            observer.count(fate);
            observer.add("bytes", passing.length as u64);
            let words = format!(
                "{} to {}, {} bytes",
                passing.from, passing.to, passing.length
            );
            observer.detail(fate, &words);
        }));
        Self {
            schedule,
            scenario,
            world,
            trace,
            random: Random::named(schedule.seed, "course"),
            machines: Vec::new(),
            agents: Vec::new(),
            ids: Vec::new(),
            members: BTreeMap::new(),
            batches: Vec::new(),
            versions: Vec::new(),
            conclusions: Vec::new(),
            next: 0,
            sick: BTreeSet::new(),
            damaged: BTreeSet::new(),
            excused: BTreeMap::new(),
            still_until: None,
            fresh: BTreeMap::new(),
            days: 0,
            wrong_clocks: false,
            liars: BTreeMap::new(),
            root: None,
            evicted: BTreeSet::new(),
            lost: BTreeSet::new(),
            lost_races: 0,
            copied: BTreeSet::new(),
            copies: Vec::new(),
            asked: JoinSet::new(),
            asking: BTreeMap::new(),
            checker: Checker::default(),
            model: Model::default(),
            phone: Phone::default(),
            packets: Packets::default(),
            samples: Vec::new(),
            violation: None,
        }
    }

    pub async fn run(mut self) -> Outcome {
        self.gather().await;
        let gathered = self.samples.len();
        let before = self.quiet().await;
        let healed = self.course().await;
        if healed.is_some() {
            let pairs = self.schedule.nodes * (self.schedule.nodes - 1);
            let before = if self.liars.is_empty() {
                before
            } else {
                before.max((LEASED * pairs) as f64)
            };
            let mut after = self.quiet().await;
            if after > before * MORE {
                // They have just found each other again.
                after = self.quiet().await;
            }
            if after > before * MORE {
                let words = format!(
                    "{after:.0} bytes/s are sent after healing, and {before:.0} were before"
                );
                self.violated(0, ("L5", words));
            }
        }
        let mut violation = self.violation.take().map(|violation| violation.to_string());
        let faults = self.trace.counts();
        let missing = self
            .scenario
            .iter()
            .flat_map(|scenario| scenario.promises)
            .find(|kind| !faults.contains_key(**kind));
        if let (None, Some(kind)) = (&violation, missing) {
            violation = Some(format!(
                "the scenario promises {kind:?}, and it never happened"
            ));
        }
        // Before all are stopped, which is many events in a large mesh.
        let recent = self.trace.recent();
        self.asked.abort_all();
        for node in 0..self.machines.len() {
            self.act(&Act::Crash(node)).await;
        }
        Outcome {
            scenario: self.schedule.scenario.clone(),
            nodes: self.schedule.nodes,
            profile: self.schedule.profile,
            seed: self.schedule.seed,
            ok: violation.is_none(),
            violation,
            simulated_s: self.trace.now_ms() as f64 / 1000.0,
            wall_s: 0.0,
            events: self.trace.events(),
            faults,
            trace_hash: self.trace.hash(),
            healed_ms: healed,
            spread: Spread::of(&self.samples[gathered..]),
            recent,
            trace: self.trace.whole(),
            samples: self.samples,
        }
    }

    /// Makes the mesh: all join the first machine, on a good network, a few at
    /// the same time.
    async fn gather(&mut self) {
        let first = self.machine(0);
        let founder = match self.schedule.ca {
            1 => mesh::found(&first).await,
            _ => {
                let (founder, root) = mesh::found_with_root(&first).await;
                self.root = Some(Arc::new(root));
                founder
            }
        };
        self.member(first, founder.clone());
        let together = TOGETHER.min(1 + self.schedule.nodes / 16);
        while self.violation.is_none() && self.machines.len() < self.schedule.nodes {
            let from = self.machines.len();
            let to = self.schedule.nodes.min(from + together);
            let machines: Vec<Machine> = (from..to).map(|number| self.machine(number)).collect();
            let joining = machines
                .iter()
                .map(|machine| join_in_time(machine, &founder));
            let joined = join_all(joining).await;
            let mut refused = None;
            for (machine, agent) in machines.into_iter().zip(joined) {
                match agent {
                    Ok(agent) => self.member(machine, agent),
                    Err(error) => refused = Some(format!("{}: {error}", machine.name)),
                }
            }
            // What is wrong may be the reason for a refusal.
            self.look().await;
            if let (None, Some(words)) = (&self.violation, refused) {
                self.violated(0, ("L3", words));
            }
        }
        self.grow_roster(&founder).await;
        if self.violation.is_none()
            && let Err((node, seen)) = self.settled().await
        {
            self.violated(node, seen);
        }
    }

    /// One with the build that the mesh begins with.
    fn machine(&mut self, number: usize) -> Machine {
        let mut machine = self.world.machine(&format!("node{number}"));
        machine.rules = self.schedule.rules;
        machine
    }

    /// A machine has become a member.
    fn member(&mut self, machine: Machine, agent: Agent) {
        self.trace.event("joined", &machine.name);
        let number = self.machines.len();
        let member = Member {
            name: machine.name.clone(),
            addresses: mesh::addresses(&agent),
        };
        self.members.insert(number, member);
        self.ids.push(agent.view().borrow().me);
        self.batches.push(agent.batches());
        self.versions.push(None);
        self.conclusions.push((None, String::new()));
        self.machines.push(machine);
        self.agents.push(Some(agent));
    }

    /// Leaves the mesh alone; gives how many bytes were sent a second.
    async fn quiet(&mut self) -> f64 {
        let until = clock::now() + QUIET;
        let from = self.samples.len();
        while self.violation.is_none() && clock::now() < until {
            tokio::time::sleep(LOOK).await;
            self.look().await;
        }
        let bytes: u64 = self.samples[from..].iter().map(|sample| sample.bytes).sum();
        bytes as f64 / QUIET.as_secs_f64()
    }

    /// Does what the schedule says, then waits until all agree. Returns how
    /// long that took, in milliseconds.
    async fn course(&mut self) -> Option<u64> {
        let begin = clock::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let last = self.schedule.steps.last().map_or(0, |step| step.at_ms);
        let end = at(self.schedule.length_ms.max(last));
        let mut steps = self.schedule.steps.iter().peekable();
        while self.violation.is_none() && (steps.peek().is_some() || clock::now() < end) {
            let next = steps.peek().map_or(end, |step| at(step.at_ms));
            let look = clock::now() + LOOK;
            tokio::time::sleep_until(next.min(look)).await;
            while let Some(step) = steps.next_if(|step| at(step.at_ms) <= clock::now()) {
                self.act(&step.act).await;
            }
            self.look().await;
        }
        if self.violation.is_some() {
            return None;
        }
        self.mend().await;
        let healed = clock::now();
        let settled = match self.settled().await {
            Ok(()) if self.violation.is_none() => self.decides().await,
            settled => settled,
        };
        match settled {
            Ok(()) if self.violation.is_some() => None,
            Ok(()) => Some((clock::now() - healed).as_millis() as u64),
            Err((node, seen)) => {
                self.violated(node, seen);
                None
            }
        }
    }

    /// Ends all faults. A machine that doesn't start now must have a reason.
    async fn mend(&mut self) {
        self.act(&Act::Heal).await;
        self.end_copies().await;
        if let Some(until) = self.still_until {
            tokio::time::sleep_until(until).await;
        }
        for node in 0..self.machines.len() {
            if let Some(liar) = self.liars.get_mut(&node) {
                liar.fall_silent();
                continue;
            }
            self.machines[node].disk.stop_never();
            if self.sick.contains(&node) {
                self.act(&Act::DiskWorks(node)).await;
                self.act(&Act::Crash(node)).await;
            }
            self.act(&Act::Start(node)).await;
            let excused = self.damaged.contains(&node)
                || self.evicted.contains(&node)
                || self.lost.contains(&node);
            if self.agents[node].is_none() && !excused {
                self.violated(node, ("L4", "its agent doesn't start".into()));
            }
        }
        self.finish_evictions().await;
    }

    /// Waits until all conclude what they must.
    async fn settled(&mut self) -> Result<(), (usize, Seen)> {
        let until = clock::now() + HEALED;
        self.count_packets_anew();
        loop {
            self.look().await;
            if self.violation.is_some() {
                return Ok(());
            }
            let running: Vec<Running<'_>> = self
                .agents
                .iter()
                .zip(&self.machines)
                .enumerate()
                .filter(|(number, _)| !self.evicted.contains(number))
                .filter_map(|(number, (agent, machine))| {
                    Some(Running {
                        number,
                        agent: agent.as_ref()?,
                        machine,
                    })
                })
                .collect();
            let renewed_by = (!self.wrong_clocks).then(|| self.true_ms());
            let held = self.model.holds(&running, &self.members, renewed_by).await;
            let settled = held.and_then(|()| self.phone_settled());
            match settled.and_then(|()| self.packets_settled()) {
                Ok(()) => return Ok(()),
                Err(wrong) if clock::now() >= until => return Err(wrong),
                Err(_) => tokio::time::sleep(AGREED).await,
            }
        }
    }

    /// The right time, in milliseconds since 1970.
    fn true_ms(&self) -> u64 {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        START_MS + self.trace.now_ms() + self.days * DAY_MS
    }

    /// Looks at every machine whose conclusions changed.
    async fn look(&mut self) {
        self.power().await;
        self.answers();
        self.watch_copies();
        self.watch_phone();
        self.watch_packets();
        let now = clock::now();
        let timely: BTreeSet<NodeId> = self
            .agents
            .iter()
            .zip(&self.ids)
            .filter(|(agent, id)| {
                agent.is_some() && self.excused.get(id).is_none_or(|until| *until < now)
            })
            .map(|(_, id)| *id)
            .collect();
        for (id, agent) in self.ids.iter().zip(&self.agents) {
            if let Some(agent) = agent.as_ref().filter(|_| !self.copied.contains(id)) {
                self.checker.signs(agent);
            }
        }
        if let Err(seen) = check::memory(memory::take_largest(), self.machines.len()) {
            self.violated(0, seen);
        }
        for (agent, concluded) in self.agents.iter().zip(&mut self.conclusions) {
            let Some(agent) = agent else { continue };
            let view = agent.view();
            let view = view.borrow();
            if concluded.0 != Some(view.version) {
                *concluded = (Some(view.version), check::conclusion(&view));
            }
        }
        let all = self.agents.len();
        let mut left = check::CLOSELY;
        let first = std::mem::take(&mut self.next);
        for node in (first..all).chain(0..first) {
            let Some(agent) = &self.agents[node] else {
                continue;
            };
            let view = agent.view().borrow().clone();
            let same = self.versions[node] == Some(view.version);
            if same || self.machines[node].clock.is_still() {
                continue;
            }
            if left == 0 {
                self.next = node;
                break;
            }
            left -= usize::from(all > check::CLOSELY);
            self.versions[node] = Some(view.version);
            let words = format!(
                "node{node}: {}, {} routes",
                self.conclusions[node].1,
                self.machines[node].tunnel_plan().peers.len()
            );
            self.trace.event("view", &words);
            let mut seen = self.checker.check(node, agent, &self.machines[node]);
            if view.ledger.rules > self.schedule.rules {
                let known = self.ids.iter().zip(&self.machines);
                let known = known.map(|(id, machine)| (*id, machine.rules)).collect();
                seen = seen.and_then(|()| self.checker.rules(&view, &known));
                self.trace.count("newer rules");
            }
            let batches = &mut self.batches[node];
            while let Ok(batch) = batches.try_recv() {
                seen = seen.and_then(|()| self.checker.proved(&view, &batch));
            }
            let fresh = self.fresh.get(&node).is_some_and(|until| now < *until);
            if !fresh && self.scenario.is_some_and(|scenario| scenario.nobody_dies) {
                seen = seen.and_then(|()| check::false_death(agent, &timely));
            }
            if seen.is_ok() {
                let stamp_ms = view.ledger.stamp_ms;
                seen = check::stamp(stamp_ms, self.true_ms());
            }
            let asked = all <= check::CLOSELY || left.is_multiple_of(check::ASKED);
            if seen.is_ok() && asked {
                let service = self.random.bits();
                seen = self.model.names(agent, &self.members, service).await;
            }
            if let Err(seen) = seen {
                self.violated(node, seen);
                return;
            }
        }
        if let Some(words) = panics::first() {
            self.violated(0, ("panic", words));
        }
        let mut views: BTreeMap<&str, usize> = BTreeMap::new();
        let mut running = 0;
        for (_, (_, conclusion)) in self
            .agents
            .iter()
            .zip(&self.conclusions)
            .filter(|(agent, _)| agent.is_some())
        {
            running += 1;
            *views.entry(conclusion).or_default() += 1;
        }
        let most = views.values().max().copied().unwrap_or(0);
        self.samples.push(Sample {
            at_ms: self.trace.now_ms(),
            agreed: most as f64 / running.max(1) as f64,
            bytes: self.trace.take("bytes"),
        });
    }

    /// Machines whose disk stopped have crashed.
    async fn power(&mut self) {
        for node in 0..self.machines.len() {
            let stopped = *self.machines[node].disk.stopped().borrow();
            if stopped && self.agents[node].is_some() {
                self.stopped(node).await;
            }
        }
    }

    /// Notes what is wrong; the first counts.
    fn violated(&mut self, node: usize, (invariant, words): Seen) {
        let violation = Violation {
            invariant,
            words,
            node,
            at_ms: self.trace.now_ms(),
        };
        self.trace.event("violated", &violation.to_string());
        self.violation.get_or_insert(violation);
    }
}

/// Joins, as a person does who is told to try again in a while: what one admin may ask of
/// the ledger in a time is less than a large mesh.
async fn join_in_time(machine: &Machine, founder: &Agent) -> Result<Agent, String> {
    let mut left = JOIN_TRIES;
    loop {
        left -= 1;
        match mesh::try_join(machine, "node0", founder).await {
            Err(error) if left > 0 && error.contains(TRY_AGAIN) => {
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            joined => return joined,
        }
    }
}
