//! Nodes agree on pre-shared keys, also where their agents don't reach each other, and
//! again where one of them lost its own.

use std::fs;

use innermesh_tests::{Agent, Lab, agent::PATIENCE, nat::NatKind, wait::ensure, wait_for};

use super::{behind, peer};

/// The keys that the device has, by what `wg` shows.
fn secrets(agent: &Agent) -> Vec<String> {
    let shown = agent
        .host
        .run(&["wg", "show", "im0", "preshared-keys"])
        .ok();
    let lines = shown
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    let mut secrets: Vec<String> = lines.map(str::to_owned).collect();
    secrets.sort();
    secrets
}

fn wait_key(from: &Agent, to: &str) {
    wait_for(&format!("a key with {to}"), PATIENCE, || {
        let _ = from.pings(&from.overlay_ipv4(to));
        let key = peer(from, to)["pair_key"].clone();
        ensure(key == "post-quantum", key.to_string())
    });
}

#[test]
fn pairs_agree_on_a_key_and_on_another_where_one_end_lost_it() {
    let Some(lab) = Lab::new(3) else { return };
    let kinds = [NatKind::PortRestricted, NatKind::Symmetric];
    let (mut agents, _nats) = behind(&lab, &kinds);
    let _ = agents[0].cli(&["role", "add", "public", "relay"]).ok();
    let names = ["public", "node1", "node2"];
    let wait_all = |agents: &[Agent]| {
        for (n, agent) in agents.iter().enumerate() {
            for name in names.iter().filter(|name| **name != names[n]) {
                wait_key(agent, name);
            }
        }
    };
    wait_all(&agents);
    let all: Vec<Vec<String>> = agents.iter().map(secrets).collect();
    let mut each: Vec<&String> = all.iter().flatten().collect();
    assert!(all.iter().all(|of| of.len() == 2), "{all:?}");
    each.sort();
    // Each of the three pairs has one of its own, at both of its ends.
    for two in each.chunks(2) {
        assert!(two[0] == two[1] && *two[0] != "(none)", "{all:?}");
    }
    each.dedup();
    assert_eq!(each.len(), 3, "{all:?}");

    // With what it knew it goes on after a start; without, its pairs agree anew.
    agents[2].stop();
    agents[2].start();
    wait_all(&agents);
    assert_eq!(secrets(&agents[2]), all[2]);
    agents[2].stop();
    let file = agents[2].file("pair.keys").expect("the keys are stored");
    fs::remove_file(file).expect("it can be removed");
    agents[2].start();
    wait_all(&agents);
    let (before, after) = (&all[2], secrets(&agents[2]));
    assert!(after.iter().all(|key| !before.contains(key)), "{after:?}");
    for (own, pair) in [(&agents[0], "public"), (&agents[1], "node1")] {
        let shared = secrets(own);
        assert!(shared.iter().any(|key| after.contains(key)), "{pair}");
    }
}
