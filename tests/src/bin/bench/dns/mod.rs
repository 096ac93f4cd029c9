//! DNS beside Knot, NSD, dnsmasq and Unbound, all on one host, in turn, in the
//! same run, by UDP, TCP, TLS and HTTPS: how many questions each answers in a second of its own processor
//! time, and how soon when nothing else is asked.

mod load;
mod servers;
mod zone;

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use innermesh_tests::{Host, Lab};
use serde_json::json;

use self::{
    load::Load,
    servers::{Server, Servers},
};
use crate::figures::Report;

/// Questions under way.
const OPEN: &str = "400";
/// Those that are forwarded: dnsmasq loses some of more.
const FEW_OPEN: &str = "100";
/// Services of the zone that is asked for.
const SERVICES: usize = 200;
/// What is measured with new names in each round.
const UNCACHED: &str = "forwarded, uncached, by UDP";
const NEW_NAMES: usize = 400_000;
/// Processors.
const SERVERS: &str = "1";
const ASKING: &str = "0";
const ALL: &str = "0,1";
/// Questions one by one.
const QUIET: usize = 3000;

pub fn measure(rounds: usize, seconds: u64, report: &mut Report) -> Result<(), String> {
    zone::measure(report);
    // All servers on one processor, and so with one worker; who asks on another.
    let own = std::process::id();
    run_on(SERVERS, own)?;
    let measured = measure_servers(rounds, seconds, report);
    run_on(ALL, own)?;
    measured
}

fn measure_servers(rounds: usize, seconds: u64, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(1)?;
    let host = &lab.hosts[0];
    let mut servers = Servers::start(&lab, SERVICES)?;
    // Some choose the processors of their threads themselves.
    for pid in servers.pids() {
        run_on(SERVERS, pid)?;
    }
    let (own, outside) = (servers.own_names.clone(), servers.outside_names.clone());
    let udp = ["-m", "udp"];
    let tcp = ["-m", "tcp"];
    let mut rows = vec![
        Row::new("zone by UDP", udp, &own, &["innermesh", "knot", "nsd"]),
        Row::new("zone by TCP", tcp, &own, &["innermesh", "knot", "nsd"]),
        Row::new(
            "forwarded, cached, by UDP",
            udp,
            &outside,
            &["innermesh", "dnsmasq", "unbound"],
        ),
        Row::new(
            "forwarded, cached, by TCP",
            tcp,
            &outside,
            &["innermesh", "unbound"],
        ),
        Row::new(
            "forwarded, cached, by TLS",
            ["-m", "dot"],
            &outside,
            &["innermesh", "unbound"],
        ),
        Row::new(
            "forwarded, cached, by HTTPS",
            ["-m", "doh"],
            &outside,
            &["innermesh", "unbound"],
        ),
    ];
    let uncached = host.directory.join("uncached.names");
    rows.push(Row::new(
        UNCACHED,
        udp,
        &uncached,
        &["innermesh", "dnsmasq", "unbound"],
    ));
    for name in ["innermesh", "dnsmasq", "unbound"] {
        ask_each(host, servers.named(name)?, &outside)?;
    }
    for row in &mut rows {
        for round in 0..rounds {
            for (name, figures) in &mut row.figures {
                let server = servers.named(name)?;
                if row.load.what == UNCACHED {
                    write_new_names(&uncached, &format!("{name}{round}"))?;
                }
                figures.push(row.load.run(host, server, seconds)?);
            }
        }
        row.tell(report);
    }
    for (what, names, asked) in [
        ("one by one, zone", &own, &["innermesh", "knot", "nsd"][..]),
        (
            "one by one, cached",
            &outside,
            &["innermesh", "dnsmasq", "unbound"],
        ),
    ] {
        let lines = fs::read_to_string(names).map_err(|e| e.to_string())?;
        for name in asked {
            // The names that were new before may have taken the place of these.
            for _ in 0..2 {
                ask_each(host, servers.named(name)?, names)?;
            }
            quiet(host, what, servers.named(name)?, &lines, report)?;
        }
    }
    for name in ["innermesh", "knot", "nsd", "dnsmasq", "unbound"] {
        let mib = servers.named(name)?.resident_kib() as f64 / 1024.0;
        report.add(
            "memory after all that",
            name,
            1,
            format!("{mib:.1} MiB resident"),
            json!({ "rss_mib": mib }),
        );
    }
    Ok(())
}

/// Names that nobody asked for yet, more than are asked for in a round.
fn write_new_names(path: &Path, label: &str) -> Result<(), String> {
    let names: String = (0..NEW_NAMES)
        .map(|n| format!("{label}x{n}.new.example.net A\n"))
        .collect();
    fs::write(path, names).map_err(|e| e.to_string())
}

/// Has all threads of a process, and what it starts from then on, run on some
/// processors.
fn run_on(processors: &str, pid: u32) -> Result<(), String> {
    let id = pid.to_string();
    let words = ["-a", "-p", "-c", processors, &id];
    let taskset = Command::new("taskset").args(words).output();
    match taskset.map_err(|e| e.to_string())? {
        done if done.status.success() => Ok(()),
        failed => Err(format!(
            "taskset: {}",
            String::from_utf8_lossy(&failed.stderr)
        )),
    }
}

/// One kind of questions, and what each server made of it.
struct Row {
    load: Load,
    figures: Vec<(String, Vec<f64>)>,
}

impl Row {
    fn new(what: &str, transport: [&'static str; 2], names: &Path, servers: &[&str]) -> Self {
        Self {
            load: Load {
                what: what.into(),
                transport,
                names: names.into(),
                open: if what == UNCACHED { FEW_OPEN } else { OPEN },
            },
            figures: servers
                .iter()
                .map(|s| (s.to_string(), Vec::new()))
                .collect(),
        }
    }

    fn tell(&self, report: &mut Report) {
        for (name, figures) in &self.figures {
            let mut sorted = figures.clone();
            sorted.sort_by(f64::total_cmp);
            let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
                continue;
            };
            let median = sorted[sorted.len() / 2];
            report.add(
                &self.load.what,
                name,
                1,
                format!(
                    "{:.0}k questions per CPU second, {:.0}k to {:.0}k in {} rounds",
                    median / 1e3,
                    least / 1e3,
                    most / 1e3,
                    sorted.len()
                ),
                json!({ "per_cpu_second": median, "all": figures }),
            );
        }
    }
}

/// Asks for each name once, so that it is kept.
fn ask_each(host: &Host, server: &Server, names: &Path) -> Result<(), String> {
    let socket = socket_to(host, server)?;
    let names = fs::read_to_string(names).map_err(|e| e.to_string())?;
    for (id, name) in (0..).zip(names.lines().filter_map(|l| l.split_whitespace().next())) {
        ask(&socket, id, name).map_err(|e| format!("{}: {e}", server.name))?;
    }
    Ok(())
}

fn socket_to(host: &Host, server: &Server) -> Result<UdpSocket, String> {
    let socket = host.udp_to(server.at).map_err(|e| e.to_string())?;
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(|e| e.to_string())?;
    Ok(socket)
}

/// Asks one question after the other; tells how soon each was answered.
fn quiet(
    host: &Host,
    what: &str,
    server: &Server,
    names: &str,
    report: &mut Report,
) -> Result<(), String> {
    let socket = socket_to(host, server)?;
    let mut times = Vec::new();
    for (id, line) in (0..QUIET).zip(names.lines().cycle()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        times.push(ask(&socket, id as u16, name).map_err(|e| format!("{}: {e}", server.name))?);
    }
    times.sort();
    let us = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e6;
    report.add(
        what,
        &server.name,
        1,
        format!("p50 {:.0} µs, p99 {:.0} µs", us(50), us(99)),
        json!({ "p50_us": us(50), "p99_us": us(99) }),
    );
    Ok(())
}

fn ask(socket: &UdpSocket, id: u16, name: &str) -> std::io::Result<Duration> {
    let question = load::question(id, name);
    let began = Instant::now();
    socket.send(&question)?;
    let mut reply = [0; 1500];
    socket.recv(&mut reply)?;
    Ok(began.elapsed())
}

/// The processor time of a process, in seconds.
fn cpu_s(id: u32) -> Result<f64, String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).map_err(|e| e.to_string())?;
    let (_, rest) = stat.rsplit_once(')').ok_or("an odd /proc/PID/stat")?;
    let field = |n: usize| rest.split_whitespace().nth(n)?.parse::<f64>().ok();
    let ticks = field(11).zip(field(12)).map(|(user, system)| user + system);
    Ok(ticks.ok_or("an odd /proc/PID/stat")? / 100.0)
}

fn resident_kib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
