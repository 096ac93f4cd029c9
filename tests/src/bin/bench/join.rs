//! From `agent join` to the first packet through the tunnel.

use std::time::{Duration, Instant};

use innermesh_tests::{Agent, Lab, wait_for};

use crate::figures::Report;

pub fn measure(rounds: usize, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(rounds + 1)?;
    let mut first = Agent::new(&lab.hosts[0], "node0");
    let _ = first.init();
    let target = first.overlay_ipv4("node0");
    let mut times = Vec::new();
    for host in &lab.hosts[1..] {
        let token = first.invite(&[]);
        let agent = Agent::new(host, &format!("node{}", host.index));
        let began = Instant::now();
        // As a person does it: joins, and goes on running.
        let _running = agent.start_cli(&[
            "join",
            &first.address(),
            "--token",
            &token,
            "--name",
            &agent.name,
        ]);
        wait_for("a ping through the tunnel", Duration::from_secs(60), || {
            host.run(&["ping", "-q", "-c1", "-W0.1", &target]).result()
        });
        times.push(began.elapsed());
    }
    report.times("join to first ping", "tunnel", 2, &times);
    Ok(())
}
