//! A real agent on a host of the laboratory, driven by its command line.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Finished, Host, Process, wait_for};

/// The mesh domain of all tests.
pub const DOMAIN: &str = "lab.internal";
/// Where agents listen below the overlay.
pub const PORT: u16 = 51819;
/// How long anything that agents do together may take in a test. Builds and
/// other tests share the machine, so it is generous: a bound on speed belongs
/// into a benchmark.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One agent: its folder, and its process while it runs.
#[derive(Debug)]
pub struct Agent<'lab> {
    /// Where it runs.
    pub host: &'lab Host,
    /// Its node name.
    pub name: String,
    /// Its `--dir`.
    pub dir: PathBuf,
    environment: Vec<(String, String)>,
    /// Another program than [`program`].
    program: Option<PathBuf>,
    process: Option<Process>,
}

impl<'lab> Agent<'lab> {
    /// An agent that doesn't run yet and is in no mesh.
    #[must_use]
    pub fn new(host: &'lab Host, name: &str) -> Self {
        Self::with_config(host, name, "")
    }

    /// As [`Agent::new`], with a configuration file.
    ///
    /// # Panics
    /// When its folder can't be made.
    #[must_use]
    pub fn with_config(host: &'lab Host, name: &str, config: &str) -> Self {
        let dir = host.directory.join(name);
        fs::create_dir(&dir).expect("a folder of the laboratory");
        if !config.is_empty() {
            fs::write(dir.join("config.toml"), config).expect("a file of the laboratory");
        }
        Self {
            host,
            name: name.to_owned(),
            dir,
            environment: Vec::new(),
            program: None,
            process: None,
        }
    }

    /// The file of this name in its folder, or below.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        find(&self.dir, name)
    }

    /// Sets an environment variable for all that is run from now on.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.environment
            .push((variable.to_owned(), value.to_owned()));
    }

    /// Runs this program from now on, in place of the one under test; none for
    /// that again.
    pub fn use_program(&mut self, program: Option<&Path>) {
        self.program = program.map(Path::to_owned);
    }

    /// Runs a command of its command line, to the end.
    pub fn cli(&self, arguments: &[&str]) -> Finished {
        let words = self.words(arguments);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let finished = self.host.run_with(&words, &environment);
        assert!(!finished.stderr.contains("panicked at"), "{finished}");
        finished
    }

    /// Starts a command of its command line and waits for nothing.
    #[must_use]
    pub fn start_cli(&self, arguments: &[&str]) -> Process {
        let words = self.words(arguments);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.host
            .start(&format!("{}-cli", self.name), &words, &self.environment())
    }

    /// Runs a command with `--json` that has to succeed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.cli(&[arguments, &["--json"]].concat()).json()
    }

    /// Runs a command with `--json` that has to be taken, and isn't done yet.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[must_use]
    pub fn waits(&self, arguments: &[&str]) -> Value {
        const WAITING: i32 = 5;
        let finished = self.cli(&[arguments, &["--json"]].concat());
        assert_eq!(finished.code, WAITING, "{finished}");
        serde_json::from_str(&finished.stdout).expect("JSON")
    }

    /// Runs a command that has to be refused, with an error that says `phrase`.
    ///
    /// # Panics
    /// When it succeeds, ends otherwise, or says something else.
    pub fn refused(&self, arguments: &[&str], phrase: &str) {
        let finished = self.cli(arguments);
        assert!([1, 2].contains(&finished.code), "{finished}");
        assert!(
            finished
                .stderr
                .to_lowercase()
                .contains(&phrase.to_lowercase()),
            "expected {phrase:?}: {finished}"
        );
    }

    /// Starts a mesh with this node the first, and the agent; returns what
    /// `init` told.
    pub fn init(&mut self) -> Value {
        let name = self.name.clone();
        let told = self.json(&["init", "--domain", DOMAIN, "--name", &name, "--no-start"]);
        self.start();
        self.wait_nodes(1);
        told
    }

    /// Makes a token with the given further arguments.
    ///
    /// # Panics
    /// When it can't be had.
    #[must_use]
    pub fn invite(&self, arguments: &[&str]) -> String {
        let told = self.json(&[&["invite"], arguments].concat());
        told["token"].as_str().expect("a token").to_owned()
    }

    /// Joins the mesh of `seed` by a fresh token of it, and starts the agent.
    pub fn join(&mut self, seed: &Agent) {
        let token = seed.invite(&[]);
        self.join_with(seed, &token);
    }

    /// Joins the mesh of `seed` by `token`, and starts the agent.
    pub fn join_with(&mut self, seed: &Agent, token: &str) {
        let address = seed.address();
        let name = self.name.clone();
        let _ = self
            .cli(&[
                "join",
                &address,
                "--token",
                token,
                "--name",
                &name,
                "--no-start",
            ])
            .ok();
        self.start();
    }

    /// Where others reach it below the overlay.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.host.ipv4)
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        self.launch();
        let mut process = self.process.take().expect("it was started");
        wait_for(&format!("the agent {}", self.name), PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("the agent {} ended: {status}\n{}", self.name, process.log());
            }
            self.cli(&["status", "--json"]).result()
        });
        self.process = Some(process);
    }

    /// Where the agent takes requests of the command line.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// Starts the agent and waits for nothing.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let words = self.words(&["run"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        self.process = Some(self.host.start(&self.name, &words, &environment));
    }

    /// Ends the agent as an operator does, with SIGTERM.
    ///
    /// # Panics
    /// When it fails or doesn't end.
    pub fn stop(&mut self) {
        self.terminate();
        self.wait_stopped();
    }

    /// Tells the agent to stop, and doesn't wait until it has.
    ///
    /// # Panics
    /// When it doesn't run.
    pub fn terminate(&mut self) {
        let process = self.process.as_mut().expect("it runs");
        process.signal(Signal::SIGTERM);
    }

    /// Waits until the agent, told to stop, has ended.
    ///
    /// # Panics
    /// When it fails or doesn't end.
    pub fn wait_stopped(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let status = process.wait(Duration::from_secs(20));
        assert!(
            status.success(),
            "the agent {} ended with {status}",
            self.name
        );
    }

    /// Ends the agent at once, with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether its host gets an answer from an address.
    #[must_use]
    pub fn pings(&self, address: &str) -> bool {
        let ping = ["ping", "-c", "1", "-W", "1", address];
        self.host.run(&ping).result().is_ok()
    }

    /// The agent's process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// All that the agent wrote, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.host.directory.join(format!("{}.log", self.name));
        fs::read(log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    #[must_use]
    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// Where it answers DNS queries.
    ///
    /// # Panics
    /// When its status doesn't say.
    #[must_use]
    pub fn dns(&self) -> SocketAddr {
        let status = self.status();
        let address = status["dns"]["address"].as_str();
        address
            .and_then(|a| a.parse().ok())
            .unwrap_or_else(|| panic!("no DNS address: {status}"))
    }

    /// Waits until it knows this many live nodes, itself among them.
    pub fn wait_nodes(&self, nodes: usize) {
        wait_for(
            &format!("{nodes} live nodes at {}", self.name),
            PATIENCE,
            || {
                let finished = self.cli(&["status", "--json"]);
                let status: Value =
                    serde_json::from_str(&finished.result()?).map_err(|e| e.to_string())?;
                let live = status["nodes"].as_array().into_iter().flatten();
                let live = live.filter(|n| n["live"] == true).count();
                if live == nodes {
                    Ok(())
                } else {
                    Err(format!("{live} live: {status}"))
                }
            },
        );
    }

    /// What `dig +short` prints for a question to this agent from its host.
    pub fn dig(&self, question: &[&str]) -> Finished {
        self.dig_from(self.host, question)
    }

    /// As [`Agent::dig`], from another host.
    pub fn dig_from(&self, host: &Host, question: &[&str]) -> Finished {
        let server = self.dns();
        let (address, port) = (format!("@{}", server.ip()), server.port().to_string());
        let words = [
            "dig", "+short", "+tries=2", "+time=2", "-p", &port, &address,
        ];
        host.run(&[&words, question].concat())
    }

    /// Waits until this agent answers the question with exactly these lines,
    /// in any order.
    pub fn wait_answer(&self, question: &[&str], lines: &[&str]) {
        let mut expected: Vec<_> = lines.iter().map(|l| (*l).to_owned()).collect();
        expected.sort();
        let what = format!("{} at {}", question.join(" "), self.name);
        wait_for(&what, PATIENCE, || {
            let mut got: Vec<_> = self
                .dig(question)
                .result()?
                .lines()
                .map(str::to_owned)
                .collect();
            got.sort();
            if got == expected {
                Ok(())
            } else {
                Err(format!("{got:?}, not {expected:?}"))
            }
        });
    }

    /// The overlay IPv4 address of a node, as this agent's status tells it.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn overlay_ipv4(&self, node: &str) -> String {
        self.overlay(node, |a| !a.contains(':'))
    }

    /// The overlay IPv6 address of a node, as this agent's status tells it.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn overlay_ipv6(&self, node: &str) -> String {
        self.overlay(node, |a| a.contains(':'))
    }

    fn overlay(&self, node: &str, wanted: impl Fn(&str) -> bool) -> String {
        let status = self.status();
        let found = status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|n| n["name"] == node);
        let addresses = found.and_then(|n| n["addresses"].as_array());
        let address = addresses
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .find(|a| wanted(a));
        let address = address.unwrap_or_else(|| panic!("no address of {node}: {status}"));
        address.split('/').next().unwrap_or(address).to_owned()
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.environment
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect()
    }

    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let dir = self.dir.to_string_lossy().into_owned();
        let own = [
            self.program
                .as_deref()
                .unwrap_or_else(|| program())
                .to_string_lossy()
                .into_owned(),
            "--dir".into(),
            dir,
        ];
        own.into_iter()
            .chain(arguments.iter().map(|a| (*a).to_owned()))
            .collect()
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.process = None;
        if !std::thread::panicking() {
            let log = self.log();
            assert!(
                !log.contains("panicked at"),
                "the agent {} panicked:\n{log}",
                self.name
            );
        }
    }
}

/// The program under test: `INNERMESH_AGENT`, or `agent` of the build that
/// this test is of.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(path) = std::env::var_os("INNERMESH_AGENT") {
            let path = PathBuf::from(path);
            assert!(
                path.is_file(),
                "INNERMESH_AGENT is {}, which is no file",
                path.display()
            );
            return path;
        }
        let test = std::env::current_exe().expect("the test's own path");
        let found = test
            .ancestors()
            .skip(1)
            .take(2)
            .map(|f| f.join("agent"))
            .find(|p| p.is_file());
        found.unwrap_or_else(|| {
            panic!(
                "there is no agent beside {}: run `cargo build -p innermesh-agent`, \
                 or set INNERMESH_AGENT",
                test.display()
            )
        })
    });
    &PROGRAM
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if entry.file_name() == name {
            return Some(path);
        }
    }
    None
}
