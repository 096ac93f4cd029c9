//! How fast three CA nodes decide, while nothing happens to them and while
//! leadership is handed on.

use std::{
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{Lab, dns};
use serde_json::json;

use crate::{
    figures::Report,
    roster::{ROSTER, WITHIN, granted, leader, start},
};

/// How long each leads while rotation is looked at.
const TERM: &str = "1m";

pub fn measure(agents: usize, report: &mut Report) -> Result<(), String> {
    if agents < 5 {
        return Err("at least 5 agents".into());
    }
    for size in [ROSTER, agents] {
        commits(size, report)?;
    }
    rotation(report)
}

/// From a request to the answer that it is decided, and to all nodes' DNS.
fn commits(size: usize, report: &mut Report) -> Result<(), String> {
    const ROUNDS: usize = 60;
    let lab = Lab::build(size)?;
    let mut mesh = start(&lab, "")?.mesh;
    let leader = leader(&mesh.agents).ok_or("nobody leads")?;
    let (mut nothing, mut answered, mut everywhere) = (Vec::new(), Vec::new(), Vec::new());
    let present = |answer: &dns::Answer| !answer.addresses.is_empty();
    for round in 0..ROUNDS {
        let (service, name) = (format!("c{round}"), format!("c{round}.lab.internal"));
        let began = Instant::now();
        mesh.agents[leader].cli(&["version"]).result()?;
        nothing.push(began.elapsed());
        let began = Instant::now();
        if !granted(&mesh.agents[leader], &service) {
            return Err(format!("{service} wasn't granted"));
        }
        let took = began.elapsed();
        answered.push(took.saturating_sub(nothing[round]));
        let all = mesh.until(&name, 0..size, began, WITHIN, &present)?;
        everywhere.push(all.saturating_sub(nothing[round]));
        thread::sleep(Duration::from_millis(100));
    }
    report.times(
        "a command that asks nobody",
        "agent version",
        size,
        &nothing,
    );
    report.times(
        "decided and on disk, beyond that",
        "3 CA nodes",
        size,
        &answered,
    );
    report.times("decided to all nodes' DNS", "3 CA nodes", size, &everywhere);
    Ok(())
}

/// Requests without a pause while leadership goes round.
fn rotation(report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(5)?;
    let mesh = start(&lab, &format!("[ca]\nterm = \"{TERM}\"\n"))?.mesh;
    let (mut asked, mut failed) = (0, Vec::new());
    let mut leaders = Vec::new();
    let until = Instant::now() + Duration::from_secs(200);
    while Instant::now() < until {
        let asker = &mesh.agents[3 + asked % 2];
        let name = format!("r{asked}");
        if !granted(asker, &name) {
            failed.push(name);
        }
        asked += 1;
        if let Some(leader) = leader(&mesh.agents)
            && leaders.last() != Some(&leader)
        {
            leaders.push(leader);
        }
        thread::sleep(Duration::from_millis(150));
    }
    let changes = leaders.len().saturating_sub(1);
    let figures = format!(
        "{} of {asked} requests failed over {changes} changes of the leader",
        failed.len()
    );
    let data = json!({ "asked": asked, "failed": failed, "changes": changes });
    report.add("planned rotation", "term of a minute", 5, figures, data);
    Ok(())
}
