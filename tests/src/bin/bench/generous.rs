//! What honest nodes do at once, as people with many sites and machines do. None
//! of it may be refused: budgets and shares are for machines gone mad.

use std::{
    fmt::Write,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{
    Agent, Finished, Lab, Process,
    agent::DOMAIN,
    installed,
    web::{Web, directory},
};
use serde_json::json;

use crate::{figures::Report, roster::ROSTER};

/// Records that one node adds at once.
const RECORDS: usize = 100;
/// Services that it adds at once.
const SERVICES: usize = 50;
/// Commands that run at a time: what the agent's socket has places for.
const AT_ONCE: usize = 24;
/// How long Caddy may take for all sites: it begins ten in ten seconds.
const SITES: Duration = Duration::from_secs(600);
const CADDYFILE: &str = "/etc/caddy/Caddyfile";
/// Where Caddy has its certificates.
const CERTIFICATES: &str = "/var/lib/caddy/caddy/certificates";

pub fn measure(sites: usize, joins: usize, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(ROSTER + 1 + joins)?;
    let (members, _) = lab.hosts.split_at(ROSTER + 1);
    // The hosts of those that join later have no agent yet.
    let mut mesh = start_on(&lab, members.len())?;
    let honest = mesh.pop().ok_or("no member")?;
    let mut refused = Vec::new();

    let commands = (0..RECORDS).map(|number| {
        let name = format!("r{number}.{}", honest.name);
        vec![
            "record".into(),
            "add".into(),
            name,
            "TXT".into(),
            "one of many".into(),
        ]
    });
    refused.extend(at_once("records", &honest, commands.collect(), report));
    let commands = (0..SERVICES).map(|number| {
        let words = ["service", "add", &format!("v{number}"), "--port", "80"];
        words.map(str::to_owned).to_vec()
    });
    refused.extend(at_once("services", &honest, commands.collect(), report));
    refused.extend(join_at_once(&lab, &mesh[0], members.len(), report));
    refused.extend(caddy(&honest, sites, report)?);
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} were refused: {}",
        refused.len(),
        refused.join("; ")
    ))
}

/// A mesh on the first hosts of a laboratory, with three CA nodes.
fn start_on(lab: &Lab, nodes: usize) -> Result<Vec<Agent<'_>>, String> {
    let names: Vec<String> = (0..nodes).map(|number| format!("node{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(innermesh_tests::roster::of_three(lab, &names))
}

/// Runs commands of a node's command line at once; those that failed.
fn at_once(
    what: &str,
    agent: &Agent<'_>,
    commands: Vec<Vec<String>>,
    report: &mut Report,
) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let (times, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(words) = commands.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let began = Instant::now();
                    let done = agent.cli(&words).result();
                    push(&times, began.elapsed());
                    if let Err(why) = done {
                        push(&failed, why);
                    }
                }
            });
        }
    });
    let all = began.elapsed();
    let (times, failed) = (taken(times), taken(failed));
    told(what, commands.len(), &failed, all, report);
    report.times(what, "each of them", 1, &times);
    failed
}

/// One token, and as many nodes as it has uses join at the same time.
fn join_at_once(lab: &Lab, admin: &Agent<'_>, first: usize, report: &mut Report) -> Vec<String> {
    let hosts = &lab.hosts[first..];
    let token = admin.invite(&["--uses", &hosts.len().to_string()]);
    let address = admin.address();
    let (times, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let began = Instant::now();
    thread::scope(|scope| {
        for host in hosts {
            scope.spawn(|| {
                let agent = Agent::new(host, &format!("join{}", host.index));
                let name = agent.name.clone();
                let words = [
                    "join",
                    &address,
                    "--token",
                    &token,
                    "--name",
                    &name,
                    "--no-start",
                ];
                let began = Instant::now();
                let joined: Finished = agent.cli(&words);
                push(&times, began.elapsed());
                if let Err(why) = joined.result() {
                    push(&failed, why);
                }
            });
        }
    });
    let all = began.elapsed();
    let (times, failed) = (taken(times), taken(failed));
    told("joins by one token", hosts.len(), &failed, all, report);
    report.times("joins by one token", "each of them", 1, &times);
    failed
}

/// Caddy gets a certificate for each of so many sites at its first start.
fn caddy(agent: &Agent<'_>, sites: usize, report: &mut Report) -> Result<Vec<String>, String> {
    if !installed(&["caddy"]) {
        return Ok(Vec::new());
    }
    let web = Web::new(agent);
    let mut config = String::from("(mesh) {\n\ttls {\n\t\tissuer acme {\n\t\t\tdir ");
    let _ = writeln!(config, "{}\n\t\t}}\n\t}}\n}}\n", directory());
    let own = agent.overlay_ipv4(&agent.name);
    let all = format!("*.{}", agent.name);
    let _ = agent.cli(&["record", "add", &all, "A", &own]).result()?;
    for site in 0..sites {
        // Below its own name, as any node may have them.
        let name = format!("site{site}.{}.{DOMAIN}", agent.name);
        let _ = writeln!(config, "{name} {{\n\timport mesh\n\trespond \"{site}\"\n}}");
    }
    web.put(CADDYFILE, &config);
    let home = [
        ("HOME", "/var/lib/caddy"),
        ("XDG_DATA_HOME", "/var/lib/caddy"),
        ("XDG_CONFIG_HOME", "/var/lib/caddy"),
    ];
    let words = ["caddy", "run", "--config", CADDYFILE];
    let began = Instant::now();
    let mut process: Process = web.host.start("caddy", &words, &home);
    let mut issued = 0;
    while issued < sites && began.elapsed() < SITES && process.ended().is_none() {
        thread::sleep(Duration::from_secs(1));
        let list = web.host.run(&["find", CERTIFICATES, "-name", "*.crt"]);
        issued = list.stdout.lines().count();
    }
    let log = process.log();
    let _ = fs::write(agent.dir.join("caddy.log"), &log);
    let failed: Vec<String> = log
        .lines()
        .filter(|line| line.contains("\"level\":\"error\"") || line.contains("could not get"))
        .map(|line| line.chars().take(400).collect())
        .collect();
    told("sites in Caddy", sites, &failed, began.elapsed(), report);
    let mut refused = failed;
    if issued < sites {
        refused.push(format!("{issued} of {sites} sites have a certificate"));
    }
    Ok(refused)
}

fn told(what: &str, all: usize, failed: &[String], took: Duration, report: &mut Report) {
    let figures = format!("{} of {all} refused, all in {took:.1?}", failed.len());
    let data = json!({ "asked": all, "refused": failed, "seconds": took.as_secs_f64() });
    report.add(what, "at once", 1, figures, data);
}

fn push<T>(all: &Mutex<Vec<T>>, one: T) {
    all.lock().unwrap_or_else(|e| e.into_inner()).push(one);
}

fn taken<T>(all: Mutex<Vec<T>>) -> Vec<T> {
    all.into_inner().unwrap_or_else(|e| e.into_inner())
}
