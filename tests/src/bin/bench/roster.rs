//! Whether all that was acknowledged is kept when CA nodes are killed, come and
//! go, or are lost for good, under a load of new services all the time; and how
//! long nothing can be decided then.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Lab, wait_for};
use serde_json::{Value, json};

use crate::{figures::Report, mesh::Mesh};

pub const WITHIN: Duration = Duration::from_secs(60);
/// CA nodes to begin with: the first of the mesh.
pub const ROSTER: usize = 3;
/// Between two requests of the load: no node holds more than 1,024 names.
const PACE: Duration = Duration::from_millis(200);

/// A mesh and the recovery file of its root.
pub struct Rooted<'lab> {
    pub mesh: Mesh<'lab>,
    key: String,
}

/// A mesh with a roster of three.
pub fn start<'lab>(lab: &'lab Lab, config: &str) -> Result<Rooted<'lab>, String> {
    start_by(lab, config, None)
}

/// As [`start`], where all run another program.
pub fn start_by<'lab>(
    lab: &'lab Lab,
    config: &str,
    program: Option<&Path>,
) -> Result<Rooted<'lab>, String> {
    let rooted = alone(lab, config, program)?;
    let key = rooted.key.clone();
    change(&rooted.mesh.agents, "promote", [1, 2], &key)?;
    wait_roster(&rooted.mesh.agents, ROSTER);
    Ok(rooted)
}

/// A mesh whose first node decides alone.
fn alone<'lab>(
    lab: &'lab Lab,
    config: &str,
    program: Option<&Path>,
) -> Result<Rooted<'lab>, String> {
    let (mut mesh, told) = Mesh::start_by(lab, config, program)?;
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    mesh.agents[0].set("INNERMESH_ROOT_PASSPHRASE", &text("passphrase"));
    let key = text("recovery_file");
    Ok(Rooted { mesh, key })
}

/// Kills whoever leads, again and again, under load.
pub fn kills(kills: usize, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(5)?;
    let mut mesh = start(&lab, "")?.mesh;
    let (roster, others) = mesh.agents.split_at_mut(ROSTER);
    let mut waits = Vec::new();
    let load = Load::run(others, |load| {
        for _ in 0..kills {
            let leads = wait_leader(roster);
            let at = Instant::now();
            roster[leads].kill();
            waits.extend(load.next_after(at));
            roster[leads].start();
            // Until it follows again: two of three are needed.
            wait_roster(&roster[leads..=leads], ROSTER);
            thread::sleep(Duration::from_secs(2));
        }
        Ok(())
    })?;
    report.times("leader killed to the next answer", "3 CA nodes", 5, &waits);
    load.report(
        &mesh.agents,
        &format!("{kills} kills of the leader"),
        report,
    );
    Ok(())
}

/// One, three, five, three, one CA nodes under load; then two of three are lost.
pub fn changes(report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(6)?;
    let Rooted { mut mesh, key } = alone(&lab, "", None)?;
    let (roster, others) = mesh.agents.split_at_mut(5);
    let mut took = Vec::new();
    let load = Load::run(others, |load| {
        let steps = [
            ("promote", [1, 2], 3),
            ("promote", [3, 4], 5),
            ("demote", [1, 2], 3),
            ("demote", [3, 4], 1),
        ];
        for (what, nodes, size) in steps {
            let began = Instant::now();
            change(roster, what, nodes, &key)?;
            wait_roster(roster, size);
            took.push(began.elapsed());
            for _ in 0..10 {
                let _ = load.next_after(Instant::now());
            }
        }
        Ok(())
    })?;
    report.times(
        "the roster changes by two, to all nodes",
        "1-3-5-3-1",
        6,
        &took,
    );
    load.report(&mesh.agents, "1-3-5-3-1 CA nodes", report);
    drop(mesh);

    let lab = Lab::build(5)?;
    let Rooted { mut mesh, key } = start(&lab, "")?;
    let (roster, others) = mesh.agents.split_at_mut(ROSTER);
    let mut wait = Vec::new();
    let load = Load::run(others, |load| {
        let _ = load.next_after(Instant::now());
        let at = Instant::now();
        for lost in &mut roster[1..] {
            lost.kill();
        }
        wait_for("the CA nodes are given up", WITHIN, || {
            let recover = ["ca", "recover", "--root-key", &key, "--yes"];
            roster[0].cli(&recover).result()
        });
        wait.extend(load.next_after(at));
        Ok(())
    })?;
    report.times(
        "two of three lost, until `ca recover` is through",
        "3 CA nodes",
        5,
        &wait,
    );
    mesh.agents.drain(1..ROSTER);
    load.report(&mesh.agents, "a majority lost", report);
    Ok(())
}

/// Services that two agents and more add one after the other, without end.
pub struct Load {
    asked: AtomicU32,
    acknowledged: Mutex<Vec<(String, Instant)>>,
}

impl Load {
    /// Asks `askers` until `meanwhile` is over.
    fn run(
        askers: &[Agent],
        meanwhile: impl FnOnce(&Self) -> Result<(), String>,
    ) -> Result<Self, String> {
        Self::run_named("k", askers, meanwhile)
    }

    /// As [`Load::run`]; the services' names begin like this.
    pub fn run_named(
        prefix: &str,
        askers: &[Agent],
        meanwhile: impl FnOnce(&Self) -> Result<(), String>,
    ) -> Result<Self, String> {
        let load = Self {
            asked: AtomicU32::new(0),
            acknowledged: Mutex::default(),
        };
        let ended = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let number = load.asked.fetch_add(1, Ordering::Relaxed);
                    let name = format!("{prefix}{number}");
                    let asker = &askers[number as usize % askers.len()];
                    if granted(asker, &name) {
                        load.told().push((name, Instant::now()));
                    }
                    thread::sleep(PACE);
                }
            });
            let result = meanwhile(&load);
            ended.store(true, Ordering::Relaxed);
            result
        });
        result.map(|()| load)
    }

    pub fn told(&self) -> std::sync::MutexGuard<'_, Vec<(String, Instant)>> {
        self.acknowledged.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for the next answer; how long after `at` it came.
    fn next_after(&self, at: Instant) -> Option<Duration> {
        let mut next = None;
        wait_for("the next answer", WITHIN, || {
            let told = self.told();
            next = told
                .iter()
                .rev()
                .map(|(_, when)| *when)
                .take_while(|when| *when > at)
                .last();
            next.map(|_| ()).ok_or("none")
        });
        Some(next? - at)
    }

    /// Each name has one owner at each node, and none is missing.
    pub fn report(&self, agents: &[Agent], after: &str, report: &mut Report) {
        let acknowledged = std::mem::take(&mut *self.told());
        let mut lost = BTreeSet::new();
        for agent in agents {
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                let names = names(agent);
                let missing = acknowledged.iter().map(|(name, _)| name.clone());
                let missing: BTreeSet<String> =
                    missing.filter(|name| !names.contains(name)).collect();
                if missing.is_empty() || Instant::now() > until {
                    lost.extend(missing);
                    break;
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
        let asked = self.asked.load(Ordering::Relaxed);
        let figures = format!(
            "{} acknowledged at once of {asked} asked, {} lost",
            acknowledged.len(),
            lost.len()
        );
        let data = json!({ "acknowledged": acknowledged.len(), "asked": asked, "lost": lost });
        report.add(after, "what was acknowledged", agents.len(), figures, data);
    }
}

/// Has the first agent make two nodes CA nodes, or none any more: the roster is
/// odd, so the first of them waits for the second.
fn change(agents: &[Agent], what: &str, nodes: [usize; 2], key: &str) -> Result<(), String> {
    for node in nodes {
        let mut arguments = vec!["ca", what, &agents[node].name, "--root-key", key];
        if what == "demote" {
            arguments.push("--yes");
        }
        agents[0].cli(&arguments).result()?;
    }
    Ok(())
}

fn wait_roster(agents: &[Agent], size: usize) {
    for agent in agents {
        wait_for(&format!("a roster of {size}"), WITHIN, || {
            let status = agent.cli(&["ca", "status", "--json"]).result();
            let status: Value = serde_json::from_str(&status?).map_err(|e| e.to_string())?;
            if status["roster"].as_array().map(Vec::len) == Some(size) {
                Ok(())
            } else {
                Err(status["roster"].to_string())
            }
        });
    }
}

/// Has an agent add a service; whether its name was granted at once.
pub fn granted(agent: &Agent, name: &str) -> bool {
    let add = ["service", "add", name, "--port", "80", "--json"];
    let told = agent.cli(&add).result().ok();
    let told: Option<Value> = told.and_then(|told| serde_json::from_str(&told).ok());
    told.is_some_and(|told| told["state"] == "granted")
}

/// Names of services that an agent knows to be granted.
fn names(agent: &Agent) -> BTreeSet<String> {
    let services = agent.status()["services"].clone();
    let services = services.as_array().into_iter().flatten();
    services
        .filter_map(|service| Some(service["name"].as_str()?.to_owned()))
        .collect()
}

/// Which of the agents leads, as any of them tells.
pub fn leader(agents: &[Agent]) -> Option<usize> {
    agents.iter().take(ROSTER).find_map(|agent| {
        let status = agent.cli(&["ca", "status", "--json"]).result().ok()?;
        let status: Value = serde_json::from_str(&status).ok()?;
        let leader = status["leader"].as_str()?;
        agents.iter().position(|agent| agent.name == leader)
    })
}

fn wait_leader(agents: &[Agent]) -> usize {
    let mut found = None;
    wait_for("a leader", WITHIN, || {
        found = leader(agents);
        found.map(|_| ()).ok_or("none")
    });
    found.unwrap_or_default()
}
