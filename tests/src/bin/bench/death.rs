//! The death of one of two instances of a service, until no other node
//! answers with it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use innermesh_tests::Lab;

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

    let mut times = Vec::new();
    for _ in 0..rounds {
        mesh.until(NAME, others(), Instant::now(), WITHIN, &present)?;
        let began = Instant::now();
        mesh.agents[dies].kill();
        times.push(mesh.until(NAME, others(), began, WITHIN, &absent)?);
        mesh.agents[dies].start();
    }
    report.times("kill -9 to all others", "service instance", size, &times);

    let mut times = Vec::new();
    for _ in 0..rounds {
        mesh.until(NAME, others(), Instant::now(), WITHIN, &present)?;
        let began = Instant::now();
        lab.set_link(&lab.hosts[dies], false);
        times.push(mesh.until(NAME, others(), began, WITHIN, &absent)?);
        lab.set_link(&lab.hosts[dies], true);
    }
    report.times("link down to all others", "service instance", size, &times);
    Ok(())
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
