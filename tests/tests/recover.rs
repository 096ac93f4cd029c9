//! CA nodes are lost for good, and the mesh goes on with the root's key.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait_for};
use serde_json::Value;

/// A mesh of agents, all of them admins, and the recovery file of its root.
fn mesh<'lab>(lab: &'lab Lab, names: &[&str]) -> (Vec<Agent<'lab>>, String) {
    let mut agents: Vec<Agent> = names
        .iter()
        .zip(&lab.hosts)
        .map(|(name, host)| Agent::new(host, name))
        .collect();
    let (first, others) = agents.split_first_mut().expect("a first");
    let told = first.init();
    let passphrase = told["passphrase"].as_str().expect("one").to_owned();
    for other in others {
        let token = first.invite(&["--role", "admin"]);
        other.join_with(first, &token);
    }
    for agent in &mut agents {
        agent.set("INNERMESH_ROOT_PASSPHRASE", &passphrase);
    }
    let file = told["recovery_file"].as_str().expect("a file").to_owned();
    (agents, file)
}

fn wait_roster(agent: &Agent, names: &[&str]) {
    wait_for(&format!("the roster at {}", agent.name), PATIENCE, || {
        let status = agent.json(&["ca", "status"]);
        let roster = status["roster"].as_array().expect("a roster");
        let mut got: Vec<&str> = roster.iter().filter_map(Value::as_str).collect();
        got.sort_unstable();
        if got == names { Ok(()) } else { Err(status) }
    });
}

fn add_service(agent: &Agent, service: &str) {
    let added = agent.cli(&["service", "add", service, "--port", "8080", "--json"]);
    let _ = added.json();
}

fn wait_granted(agent: &Agent, service: &str) {
    wait_for(&format!("the name {service}"), PATIENCE, || {
        let rows = agent.json(&["service", "list"]);
        let mut rows = rows.as_array().into_iter().flatten();
        let granted = rows.any(|row| row["name"] == service && row["granted"] == true);
        if granted { Ok(()) } else { Err("not granted") }
    });
}

/// Whether its ledger is right from the genesis to the end.
fn assert_whole(agent: &Agent) {
    let log = agent.json(&["ca", "log"]);
    assert_eq!(log["problem"], Value::Null, "{log}");
}

#[test]
fn two_of_three_are_lost_and_the_third_goes_on_and_all_follow() {
    let Some(lab) = Lab::new(5) else { return };
    let (mut agents, key) = mesh(&lab, &["alpha", "beta", "gamma", "delta"]);
    for node in ["beta", "gamma"] {
        let _ = agents[0]
            .cli(&["ca", "promote", node, "--root-key", &key])
            .ok();
    }
    for agent in &agents {
        wait_roster(agent, &["alpha", "beta", "gamma"]);
    }
    let recover = ["ca", "recover", "--root-key", &key, "--yes"];
    agents[2].refused(&recover, "nothing is lost");

    // What delta is granted now, gamma never hears of.
    agents[2].stop();
    add_service(&agents[3], "films");
    wait_granted(&agents[3], "films");
    agents[3].stop();
    agents[0].kill();
    agents[1].kill();
    agents[2].start();
    add_service(&agents[2], "photos");
    wait_for("the CA nodes are given up", PATIENCE, || {
        agents[2].cli(&recover).result()
    });
    wait_granted(&agents[2], "photos");
    assert_whole(&agents[2]);

    // Joins work again, and the new machine follows the whole chain.
    let mut epsilon = Agent::new(&lab.hosts[4], "epsilon");
    epsilon.join(&agents[2]);
    wait_roster(&epsilon, &["gamma"]);
    assert_whole(&epsilon);

    agents[3].start();
    wait_roster(&agents[3], &["gamma"]);
    let status = agents[3].status();
    let warnings = status["warnings"].as_array().expect("warnings");
    let mut warnings = warnings.iter().filter_map(Value::as_str);
    let told = warnings.find(|warning| warning.contains("recovered from an earlier place"));
    let told = told.unwrap_or_else(|| panic!("{status}"));
    let file = told
        .split("--file ")
        .nth(1)
        .and_then(|rest| rest.split('`').next());
    let file = file.expect("the copy's name");
    let lost = agents[3].json(&["ca", "log", "--file", file, "--kind", "claim"]);
    assert!(lost.to_string().contains("the name films"), "{lost}");
    assert_whole(&agents[3]);
    // It asks again by itself.
    wait_granted(&agents[3], "films");

    // Also after a restart, and so does one that was given up.
    agents[3].stop();
    agents[3].start();
    wait_roster(&agents[3], &["gamma"]);
    agents[0].start();
    wait_roster(&agents[0], &["gamma"]);
    let _ = agents[2]
        .cli(&["ca", "promote", "alpha", "--root-key", &key])
        .ok();
    let _ = agents[2]
        .cli(&["ca", "promote", "delta", "--root-key", &key])
        .ok();
    wait_roster(&agents[0], &["alpha", "delta", "gamma"]);
    wait_roster(&epsilon, &["alpha", "delta", "gamma"]);
    add_service(&epsilon, "music");
    wait_granted(&epsilon, "music");
}

#[test]
fn where_no_ca_node_is_left_a_member_becomes_one() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut agents, key) = mesh(&lab, &["alpha", "beta"]);
    agents[1].wait_nodes(2);
    agents[0].kill();
    let recover = ["ca", "recover", "--root-key", &key, "--yes"];
    wait_for("the CA node is given up", PATIENCE, || {
        agents[1].cli(&recover).result()
    });
    wait_roster(&agents[1], &["beta"]);
    let mut gamma = Agent::new(&lab.hosts[2], "gamma");
    gamma.join(&agents[1]);
    wait_roster(&gamma, &["beta"]);
    add_service(&gamma, "photos");
    wait_granted(&gamma, "photos");
    assert_whole(&gamma);
}

#[test]
fn a_machine_whose_agent_does_not_run_goes_on_from_its_folder() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut agents, key) = mesh(&lab, &["alpha", "beta"]);
    for agent in &agents {
        agent.wait_nodes(2);
    }
    let recover = ["ca", "recover", "--root-key", &key, "--yes"];
    let offline = [&recover[..], &["--offline"]].concat();
    agents[1].refused(&offline, "the agent runs");
    agents[0].stop();
    agents[1].stop();
    let refused = agents[1].cli(&recover);
    assert_eq!(refused.code, 3, "{refused}");
    assert!(refused.stderr.contains("--offline"), "{refused}");
    agents[0].refused(&offline, "nothing is lost");

    let done = agents[1].cli(&offline);
    assert_eq!(done.code, 0, "{done}");
    assert!(done.stdout.contains("beta decides alone"), "{done}");
    assert!(done.stderr.contains("no other node was asked"), "{done}");
    agents[1].start();
    wait_roster(&agents[1], &["beta"]);
    let mut gamma = Agent::new(&lab.hosts[2], "gamma");
    gamma.join(&agents[1]);
    wait_roster(&gamma, &["beta"]);
    add_service(&gamma, "photos");
    wait_granted(&gamma, "photos");
    assert_whole(&gamma);
    // Who decided before follows.
    agents[0].start();
    wait_roster(&agents[0], &["beta"]);
}
