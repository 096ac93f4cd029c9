//! All agents start at once, and neither the seed of any nor a CA node is
//! there.

use std::time::{Duration, Instant};

use innermesh_tests::Lab;

use crate::{figures::Report, mesh::Mesh};

pub fn measure(sizes: &[usize], report: &mut Report) -> Result<(), String> {
    for &size in sizes {
        let lab = Lab::build(size + 1)?;
        let mut mesh = Mesh::start(&lab, "")?;
        for agent in &mut mesh.agents {
            agent.terminate();
        }
        for agent in &mut mesh.agents {
            agent.wait_stopped();
        }
        lab.set_link(&lab.hosts[0], false);
        let began = Instant::now();
        for agent in &mut mesh.agents[1..] {
            agent.launch();
        }
        let launched = began.elapsed();
        let members: Vec<usize> = (1..=size).collect();
        let meshed = mesh.until_meshed(&members, began)?;
        let all = format!("node{size}.lab.internal");
        // The seed, which is down, is asked for too: the name stays.
        mesh.agents[0].start();
        lab.set_link(&lab.hosts[0], true);
        mesh.connect()?;
        let within = Duration::from_secs(60);
        mesh.until(&all, members, Instant::now(), within, &|a| {
            !a.addresses.is_empty()
        })?;
        report.times(
            "restart without seed and CA",
            "all are launched",
            size,
            &[launched],
        );
        report.times(
            "restart without seed and CA",
            "all see all",
            size,
            &[meshed],
        );
    }
    Ok(())
}
