//! One CA node becomes three and one again, while everything runs.

use std::fs;

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    roster::{mesh, roster, wait_granted, wait_leader, wait_roster},
    wait_for,
};
use serde_json::Value;

/// Has the agent add a service, and waits until its name is granted.
fn add_granted(agent: &Agent, service: &str) {
    let added = agent.cli(&["service", "add", service, "--port", "8080", "--json"]);
    let _ = added.json();
    wait_granted(agent, service);
}

#[test]
fn one_ca_node_becomes_three_and_one_again_while_everything_runs() {
    let Some(lab) = Lab::new(4) else { return };
    let (agents, key) = mesh(&lab, &["alpha", "beta", "gamma", "delta"]);
    let [alpha, beta, gamma, delta] = agents.as_slice() else {
        unreachable!()
    };
    let status = alpha.cli(&["ca", "status"]);
    assert!(status.stderr.contains("two more CA nodes"), "{status}");

    beta.refused(&["ca", "promote", "beta"], "not an admin");
    alpha.refused(
        &["ca", "promote", "omega", "--root-key", &key],
        "not a member",
    );
    alpha.refused(&["ca", "promote", "beta"], "--root-key FILE");
    alpha.refused(&["ca", "demote", "alpha", "--yes"], "only CA node");

    let promote = |node: &str| alpha.cli(&["ca", "promote", node, "--root-key", &key]);
    let told = promote("beta").ok();
    assert!(
        told.contains("one CA node more: promote one more"),
        "{told}"
    );
    let status = alpha.json(&["ca", "status"]);
    assert_eq!(status["waiting"][0]["node"], "beta", "{status}");
    let told = promote("gamma").ok();
    assert!(told.contains("It is one of 3 voters"), "{told}");
    wait_roster(&agents, &["alpha", "beta", "gamma"]);

    // A member that has no part in it sees it as the leader does.
    wait_for("lag at delta", PATIENCE, || {
        let status = delta.json(&["ca", "status"]);
        let voters = status["voters"].as_array().expect("voters");
        let seen = |voter: &Value| voter["behind"] == 0 && voter["active"] == true;
        if status["leader"].is_string() && voters.iter().all(seen) {
            Ok(())
        } else {
            Err(status)
        }
    });
    let issuers = alpha.json(&["ca", "status"])["issuers"].clone();
    let issuers = issuers.as_array().expect("issuers");
    let of = |node: &str, state: &str| {
        let mut rows = issuers.iter();
        rows.any(|row| row["node"] == node && row["state"] == state)
    };
    assert!(of("beta", "in_force") && of("beta", "next"), "{issuers:?}");
    assert!(
        of("alpha", "in_force") && !of("alpha", "next"),
        "{issuers:?}"
    );

    // The founder gets its successor by the same command.
    let told = promote("alpha").ok();
    assert!(told.contains("Created an intermediate"), "{told}");
    let told = promote("alpha").ok();
    assert!(told.contains("nothing to renew"), "{told}");

    // Whoever leads: it hands over first.
    let status = alpha.json(&["ca", "status"]);
    let leader = status["leader"].as_str().expect("a leader").to_owned();
    let demote = |node: &str| alpha.cli(&["ca", "demote", node, "--root-key", &key, "--yes"]);
    let demoted = demote(&leader).ok();
    assert!(demoted.contains("an ordinary node"), "{demoted}");
    assert_eq!(roster(alpha).len(), 2);
    let status = alpha.cli(&["ca", "status"]);
    assert!(status.stderr.contains("neither may be away"), "{status}");
    add_granted(delta, "films");
    let left = roster(alpha);
    let told = demote(&left[0]).ok();
    assert!(told.contains(&left[1]), "{told}");
    wait_roster(&agents, &[&left[1]]);
    add_granted(delta, "music");
    alpha.refused(&["ca", "demote", &left[1], "--yes"], "only CA node");

    // And three again: who was one before gets an issuer anew.
    for node in left.iter().take(1).chain([&leader]) {
        let _ = promote(node).ok();
    }
    wait_roster(&agents, &["alpha", "beta", "gamma"]);
    assert!(!fs::read_to_string(&key).unwrap().is_empty());
    let _ = (beta, gamma);
}

#[test]
fn the_mesh_decides_on_when_its_leader_is_killed() {
    let Some(lab) = Lab::new(4) else { return };
    let (mut agents, key) = mesh(&lab, &["alpha", "beta", "gamma", "delta"]);
    for node in ["beta", "gamma"] {
        let _ = agents[0]
            .cli(&["ca", "promote", node, "--root-key", &key])
            .ok();
    }
    wait_roster(&agents, &["alpha", "beta", "gamma"]);
    let leader = wait_leader(&agents, &agents[0]);
    agents[leader].kill();
    add_granted(&agents[3], "photos");
    agents[leader].start();
    wait_roster(&agents, &["alpha", "beta", "gamma"]);
    wait_for("it takes part again", PATIENCE, || {
        let status = agents[leader].json(&["ca", "status"]);
        let voters = status["voters"].as_array().expect("voters");
        if voters.iter().all(|voter| voter["behind"] == 0) {
            Ok(())
        } else {
            Err(status)
        }
    });
}
