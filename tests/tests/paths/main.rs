//! Every pair finds its way: real agents behind NATs of each kind, with the embedded
//! device.

mod lane;
mod pair_keys;
mod port_mapping;

use std::time::{Duration, Instant};

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    nat::{Nat, NatKind, inner_address},
    wait::ensure,
    wait_for,
};
use serde_json::Value;

/// Longer than any of it should take, on a busy machine.
const BACK: Duration = Duration::from_secs(15);
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
    // Who isn't connected with the other's agent reaches its machine all the same.
    let told = agents[4].cli(&["ping", "node6"]).ok();
    for part in ["reached by the tunnel alone", "way: by the relay public"] {
        assert!(told.contains(part), "{told}");
    }
    let told = agents[3].json(&["netcheck"]);
    assert_eq!(told["nat"], "seen-by-one", "{told}");
    assert_eq!(told["relay"], "public", "{told}");
    assert!(told["relays"][0]["rtt_us"].as_u64().is_some(), "{told}");
    let told = agents[0].json(&["netcheck"]);
    assert_eq!(
        (&told["nat"], &told["relays"][0]["is_own"]),
        (&"none".into(), &true.into())
    );
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

#[test]
fn without_a_relay_a_common_neighbour_brings_two_together() {
    let Some(lab) = Lab::new(3) else { return };
    let (agents, nats) = behind(&lab, &[NatKind::PortRestricted, NatKind::AddressRestricted]);
    // Others are told where the tunnel is seen.
    for (agent, nat) in agents[1..].iter().zip(&nats) {
        let outer = nat.outer.to_string();
        wait_for("its outer address", PATIENCE, || {
            let places = agent.status()["tunnel"]["places"].to_string();
            ensure(places.contains(&outer), places)
        });
    }
    wait_path(&agents[1], "node2", "direct");
    wait_path(&agents[2], "node1", "direct");
    let told = agents[1].cli(&["ping", "node2"]);
    assert!(told.stdout.contains("way: straight to"), "{told}");
}

#[test]
fn two_behind_one_nat_meet_in_their_own_network() {
    let Some(lab) = Lab::new(3) else { return };
    let mut agents = vec![agent(&lab, 0, "public")];
    let _ = agents[0].init();
    let _ = agents[0].cli(&["role", "add", "public", "relay"]).ok();
    let inside = [&lab.hosts[1], &lab.hosts[2]];
    let _nat = lab.put_behind_nat(NatKind::Symmetric, &inside);
    for n in [1, 2] {
        let mut joined = agent(&lab, n, &format!("node{n}"));
        joined.join(&agents[0]);
        agents.push(joined);
    }
    for agent in &agents {
        agent.wait_nodes(3);
    }
    wait_path(&agents[1], "node2", "direct");
    let inner = inner_address(&lab.hosts[2]).to_string();
    let way = peer(&agents[1], "node2")["tunnel"]["way"]["at"].to_string();
    assert!(way.contains(&inner), "{way}");
}

/// A pair's packets go on when its straight way doesn't any more, and again by that once
/// it is back; the same where a relay ends and another is there.
#[test]
fn who_falls_off_its_way_is_back_by_another_within_five_seconds() {
    let Some(lab) = Lab::new(4) else { return };
    let kinds = [NatKind::PortRestricted, NatKind::PortRestricted];
    let (mut agents, nats) = behind(&lab, &kinds);
    let mut second = agent(&lab, 3, "second");
    second.join(&agents[0]);
    second.wait_nodes(4);
    for name in ["public", "second"] {
        let _ = agents[0].cli(&["role", "add", name, "relay"]).ok();
    }
    wait_path(&agents[1], "node2", "direct");
    wait_path(&agents[2], "node1", "direct");
    nats[0].translate(NatKind::NoTunnel);
    let took = outage(&agents[1], "node2");
    println!("back by a relay after {took:?}");
    assert!(took < BACK, "{took:?}");
    wait_path(&agents[1], "node2", "relay");
    let relay = peer(&agents[1], "node2")["tunnel"]["way"]["relay"].to_string();
    let of = if relay.contains("second") {
        &mut second
    } else {
        &mut agents[0]
    };
    of.kill();
    let took = outage(&agents[1], "node2");
    println!("back by the other relay after {took:?}");
    assert!(took < BACK, "{took:?}");
    nats[0].translate(NatKind::PortRestricted);
    wait_path(&agents[1], "node2", "direct");
}

/// How long packets to another are lost, from now on.
fn outage(from: &Agent, to: &str) -> Duration {
    let address = from.overlay_ipv4(to);
    let began = Instant::now();
    let ping = ["ping", "-i", "0.1", "-c", "3", "-w", "30", &address];
    let done = from.host.run(&ping);
    let _ = done.ok();
    began.elapsed()
}
