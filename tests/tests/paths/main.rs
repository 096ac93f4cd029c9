//! Every pair finds its way: real agents behind NATs of each kind, with the embedded
//! device.

use std::time::{Duration, Instant};

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    nat::{Nat, NatKind},
    wait::ensure,
    wait_for,
};
use serde_json::Value;

const CONFIG: &str = "[tunnel]\nbackend = \"embedded\"\n";

fn agent<'lab>(lab: &'lab Lab, n: usize, name: &str) -> Agent<'lab> {
    Agent::with_config(&lab.hosts[n], name, CONFIG)
}

/// One public node, and others behind NATs of these kinds, each by itself.
fn behind<'lab>(lab: &'lab Lab, kinds: &[NatKind]) -> (Vec<Agent<'lab>>, Vec<Nat>) {
    let mut nats = Vec::new();
    let mut agents = vec![agent(lab, 0, "public")];
    let _ = agents[0].init();
    for (n, kind) in kinds.iter().enumerate() {
        let host = &lab.hosts[n + 1];
        nats.push(lab.put_behind_nat(*kind, &[host]));
        let mut joined = agent(lab, n + 1, &format!("node{}", n + 1));
        joined.join(&agents[0]);
        agents.push(joined);
    }
    for agent in &agents {
        agent.wait_nodes(agents.len());
    }
    (agents, nats)
}

/// How an agent says that it reaches another.
fn peer(from: &Agent, to: &str) -> Value {
    let peers = from.json(&["peers"]);
    let mut peers = peers.as_array().expect("a list").iter();
    let peer = peers.find(|peer| peer["name"] == to);
    peer.cloned().unwrap_or_default()
}

/// The first packets to another: they wait for the way and aren't lost.
fn first_packets(from: &Agent, to: &str) -> Duration {
    let address = from.overlay_ipv4(to);
    let began = Instant::now();
    let ping = ["ping", "-c", "1", "-W", "5", &address];
    let _ = from.host.run(&ping).ok();
    began.elapsed()
}

fn wait_path(from: &Agent, to: &str, path: &str) {
    wait_for(&format!("{path} to {to}"), PATIENCE, || {
        let address = from.overlay_ipv4(to);
        let _ = from.pings(&address);
        let peer = peer(from, to);
        ensure(peer["tunnel"]["way"]["path"] == path, peer.to_string())
    });
}

#[test]
fn pairs_go_straight_where_their_nats_let_them_and_by_the_relay_else() {
    use NatKind::{AddressRestricted, FullCone, NoTunnel, PortRestricted, Symmetric};
    let kinds = [
        FullCone,
        AddressRestricted,
        PortRestricted,
        Symmetric,
        NoTunnel,
    ];
    let Some(lab) = Lab::new(kinds.len() + 2) else {
        return;
    };
    let (mut agents, _nats) = behind(&lab, &[&kinds[..], &[Symmetric]].concat());
    let _ = agents[0].cli(&["role", "add", "public", "relay"]).ok();
    for agent in &agents[1..] {
        wait_for("a relay", PATIENCE, || {
            let status = agent.status();
            ensure(
                status["tunnel"]["relay"] == "public",
                status["tunnel"].to_string(),
            )
        });
    }
    let node = |n: usize| format!("node{n}");
    for (a, kind) in kinds.iter().enumerate() {
        for (b, other) in kinds.iter().enumerate().skip(a + 1) {
            let took = first_packets(&agents[a + 1], &node(b + 1));
            println!("{kind:?} {other:?}: first packet after {took:?}");
        }
    }
    let took = first_packets(&agents[4], &node(6));
    println!("Symmetric Symmetric: {took:?}");
    for (a, b, path) in [
        (1, 2, "direct"),
        (1, 3, "direct"),
        (1, 4, "direct"),
        (2, 3, "direct"),
        (2, 4, "direct"),
        (3, 4, "relay"),
        (4, 6, "relay"),
        (1, 5, "relay"),
        (5, 3, "relay"),
    ] {
        wait_path(&agents[a], &node(b), path);
        wait_path(&agents[b], &node(a), path);
    }
    agents.truncate(0);
}
