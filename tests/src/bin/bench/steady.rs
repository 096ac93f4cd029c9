//! Whether live nodes are taken for dead: at packet loss, and while one node
//! changes its services as fast as it can.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use innermesh_tests::{Lab, dns};
use serde_json::json;

use crate::{figures::Report, mesh::Mesh};

const NAME: &str = "all.lab.internal";

pub fn measure(
    size: usize,
    seconds: u64,
    loss: u32,
    changes: usize,
    report: &mut Report,
) -> Result<(), String> {
    let lab = Lab::build(size)?;
    let mut mesh = Mesh::start(&lab, "")?;
    // A service that every node offers: a node that another takes for dead is
    // missing from its answer.
    let mut first = vec![
        "service".to_owned(),
        "add".into(),
        "all".into(),
        "--port".into(),
        "80".into(),
    ];
    for index in 1..size {
        first.extend(["--share".to_owned(), format!("node{index}")]);
    }
    let words: Vec<&str> = first.iter().map(String::as_str).collect();
    let _ = mesh.agents[0].cli(&words).ok();
    for agent in &mesh.agents[1..] {
        let _ = agent.cli(&["service", "add", "all", "--port", "80"]).ok();
    }
    let within = Duration::from_secs(60);
    mesh.until(NAME, 0..size, Instant::now(), within, &|a| {
        a.addresses.len() == size
    })?;

    lab.set_loss(loss);
    let mut deaths = 0;
    let began = Instant::now();
    let mut asked = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        deaths += missing(&mesh, size)?;
        asked += 1;
        std::thread::sleep(Duration::from_millis(250));
    }
    let lost = lab.lost();
    lab.set_loss(0);
    report.add(
        &format!("{loss} % loss, {seconds} s"),
        "answers without a live node",
        size,
        format!("{deaths} of {} ({lost} packets lost)", asked * size),
        json!({ "false_deaths": deaths, "asked": asked * size, "packets_lost": lost, "seconds": seconds }),
    );

    let (mut deaths, mut asked) = (0, 0);
    let began = Instant::now();
    for change in 0..changes {
        let (service, add) = (format!("b{}", change / 2 % 50), change % 2 == 0);
        let words: &[&str] = if add {
            &["service", "add", &service, "--port", "80"]
        } else {
            &["service", "rm", &service]
        };
        let _ = mesh.agents[1].cli(words).ok();
        if change % 5 == 0 {
            deaths += missing(&mesh, size)?;
            asked += 1;
        }
    }
    let took = began.elapsed();
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(20) {
        deaths += missing(&mesh, size)?;
        asked += 1;
        std::thread::sleep(Duration::from_millis(250));
    }
    report.add(
        &format!("{changes} changes in {:.0} s", took.as_secs_f64()),
        "answers without a live node",
        size,
        format!("{deaths} of {}", asked * size),
        json!({ "false_deaths": deaths, "asked": asked * size, "changes": changes, "took_s": took.as_secs_f64() }),
    );
    Ok(())
}

/// How many agents give an answer in which a node is missing.
fn missing(mesh: &Mesh, size: usize) -> Result<usize, String> {
    let mut count = 0;
    for (index, agent) in mesh.agents.iter().enumerate() {
        let got = ask(mesh.socket(index))?;
        if got != size {
            count += 1;
            println!("{} knows {got} of {size}", agent.name);
        }
    }
    Ok(count)
}

fn ask(socket: &UdpSocket) -> Result<usize, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        socket
            .send(&dns::query(1, NAME))
            .map_err(|e| e.to_string())?;
        let patience = Instant::now() + Duration::from_millis(500);
        while Instant::now() < patience {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(answer) = dns::parse(&buffer[..length]) {
                        return Ok(answer.addresses.len());
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
    Err("an agent's DNS doesn't answer its own host".into())
}
