//! Meshes whose CA nodes are several.

use crate::{Agent, Lab, agent::PATIENCE, mesh::connect, wait::ensure, wait_for};
use serde_json::Value;

/// A mesh of agents, the first its founder, and the file with its root's key,
/// whose passphrase the founder has in its environment.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn mesh<'lab>(lab: &'lab Lab, names: &[&str]) -> (Vec<Agent<'lab>>, String) {
    let mut agents = named(lab, names);
    let told = connect(&mut agents);
    let file = hand_passphrase(&told, &mut agents[..1]);
    (agents, file)
}

/// As [`mesh`], with all of them admins who have the passphrase.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn of_admins<'lab>(lab: &'lab Lab, names: &[&str]) -> (Vec<Agent<'lab>>, String) {
    let mut agents = named(lab, names);
    let (first, others) = agents.split_first_mut().expect("a first");
    let told = first.init();
    for other in others {
        let token = first.invite(&["--role", "admin"]);
        other.join_with(first, &token);
    }
    let file = hand_passphrase(&told, &mut agents);
    (agents, file)
}

fn named<'lab>(lab: &'lab Lab, names: &[&str]) -> Vec<Agent<'lab>> {
    let hosts = names.iter().zip(&lab.hosts);
    hosts.map(|(name, host)| Agent::new(host, name)).collect()
}

/// Gives the agents the root's passphrase that `init` told; the file with its
/// key.
fn hand_passphrase(told: &Value, agents: &mut [Agent]) -> String {
    let passphrase = told["passphrase"].as_str().expect("one");
    for agent in agents {
        agent.set("INNERMESH_ROOT_PASSPHRASE", passphrase);
    }
    told["recovery_file"].as_str().expect("a file").to_owned()
}

/// As [`mesh`], with the first three its CA nodes.
#[must_use]
pub fn of_three<'lab>(lab: &'lab Lab, names: &[&str]) -> Vec<Agent<'lab>> {
    let (agents, key) = mesh(lab, names);
    for node in &names[1..3] {
        let promote = ["ca", "promote", node, "--root-key", &key];
        let _ = agents[0].cli(&promote).ok();
    }
    wait_roster(&agents, &names[..3]);
    agents
}

/// The names of the CA nodes, as an agent knows them.
///
/// # Panics
/// When it doesn't tell.
#[must_use]
pub fn roster(agent: &Agent) -> Vec<String> {
    let status = agent.json(&["ca", "status"]);
    let roster = status["roster"].as_array().expect("a roster");
    let names = roster.iter().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

/// Waits until each of the agents knows this roster, in any order.
pub fn wait_roster(agents: &[Agent], names: &[&str]) {
    for agent in agents {
        wait_roster_at(agent, names);
    }
}

/// Waits until the agent knows this roster, in any order.
pub fn wait_roster_at(agent: &Agent, names: &[&str]) {
    let mut expected = names.to_vec();
    expected.sort_unstable();
    wait_for(&format!("the roster at {}", agent.name), PATIENCE, || {
        let mut got = roster(agent);
        got.sort_unstable();
        ensure(got == expected, format!("{got:?}"))
    });
}

/// Waits until the name of a service is granted.
pub fn wait_granted(agent: &Agent, service: &str) {
    wait_for(&format!("the name {service}"), PATIENCE, || {
        let rows = agent.json(&["service", "list"]);
        let mut rows = rows.as_array().into_iter().flatten();
        let granted = rows.any(|row| row["name"] == service && row["granted"] == true);
        if granted { Ok(()) } else { Err("not granted") }
    });
}

/// Waits until somebody leads, as `asked` knows; which of the agents it is.
pub fn wait_leader(agents: &[Agent], asked: &Agent) -> usize {
    wait_for("a leader", PATIENCE, || {
        let status = asked.json(&["ca", "status"]);
        let leader = status["leader"].as_str();
        leader
            .and_then(|leader| agents.iter().position(|agent| agent.name == leader))
            .ok_or(status)
    })
}
