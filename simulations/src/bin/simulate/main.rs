//! `simulate`: runs whole agents in a simulated world, and replays, shrinks
//! and explains what went wrong.

#![allow(
    clippy::disallowed_methods,
    reason = "the schedules and drawings of a person at a terminal, outside every world"
)]

mod explain;
mod process;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use clap::{Args, Parser, Subcommand};
use simulations::{
    outcome::Outcome,
    plot,
    saved::MOST_NODES,
    scenario::{self, Scenario},
    schedule::{Profile, Schedule},
    shrink::shrink,
};

#[global_allocator]
static MEMORY: simulations::memory::Watched = simulations::memory::Watched;

#[derive(Parser)]
#[command(name = "simulate", version, about)]
/// Runs whole Innermesh agents in a deterministic world: simulated network,
/// clocks, disks and randomness. The same seed gives the same run.
///
/// Exit codes: 0 all held, 1 something didn't, 2 wrong usage or input.
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The scenarios, one line each
    List,
    /// Runs scenarios
    Run(RunArguments),
    /// Runs a saved schedule again
    Replay {
        /// A schedule that `run` or `shrink` saved
        file: PathBuf,
        /// Writes the whole trace, a line for each event
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
    /// Leaves out of a failing schedule what the failure doesn't need
    Shrink {
        /// A schedule that fails
        file: PathBuf,
    },
    /// Tells what a saved schedule does, and what comes of it
    Explain {
        /// A schedule
        file: PathBuf,
    },
    /// Runs the schedule on standard input, in this process
    #[command(name = process::ARGUMENT, hide = true)]
    RunOne {
        /// Keeps the whole trace
        #[arg(long)]
        whole: bool,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Which scenarios, with commas between, or all of them
    #[arg(
        long,
        default_value = "all",
        value_delimiter = ',',
        value_name = "SCENARIOS"
    )]
    scenario: Vec<String>,
    /// Machines in the mesh
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=MOST_NODES as u64))]
    nodes: u64,
    /// One seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds from A to B, both included
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Simulated minutes during which things are done to the mesh
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// What the agents talk over: QUIC over simulated UDP, or messages, which
    /// hundreds of machines can
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Runs at a time, each in a process of its own; as many as there are cores
    /// unless told
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Ends with the first run that fails
    #[arg(long)]
    fail_fast: bool,
    /// Prints one JSON object a line and run
    #[arg(long)]
    json: bool,
    /// Draws convergence and traffic; of the last run, where there are several
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Writes the whole trace; of the last run, where there are several
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where the schedules of failed runs are saved
    #[arg(long, value_name = "DIR", default_value = "failures")]
    save: PathBuf,
}

/// `A..B`, both included.
#[derive(Clone)]
struct Seeds(RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} isn't two numbers like 1..50, the first not the larger");
        let (first, last) = text.split_once("..").ok_or_else(wrong)?;
        let first: u64 = first.parse().map_err(|_| wrong())?;
        let last: u64 = last.parse().map_err(|_| wrong())?;
        if first > last {
            return Err(wrong());
        }
        Ok(Self(first..=last))
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::List => {
            for scenario in scenario::all() {
                let only = if scenario.needs_datagrams {
                    " (wire profile only)"
                } else {
                    ""
                };
                println!("{:<18} {}{only}", scenario.name, scenario.about);
            }
            Ok(true)
        }
        What::Run(arguments) => many(&arguments),
        What::Replay { file, trace } => replay(&file, trace.as_deref()),
        What::Shrink { file } => make_small(&file),
        What::Explain { file } => tell(&file),
        What::RunOne { whole } => process::child(whole).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("simulate: {why}");
            ExitCode::from(2)
        }
    }
}

fn many(arguments: &RunArguments) -> Result<bool, String> {
    let chosen = arguments.scenario.iter();
    let chosen = chosen.map(|name| chosen_by(name, arguments.profile));
    let scenarios = chosen.collect::<Result<Vec<_>, _>>()?.concat();
    let seeds = match (&arguments.seeds, arguments.seed) {
        (Some(Seeds(seeds)), _) => seeds.clone(),
        (None, seed) => seed.unwrap_or(1)..=seed.unwrap_or(1),
    };
    let (nodes, length_ms) = (arguments.nodes as usize, arguments.minutes * 60_000);
    let schedules: Vec<Schedule> = scenarios
        .iter()
        .flat_map(|scenario| {
            let seeds = seeds.clone();
            seeds.map(|seed| Schedule {
                profile: arguments.profile,
                ..scenario.schedule(nodes, seed, length_ms)
            })
        })
        .collect();
    let mut rows: Vec<Row> = scenarios.iter().map(|s| Row::new(s.name)).collect();
    let mut failed = 0;
    let mut last = None;
    let whole = arguments.trace.is_some();
    let each = |number: usize, mut outcome: Outcome| {
        if let Some(row) = rows.iter_mut().find(|row| row.name == outcome.scenario) {
            row.add(&outcome);
        }
        if !outcome.ok {
            failed += 1;
            progress(arguments.json, "");
            let file = save(&arguments.save, &schedules[number])?;
            tell_failure(&outcome, &file);
        }
        let words = format!(
            "{} of {} runs, {failed} failed",
            number + 1,
            schedules.len()
        );
        progress(arguments.json, &words);
        let (trace, samples) = (outcome.trace.take(), std::mem::take(&mut outcome.samples));
        outcome.recent.clear();
        if arguments.json {
            println!("{}", serde_json::to_string(&outcome).expect("plain values"));
        }
        let go_on = outcome.ok || !arguments.fail_fast;
        last = Some((outcome, trace, samples));
        Ok(go_on)
    };
    process::all(&schedules, arguments.jobs, whole, each)?;
    progress(arguments.json, "");
    if let Some((last, trace, samples)) = &last {
        if let Some(file) = &arguments.plot {
            let title = format!(
                "{}, {} nodes, seed {}, {} profile",
                last.scenario, last.nodes, last.seed, last.profile
            );
            write(file, &plot::svg(&title, samples))?;
        }
        if let Some(file) = &arguments.trace {
            write(file, trace.as_deref().unwrap_or_default())?;
        }
    }
    if !arguments.json {
        println!(
            "{:<18} {:>5} {:>7} {:>12} {:>10} {:>10} {:>14}",
            "scenario", "runs", "failed", "simulated s", "wall s", "x real", "agreed after s"
        );
        for row in &rows {
            row.print();
        }
        println!(
            "\n{} runs of {} nodes, {} profile, {failed} failed",
            schedules.len(),
            arguments.nodes,
            arguments.profile
        );
    }
    Ok(failed == 0)
}

/// The scenario with a name, or all that the profile has.
fn chosen_by(name: &str, profile: Profile) -> Result<Vec<&'static Scenario>, String> {
    if name != "all" {
        let scenario = scenario::find(name).ok_or_else(|| {
            format!("there is no scenario {name:?}; `simulate list` shows those that are")
        })?;
        return if scenario.is_for(profile) {
            Ok(vec![scenario])
        } else {
            Err(format!(
                "{name} is about packets and connections: it is for the wire profile only"
            ))
        };
    }
    let (fit, other): (Vec<_>, Vec<_>) =
        scenario::all().partition(|scenario| scenario.is_for(profile));
    for scenario in other {
        let name = scenario.name;
        eprintln!("{name} is left out: it is for the wire profile only");
    }
    Ok(fit)
}

/// One scenario's runs, summed up.
struct Row {
    name: &'static str,
    runs: u64,
    failed: u64,
    simulated_s: f64,
    wall_s: f64,
    healed_ms: u64,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            runs: 0,
            failed: 0,
            simulated_s: 0.0,
            wall_s: 0.0,
            healed_ms: 0,
        }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.failed += u64::from(!outcome.ok);
        self.simulated_s += outcome.simulated_s;
        self.wall_s += outcome.wall_s;
        self.healed_ms = self.healed_ms.max(outcome.healed_ms.unwrap_or(0));
    }

    fn print(&self) {
        println!(
            "{:<18} {:>5} {:>7} {:>12.1} {:>10.1} {:>10.1} {:>14.2}",
            self.name,
            self.runs,
            self.failed,
            self.simulated_s,
            self.wall_s,
            self.simulated_s / self.wall_s.max(0.001),
            self.healed_ms as f64 / 1000.0
        );
    }
}

/// What runs now, on a terminal only.
fn progress(json: bool, what: &str) {
    let mut errors = io::stderr();
    if !json && errors.is_terminal() {
        let _ = write!(errors, "\r\x1b[K{what}");
        let _ = errors.flush();
    }
}

fn tell_failure(outcome: &Outcome, file: &Path) {
    eprintln!(
        "FAILED {} with seed {} and {} nodes, {} profile: {}",
        outcome.scenario,
        outcome.seed,
        outcome.nodes,
        outcome.profile,
        outcome.violation.as_deref().unwrap_or("unknown")
    );
    eprintln!("the last events before:");
    for line in &outcome.recent {
        eprintln!("  {line}");
    }
    eprintln!("once more: simulate replay {}\n", file.display());
}

fn replay(file: &Path, trace: Option<&Path>) -> Result<bool, String> {
    let schedule = load(file)?;
    let outcome = process::one(&schedule, trace.is_some())?;
    if let Some(file) = trace {
        write(file, outcome.trace.as_deref().unwrap_or_default())?;
    }
    if outcome.ok {
        println!(
            "{} with seed {} and {} nodes, {} profile: all held, trace {}",
            outcome.scenario, outcome.seed, outcome.nodes, outcome.profile, outcome.trace_hash
        );
    } else {
        tell_failure(&outcome, file);
    }
    Ok(outcome.ok)
}

fn tell(file: &Path) -> Result<bool, String> {
    let schedule = load(file)?;
    let outcome = process::one(&schedule, false)?;
    print!("{}", explain::story(&schedule, &outcome));
    Ok(outcome.ok)
}

fn make_small(file: &Path) -> Result<bool, String> {
    let schedule = load(file)?;
    let number = |schedule: &Schedule| {
        let outcome = process::one(schedule, false).ok()?;
        let words = outcome.violation?;
        words.split_whitespace().next().map(str::to_owned)
    };
    let wanted = number(&schedule);
    if wanted.is_none() {
        println!("all holds with this schedule: there is nothing to shrink");
        return Ok(true);
    }
    let small = shrink(&schedule, |schedule| {
        progress(false, &format!("{} steps", schedule.steps.len()));
        number(schedule) == wanted
    });
    progress(false, "");
    let to = file.with_extension("small.json");
    write(&to, &small.to_text())?;
    println!(
        "{} of {} steps are enough: simulate explain {}",
        small.steps.len(),
        schedule.steps.len(),
        to.display()
    );
    Ok(false)
}

fn save(folder: &Path, schedule: &Schedule) -> Result<PathBuf, String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let profile = match schedule.profile {
        Profile::Wire => "",
        Profile::Message => "message-",
    };
    let name = format!(
        "{}-{profile}{}-{}.json",
        schedule.scenario, schedule.nodes, schedule.seed
    );
    let file = folder.join(name);
    write(&file, &schedule.to_text())?;
    Ok(file)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

fn load(file: &Path) -> Result<Schedule, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Schedule::read(&text).map_err(|e| format!("{}: {e}", file.display()))
}
