//! Meshes whose CA nodes are several.

use crate::{Agent, Lab, agent::PATIENCE, wait_for};
use serde_json::Value;

/// A mesh of agents, the first its founder, and the file with its root's key,
/// whose passphrase the founder has in its environment.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn mesh<'lab>(lab: &'lab Lab, names: &[&str]) -> (Vec<Agent<'lab>>, String) {
    let mut agents: Vec<Agent> = names
        .iter()
        .zip(&lab.hosts)
        .map(|(name, host)| Agent::new(host, name))
        .collect();
    let (first, others) = agents.split_first_mut().expect("a first");
    let told = first.init();
    let passphrase = told["passphrase"].as_str().expect("one").to_owned();
    first.set("INNERMESH_ROOT_PASSPHRASE", &passphrase);
    for other in others {
        other.join(first);
    }
    let file = told["recovery_file"].as_str().expect("a file").to_owned();
    (agents, file)
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
    let mut expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    for agent in agents {
        wait_for(&format!("the roster at {}", agent.name), PATIENCE, || {
            let mut got = roster(agent);
            got.sort();
            if got == expected {
                Ok(())
            } else {
                Err(format!("{got:?}"))
            }
        });
    }
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
