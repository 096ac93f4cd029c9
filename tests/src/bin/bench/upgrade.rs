//! Nodes of a running mesh are upgraded one by one from an earlier version:
//! nothing that was acknowledged is lost, names resolve all the time, and in the
//! end all hold one ledger by the newest rules.

use std::{
    net::UdpSocket,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use innermesh_proto::ledger::{RULES, State};
use innermesh_tests::{Agent, Lab, agent::DOMAIN, dns, wait_for};
use serde_json::json;

use crate::{
    figures::Report,
    folder,
    roster::{Load, ROSTER, start_by},
};

/// How long a node may take to follow again after its upgrade.
const WITHIN: Duration = Duration::from_secs(120);
/// How long after its acknowledgement a name has to resolve everywhere.
const KNOWN: Duration = Duration::from_secs(5);
/// How long an answer may take, asked again once.
const ANSWER: Duration = Duration::from_millis(1500);
/// Between two questions.
const PACE: Duration = Duration::from_millis(50);
/// Nodes that add services all the time, while they aren't upgraded themselves.
const ASKERS: usize = 2;
/// No node is restarted.
const NONE: usize = usize::MAX;

pub fn measure(old: &Path, agents: usize, report: &mut Report) -> Result<(), String> {
    if agents < ROSTER + 2 * ASKERS {
        return Err(format!("at least {} agents", ROSTER + 2 * ASKERS));
    }
    if !old.is_file() {
        return Err(format!("{} is no file", old.display()));
    }
    let lab = Lab::build(agents)?;
    let mut mesh = start_by(&lab, "", Some(old))?.mesh;
    println!("{agents} agents run {}", old.display());
    let watch = Watch::new(&mesh.agents)?;
    let mut took = Vec::new();
    let mut loads = Vec::new();
    // First all but the last, which ask meanwhile; then those, and others ask.
    let askers = agents - ASKERS;
    let (first, last) = mesh.agents.split_at_mut(askers);
    loads.push(Load::run_named("k", last, |load| {
        watch.while_upgraded(load, first, 0, &mut took)
    })?);
    let (first, last) = mesh.agents.split_at_mut(askers);
    loads.push(Load::run_named(
        "l",
        &first[ROSTER..ROSTER + ASKERS],
        |load| watch.while_upgraded(load, last, askers, &mut took),
    )?);

    let began = Instant::now();
    let state = same_ledger(&mesh.agents)?;
    let settled = began.elapsed();
    report.times(
        "upgraded, until it follows again",
        "one by one",
        agents,
        &took,
    );
    for load in &loads {
        load.report(&mesh.agents, "upgraded under load", report);
    }
    let (asked, failed) = watch.told();
    report.add(
        "names resolve meanwhile",
        "DNS",
        agents,
        format!("{} of {asked} questions had no answer", failed.len()),
        json!({ "asked": asked, "failed": failed }),
    );
    report.add(
        "one ledger in the end",
        "all",
        agents,
        format!(
            "batch {} by rules {} everywhere, {settled:.1?} after the last",
            state.position.index, state.rules
        ),
        json!({ "index": state.position.index, "rules": state.rules }),
    );
    if failed.is_empty() && state.rules == RULES {
        return Ok(());
    }
    Err(format!("rules {}, {failed:?}", state.rules))
}

/// Asks all nodes for names all the time, but the one that is restarted.
struct Watch {
    sockets: Vec<UdpSocket>,
    /// Which is restarted.
    down: AtomicUsize,
    asked: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Watch {
    fn new(agents: &[Agent<'_>]) -> Result<Self, String> {
        let mut sockets = Vec::new();
        for agent in agents {
            let socket = agent.host.udp_to(agent.dns()).map_err(|e| e.to_string())?;
            let timeout = socket.set_read_timeout(Some(ANSWER));
            timeout.map_err(|e| e.to_string())?;
            sockets.push(socket);
        }
        Ok(Self {
            sockets,
            down: AtomicUsize::new(NONE),
            asked: AtomicUsize::new(0),
            failed: Mutex::default(),
        })
    }

    fn told(&self) -> (usize, Vec<String>) {
        let failed = self.failed.lock().unwrap_or_else(|e| e.into_inner());
        (self.asked.load(Ordering::Relaxed), failed.clone())
    }

    /// Upgrades these, of which the first is the one with this number.
    fn while_upgraded(
        &self,
        load: &Load,
        agents: &mut [Agent<'_>],
        number: usize,
        took: &mut Vec<Duration>,
    ) -> Result<(), String> {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut turn = 0;
                while !ended.load(Ordering::Relaxed) {
                    self.ask(load, turn);
                    turn += 1;
                    thread::sleep(PACE);
                }
            });
            for (agent, number) in agents.iter_mut().zip(number..) {
                self.down.store(number, Ordering::SeqCst);
                let began = Instant::now();
                agent.stop();
                agent.use_program(None);
                agent.start();
                agent.wait_nodes(self.sockets.len());
                took.push(began.elapsed());
                self.down.store(NONE, Ordering::SeqCst);
                thread::sleep(Duration::from_secs(1));
            }
            ended.store(true, Ordering::Relaxed);
        });
        Ok(())
    }

    /// Asks one node for one of the names that were acknowledged.
    fn ask(&self, load: &Load, turn: usize) {
        let node = turn % self.sockets.len();
        let name = {
            let told = load.told();
            let known = told.iter().filter(|(_, at)| at.elapsed() > KNOWN);
            let known: Vec<&String> = known.map(|(name, _)| name).collect();
            known
                .get(turn * 7 % known.len().max(1))
                .map(|name| (*name).clone())
        };
        let Some(name) = name else { return };
        if self.down.load(Ordering::SeqCst) == node {
            return;
        }
        let full = format!("{name}.{DOMAIN}");
        let id = u16::try_from(turn % 60_000).unwrap_or(1);
        let answered = (0..2).any(|_| resolves(&self.sockets[node], id, &full));
        // Its restart may have begun meanwhile.
        if self.down.load(Ordering::SeqCst) == node {
            return;
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !answered {
            let mut failed = self.failed.lock().unwrap_or_else(|e| e.into_inner());
            failed.push(format!("{name} at node{node}"));
        }
    }
}

fn resolves(socket: &UdpSocket, id: u16, name: &str) -> bool {
    if socket.send(&dns::query(id, name)).is_err() {
        return false;
    }
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        let answer = dns::parse(&buffer[..length]);
        if let Some(answer) = answer.filter(|answer| answer.id == id) {
            return !answer.addresses.is_empty();
        }
    }
    false
}

/// Waits until all hold the same ledger by the newest rules.
fn same_ledger(agents: &[Agent<'_>]) -> Result<State, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let state = wait_for("one ledger by the newest rules", WITHIN, || {
        let mut states = Vec::new();
        for agent in agents {
            let host = folder::host(&agent.dir);
            states.push(runtime.block_on(folder::ledger(&host))?);
        }
        let first = states.swap_remove(0);
        let other = states.iter().find(|s| s.position != first.position);
        match other {
            Some(other) => Err(format!("{:?} and {:?}", first.position, other.position)),
            None if first.rules < RULES => Err(format!("rules {}", first.rules)),
            None => Ok(first),
        }
    });
    Ok(state)
}
