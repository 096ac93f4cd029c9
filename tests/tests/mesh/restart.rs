//! What an agent knew before it was ended, gently or not, it knows after.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

#[test]
fn members_restart_without_their_seed_and_without_the_ca() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.mesh();
    let addresses = ["alpha", "beta", "gamma"].map(|n| gamma.overlay_ipv4(n));

    for agent in [&mut alpha, &mut beta, &mut gamma] {
        agent.stop();
    }
    beta.launch();
    gamma.launch();
    for agent in [&beta, &gamma] {
        agent.wait_nodes(2);
        // Also that of the node that is away.
        for (name, address) in ["alpha", "beta", "gamma"].iter().zip(&addresses) {
            agent.wait_answer(&[&format!("{name}.lab.internal"), "A"], &[address]);
        }
    }
    wait_for("a ping through the tunnel", PATIENCE, || {
        beta.host
            .run(&["ping", "-c1", "-W1", &addresses[2]])
            .result()
    });
    // With every CA off, a service is still announced, under its node's own
    // name.
    let _ = beta.cli(&["service", "add", "web", "--port", "80"]).ok();
    gamma.wait_answer(&["web.beta.lab.internal", "A"], &[&addresses[1]]);
    wait_for("the service at gamma", PATIENCE, || {
        let list = gamma.json(&["service", "list"]);
        let mut services = list.as_array().into_iter().flatten();
        let found = services.any(|s| s["name"] == "web" && s["node"] == "beta" && s["port"] == 80);
        ensure(found, &list)
    });

    alpha.start();
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
        // And once a CA node is back, under the name that it asked for.
        agent.wait_answer(&["web.lab.internal", "A"], &[&addresses[1]]);
    }
}

#[test]
fn a_killed_agent_has_lost_nothing_that_it_said_was_done() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.mesh();
    let identity = beta.status()["nodes"].clone();

    for round in 0..5 {
        // Each is acknowledged, and the process is killed at once.
        let service = format!("s{round}");
        let _ = beta.cli(&["service", "add", &service, "--port", "80"]).ok();
        beta.kill();
        let token = alpha.invite(&[]);
        let index = index(&alpha);
        alpha.kill();
        alpha.start();
        beta.start();
        beta.wait_nodes(2);
        assert!(self::index(&alpha) >= index, "the ledger went back");
        assert!(!token.is_empty());
        let address = alpha.overlay_ipv4("beta");
        for known in 0..=round {
            alpha.wait_answer(&[&format!("s{known}.lab.internal"), "A"], &[&address]);
        }
    }
    let after = beta.status()["nodes"].clone();
    let ids = |nodes: &serde_json::Value| -> Vec<String> {
        nodes
            .as_array()
            .into_iter()
            .flatten()
            .map(|n| n["id"].to_string())
            .collect()
    };
    assert_eq!(ids(&after), ids(&identity));
    wait_for("the same ledger on both", PATIENCE, || {
        let (one, two) = (
            alpha.status()["ledger"].clone(),
            beta.status()["ledger"].clone(),
        );
        ensure(
            one == two && one["hash"].is_string(),
            format!("{one} {two}"),
        )
    });
}

fn index(agent: &Agent) -> u64 {
    agent.status()["ledger"]["index"]
        .as_u64()
        .expect("an index")
}
