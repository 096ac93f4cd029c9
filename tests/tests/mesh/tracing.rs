//! What happens on several nodes for one command is one trace, as a real
//! OpenTelemetry collector sees it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use innermesh_tests::{Agent, Lab, agent::PATIENCE, agent::program, skip, wait::ensure, wait_for};

#[test]
fn a_join_is_one_trace_over_command_line_joiner_seed_and_ca() {
    let Some(lab) = Lab::new(4) else { return };
    let collector = match collector() {
        Ok(path) => path,
        Err(why) => {
            skip(why);
            return;
        }
    };
    let host = &lab.hosts[3];
    let (grpc, http) = (format!("{}:4317", host.ipv4), format!("{}:4318", host.ipv4));
    let collecting = host.start(
        "rotel",
        &[
            &collector.to_string_lossy(),
            "start",
            "--exporter",
            "blackhole",
            "--otlp-grpc-endpoint",
            &grpc,
            "--otlp-http-endpoint",
            &http,
            "--debug-log",
            "traces",
            "--debug-log-verbosity",
            "detailed",
        ],
        &[],
    );
    wait_for("the collector", PATIENCE, || {
        host.tcp_to(grpc.parse().expect("an address")).map(drop)
    });

    let endpoint = format!("http://{grpc}");
    let traced = |agent: &mut Agent| {
        let service = format!("agent-{}", agent.name);
        agent.set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        agent.set("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        agent.set("OTEL_TRACES_EXPORTER", "otlp");
        agent.set("OTEL_SERVICE_NAME", &service);
        agent.set("OTEL_BSP_SCHEDULE_DELAY", "200");
    };
    // The CA, a seed that isn't one, and the joiner.
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    for agent in [&mut alpha, &mut beta, &mut gamma] {
        traced(agent);
    }
    let _ = alpha.init();
    beta.join(&alpha);
    let token = alpha.invite(&[]);

    // The trace that the caller of the command line is in.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    gamma.set("TRACEPARENT", &format!("00-{trace}-b7ad6b7169203331-01"));
    gamma.join_with(&beta, &token);
    wait_for("the trace at the collector", PATIENCE, || {
        let seen = services_of(&collecting.log(), trace);
        let all = ["agent-alpha", "agent-beta", "agent-gamma"]
            .iter()
            .all(|s| seen.contains_key(*s));
        ensure(all, format!("{seen:?}"))
    });
}

/// How many spans of the trace each service has, by the collector's log.
fn services_of(log: &str, trace: &str) -> BTreeMap<String, usize> {
    let mut service = String::new();
    let mut seen = BTreeMap::new();
    for line in log.lines() {
        if line.contains("service.name")
            && let Some(at) = line.find("agent-")
        {
            service = line[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
        }
        if line.contains(trace) {
            *seen.entry(service.clone()).or_default() += 1;
        }
    }
    seen
}

/// The collector, installed for tests beside the build.
fn collector() -> Result<PathBuf, String> {
    let folder = program().parent().ok_or("no build folder")?.join("rotel");
    let find = || {
        let found = Command::new("find")
            .arg(&folder)
            .args(["-name", "rotel-agent", "-type", "f"])
            .output();
        let found = found.map_err(|e| e.to_string())?;
        let path = String::from_utf8_lossy(&found.stdout)
            .lines()
            .next()
            .map(PathBuf::from);
        path.ok_or_else(|| "the collector rotel isn't installed".to_owned())
    };
    if let Ok(path) = find() {
        return Ok(path);
    }
    install(&folder)?;
    find()
}

fn install(folder: &Path) -> Result<(), String> {
    let pip = folder.join("bin/pip");
    let pip = pip.to_string_lossy();
    for words in [
        &["python3", "-m", "venv", &folder.to_string_lossy()][..],
        &[
            &pip,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--pre",
            "rotel",
        ],
    ] {
        let done = Command::new("timeout")
            .arg("120")
            .args(words)
            .output()
            .map_err(|e| e.to_string())?;
        if !done.status.success() {
            let why = String::from_utf8_lossy(&done.stderr);
            return Err(format!(
                "the collector rotel can't be installed: {}",
                why.trim()
            ));
        }
    }
    Ok(())
}
