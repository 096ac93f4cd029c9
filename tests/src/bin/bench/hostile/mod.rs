//! One ordinary member, with nothing but its own valid key, does all that it can
//! against four others for minutes; and what that costs them.

mod connections;
mod floods;
mod identity;
pub mod member;
mod watch;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Host, Lab, Process};
use serde_json::{Value, json};

use self::{
    connections::{honest_page, listening},
    watch::Watch,
};
use crate::{
    figures::Report,
    roster::{ROSTER, start},
};

/// Which node is hostile: the first that isn't a CA node.
const HOSTILE: usize = ROSTER;
/// Nodes in all.
const NODES: usize = ROSTER + 2;
/// The node whose user asks as an admin: the mesh's founder.
const ADMIN: usize = 0;
/// Between two requests of the admin.
const ADMIN_PACE: Duration = Duration::from_secs(3);
/// How far the hostile program steps back where it and the others share a core:
/// its own work isn't what is measured.
const NICE: &str = "10";
/// Until what the start sets off has died down.
const SETTLE: Duration = Duration::from_secs(20);
/// How long a node may take to be there again afterwards.
const RESTART: Duration = Duration::from_secs(120);
/// What the whole time is divided by to have the time in which the hostile
/// member holds connections through its tunnel, with its stock agent on.
const CONNECTING: u32 = 5;

/// What the others may lose by it.
mod limit {
    use std::time::Duration;

    /// Memory of each, in MiB.
    pub const MEMORY_MIB: f64 = 20.0;
    /// What all that was done leaves behind in each state folder, in MB.
    pub const DISK_MB: f64 = 5.0;
    /// Processor time of each, in percent of a core.
    pub const PROCESSOR: f64 = 5.0;
    /// Median of an admin's requests.
    pub const ADMIN: Duration = Duration::from_secs(1);
}

/// Runs it for so many minutes; `only` is one kind of request, or all.
pub fn measure(minutes: f64, only: &str, report: &mut Report) -> Result<(), String> {
    let long = Duration::from_secs_f64(minutes * 60.0);
    let lab = Lab::build(NODES)?;
    let mut mesh = start(&lab, "")?.mesh;
    thread::sleep(SETTLE);

    let mut others = Vec::new();
    for (index, agent) in mesh.agents.iter_mut().enumerate() {
        if index != HOSTILE {
            let id = agent.process().map(|process| process.id());
            others.push((agent.name.clone(), id.ok_or("it runs")?, agent.dir.clone()));
        }
    }
    let watch = Watch::start(others)?;
    let began = Instant::now();

    let mut places = Vec::new();
    for (index, agent) in mesh.agents.iter().enumerate() {
        if index != HOSTILE {
            places.extend(listening(agent.host)?.iter().map(ToString::to_string));
        }
    }
    let connecting = hostile(
        mesh.agents[HOSTILE].host,
        "connect",
        long / CONNECTING,
        &places,
    )?;
    let honest = &mesh.agents[NODES - 1];
    let seen = honest.overlay_ipv4(&mesh.agents[ADMIN].name);
    let first = meanwhile(&mesh.agents[ADMIN], honest, &seen, "a", connecting)?;

    mesh.agents[HOSTILE].stop();
    let dir = mesh.agents[HOSTILE].dir.to_string_lossy().into_owned();
    let mut places: Vec<String> = vec![dir, only.to_owned()];
    for (index, agent) in mesh.agents.iter().enumerate() {
        if index != HOSTILE {
            places.push(agent.address());
        }
    }
    let left = long.saturating_sub(began.elapsed());
    let asking = hostile(mesh.agents[HOSTILE].host, "ask", left, &places)?;
    let honest = &mesh.agents[NODES - 1];
    let second = meanwhile(&mesh.agents[ADMIN], honest, &seen, "b", asking)?;

    let costs = watch.end()?;
    let mut verdict = Verdict::default();
    for cost in &costs {
        let over = cost.memory_mib > limit::MEMORY_MIB
            || cost.disk_mb > limit::DISK_MB
            || cost.processor > limit::PROCESSOR;
        let figures = format!(
            "+{:.1} MiB of {:.1} MiB (at most {}), +{:.2} MB on disk (at most {}), {:.1} MB \
             written, {:.1} % of a core (at most {})",
            cost.memory_mib,
            cost.memory_before_mib,
            limit::MEMORY_MIB,
            cost.disk_mb,
            limit::DISK_MB,
            cost.written_mb,
            cost.processor,
            limit::PROCESSOR,
        );
        verdict.add(report, &cost.name, over, figures, cost.to_json());
    }
    let admin: Vec<Duration> = [first.admin, second.admin].concat();
    let mut sorted = admin.clone();
    sorted.sort();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    report.times("an admin's request meanwhile", "record add", NODES, &admin);
    let failed = first.failed + second.failed;
    verdict.add(
        report,
        "an admin's requests",
        failed > 0 || median > limit::ADMIN || admin.is_empty(),
        format!(
            "{failed} failed, median {median:.0?} (at most {:?})",
            limit::ADMIN
        ),
        json!({ "failed": failed, "median_ms": median.as_millis() }),
    );
    report.times("page of another, meanwhile", "HTTP", NODES, &first.page);
    let refused = first.refused;
    verdict.add(
        report,
        "others' connections",
        refused > 0,
        format!("{refused} failed while one member held 200 to each port"),
        json!({ "failed": refused }),
    );
    let (restarted, figures) = restart(&mut mesh.agents);
    verdict.add(
        report,
        "restart of all others",
        !restarted,
        figures,
        json!({}),
    );
    verdict.end()
}

/// Starts the hostile member's program on its host.
fn hostile(host: &Host, what: &str, long: Duration, places: &[String]) -> Result<Process, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let (program, seconds) = (
        program.to_string_lossy().into_owned(),
        long.as_secs().to_string(),
    );
    let mut words = vec![
        "nice",
        "-n",
        NICE,
        &program,
        "hostile-member",
        what,
        &seconds,
    ];
    words.extend(places.iter().map(String::as_str));
    Ok(host.start(&format!("hostile-{what}"), &words, &[]))
}

/// What honest people met while the hostile member was at work.
#[derive(Default)]
struct Met {
    admin: Vec<Duration>,
    failed: usize,
    page: Vec<Duration>,
    refused: usize,
}

/// Asks as an admin, and looks at another node's page, until the hostile
/// program ends.
fn meanwhile(
    admin: &Agent,
    honest: &Agent,
    seen: &str,
    part: &str,
    mut hostile: Process,
) -> Result<Met, String> {
    let ended = AtomicBool::new(false);
    let met = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_as_admin(admin, part, &ended));
        let looking = scope.spawn(|| look(honest, seen, &ended));
        while hostile.ended().is_none() {
            thread::sleep(Duration::from_millis(100));
        }
        ended.store(true, Ordering::Relaxed);
        let (times, failed) = asking.join().expect("no panic");
        let mut met = looking.join().expect("no panic");
        met.admin = times;
        met.failed = failed;
        met
    });
    let log = hostile.log();
    let status = hostile.ended().ok_or("it has ended")?;
    if !status.success() {
        return Err(format!("the hostile program ended with {status}:\n{log}"));
    }
    let told: Option<Value> = log
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok());
    println!(
        "what it did: {}",
        told.ok_or_else(|| format!("nothing:\n{log}"))?
    );
    Ok(met)
}

fn ask_as_admin(admin: &Agent, part: &str, ended: &AtomicBool) -> (Vec<Duration>, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    while !ended.load(Ordering::Relaxed) {
        let name = format!("{part}{}.admin", times.len() + failed);
        let began = Instant::now();
        let add = ["record", "add", &name, "TXT", "meanwhile", "--json"];
        match admin.cli(&add).result() {
            Ok(_) => times.push(began.elapsed()),
            Err(why) => {
                println!(
                    "an admin's request failed after {:.1?}: {why}",
                    began.elapsed()
                );
                failed += 1;
            }
        }
        thread::sleep(ADMIN_PACE.saturating_sub(began.elapsed()));
    }
    (times, failed)
}

/// Another node's page, from an honest node.
fn look(honest: &Agent, seen: &str, ended: &AtomicBool) -> Met {
    let mut met = Met::default();
    while !ended.load(Ordering::Relaxed) {
        match honest_page(honest.host, seen) {
            Ok(took) => met.page.push(took),
            Err(why) => {
                println!("an honest connection failed: {why}");
                met.refused += 1;
            }
        }
        thread::sleep(ADMIN_PACE);
    }
    met
}

/// Whether all others start again and hold the same ledger, and in words.
fn restart(agents: &mut [Agent<'_>]) -> (bool, String) {
    for (index, agent) in agents.iter_mut().enumerate() {
        if index != HOSTILE {
            agent.terminate();
        }
    }
    let mut failures = Vec::new();
    for (index, agent) in agents.iter_mut().enumerate() {
        if index == HOSTILE {
            continue;
        }
        agent.wait_stopped();
        agent.launch();
    }
    let began = Instant::now();
    loop {
        let mut places = Vec::new();
        for (index, agent) in agents.iter_mut().enumerate() {
            if index == HOSTILE {
                continue;
            }
            if let Some(status) = agent.process().and_then(Process::ended) {
                let log = agent.log();
                let last = log.lines().last().unwrap_or_default();
                failures.push(format!("{} ended with {status}: {last}", agent.name));
                continue;
            }
            let told = agent.cli(&["status", "--json"]).result().ok();
            let told: Option<Value> = told.and_then(|told| serde_json::from_str(&told).ok());
            places.push(told.map(|told| told["ledger"].to_string()));
        }
        let same = places
            .first()
            .is_some_and(|first| first.is_some() && places.iter().all(|place| place == first));
        if !failures.is_empty() {
            return (false, failures.join("; "));
        }
        if same {
            let place = places[0].clone().unwrap_or_default();
            let took = began.elapsed();
            return (true, format!("all hold {place} after {took:.1?}"));
        }
        if began.elapsed() > RESTART {
            return (
                false,
                format!("not the same ledger after {RESTART:?}: {places:?}"),
            );
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// What is over its limit.
#[derive(Default)]
struct Verdict(Vec<String>);

impl Verdict {
    fn add(&mut self, report: &mut Report, what: &str, over: bool, figures: String, data: Value) {
        let word = if over { "OVER" } else { "within" };
        report.add(what, word, NODES, figures, data);
        if over {
            self.0.push(what.to_owned());
        }
    }

    fn end(self) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(format!("over the limit: {}", self.0.join(", ")))
    }
}
