//! Memory, processor and disk of agents while something happens to them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::idle::processor_ticks;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Of 10 ms.
const TICKS_PER_SECOND: f64 = 100.0;
const MIB: f64 = 1024.0;
const MB: f64 = 1e6;

/// Agents that are watched.
pub struct Watch {
    agents: Vec<Watched>,
    began: Instant,
    ended: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

struct Watched {
    name: String,
    id: u32,
    dir: PathBuf,
    before: Sample,
    /// The most memory so far, in KiB.
    most_kib: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
struct Sample {
    kib: u64,
    ticks: u64,
    written: u64,
    folder: u64,
}

/// What it cost one agent.
pub struct Cost {
    pub name: String,
    /// Resident memory at the begin.
    pub memory_before_mib: f64,
    /// The most beyond that, at any time.
    pub memory_mib: f64,
    /// What its folder grew by.
    pub disk_mb: f64,
    /// What it wrote to the disk, with what it wrote anew.
    pub written_mb: f64,
    /// Percent of a core.
    pub processor: f64,
}

impl Cost {
    pub fn to_json(&self) -> Value {
        json!({
            "node": self.name,
            "memory_mib": self.memory_mib,
            "disk_mb": self.disk_mb,
            "written_mb": self.written_mb,
            "cpu_percent": self.processor,
        })
    }
}

impl Watch {
    /// Watches processes, each with its name and its folder, from now on.
    pub fn start(agents: Vec<(String, u32, PathBuf)>) -> Result<Self, String> {
        let mut watched = Vec::new();
        for (name, id, dir) in agents {
            let before = sample(id, &dir)?;
            let most_kib = Arc::new(AtomicU64::new(before.kib));
            watched.push(Watched {
                name,
                id,
                dir,
                before,
                most_kib,
            });
        }
        let ended = Arc::new(AtomicBool::new(false));
        let looking = {
            let ended = ended.clone();
            let all: Vec<_> = watched.iter().map(|w| (w.id, w.most_kib.clone())).collect();
            thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    for (id, most) in &all {
                        most.fetch_max(resident_kib(*id).unwrap_or_default(), Ordering::Relaxed);
                    }
                    thread::sleep(LOOK);
                }
            })
        };
        Ok(Self {
            agents: watched,
            began: Instant::now(),
            ended,
            looking,
        })
    }

    /// What it cost until now.
    pub fn end(self) -> Result<Vec<Cost>, String> {
        self.ended.store(true, Ordering::Relaxed);
        self.looking.join().map_err(|_| "the watch panicked")?;
        let seconds = self.began.elapsed().as_secs_f64();
        let cost = |agent: &Watched| {
            let after = sample(agent.id, &agent.dir)?;
            let most = agent.most_kib.load(Ordering::Relaxed).max(after.kib);
            let before = agent.before;
            Ok(Cost {
                name: agent.name.clone(),
                memory_before_mib: before.kib as f64 / MIB,
                memory_mib: most.saturating_sub(before.kib) as f64 / MIB,
                disk_mb: after.folder.saturating_sub(before.folder) as f64 / MB,
                written_mb: after.written.saturating_sub(before.written) as f64 / MB,
                processor: after.ticks.saturating_sub(before.ticks) as f64
                    / TICKS_PER_SECOND
                    / seconds
                    * 100.0,
            })
        };
        self.agents.iter().map(cost).collect()
    }
}

fn sample(id: u32, dir: &Path) -> Result<Sample, String> {
    Ok(Sample {
        kib: resident_kib(id)?,
        ticks: processor_ticks(id)?,
        written: field(&format!("/proc/{id}/io"), "write_bytes:")?,
        folder: folder_bytes(dir),
    })
}

fn resident_kib(id: u32) -> Result<u64, String> {
    field(&format!("/proc/{id}/status"), "VmRSS:")
}

fn field(path: &str, name: &str) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| format!("{path} has no {name}"))
}

/// Bytes of all files below a folder.
pub fn folder_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}
