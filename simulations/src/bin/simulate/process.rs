//! Each run in a process of its own: what a library keeps for a whole process
//! can't make one run differ from another, and a run that brings its process
//! down is one failed run.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    num::NonZeroUsize,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use simulations::{outcome::Outcome, run::run, schedule::Schedule};

/// The argument that makes a process run the one schedule on its standard
/// input.
pub const ARGUMENT: &str = "run-one";

/// Does one run, here: the schedule is read from standard input, what came of
/// it is written to standard output.
///
/// # Errors
/// What is wrong with the input.
pub fn child(whole: bool) -> Result<(), String> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| format!("standard input: {e}"))?;
    let schedule = Schedule::read(&text).map_err(|e| e.to_string())?;
    let outcome = serde_json::to_string(&run(&schedule, whole)).expect("plain values");
    io::stdout()
        .write_all(outcome.as_bytes())
        .map_err(|e| format!("standard output: {e}"))
}

/// Runs `schedule` in a new process; `whole` keeps its whole trace.
///
/// # Errors
/// Why there is no outcome.
pub fn one(schedule: &Schedule, whole: bool) -> Result<Outcome, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT);
    if whole {
        command.arg("--whole");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("a process for a run: {e}"))?;
    let mut input = child.stdin.take().expect("it is piped");
    // A child that ends without reading says why by its exit.
    let _ = input.write_all(schedule.to_text().as_bytes());
    drop(input);
    let output = child
        .wait_with_output()
        .map_err(|e| format!("the process of a run: {e}"))?;
    if !output.status.success() {
        let words = format!("panic: the process of the run ended, {}", output.status);
        return Ok(Outcome::lost(schedule, words));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("what a run wrote: {e}"))
}

/// Runs all schedules, some at a time, and hands over what came of each in
/// their order, as long as `done` is true.
///
/// # Errors
/// The first that a run or `done` has.
pub fn all(
    schedules: &[Schedule],
    jobs: Option<NonZeroUsize>,
    whole: bool,
    mut done: impl FnMut(usize, Outcome) -> Result<bool, String>,
) -> Result<(), String> {
    let jobs = jobs
        .or_else(|| thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let (results, came) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.min(schedules.len()) {
            let results = results.clone();
            let next = &next;
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(schedule) = schedules.get(number) else {
                        return;
                    };
                    if results.send((number, one(schedule, whole))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut early = BTreeMap::new();
        for number in 0..schedules.len() {
            let outcome = loop {
                match early.remove(&number) {
                    Some(outcome) => break outcome,
                    None => {
                        let (other, outcome) = came.recv().map_err(|e| e.to_string())?;
                        early.insert(other, outcome);
                    }
                }
            };
            let go_on = outcome.and_then(|outcome| done(number, outcome));
            if !matches!(go_on, Ok(true)) {
                next.store(schedules.len(), Ordering::Relaxed);
                return go_on.map(|_| ());
            }
        }
        Ok(())
    })
}
