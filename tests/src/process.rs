//! Processes on a host of the laboratory: short ones, whose output is wanted,
//! and long ones, which end with their handle.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::wait_for;

/// How long a short command may take, in seconds.
const PATIENCE_S: u32 = 90;
/// Lines of a log that are shown when a test fails.
const SHOWN_LINES: usize = 80;

/// A short command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// The output of a command that succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// The output of a command that succeeded, as JSON.
    ///
    /// # Panics
    /// When it failed or wrote something else.
    #[must_use]
    pub fn json(self) -> Value {
        let what = self.to_string();
        serde_json::from_str(&self.ok()).unwrap_or_else(|e| panic!("not JSON: {e}: {what}"))
    }

    /// Whether it succeeded; otherwise all that it wrote.
    ///
    /// # Errors
    /// All that it wrote.
    pub fn result(self) -> Result<String, String> {
        if self.code == 0 {
            Ok(self.stdout)
        } else {
            Err(self.to_string())
        }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: exit {}\n{}{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

/// Runs `words` in the namespaces of process `namespace`, to the end.
///
/// # Panics
/// When it can't be started.
#[must_use]
pub fn run(namespace: u32, words: &[&str], environment: &[(&str, &str)]) -> Finished {
    run_for(PATIENCE_S, namespace, words, environment)
}

/// As [`run`], with `seconds` until it is ended by force.
///
/// # Panics
/// When it can't be started.
#[must_use]
pub fn run_for(
    seconds: u32,
    namespace: u32,
    words: &[&str],
    environment: &[(&str, &str)],
) -> Finished {
    let output: Output = Command::new("timeout")
        .args(["--kill-after=5", &seconds.to_string()])
        .args(enter(namespace))
        .args(words)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("timeout can be run");
    Finished {
        command: words.join(" "),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The words that put the command after them into the namespaces of `pid`.
/// No process stands in between: the command has the id that was started.
fn enter(pid: u32) -> [String; 5] {
    ["nsenter", "--net", "--mount", "--target", &pid.to_string()].map(String::from)
}

/// A long-running process. It is killed when this is dropped, and by the
/// kernel when the thread that started it ends; its log is shown when that
/// happens in a panic.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `words` in the namespaces of process `namespace` (or here),
    /// with both outputs appended to the file `log`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(
        name: &str,
        namespace: Option<u32>,
        words: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(pid) = namespace {
            command.args(enter(pid));
        }
        let child = command
            .args(words)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has in use, in KiB; 0 when it has ended.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok())
            .unwrap_or_default()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // It may end in between, which is what most signals are sent for.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When it doesn't `within` the time.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, within, || self.ended().ok_or("it still runs"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() && !log.is_empty() {
            let lines: Vec<_> = log.lines().collect();
            let shown = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!(
                "---- the end of the log of {}:\n{}",
                self.name,
                lines[shown..].join("\n")
            );
        }
    }
}
