//! One change, until all nodes know it.

use std::time::{Duration, Instant};

use innermesh_tests::{Lab, dns};

use crate::{figures::Report, mesh::Mesh, observe::interval, serf::Fleet};

const WITHIN: Duration = Duration::from_secs(60);
const APART: Duration = Duration::from_millis(300);
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
        let (mut first, mut removed, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let present = |a: &dns::Answer| !a.addresses.is_empty();
        let absent = |a: &dns::Answer| a.addresses.is_empty();
        for round in 0..rounds {
            let node = round % size;
            let (service, name) = (format!("s{round}"), format!("s{round}.lab.internal"));
            let add = ["service", "add", &service, "--port", "80"];
            // The first time the ledger has to grant the name; then the name
            // stays granted, and a change is a matter of gossip alone.
            first.push(change(&mut mesh, node, &add, &name, &present)?);
            removed.push(change(
                &mut mesh,
                node,
                &["service", "rm", &service],
                &name,
                &absent,
            )?);
            again.push(change(&mut mesh, node, &add, &name, &present)?);
        }
        report.times(MEASURED, "service, new name", size, &first);
        report.times(MEASURED, "service removed", size, &removed);
        report.times(MEASURED, "service, known name", size, &again);
    }
    Ok(())
}

/// Runs a command on one node, and waits for the answer that it leads to at
/// all nodes.
fn change(
    mesh: &mut Mesh,
    node: usize,
    command: &[&str],
    name: &str,
    wanted: &dyn Fn(&dns::Answer) -> bool,
) -> Result<Duration, String> {
    let size = mesh.agents.len();
    // Changes of one node are pushed at most twenty times a second; here each
    // is to come alone.
    std::thread::sleep(APART);
    let began = Instant::now();
    let mut process = mesh.agents[node].start_cli(command);
    let took = mesh.until(name, 0..size, began, WITHIN, wanted)?;
    process.wait(WITHIN);
    Ok(took)
}
