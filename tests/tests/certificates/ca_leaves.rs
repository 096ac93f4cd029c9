//! CA nodes that go: by themselves, and by the root's word.

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    roster::{of_admins, wait_roster_at},
    wait::ensure,
    wait_for,
};
use serde_json::Value;

/// A mesh of four, of which three decide, and the recovery file.
fn mesh<'lab>(lab: &'lab Lab) -> (Vec<Agent<'lab>>, String) {
    let (agents, file) = of_admins(lab, &["alpha", "beta", "gamma", "delta"]);
    for node in ["beta", "gamma"] {
        let _ = agents[0]
            .cli(&["ca", "promote", node, "--root-key", &file])
            .ok();
    }
    wait_roster_at(&agents[3], &["alpha", "beta", "gamma"]);
    (agents, file)
}

/// Makes an admin one anew, by the root's word: on its first day it would speak for
/// who let it in, as the others do.
fn made_by_root(agent: &Agent, file: &str) {
    for what in ["rm", "add"] {
        let own = ["role", what, &agent.name, "admin", "--root-key", file];
        let yes = (what == "rm").then_some("--yes");
        let _ = agent
            .cli(&own.into_iter().chain(yes).collect::<Vec<_>>())
            .ok();
    }
}

/// Has the ledger decide something.
fn decides(agent: &Agent, name: &str) {
    let record = ["record", "add", name, "A", "198.51.100.9"];
    let _ = wait_for("a decision", PATIENCE, || agent.cli(&record).result());
}

/// The serial of each node's membership certificate that isn't revoked.
fn memberships(agent: &Agent) -> Vec<(String, String)> {
    let told = agent.json(&["cert", "list"]);
    let rows = told.as_array().into_iter().flatten();
    let good = rows.filter(|row| row["kind"] == "member" && row["revoked"] == false);
    let text = |row: &Value, field: &str| row[field].as_str().expect("a text").to_owned();
    good.map(|row| (text(row, "node"), text(row, "serial")))
        .collect()
}

#[test]
fn a_ca_node_that_leaves_hands_its_seat_over_and_the_rest_decide_on() {
    let Some(lab) = Lab::new(4) else { return };
    let (mut agents, _) = mesh(&lab);
    // Whoever leads: the others take over.
    let status = agents[3].json(&["ca", "status"]);
    let leader = status["leader"].as_str().expect("a leader").to_owned();
    let at = agents.iter().position(|agent| agent.name == leader);
    let mut leaver = agents.remove(at.expect("one of them"));
    let told = leaver.json(&["leave", "--yes"]);
    assert_eq!(told["state"], "left", "{told}");
    leaver.wait_stopped();
    let mut left: Vec<&str> = ["alpha", "beta", "gamma"].into();
    left.retain(|name| *name != leader);
    for agent in &agents {
        wait_roster_at(agent, &left);
        agent.wait_nodes(3);
    }
    decides(&agents[2], "tv");
}

#[test]
fn members_of_a_ca_node_that_is_evicted_have_other_certificates_before_its_issuer_ends() {
    let Some(lab) = Lab::new(4) else { return };
    let (agents, file) = mesh(&lab);
    let [alpha, beta, gamma, delta] = agents.as_slice() else {
        unreachable!()
    };
    made_by_root(gamma, &file);
    // Alone, the founder signed every membership so far; beta and gamma can't
    // both be without it, so the founder is the one to go.
    let before = memberships(delta);
    assert_eq!(before.len(), 4, "{before:?}");
    alpha.refused(&["evict", "alpha", "--yes"], "agent leave");
    let told = beta.waits(&["evict", "alpha", "--yes"]);
    assert_eq!(
        (&told["state"], &told["cut_off"]),
        (&"waiting".into(), &false.into())
    );
    // At the first word already the others get new ones, from other CA nodes.
    wait_for("new certificates", PATIENCE, || {
        let now = memberships(delta);
        let renewed = ["beta", "gamma", "delta"].iter().all(|node| {
            let serials = now.iter().filter(|(name, _)| name == node);
            let new = |row: &&(String, String)| !before.contains(row);
            serials.filter(new).count() > 0
        });
        ensure(renewed, format!("{now:?}"))
    });
    let told = gamma.json(&["evict", "alpha", "--yes"]);
    assert_eq!(told["state"], "evicted", "{told}");
    for agent in [beta, gamma, delta] {
        wait_roster_at(agent, &["beta", "gamma"]);
        agent.wait_nodes(3);
    }
    let left = memberships(delta);
    let has = |node: &str| left.iter().any(|(name, _)| name == node);
    assert!(has("beta") && has("gamma") && has("delta"), "{left:?}");
    assert!(left.iter().all(|row| !before.contains(row)), "{left:?}");
    let status = delta.json(&["ca", "status"]);
    let issuers = status["issuers"].as_array().expect("issuers");
    let ended = issuers
        .iter()
        .filter(|row| row["node"] != "beta" && row["node"] != "gamma");
    assert!(
        ended.clone().all(|row| row["state"] == "revoked"),
        "{issuers:?}"
    );
    // What the founder signed is refused as a whole: its list is gone.
    let lists = wait_for("the page to say so", PATIENCE, || {
        let page = ["curl", "--silent", "--fail", "http://127.0.0.1:7480/crl/"];
        let lists = delta.host.run(&page).result()?;
        ensure(lists.contains("the issuer itself was revoked"), &lists).map(|()| lists)
    });
    let row = lists
        .lines()
        .find(|line| line.contains("itself was revoked"));
    let serial = row.and_then(|row| row.split("<code>").nth(1)?.get(..32));
    let url = format!(
        "http://127.0.0.1:7480/crl/{}.crl",
        serial.expect("a serial")
    );
    let code = ["curl", "--silent", "--write-out", "%{http_code}", &url];
    let gone = delta.host.run(&code).ok();
    assert!(gone.ends_with("410") && gone.contains("revoked"), "{gone}");
    decides(delta, "tv");
    // Two are left, and one alone can't go on without the other's word.
    delta.refused(&["evict", "beta", "--yes"], "too few of the roster");
}
