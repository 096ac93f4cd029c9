//! The death of one of two instances of a service, until no other node
//! answers with it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use innermesh_tests::{Lab, wait::ensure, wait_for};

use crate::{figures::Report, mesh::Mesh, serf::Fleet};

const WITHIN: Duration = Duration::from_secs(120);
const NAME: &str = "web.lab.internal";

pub fn measure(size: usize, rounds: usize, report: &mut Report) -> Result<(), String> {
    if size < 4 {
        return Err("at least 4 agents".into());
    }
    let lab = Lab::build(size)?;
    serf(&lab, rounds, report)?;

    let mut mesh = Mesh::start(&lab, "")?;
    let (stays, dies) = (1, 2);
    let _ = mesh.agents[stays]
        .cli(&["service", "add", "web", "--port", "80", "--share", "node2"])
        .ok();
    let _ = mesh.agents[dies]
        .cli(&["service", "add", "web", "--port", "80"])
        .ok();
    let victim: Ipv4Addr = mesh.agents[0]
        .overlay_ipv4("node2")
        .parse()
        .map_err(|e| format!("node2: {e}"))?;
    let present =
        |a: &innermesh_tests::dns::Answer| a.addresses.contains(&victim) && a.addresses.len() == 2;
    let absent =
        |a: &innermesh_tests::dns::Answer| !a.addresses.contains(&victim) && a.addresses.len() == 1;
    let others = || (0..size).filter(|i| *i != dies);

    for (what, settles) in [
        ("kill -9 to all others", true),
        ("the same as soon as it is there", false),
    ] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            mesh.until(NAME, others(), Instant::now(), WITHIN, &present)?;
            if settles {
                until_linked(&mesh, dies);
            }
            let began = Instant::now();
            mesh.agents[dies].kill();
            times.push(mesh.until(NAME, others(), began, WITHIN, &absent)?);
            mesh.agents[dies].start();
        }
        report.times(what, "service instance", size, &times);
    }

    let mut times = Vec::new();
    for _ in 0..rounds {
        mesh.until(NAME, others(), Instant::now(), WITHIN, &present)?;
        until_linked(&mesh, dies);
        let began = Instant::now();
        lab.set_link(&lab.hosts[dies], false);
        times.push(mesh.until(NAME, others(), began, WITHIN, &absent)?);
        lab.set_link(&lab.hosts[dies], true);
    }
    report.times("link down to all others", "service instance", size, &times);
    Ok(())
}

/// Waits until all others judge a node by its links, as they do but for its first moments.
fn until_linked(mesh: &Mesh<'_>, node: usize) {
    let name = format!("node{node}");
    let others = mesh.agents.iter().enumerate();
    for (_, agent) in others.filter(|(index, _)| *index != node) {
        wait_for("links to be what counts", WITHIN, || {
            let peers = agent.json(&["peers"]);
            let mut rows = peers.as_array().into_iter().flatten();
            let row = rows.find(|row| row["name"] == name.as_str());
            let by = row
                .map(|row| row["live_by"].to_string())
                .unwrap_or_default();
            ensure(by.contains("link") || by.contains("neighbours"), by)
        });
    }
}

fn serf(lab: &Lab, rounds: usize, report: &mut Report) -> Result<(), String> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let mut fleet = Fleet::start(lab)?;
        let dies = lab.hosts.len() - 1;
        let began = Instant::now();
        fleet.processes[dies] = None;
        times.push(fleet.until(&lab.hosts[dies].name, "failed", 0..dies, began, WITHIN)?);
    }
    report.times(
        "kill -9 to all others",
        "Serf, member failed",
        lab.hosts.len(),
        &times,
    );
    Ok(())
}
