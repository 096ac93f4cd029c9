//! What the roster decides, how fast, and whether all of it is kept: with
//! three CA nodes, while nothing happens to them, while leadership is handed
//! on, and while whoever leads is killed again and again.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Lab, dns, wait_for};
use serde_json::{Value, json};

use crate::{figures::Report, mesh::Mesh};

const WITHIN: Duration = Duration::from_secs(60);
/// CA nodes: the first of the mesh.
const ROSTER: usize = 3;
/// How long each leads while rotation is looked at.
const TERM: &str = "1m";

pub fn measure(agents: usize, kills: usize, report: &mut Report) -> Result<(), String> {
    if agents < 5 {
        return Err("at least 5 agents".into());
    }
    for size in [ROSTER, agents] {
        commits(size, report)?;
    }
    rotation(report)?;
    leaders_killed(kills, report)
}

/// A mesh with a roster of three.
fn start<'lab>(lab: &'lab Lab, config: &str) -> Result<Mesh<'lab>, String> {
    let (mut mesh, told) = Mesh::start_with_root(lab, config)?;
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    mesh.agents[0].set("INNERMESH_ROOT_PASSPHRASE", &text("passphrase"));
    let key = text("recovery_file");
    for node in 1..ROSTER {
        let name = mesh.agents[node].name.clone();
        let promote = ["ca", "promote", &name, "--root-key", &key];
        mesh.agents[0].cli(&promote).result()?;
    }
    for agent in &mesh.agents {
        wait_for(&format!("a roster of {ROSTER}"), WITHIN, || {
            let roster = agent.json(&["ca", "status"])["roster"].clone();
            match roster.as_array().is_some_and(|names| names.len() == ROSTER) {
                true => Ok(()),
                false => Err(roster),
            }
        });
    }
    Ok(mesh)
}

/// From a request to the answer that it is decided, and to all nodes' DNS.
fn commits(size: usize, report: &mut Report) -> Result<(), String> {
    const ROUNDS: usize = 60;
    let lab = Lab::build(size)?;
    let mut mesh = start(&lab, "")?;
    let leader = leader(&mesh.agents).ok_or("nobody leads")?;
    let (mut nothing, mut answered, mut everywhere) = (Vec::new(), Vec::new(), Vec::new());
    let present = |answer: &dns::Answer| !answer.addresses.is_empty();
    for round in 0..ROUNDS {
        let (service, name) = (format!("c{round}"), format!("c{round}.lab.internal"));
        let began = Instant::now();
        mesh.agents[leader].cli(&["version"]).result()?;
        nothing.push(began.elapsed());
        let began = Instant::now();
        if !granted(&mesh.agents[leader], &service) {
            return Err(format!("{service} wasn't granted"));
        }
        let took = began.elapsed();
        answered.push(took.saturating_sub(nothing[round]));
        let all = mesh.until(&name, 0..size, began, WITHIN, &present)?;
        everywhere.push(all.saturating_sub(nothing[round]));
        thread::sleep(Duration::from_millis(100));
    }
    report.times(
        "a command that asks nobody",
        "agent version",
        size,
        &nothing,
    );
    report.times(
        "decided and on disk, beyond that",
        "3 CA nodes",
        size,
        &answered,
    );
    report.times("decided to all nodes' DNS", "3 CA nodes", size, &everywhere);
    Ok(())
}

/// Requests without a pause while leadership goes round.
fn rotation(report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(5)?;
    let mesh = start(&lab, &format!("[ca]\nterm = \"{TERM}\"\n"))?;
    let (mut asked, mut failed) = (0, Vec::new());
    let mut leaders = Vec::new();
    let until = Instant::now() + Duration::from_secs(200);
    while Instant::now() < until {
        let asker = &mesh.agents[3 + asked % 2];
        let name = format!("r{asked}");
        if !granted(asker, &name) {
            failed.push(name);
        }
        asked += 1;
        if let Some(leader) = leader(&mesh.agents)
            && leaders.last() != Some(&leader)
        {
            leaders.push(leader);
        }
        thread::sleep(Duration::from_millis(150));
    }
    let changes = leaders.len().saturating_sub(1);
    let figures = format!(
        "{} of {asked} requests failed over {changes} changes of the leader",
        failed.len()
    );
    let data = json!({ "asked": asked, "failed": failed, "changes": changes });
    report.add("planned rotation", "term of a minute", 5, figures, data);
    Ok(())
}

/// Kills whoever leads, again and again, under a load of new services.
fn leaders_killed(kills: usize, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(5)?;
    let mut mesh = start(&lab, "")?;
    let (roster, others) = mesh.agents.split_at_mut(ROSTER);
    let (ended, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let acknowledged: Mutex<Vec<(String, Instant)>> = Mutex::default();
    let told = || acknowledged.lock().unwrap_or_else(|e| e.into_inner());
    let mut waits = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let number = asked.fetch_add(1, Ordering::Relaxed);
                let name = format!("k{number}");
                let asker = &others[number as usize % others.len()];
                if granted(asker, &name) {
                    told().push((name, Instant::now()));
                }
                // No node holds more than 1,024 names.
                thread::sleep(Duration::from_millis(200));
            }
        });
        for _ in 0..kills {
            let leads = wait_leader(roster);
            let at = Instant::now();
            roster[leads].kill();
            wait_for("the next answer", WITHIN, || {
                let next = told()
                    .last()
                    .map(|(_, when)| *when)
                    .filter(|when| *when > at);
                waits.extend(next.map(|next| next - at));
                next.map(|_| ()).ok_or("none")
            });
            roster[leads].start();
            thread::sleep(Duration::from_secs(2));
        }
        ended.store(true, Ordering::Relaxed);
    });
    let acknowledged = std::mem::take(&mut *told());

    report.times("leader killed to the next answer", "3 CA nodes", 5, &waits);

    // Each name has one owner at each node, and none is missing.
    let mut lost = BTreeSet::new();
    for agent in &mesh.agents {
        wait_for("all to agree", WITHIN, || {
            let names: BTreeSet<String> = names(agent);
            lost = acknowledged
                .iter()
                .map(|(name, _)| name.clone())
                .filter(|name| !names.contains(name))
                .collect();
            match lost.is_empty() {
                true => Ok(()),
                false => Err(format!("{lost:?}")),
            }
        });
    }
    let figures = format!(
        "{} acknowledged of {} asked, {} lost, over {kills} kills",
        acknowledged.len(),
        asked.into_inner(),
        lost.len()
    );
    let data = json!({ "acknowledged": acknowledged.len(), "lost": lost, "kills": kills });
    report.add("what was acknowledged", "3 CA nodes", 5, figures, data);
    Ok(())
}

/// Has an agent add a service; whether its name was granted at once.
fn granted(agent: &Agent, name: &str) -> bool {
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
fn leader(agents: &[Agent]) -> Option<usize> {
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
