//! What a certificate costs with three CA nodes: by `agent cert issue`, by an
//! order of an ACME client, and by the same order at pebble, a CA of one process
//! that keeps nothing on the disk.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use innermesh_tests::{
    Agent, Lab,
    acme::{Responder, Way, certificate, start_pebble},
    agent::DOMAIN,
    installed,
    roster::wait_leader,
    wait_for,
    web::{Web, add_service, directory},
};
use instant_acme::{Account, NewAccount};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    figures::Report,
    idle::processor_ticks,
    roster::{ROSTER, WITHIN, start},
};

/// How many clients there are at once when it is looked how many certificates
/// there can be.
const CLIENTS: usize = 8;
/// Certificates while system calls are counted, which makes them slow.
const COUNTED: usize = 20;
/// What reaches the disk.
const SYNCS: &str = "trace=fsync,fdatasync,sync_file_range,msync,sync,syncfs";
const PEBBLE: u16 = 14000;

pub fn measure(rounds: usize, kills: usize, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(ROSTER + 1)?;
    let mut mesh = start(&lab, "")?.mesh;
    let asker = &mesh.agents[ROSTER];
    add_service(asker, "photos", 443);
    let web = Web::new(asker);
    let responder = Responder::start(asker.host).map_err(|e| e.to_string())?;
    let mut ids: Vec<u32> = Vec::new();
    for agent in &mut mesh.agents {
        ids.extend(agent.process().map(|process| process.id()));
    }
    let runtime = Runtime::new().map_err(|e| e.to_string())?;
    let asker = &mesh.agents[ROSTER];
    let client = Client {
        responder: &responder,
        runtime: &runtime,
        ways: ways(asker, &web, (asker.dns().ip(), 7443).into()),
        url: directory(),
    };
    let accounts = client.accounts()?;

    let command = |client: usize| {
        let out = format!("/run/issued/{client}");
        let issue = ["cert", "issue", "photos", "--out", &out];
        asker.cli(&issue).result().map(drop)
    };
    let order = |number: usize| client.order(&accounts[number]);
    cost("agent cert issue", rounds, &ids, &command, report)?;
    cost("ACME order", rounds, &ids, &order, report)?;
    syncs("agent cert issue", &mesh.agents, &ids, &command, report)?;
    syncs("ACME order", &mesh.agents, &ids, &order, report)?;
    pebble(asker, &web, &client, rounds, report)?;

    let (roster, others) = mesh.agents.split_at_mut(ROSTER);
    let mut waits = Vec::new();
    for _ in 0..kills {
        let leads = wait_leader(roster, &others[0]);
        roster[leads].kill();
        let began = Instant::now();
        client.order(&accounts[0])?;
        waits.push(began.elapsed());
        roster[leads].start();
        wait_for("it follows again", WITHIN, || {
            let status = roster[leads].json(&["ca", "status"]);
            let voters = status["voters"].as_array().into_iter().flatten();
            let all = voters.filter(|voter| voter["behind"] == 0).count() == ROSTER;
            all.then_some(()).ok_or(status)
        });
    }
    report.times(
        "leader killed, then an ACME order",
        "3 CA nodes",
        ROSTER + 1,
        &waits,
    );
    Ok(())
}

/// An ACME client with a connection of its own for each account.
struct Client<'a> {
    responder: &'a Responder,
    runtime: &'a Runtime,
    ways: Vec<Way>,
    url: String,
}

/// Ways from an agent's host to a server there.
fn ways(agent: &Agent<'_>, web: &Web<'_>, server: SocketAddr) -> Vec<Way> {
    let root = web.read(innermesh_tests::web::ROOT);
    let way = |_| Way::new(agent.host, server, &root);
    (0..CLIENTS).map(way).collect()
}

impl Client<'_> {
    fn accounts(&self) -> Result<Vec<Account>, String> {
        let wanted = NewAccount {
            contact: &[],
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let create = |way: &Way| {
            let builder = Account::builder_with_http(Box::new(way.clone()));
            let created = builder.create(&wanted, self.url.clone(), None);
            let created = self.runtime.block_on(created);
            created
                .map(|(account, _)| account)
                .map_err(|e| e.to_string())
        };
        self.ways.iter().map(create).collect()
    }

    /// From the order to the certificate in hand.
    fn order(&self, account: &Account) -> Result<(), String> {
        let name = format!("photos.{DOMAIN}");
        let order = certificate(account, self.responder, &name);
        let got = self.runtime.block_on(order);
        got.map(drop).map_err(|e| e.to_string())
    }
}

type Issue<'a> = dyn Fn(usize) -> Result<(), String> + Sync + 'a;

/// Time of one after the other, processor time of all agents, and how many
/// there are in a second where several ask.
fn cost(
    what: &str,
    rounds: usize,
    ids: &[u32],
    issue: &Issue<'_>,
    report: &mut Report,
) -> Result<(), String> {
    let mut times = Vec::new();
    let before = ticks(ids)?;
    for _ in 0..rounds {
        let began = Instant::now();
        issue(0)?;
        times.push(began.elapsed());
    }
    let spent = (ticks(ids)? - before) as f64 * 10.0 / rounds as f64;
    report.times("a certificate, from start to end", what, ids.len(), &times);
    report.add(
        "processor time for one, all agents",
        what,
        ids.len(),
        format!("{spent:.1} ms"),
        json!({ "cpu_ms": spent }),
    );
    let began = Instant::now();
    let done: Result<(), String> = thread::scope(|scope| {
        let each = |client| (0..rounds.div_ceil(CLIENTS)).try_for_each(|_| issue(client));
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || each(n))).collect();
        let mut ended = clients.into_iter().map(|c| c.join().expect("no panic"));
        ended.by_ref().collect()
    });
    done?;
    let count = rounds.div_ceil(CLIENTS) * CLIENTS;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    report.add(
        "certificates in a second",
        &format!("{what}, {CLIENTS} at once"),
        ids.len(),
        format!("{rate:.0}"),
        json!({ "per_second": rate }),
    );
    Ok(())
}

fn ticks(ids: &[u32]) -> Result<u64, String> {
    ids.iter().map(|id| processor_ticks(*id)).sum()
}

/// How often each agent waits for its disk, by the kernel's word: strace sees
/// the system calls of all of its threads, with the file of each.
fn syncs(
    what: &str,
    agents: &[Agent<'_>],
    ids: &[u32],
    issue: &Issue<'_>,
    report: &mut Report,
) -> Result<(), String> {
    if !installed(&["strace"]) {
        return Ok(());
    }
    let logs: Vec<_> = agents.iter().map(|a| a.dir.join("strace")).collect();
    let watch = |(id, log): (&u32, &std::path::PathBuf)| {
        let _ = fs::remove_file(log);
        Command::new("strace")
            .args(["-f", "-y", "-e", SYNCS, "-o"])
            .arg(log)
            .args(["-p", &id.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("strace: {e}"))
    };
    let watchers: Result<Vec<Child>, String> = ids.iter().zip(&logs).map(watch).collect();
    let mut watchers = watchers?;
    for id in ids {
        wait_for("strace", WITHIN, || is_traced(*id));
    }
    let done = (0..COUNTED).try_for_each(|_| issue(0));
    for watcher in &mut watchers {
        // It lets go of the agent at the end; SIGKILL would too.
        let pid = nix::unistd::Pid::from_raw(watcher.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = watcher.wait();
    }
    done?;
    let mut per_file: BTreeMap<String, usize> = BTreeMap::new();
    for (agent, log) in agents.iter().zip(&logs) {
        let text = fs::read_to_string(log).map_err(|e| format!("{}: {e}", log.display()))?;
        for line in text.lines().filter(|line| line.contains("sync(")) {
            let path = line.split(['<', '>']).nth(1).unwrap_or_default();
            let state = agent.dir.to_string_lossy();
            let file = path.strip_prefix(&*state).unwrap_or(path);
            *per_file.entry(file_kind(file)).or_default() += 1;
        }
    }
    let sum: usize = per_file.values().sum();
    let each = |count: usize| count as f64 / COUNTED as f64;
    let parts: Vec<String> = per_file
        .iter()
        .map(|(file, count)| format!("{file} {:.1}", each(*count)))
        .collect();
    report.add(
        "syncs of all agents for one",
        what,
        ids.len(),
        format!("{:.1} ({})", each(sum), parts.join(", ")),
        json!({ "syncs": each(sum), "by_file": per_file }),
    );
    Ok(())
}

/// What all files of one kind are called.
fn file_kind(path: &str) -> String {
    let path = path.trim_start_matches("/state").trim_start_matches('/');
    let kind = match path.split_once('/') {
        Some((folder, _)) => folder,
        None if path.is_empty() => "the state folder",
        None => path,
    };
    kind.to_owned()
}

fn is_traced(id: u32) -> Result<(), String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).map_err(|e| e.to_string())?;
    for task in tasks.flatten() {
        let status = fs::read_to_string(task.path().join("status"));
        if status.is_ok_and(|status| status.contains("TracerPid:\t0\n")) {
            return Err("a thread isn't watched yet".into());
        }
    }
    Ok(())
}

/// The same order at pebble on the same host, with its own waits off.
fn pebble(
    asker: &Agent<'_>,
    web: &Web<'_>,
    client: &Client<'_>,
    rounds: usize,
    report: &mut Report,
) -> Result<(), String> {
    if !installed(&["pebble"]) {
        return Ok(());
    }
    let (server, process) = start_pebble(asker, web, PEBBLE);
    let beside = Client {
        ways: ways(asker, web, server),
        url: format!("https://photos.{DOMAIN}:{PEBBLE}/dir"),
        ..*client
    };
    let accounts = beside.accounts()?;
    let order = |number: usize| beside.order(&accounts[number]);
    cost("pebble", rounds, &[process.id()], &order, report)
}
