//! Two nodes whose NATs let no straight way through, and the relay between them; also
//! where one of them gets no UDP out and comes by a lane.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, nat::NatKind, wait::ensure, wait_for};
use serde_json::json;

use super::{devices::Device, load::Load};
use crate::figures::Report;

const CONFIG: &str = "[tunnel]\nbackend = \"embedded\"\n";
const RELAY: &str = "[tunnel]\nbackend = \"embedded\"\n[lane]\nlisten_tls = [\"0.0.0.0\"]\n";

const NAMES: [&str; 4] = [
    "one TCP stream, Mb/s",
    "its CPU-s/GB at the relay",
    "RTT idle, median ms",
    "RTT under load, p99 ms",
];

/// Measures `rounds` times.
pub fn measure(rounds: usize, seconds: u64, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(3)?;
    let mut relay = Agent::with_config(&lab.hosts[0], "relay", RELAY);
    relay.init();
    relay.cli(&["role", "add", "relay", "relay"]).result()?;
    let mut nats = Vec::new();
    let mut ends = Vec::new();
    for n in [1, 2] {
        let host = &lab.hosts[n];
        nats.push(lab.put_behind_nat(NatKind::NoTunnel, &[host]));
        let mut end = Agent::with_config(host, &format!("node{n}"), CONFIG);
        end.join(&relay);
        ends.push(end);
    }
    for end in &ends {
        end.wait_nodes(3);
    }
    let address = ends[0].overlay_ipv4("node2");
    let hosts = [ends[0].host, ends[1].host];
    let process = relay.process().ok_or("the relay doesn't run")?.id();
    let device = Device::through(hosts, &address, process);
    wait_for("the relay to be used", PATIENCE, || {
        let status = ends[0].status();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let used = nodes.iter().any(|node| node["relay"] == "relay");
        ensure(used, status["nodes"].to_string())
    });
    let load = Load {
        device: &device,
        seconds,
    };
    rows("relayed", &load, rounds, report)?;
    nats[0].translate(NatKind::NoUdp);
    wait_for("a lane", PATIENCE, || {
        let told = ends[0].json(&["netcheck"]);
        ensure(told["lanes"][0] == "relay", told.to_string())
    });
    wait_for("packets by the lane", PATIENCE, || {
        ensure(ends[0].pings(&address), "none")
    });
    rows("relayed, one end by a lane", &load, rounds, report)
}

fn rows(what: &str, load: &Load<'_, '_>, rounds: usize, report: &mut Report) -> Result<(), String> {
    let mut all = Vec::new();
    for _ in 0..rounds {
        let (rtt, _) = load.idle_rtt()?;
        let tcp = load.tcp(&[], true)?;
        all.push([tcp.megabits, tcp.cpu_per_gb, rtt, tcp.rtt_p99_ms]);
    }
    for (index, name) in NAMES.iter().enumerate() {
        let mut values: Vec<f64> = all.iter().map(|round| round[index]).collect();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or_default();
        report.add(
            &format!("{what}: {name}"),
            "agent",
            2,
            format!("{median:.2}"),
            json!({ "median": median, "rounds": values }),
        );
    }
    Ok(())
}
