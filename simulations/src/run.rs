//! One run: a mesh is made, a schedule is done to it, and what must hold is
//! checked all the time and at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use innermesh_agent::{mesh::Agent, services::Spec};
use innermesh_proto::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    Machine, World,
    check::{self, Checker, Model, Running, Seen, Violation},
    clock, entropy, mesh, panics,
    scenario::{self, Scenario},
    schedule::{Act, Profile, Schedule},
    trace::Trace,
};

/// How often all machines are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long after the last fault all must agree (L1).
const HEALED: Duration = Duration::from_secs(60);
/// How often it is looked whether they do.
const AGREED: Duration = Duration::from_millis(250);

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Of which scenario.
    pub scenario: String,
    /// Machines.
    pub nodes: usize,
    /// What the agents talk over.
    pub profile: Profile,
    /// Of all randomness.
    pub seed: u64,
    /// Whether everything held that must.
    pub ok: bool,
    /// What didn't, in words.
    pub violation: Option<String>,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Time that the run took, in seconds.
    pub wall_s: f64,
    /// Lines of its trace.
    pub events: u64,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<String, u64>,
    /// SHA-256 over the trace.
    pub trace_hash: String,
    /// How long after the last fault all agreed, in milliseconds.
    pub healed_ms: Option<u64>,
    /// The last events before the end, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<String>,
    /// The whole trace, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How many agreed, and what was sent, over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// The mesh at one moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the world began.
    pub at_ms: u64,
    /// Share of running machines whose view is the most common one, 0 to 1.
    pub agreed: f64,
    /// Bytes of UDP payload sent since the sample before, by all.
    pub bytes: u64,
}

/// Runs `schedule` in a world of its own; `whole` keeps its whole trace.
///
/// The same schedule gives the same trace as the first run in a process; a
/// later one has other random numbers inside tokio, which counts its runtimes
/// for a process. So `simulate` gives each run a process of its own.
#[allow(
    clippy::disallowed_methods,
    reason = "how long a run took in truth is told beside what it simulated"
)]
pub fn run(schedule: &Schedule, whole: bool) -> Outcome {
    let began = std::time::Instant::now();
    let mut outcome = entropy::seeded(schedule.seed, || {
        panics::watch();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without sockets");
        // Inside, where the clock is the paused one.
        runtime.block_on(async { Course::new(schedule, whole).run().await })
    });
    outcome.wall_s = began.elapsed().as_secs_f64();
    outcome
}

/// A run under way.
struct Course<'a> {
    schedule: &'a Schedule,
    scenario: Option<&'static Scenario>,
    world: World,
    trace: Trace,
    machines: Vec<Machine>,
    agents: Vec<Option<Agent>>,
    ids: Vec<Option<NodeId>>,
    /// The overlay addresses of each member.
    members: BTreeMap<usize, BTreeSet<IpAddr>>,
    versions: Vec<u64>,
    checker: Checker,
    model: Model,
    samples: Vec<Sample>,
    violation: Option<Violation>,
}

impl<'a> Course<'a> {
    fn new(schedule: &'a Schedule, whole: bool) -> Self {
        let world = World::new(schedule.seed);
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
            scenario: scenario::find(&schedule.scenario),
            world,
            trace,
            machines: Vec::new(),
            agents: Vec::new(),
            ids: Vec::new(),
            members: BTreeMap::new(),
            versions: Vec::new(),
            checker: Checker::default(),
            model: Model::default(),
            samples: Vec::new(),
            violation: None,
        }
    }

    async fn run(mut self) -> Outcome {
        self.gather().await;
        let healed = self.course().await;
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
        for agent in self.agents.iter().flatten() {
            agent.stop().await;
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
            recent: self.trace.recent(),
            trace: self.trace.whole(),
            samples: self.samples,
        }
    }

    /// Makes the mesh: all join the first machine, on a good network.
    async fn gather(&mut self) {
        for number in 0..self.schedule.nodes {
            let machine = self.world.machine(&format!("node{number}"));
            let agent = match self.agents.first() {
                Some(Some(first)) => mesh::join(&machine, "node0", first).await,
                _ => mesh::found(&machine).await,
            };
            self.trace.event("joined", &machine.name);
            self.members.insert(number, check::own_addresses(&agent));
            self.ids.push(Some(agent.view().borrow().me));
            self.versions.push(0);
            self.machines.push(machine);
            self.agents.push(Some(agent));
        }
        if let Err((node, seen)) = self.settled().await {
            self.violated(node, seen);
        }
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
            self.look();
        }
        if self.violation.is_some() {
            return None;
        }
        self.act(&Act::Heal).await;
        for node in 0..self.machines.len() {
            self.act(&Act::DiskWorks(node)).await;
            self.act(&Act::Start(node)).await;
        }
        let healed = clock::now();
        match self.settled().await {
            Ok(()) => Some((clock::now() - healed).as_millis() as u64),
            Err((node, seen)) => {
                self.violated(node, seen);
                None
            }
        }
    }

    /// Waits until all conclude what they must.
    async fn settled(&mut self) -> Result<(), (usize, Seen)> {
        let until = clock::now() + HEALED;
        loop {
            self.look();
            if self.violation.is_some() {
                return Ok(());
            }
            let running: Vec<Running<'_>> = self
                .agents
                .iter()
                .zip(&self.machines)
                .enumerate()
                .filter_map(|(number, (agent, machine))| {
                    Some(Running {
                        number,
                        agent: agent.as_ref()?,
                        machine,
                    })
                })
                .collect();
            let held = self.model.holds(&running, &self.members).await;
            match held {
                Ok(()) => return Ok(()),
                Err(wrong) if clock::now() >= until => return Err(wrong),
                Err(_) => tokio::time::sleep(AGREED).await,
            }
        }
    }

    async fn act(&mut self, act: &Act) {
        let done = match act {
            Act::Crash(node) => self.crash(*node).await,
            Act::Stop(node) => match self.agents[*node].take() {
                Some(agent) => {
                    agent.stop().await;
                    drop(agent);
                    self.machines[*node].crash().await;
                    true
                }
                None => false,
            },
            Act::Start(node) => self.start(*node).await,
            Act::Cut(from, to) => {
                for (from, to) in from
                    .iter()
                    .flat_map(|from| to.iter().map(move |to| (from, to)))
                {
                    let (from, to) = (self.machines[*from].address, self.machines[*to].address);
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
            Act::Add(node, service) => self.add(*node, *service).await,
            Act::Remove(node, service) => self.remove(*node, *service).await,
            Act::DiskFull(node) => self.disk(*node, Some(crate::disk::Fault::Full)),
            Act::DiskSync(node) => self.disk(*node, Some(crate::disk::Fault::Sync)),
            Act::DiskWorks(node) => self.disk(*node, None),
            Act::ClockStep(node, by_ms) => {
                self.machines[*node].clock.jump(*by_ms);
                true
            }
        };
        if done {
            self.trace.count(act.kind());
            self.trace.event(act.kind(), &act.to_string());
        }
    }

    async fn crash(&mut self, node: usize) -> bool {
        let Some(agent) = self.agents[node].take() else {
            return false;
        };
        self.machines[node].crash().await;
        drop(agent);
        true
    }

    async fn start(&mut self, node: usize) -> bool {
        if self.agents[node].is_some() {
            return false;
        }
        let machine = &self.machines[node];
        match Agent::build(machine.config(), machine.host.clone()).await {
            Ok(agent) => {
                if let Err(seen) = self.checker.started(node, &agent) {
                    self.violated(node, seen);
                }
                self.versions[node] = 0;
                self.agents[node] = Some(agent);
                true
            }
            Err(error) => {
                // A disk that can't be written is a reason; a later step or
                // the end tries again.
                self.trace
                    .event("no start", &format!("node{node}: {error}"));
                self.machines[node].crash().await;
                false
            }
        }
    }

    fn disk(&self, node: usize, fault: Option<crate::disk::Fault>) -> bool {
        self.machines[node].disk.set_fault(fault);
        true
    }

    async fn add(&mut self, node: usize, service: u32) -> bool {
        let Some(agent) = &self.agents[node] else {
            return false;
        };
        let name = format!("s{service}").parse().expect("a label");
        let port = 8000 + (service % 1000) as u16;
        match agent.control().service_add(Spec::new(name, port)).await {
            // What was acknowledged stands, granted now or later.
            Ok(_) => {
                self.model.services.insert(service, node);
                true
            }
            Err(error) => {
                let words = format!("node{node} could not add s{service}: {error}");
                self.trace.event("refused", &words);
                false
            }
        }
    }

    async fn remove(&mut self, node: usize, service: u32) -> bool {
        let Some(agent) = &self.agents[node] else {
            return false;
        };
        if self.model.services.get(&service) != Some(&node) {
            return false;
        }
        let name = format!("s{service}").parse().expect("a label");
        match agent.control().service_rm(name, false).await {
            Ok(()) => {
                self.model.services.remove(&service);
                self.model.removed.insert(service);
                true
            }
            Err(error) => {
                let words = format!("node{node} could not remove s{service}: {error}");
                self.trace.event("refused", &words);
                false
            }
        }
    }

    /// Looks at every machine whose conclusions changed.
    fn look(&mut self) {
        let running: BTreeSet<NodeId> = self
            .agents
            .iter()
            .zip(&self.ids)
            .filter_map(|(agent, id)| agent.as_ref().and(*id))
            .collect();
        let mut views: BTreeMap<String, usize> = BTreeMap::new();
        for node in 0..self.agents.len() {
            let Some(agent) = &self.agents[node] else {
                continue;
            };
            let view = agent.view().borrow().clone();
            let live = view.nodes.values().filter(|seen| seen.live).count();
            let services: usize = view
                .nodes
                .values()
                .map(|seen| seen.announcement.services.len())
                .sum();
            let conclusion = format!(
                "{}, {live} live, {services} services",
                view.ledger.position.index
            );
            *views.entry(conclusion.clone()).or_default() += 1;
            if view.version == self.versions[node] {
                continue;
            }
            self.versions[node] = view.version;
            let words = format!(
                "node{node}: place {conclusion}, {} routes",
                self.machines[node].tunnel_plan().peers.len()
            );
            self.trace.event("view", &words);
            let mut seen = self.checker.check(node, agent, &self.machines[node]);
            if self.scenario.is_some_and(|scenario| scenario.nobody_dies) {
                seen = seen.and_then(|()| check::false_death(agent, &running));
            }
            if let Err(seen) = seen {
                self.violated(node, seen);
                return;
            }
        }
        if let Some(words) = panics::first() {
            self.violated(0, ("panic", words));
        }
        self.sample(&views, running.len());
    }

    fn sample(&mut self, views: &BTreeMap<String, usize>, running: usize) {
        let most = views.values().max().copied().unwrap_or(0);
        let bytes = self.trace.take("bytes");
        self.samples.push(Sample {
            at_ms: self.trace.now_ms(),
            agreed: most as f64 / running.max(1) as f64,
            bytes,
        });
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
