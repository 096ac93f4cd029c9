//! One change, until all nodes know it.

use std::time::{Duration, Instant};

use innermesh_tests::Lab;

use crate::{figures::Report, mesh::Mesh, observe::interval, serf::Fleet};

const WITHIN: Duration = Duration::from_secs(60);
const MEASURED: &str = "change to all";

pub fn measure(
    sizes: &[usize],
    rounds: usize,
    only_serf: bool,
    report: &mut Report,
) -> Result<(), String> {
    for &size in sizes {
        println!("each node is asked every {:?}", interval(size));
        let lab = Lab::build(size)?;
        let mut fleet = Fleet::start(&lab)?;
        let mut times = Vec::new();
        for round in 0..rounds {
            times.push(fleet.tag(round % size, &format!("value-{round:04}"))?);
        }
        report.times(MEASURED, "Serf, tag", size, &times);
        drop(fleet);
        if only_serf {
            continue;
        }

        let mut mesh = Mesh::start(&lab, "")?;
        let (mut added, mut granted, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let node = round % size;
            let (service, host) = (format!("s{round}"), format!("node{node}.lab.internal"));
            let name = format!("{service}.{host}");
            let began = Instant::now();
            let agent = &mesh.agents[node];
            let mut command = agent.start_cli(&["service", "add", &service, "--port", "80"]);
            added.push(mesh.until(&name, 0..size, began, WITHIN, &|a| !a.addresses.is_empty())?);
            let short = format!("{service}.lab.internal");
            granted.push(mesh.until(&short, 0..size, began, WITHIN, &|a| !a.addresses.is_empty())?);
            command.wait(WITHIN);

            let began = Instant::now();
            let mut command = mesh.agents[node].start_cli(&["service", "rm", &service]);
            removed.push(mesh.until(&name, 0..size, began, WITHIN, &|a| a.addresses.is_empty())?);
            command.wait(WITHIN);
        }
        report.times(MEASURED, "service, node's name", size, &added);
        report.times(MEASURED, "service, granted name", size, &granted);
        report.times(MEASURED, "service removed", size, &removed);
    }
    Ok(())
}
