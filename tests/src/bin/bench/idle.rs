//! What agents cost when nothing happens.

use std::{
    fs,
    time::{Duration, Instant},
};

use innermesh_tests::Lab;
use serde_json::json;

use crate::{figures::Report, mesh::Mesh, serf::Fleet};

/// Until what a start sets off has died down: links that nobody wants end after half a
/// minute.
const SETTLE: Duration = Duration::from_secs(60);

pub fn measure(size: usize, seconds: u64, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(size)?;
    let fleet = Fleet::start(&lab)?;
    let ids: Vec<u32> = fleet
        .processes
        .iter()
        .flatten()
        .map(innermesh_tests::Process::id)
        .collect();
    watch("Serf", &lab, &ids, seconds, report)?;
    drop(fleet);

    for (system, config) in [
        ("embedded device", ""),
        (
            "no tunnel",
            "[tunnel]\nbackend = \"none\"\n[dns]\nlisten = [\"127.0.0.1\"]\n",
        ),
    ] {
        let lab = Lab::build(size)?;
        let mut mesh = Mesh::start(&lab, config)?;
        let ids: Vec<u32> = mesh
            .agents
            .iter_mut()
            .filter_map(|a| a.process().map(|p| p.id()))
            .collect();
        watch(system, &lab, &ids, seconds, report)?;
    }
    Ok(())
}

fn watch(
    system: &str,
    lab: &Lab,
    ids: &[u32],
    seconds: u64,
    report: &mut Report,
) -> Result<(), String> {
    std::thread::sleep(SETTLE);
    let before = usage(lab, ids)?;
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let after = usage(lab, ids)?;
    let elapsed = began.elapsed().as_secs_f64();

    let agents = ids.len() as f64;
    let cpu = (after.ticks - before.ticks) as f64 / 100.0 / elapsed / agents * 100.0;
    let sent = (after.sent - before.sent) as f64 / elapsed / agents;
    let received = (after.received - before.received) as f64 / elapsed / agents;
    let resident = after.resident_kib as f64 / 1024.0 / agents;
    report.add(
        "idle, each agent",
        system,
        ids.len(),
        format!(
            "{resident:.1} MiB resident ({:.1} private), {cpu:.2} % of a processor, {sent:.0} B/s sent, \
             {received:.0} B/s received",
            after.private_kib as f64 / 1024.0 / agents
        ),
        json!({
            "rss_mib": resident,
            "private_mib": after.private_kib as f64 / 1024.0 / agents,
            "cpu_percent": cpu,
            "sent_bytes_per_s": sent,
            "received_bytes_per_s": received,
        }),
    );
    Ok(())
}

/// Sums over all processes and hosts.
#[derive(Default)]
struct Usage {
    resident_kib: u64,
    private_kib: u64,
    /// Of 10 ms.
    ticks: u64,
    received: u64,
    sent: u64,
}

fn usage(lab: &Lab, ids: &[u32]) -> Result<Usage, String> {
    let mut sum = Usage::default();
    for id in ids {
        let status = read(&format!("/proc/{id}/status"))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.split_whitespace().next()?.parse().ok())
                .unwrap_or_default()
        };
        sum.resident_kib += field("VmRSS:");
        sum.private_kib += field("RssAnon:");
        sum.ticks += processor_ticks(*id)?;
    }
    for host in &lab.hosts {
        let (received, sent) = host.traffic();
        sum.received += received;
        sum.sent += sent;
    }
    Ok(sum)
}

/// Processor time of a process so far, in units of 10 ms.
pub fn processor_ticks(id: u32) -> Result<u64, String> {
    let stat = read(&format!("/proc/{id}/stat"))?;
    // The second field, the name, may have spaces and ends with the last
    // parenthesis; user and system time are fields 14 and 15.
    let rest = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let fields = rest.split_whitespace().skip(11).take(2);
    Ok(fields.filter_map(|f| f.parse::<u64>().ok()).sum())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}
