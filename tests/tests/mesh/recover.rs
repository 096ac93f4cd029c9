//! CA nodes are lost for good, and the mesh goes on with the root's key.

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    roster::{of_admins, wait_granted, wait_roster, wait_roster_at},
    wait_for,
};
use serde_json::Value;

fn add_service(agent: &Agent, service: &str) {
    let added = agent.cli(&["service", "add", service, "--port", "8080", "--json"]);
    let _ = added.json();
}

/// Whether its ledger is right from the genesis to the end.
fn assert_whole(agent: &Agent) {
    let log = agent.json(&["ca", "log"]);
    assert_eq!(log["problem"], Value::Null, "{log}");
}

#[test]
fn two_of_three_are_lost_and_the_third_goes_on_and_all_follow() {
    let Some(lab) = Lab::new(5) else { return };
    let (mut agents, key) = of_admins(&lab, &["alpha", "beta", "gamma", "delta"]);
    for node in ["beta", "gamma"] {
        let _ = agents[0]
            .cli(&["ca", "promote", node, "--root-key", &key])
            .ok();
    }
    wait_roster(&agents, &["alpha", "beta", "gamma"]);
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
    wait_roster_at(&epsilon, &["gamma"]);
    assert_whole(&epsilon);

    agents[3].start();
    wait_roster_at(&agents[3], &["gamma"]);
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
    wait_roster_at(&agents[3], &["gamma"]);
    agents[0].start();
    wait_roster_at(&agents[0], &["gamma"]);
    let _ = agents[2]
        .cli(&["ca", "promote", "alpha", "--root-key", &key])
        .ok();
    let _ = agents[2]
        .cli(&["ca", "promote", "delta", "--root-key", &key])
        .ok();
    wait_roster_at(&agents[0], &["alpha", "delta", "gamma"]);
    wait_roster_at(&epsilon, &["alpha", "delta", "gamma"]);
    add_service(&epsilon, "music");
    wait_granted(&epsilon, "music");
}

#[test]
fn where_no_ca_node_is_left_a_member_becomes_one() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut agents, key) = of_admins(&lab, &["alpha", "beta"]);
    agents[1].wait_nodes(2);
    agents[0].kill();
    let recover = ["ca", "recover", "--root-key", &key, "--yes"];
    wait_for("the CA node is given up", PATIENCE, || {
        agents[1].cli(&recover).result()
    });
    wait_roster_at(&agents[1], &["beta"]);
    let mut gamma = Agent::new(&lab.hosts[2], "gamma");
    gamma.join(&agents[1]);
    wait_roster_at(&gamma, &["beta"]);
    add_service(&gamma, "photos");
    wait_granted(&gamma, "photos");
    assert_whole(&gamma);
}

#[test]
fn a_machine_whose_agent_does_not_run_goes_on_from_its_folder() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut agents, key) = of_admins(&lab, &["alpha", "beta"]);
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
    assert!(done.stdout.contains("beta is the only CA node"), "{done}");
    assert!(done.stderr.contains("no other node was asked"), "{done}");
    agents[1].start();
    wait_roster_at(&agents[1], &["beta"]);
    let mut gamma = Agent::new(&lab.hosts[2], "gamma");
    gamma.join(&agents[1]);
    wait_roster_at(&gamma, &["beta"]);
    add_service(&gamma, "photos");
    wait_granted(&gamma, "photos");
    assert_whole(&gamma);
    // Who decided before follows.
    agents[0].start();
    wait_roster_at(&agents[0], &["beta"]);
}
