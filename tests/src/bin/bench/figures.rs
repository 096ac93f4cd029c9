//! What was measured: a table for people, lines of JSON for programs.

use std::{fs::File, io::Write, path::PathBuf, time::Duration};

use serde_json::{Value, json};

/// All rows of a run.
pub struct Report {
    file: Option<PathBuf>,
    rows: Vec<Row>,
}

struct Row {
    measured: String,
    system: String,
    agents: usize,
    figures: String,
}

impl Report {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            rows: Vec::new(),
        }
    }

    /// Adds a row of times, and shows it.
    pub fn times(&mut self, measured: &str, system: &str, agents: usize, times: &[Duration]) {
        let mut sorted: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return;
        };
        let (median, rounds) = (sorted[sorted.len() / 2], sorted.len());
        self.add(
            measured,
            system,
            agents,
            format!("median {median:.0} ms, {least:.0} to {most:.0} in {rounds} rounds"),
            json!({ "median_ms": median, "min_ms": least, "max_ms": most, "all_ms": sorted }),
        );
    }

    /// Adds a row of any kind, and shows it.
    pub fn add(
        &mut self,
        measured: &str,
        system: &str,
        agents: usize,
        figures: String,
        mut data: Value,
    ) {
        println!("{measured}, {system}, {agents} agents: {figures}");
        data["measured"] = measured.into();
        data["system"] = system.into();
        data["agents"] = agents.into();
        if let Some(path) = &self.file {
            let written = File::options()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| writeln!(file, "{data}"));
            if let Err(why) = written {
                eprintln!("{}: {why}", path.display());
            }
        }
        self.rows.push(Row {
            measured: measured.into(),
            system: system.into(),
            agents,
            figures,
        });
    }

    /// Prints all rows once more, together.
    pub fn table(&self) {
        println!(
            "\n{:34} {:24} {:>6}  figures",
            "measured", "system", "agents"
        );
        for row in &self.rows {
            println!(
                "{:34} {:24} {:>6}  {}",
                row.measured, row.system, row.agents, row.figures
            );
        }
    }
}
