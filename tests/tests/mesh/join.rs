//! A mesh comes about: the first node, and others by tokens.

use std::time::Duration;

use innermesh_tests::{
    Agent, Lab,
    agent::{DOMAIN, PATIENCE},
    wait::ensure,
    wait_for,
};
use serde_json::Value;

#[test]
fn three_nodes_resolve_reach_and_see_each_other() {
    let Some(lab) = Lab::new(3) else { return };
    let mut agents = lab.agents();
    let [alpha, beta, gamma] = &mut agents;
    let told = alpha.init();
    for field in ["mesh", "recovery_file", "passphrase"] {
        assert!(
            told[field].as_str().is_some_and(|v| !v.is_empty()),
            "init tells {field}: {told}"
        );
    }
    beta.join(alpha);
    // Any member can invite for itself as far as its own rights go, and any
    // can be the seed.
    let token = alpha.invite(&[]);
    gamma.join_with(beta, &token);

    let members: Vec<(String, String, String)> = ["alpha", "beta", "gamma"]
        .iter()
        .map(|name| {
            (
                (*name).to_owned(),
                alpha.overlay_ipv4(name),
                alpha.overlay_ipv6(name),
            )
        })
        .collect();
    for agent in &agents {
        agent.wait_nodes(3);
        for (name, ipv4, ipv6) in &members {
            let full = format!("{name}.{DOMAIN}");
            agent.wait_answer(&[&full, "A"], &[ipv4]);
            agent.wait_answer(&[&full, "AAAA"], &[ipv6]);
            agent.wait_answer(&["-x", ipv4], &[&format!("{full}.")]);
            agent.wait_answer(&["-x", ipv6], &[&format!("{full}.")]);
            for address in [ipv4, ipv6] {
                wait_for("a ping through the tunnel", PATIENCE, || {
                    agent.host.run(&["ping", "-c1", "-W1", address]).result()
                });
            }
        }
        sees_two_peers_in_wireguard(agent);
        sees_two_direct_peers(agent);
    }

    // By the host's own resolver too.
    lab.hosts[2].use_resolver(agents[2].dns().ip());
    let found = lab.hosts[2]
        .run(&["getent", "ahostsv4", &format!("beta.{DOMAIN}")])
        .ok();
    assert!(found.starts_with(&members[1].1), "{found}");
}

fn sees_two_peers_in_wireguard(agent: &Agent) {
    let shown = agent
        .host
        .run(&["wg", "show", "all", "latest-handshakes"])
        .ok();
    let handshakes = shown.lines().filter(|l| !l.ends_with("\t0")).count();
    assert_eq!(handshakes, 2, "{}: {shown}", agent.name);
}

fn sees_two_direct_peers(agent: &Agent) {
    wait_for(&format!("direct paths at {}", agent.name), PATIENCE, || {
        let peers = agent.json(&["peers"]);
        let direct = |p: &&Value| p["path"] == "direct" && p["endpoint"].is_string();
        let count = peers
            .as_array()
            .into_iter()
            .flatten()
            .filter(direct)
            .count();
        ensure(count == 2, &peers)
    });
}

#[test]
fn waiting_ends_with_the_nodes_or_with_the_time() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let not_running = alpha.cli(&["status"]);
    assert_eq!(not_running.code, 3, "{not_running}");
    let _ = alpha.init();
    beta.join(&alpha);
    let _ = beta.cli(&["wait", "--nodes", "2", "--timeout", "60s"]).ok();
    let _ = alpha.cli(&["ping", "beta"]).ok();
    let too_many = beta.cli(&["wait", "--nodes", "3", "--timeout", "1s"]);
    assert_eq!(too_many.code, 4, "{too_many}");
    alpha.stop();
    let not_running = alpha.cli(&["status"]);
    assert_eq!(not_running.code, 3, "{not_running}");
}

#[test]
fn a_token_with_two_uses_admits_two_and_the_agent_started_by_join_goes_on() {
    let Some(lab) = Lab::new(4) else { return };
    let [alpha] = lab.mesh();
    let token = alpha.invite(&["--uses", "2"]);
    let address = alpha.address();
    let others: Vec<Agent> = lab.hosts[1..]
        .iter()
        .map(|h| Agent::new(h, &format!("node{}", h.index)))
        .collect();
    // Without --no-start it stays in the foreground, being the agent.
    let mut running: Vec<_> = others[..2]
        .iter()
        .map(|agent| agent.start_cli(&["join", &address, "--token", &token, "--name", &agent.name]))
        .collect();
    alpha.wait_nodes(3);
    for process in &mut running {
        assert!(process.ended().is_none(), "{}", process.log());
    }
    others[2].refused(
        &[
            "join",
            &address,
            "--token",
            &token,
            "--name",
            "late",
            "--no-start",
        ],
        "used",
    );
    for process in &mut running {
        process.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(
            process.wait(Duration::from_secs(20)).success(),
            "{}",
            process.log()
        );
    }
}

#[test]
fn a_token_s_own_addresses_are_tried_where_the_seed_doesn_t_answer() {
    let Some(lab) = Lab::new(2) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let _ = alpha.init();
    let token = alpha.invite(&[]);
    let join = [
        "join",
        "192.0.2.250",
        "--token",
        &token,
        "--name",
        "beta",
        "--no-start",
    ];
    let _ = beta.cli(&join).ok();
    beta.start();
    beta.wait_nodes(2);
}

#[test]
fn a_join_that_was_killed_before_its_files_were_written_goes_on_with_the_same_command() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let _ = alpha.init();
    let token = alpha.invite(&[]);
    let seed = alpha.address();
    let join = [
        "join",
        &seed,
        "--token",
        &token,
        "--name",
        "beta",
        "--no-start",
    ];
    let _ = beta.cli(&join).ok();
    // As if it had been killed: the mesh has let it in, the ledger isn't there yet.
    let state = beta.dir.join("state");
    for file in ["ledger", "seeds"] {
        std::fs::remove_file(state.join(file)).expect("it was written");
    }
    let again = beta.cli(&join).ok();
    assert!(again.contains("This node is beta."), "{again}");
    beta.start();
    for agent in [&alpha, &beta] {
        agent.wait_nodes(2);
    }
}
