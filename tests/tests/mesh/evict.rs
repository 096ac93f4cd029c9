//! Evictions: a machine that is to go is cut off everywhere within seconds,
//! and those that matter most go by two people's word only.

use std::time::{Duration, Instant};

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

/// How long it may take until nobody has anything to do with an evicted
/// machine: builds and other tests share this one.
const SECONDS: Duration = Duration::from_secs(8);

/// Joins as an admin.
fn join_as_admin(agent: &mut Agent, seed: &Agent) {
    let token = seed.invite(&["--role", "admin"]);
    agent.join_with(seed, &token);
}

fn row(agent: &Agent, name: &str) -> Option<Value> {
    let status = agent.status();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["name"] == name)
}

/// Waits until `agent` has nothing to do with the machine `name` any more.
fn wait_cut_off(agent: &Agent, name: &str, address: &str, begun: Instant) {
    let full = format!("{name}.lab.internal");
    wait_for(
        &format!("{name} to be cut off at {}", agent.name),
        PATIENCE,
        || {
            let peers = agent.json(&["peers"]);
            let mut peers = peers.as_array().into_iter().flatten();
            let connected = peers.any(|peer| peer["name"] == name && peer["path"] != "none");
            ensure(!connected, "connected")?;
            let answer = agent.dig(&[&full, "A"]).result()?;
            ensure(answer.trim().is_empty(), &answer)
        },
    );
    assert!(begun.elapsed() < SECONDS, "{:?}", begun.elapsed());
    assert!(!agent.pings(address), "packets still pass");
}

#[test]
fn an_evicted_machine_is_cut_off_everywhere_within_seconds() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, mut beta, gamma] = lab.mesh();
    let _ = beta.cli(&["service", "add", "web", "--port", "80"]).ok();
    let address = gamma.overlay_ipv4("beta");
    gamma.wait_answer(&["web.lab.internal", "A"], &[&address]);
    wait_for("packets to pass", PATIENCE, || {
        ensure(gamma.pings(&address), "none")
    });
    gamma.refused(&["evict", "beta", "--yes"], "only an admin");
    alpha.refused(&["evict", "alpha", "--yes"], "agent leave");
    alpha.refused(&["evict", "nobody", "--yes"], "not a member");

    let begun = Instant::now();
    let told = alpha.json(&["evict", "beta", "--yes"]);
    assert_eq!(told["state"], "evicted", "{told}");
    for agent in [&alpha, &gamma] {
        wait_cut_off(agent, "beta", &address, begun);
        agent.wait_answer(&["web.lab.internal", "A"], &[]);
        assert!(row(agent, "beta").is_none());
    }
    // For itself it is alone, and its key never comes back.
    wait_for("beta to be alone", PATIENCE, || {
        let peers = beta.json(&["peers"]);
        let mut peers = peers.as_array().into_iter().flatten();
        ensure(peers.all(|peer| peer["path"] == "none"), peers_text(&beta))
    });
    wait_for("beta to hear why", PATIENCE, || {
        let warnings = beta.status()["warnings"].to_string();
        ensure(warnings.contains("turned this machine away"), warnings)
    });
    beta.stop();
    std::fs::remove_file(beta.dir.join("state/ledger")).expect("a ledger");
    let token = alpha.invite(&[]);
    let join = |agent: &Agent, phrase: &str| {
        let seed = alpha.address();
        let name = agent.name.clone();
        agent.refused(
            &[
                "join",
                &seed,
                "--token",
                &token,
                "--name",
                &name,
                "--no-start",
            ],
            phrase,
        );
    };
    join(&beta, "evicted");
    // Names that it had are free.
    let _ = gamma.cli(&["service", "add", "web", "--port", "80"]).ok();
    let own = gamma.overlay_ipv4("gamma");
    alpha.wait_answer(&["web.lab.internal", "A"], &[&own]);
}

/// Has the agent's tunnel socket meet an error of `accept`, then removes its
/// file.
fn break_socket(agent: &mut Agent) {
    let pid = agent.process().expect("it runs").id().to_string();
    let script = "prlimit --pid $1 --nofile=3:4096 &&
        python3 -c '
import socket
client = socket.socket(socket.AF_UNIX)
client.settimeout(1)
client.connect(\"/run/wireguard/im0.sock\")
try:
    client.send(b\"get=1\\n\\n\")
    raise SystemExit(len(client.recv(9)))
except TimeoutError:
    pass' &&
        prlimit --pid $1 --nofile=1024:4096 && rm /run/wireguard/im0.sock";
    let _ = agent.host.run(&["sh", "-c", script, "sh", &pid]).ok();
}

#[test]
fn an_evicted_node_loses_its_route_whatever_became_of_the_tunnels_socket() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, _beta, mut gamma] = lab.mesh();
    let address = gamma.overlay_ipv4("beta");
    wait_for("packets to pass", PATIENCE, || {
        ensure(gamma.pings(&address), "none")
    });
    let ping = gamma.json(&["ping", "beta"]);
    assert_eq!(ping["tunnel"]["works"], true, "{ping}");
    break_socket(&mut gamma);

    let told = alpha.json(&["evict", "beta", "--yes"]);
    let begun = Instant::now();
    let seen = &told["seen"];
    assert_eq!(seen["here"], true, "{told}");
    assert_eq!(seen["peers"][0]["node"], "gamma", "{told}");
    assert_eq!(seen["peers"][0]["cut_off"], true, "{told}");
    assert_eq!(seen["unreached"], serde_json::json!([]), "{told}");
    assert!(!gamma.pings(&address), "the route stays");
    assert!(begun.elapsed() < Duration::from_secs(2), "too late");
    wait_for("the socket to be back", PATIENCE, || {
        gamma.host.run(&["wg", "show", "im0"]).result().map(drop)
    });
}

#[test]
fn a_plan_that_cannot_be_applied_is_told_and_nobody_is_called_cut_off() {
    const TOLD: &str = "the tunnel has not been as it should be";
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, _beta, gamma] = lab.mesh();
    // Its interface is gone, and can't be made.
    let script = "mount --bind /dev/null /dev/net/tun && ip link delete im0";
    let _ = gamma.host.run(&["sh", "-c", script]).ok();

    let told = alpha.json(&["evict", "beta", "--yes"]);
    assert_eq!(told["state"], "evicted", "{told}");
    assert_eq!(told["seen"]["here"], true, "{told}");
    assert_eq!(told["seen"]["peers"][0]["cut_off"], false, "{told}");
    let warnings = || gamma.status()["warnings"].to_string();
    wait_for("the warning", Duration::from_secs(5), || {
        ensure(warnings().contains(TOLD), warnings())
    });
    // And in words for scripts.
    let found = gamma.status()["findings"].clone();
    assert_eq!(found[0]["code"], "tunnel-not-applied", "{found}");
    assert_eq!(found[0]["severity"], "error", "{found}");
    let _ = gamma.host.run(&["umount", "/dev/net/tun"]).ok();
    wait_for("the warning to go", PATIENCE, || {
        ensure(!warnings().contains(TOLD), warnings())
    });
    let found = gamma.status()["findings"].to_string();
    assert!(!found.contains("tunnel-not-applied"), "{found}");
    let alpha_address = gamma.overlay_ipv4("alpha");
    wait_for("packets to pass again", PATIENCE, || {
        ensure(gamma.pings(&alpha_address), "none")
    });
}

fn peers_text(agent: &Agent) -> String {
    agent.cli(&["peers"]).stdout
}

#[test]
fn a_hold_works_while_no_ca_node_is_there_and_outlives_its_author_s_absence() {
    let Some(lab) = Lab::new(4) else { return };
    let [mut alpha, mut beta, mut gamma, mut delta] = lab.agents();
    let _ = alpha.init();
    join_as_admin(&mut beta, &alpha);
    gamma.join(&alpha);
    delta.join(&alpha);
    for agent in [&alpha, &beta, &gamma, &delta] {
        agent.wait_nodes(4);
    }
    let address = gamma.overlay_ipv4("delta");
    alpha.stop();

    let told = beta.waits(&["evict", "delta", "--yes"]);
    assert_eq!(
        (told["state"].as_str(), told["cut_off"].as_bool()),
        (Some("pending"), Some(true))
    );
    wait_for("the hold at gamma", PATIENCE, || {
        let held = row(&gamma, "delta").is_some_and(|row| row["held"] == true);
        ensure(held, "not yet")
    });
    wait_cut_off(&gamma, "delta", &address, Instant::now());
    let warnings = gamma.status()["warnings"].to_string();
    assert!(warnings.contains("delta is cut off by beta"), "{warnings}");

    // Neither its author's absence nor a restart lets it go.
    beta.stop();
    gamma.stop();
    gamma.start();
    let held = row(&gamma, "delta").expect("a member still");
    assert_eq!(
        (&held["held"], &held["path"]),
        (&true.into(), &"none".into())
    );
    gamma.wait_answer(&["delta.lab.internal", "A"], &[]);

    // With a CA node it becomes an eviction by itself.
    beta.start();
    alpha.start();
    wait_for("the eviction in the ledger", PATIENCE, || {
        ensure(row(&gamma, "delta").is_none(), "still a member")
    });
}

#[test]
fn the_fourth_machine_within_an_hour_waits_and_can_be_let_in_again() {
    let Some(lab) = Lab::new(4) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let _ = alpha.init();
    join_as_admin(&mut beta, &alpha);
    gamma.join(&alpha);
    for name in ["one", "two", "three"] {
        let (seed, token) = (alpha.address(), alpha.invite(&[]));
        let member = Agent::new(&lab.hosts[3], name);
        let join = [
            "join",
            &seed,
            "--token",
            &token,
            "--name",
            name,
            "--no-start",
        ];
        let _ = member.cli(&join).ok();
    }
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    alpha.refused(&["evict", "gamma", "--undo"], "isn't cut off");
    for name in ["one", "two", "three"] {
        assert_eq!(beta.json(&["evict", name, "--yes"])["state"], "evicted");
    }
    let told = beta.waits(&["evict", "gamma", "--yes"]);
    assert_eq!(
        (&told["state"], &told["cut_off"]),
        (&"waiting".into(), &true.into())
    );
    let address = alpha.overlay_ipv4("gamma");
    for agent in [&alpha, &beta] {
        wait_cut_off(agent, "gamma", &address, Instant::now());
        assert_eq!(row(agent, "gamma").expect("a member")["held"], true);
    }
    const TOLD: &str = "turned this machine away";
    let warnings = || gamma.status()["warnings"].to_string();
    wait_for("gamma to hear of it", PATIENCE, || {
        ensure(warnings().contains(TOLD), warnings())
    });
    let _ = alpha.json(&["evict", "gamma", "--undo"]);
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    wait_for("gamma to be let in again", PATIENCE, || {
        ensure(!warnings().contains(TOLD), warnings())
    });
    alpha.wait_answer(&["gamma.lab.internal", "A"], &[&address]);
}

#[test]
fn an_admin_goes_by_the_word_of_two_or_of_the_root_and_its_invites_with_it() {
    let Some(lab) = Lab::new(5) else { return };
    let [mut alpha, mut beta, mut gamma, mut delta, epsilon] = lab.agents();
    let told = alpha.init();
    for agent in [&mut beta, &mut delta] {
        join_as_admin(agent, &alpha);
    }
    gamma.join(&alpha);
    alpha.wait_nodes(4);
    let file = told["recovery_file"].as_str().expect("a file").to_owned();
    let passphrase = told["passphrase"].as_str().expect("one").to_owned();
    // What alpha made on this day speaks for alpha; what the root made, for itself.
    let by_root = ["role", "add", "gamma", "admin", "--root-key", &file];
    gamma.refused(&["role", "add", "gamma", "admin"], "not an admin");
    gamma.set("INNERMESH_ROOT_PASSPHRASE", &passphrase);
    let _ = gamma.cli(&by_root).ok();
    for agent in [&alpha, &beta, &gamma, &delta] {
        agent.wait_nodes(4);
    }
    let token = delta.invite(&[]);
    beta.refused(&["evict", "alpha", "--yes"], "last CA node");

    beta.refused(&["evict", "delta"], "evict delta --yes`");
    let first = beta.waits(&["evict", "delta", "--yes"]);
    assert_eq!(
        (&first["state"], &first["cut_off"]),
        (&"waiting".into(), &false.into())
    );
    let says = beta.cli(&["evict", "delta", "--yes"]).stdout;
    assert!(says.contains("another admin's node"), "{says}");
    // Taken back, and asked for again.
    let _ = beta.json(&["evict", "delta", "--withdraw"]);
    beta.refused(&["evict", "delta", "--withdraw"], "isn't cut off");
    let _ = beta.waits(&["evict", "delta", "--yes"]);
    wait_for("gamma to be asked", PATIENCE, || {
        let warnings = gamma.status()["warnings"].to_string();
        ensure(warnings.contains("beta asks to evict delta"), &warnings)
    });
    let begun = Instant::now();
    assert_eq!(gamma.json(&["evict", "delta", "--yes"])["state"], "evicted");
    let address = "192.0.2.254";
    for agent in [&alpha, &beta, &gamma] {
        wait_cut_off(agent, "delta", address, begun);
    }
    epsilon.refused(
        &[
            "join",
            &alpha.address(),
            "--token",
            &token,
            "--name",
            "epsilon",
            "--no-start",
        ],
        "inviter is not an admin",
    );

    // The root's word stands for a second admin's.
    let arguments = ["evict", "gamma", "--root-key", &file, "--yes"];
    alpha.refused(&arguments, "no terminal");
    alpha.set("INNERMESH_ROOT_PASSPHRASE", "wrong");
    alpha.refused(&arguments, "wrong passphrase");
    alpha.set("INNERMESH_ROOT_PASSPHRASE", &passphrase);
    let told = alpha.cli(&arguments).ok();
    assert!(told.contains("gamma is evicted"), "{told}");
    wait_for("gamma to be gone", PATIENCE, || {
        ensure(row(&beta, "gamma").is_none(), "still a member")
    });
}
