//! BIND, Knot and NSD, with the lines that `agent dns secondary add` prints.

use std::{fs, path::Path, time::Duration};

use innermesh_tests::{Agent, Host, Process, agent::PATIENCE, wait::ensure, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How soon a change is at the secondaries. It takes a third of a second on a machine
/// that does nothing else.
pub const SOON: Duration = Duration::from_secs(5);

pub const SERVERS: [&str; 7] = [
    "dig",
    "kdig",
    "named",
    "knotd",
    "nsd",
    "nsd-control",
    "tsig-keygen",
];

/// What a secondary runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Bind,
    Knot,
    Nsd,
}

pub use Server::{Bind, Knot, Nsd};

impl Server {
    /// As `--print` and the fields of JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Bind => "bind",
            Knot => "knot",
            Nsd => "nsd",
        }
    }

    /// What stands in its configuration before the lines that are printed.
    fn head(self, host: &Host, folder: &Path) -> String {
        let (ip, dir) = (host.ipv4, folder.display());
        match self {
            Bind => format!(
                "options {{ directory \"{dir}\"; pid-file \"{dir}/named.pid\"; listen-on {{ {ip}; }};\n\
                 listen-on-v6 {{ none; }}; session-keyfile \"{dir}/session.key\"; recursion no;\n\
                 dnssec-validation no; notify no; }};\ncontrols {{ }};\n"
            ),
            Knot => format!(
                "server:\n    listen: {ip}@53\n    rundir: {dir}\ndatabase:\n    storage: {dir}\n\
                 log:\n  - target: stderr\n    any: info\n\
                 template:\n  - id: default\n    storage: {dir}\n"
            ),
            Nsd => format!(
                "server:\n  ip-address: {ip}\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n  \
                 zonesdir: \"{dir}\"\n  database: \"\"\n  pidfile: \"{dir}/nsd.pid\"\n  xfrdfile: \
                 \"{dir}/xfrd.state\"\n  xfrdir: \"{dir}\"\n  zonelistfile: \"{dir}/zone.list\"\n  \
                 rrl-ratelimit: 0\n  verbosity: 2\nremote-control:\n  control-enable: no\n"
            ),
        }
    }

    fn words(self, config: &str) -> Vec<&str> {
        match self {
            Bind => vec!["named", "-g", "-c", config],
            Knot => vec!["knotd", "-c", config],
            Nsd => vec!["nsd", "-d", "-c", config],
        }
    }
}

/// A secondary on a host of its own.
pub struct Secondary<'lab> {
    pub server: Server,
    pub host: &'lab Host,
    pub process: Option<Process>,
}

impl<'lab> Secondary<'lab> {
    pub fn new(server: Server, host: &'lab Host) -> Self {
        Self {
            server,
            host,
            process: None,
        }
    }

    /// Runs it with these lines.
    pub fn run(&mut self, lines: &str) {
        let folder = self.host.directory.join(self.server.name());
        fs::create_dir_all(&folder).expect("a folder");
        let config = folder.join("conf");
        fs::write(&config, self.server.head(self.host, &folder) + lines).expect("a file");
        self.start();
    }

    pub fn start(&mut self) {
        let config = self.host.directory.join(self.server.name()).join("conf");
        let config = config.to_string_lossy();
        let words = self.server.words(&config);
        let home = [("HOME", "/nonexistent")];
        self.process = Some(self.host.start(self.server.name(), &words, &home));
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM);
            let _ = process.wait(PATIENCE);
        }
    }

    pub fn address(&self) -> String {
        self.host.ipv4.to_string()
    }

    /// What it says, from its own host.
    pub fn dig(&self, question: &[&str]) -> String {
        let at = format!("@{}", self.host.ipv4);
        let words = ["dig", "+short", "+norec", "+tries=1", "+time=1", &at];
        self.host.run(&[&words, question].concat()).stdout
    }

    pub fn wait(&self, question: &[&str], part: &str, within: Duration) {
        let what = format!("{part} to {question:?} at {:?}", self.server);
        wait_for(&what, within, || {
            let told = self.dig(question);
            ensure(told.contains(part), told)
        });
    }

    pub fn serial(&self, zone: &str) -> Option<u32> {
        let told = self.dig(&[zone, "SOA"]);
        told.split_whitespace().nth(2)?.parse().ok()
    }
}

/// Adds it, and gives the whole answer.
pub fn add(agent: &Agent, name: &str, address: &str, more: &[&str]) -> Value {
    let words = ["dns", "secondary", "add", name, "--address", address];
    agent.json(&[&words, more].concat())
}

pub fn lines(added: &Value, server: Server) -> String {
    added[server.name()].as_str().expect("lines").to_owned()
}

pub fn secret(added: &Value) -> (String, String) {
    let text = |field: &str| added["key"][field].as_str().expect("a text").to_owned();
    (text("name"), text("secret"))
}

/// A row of `agent dns secondary list` for a zone.
pub fn listed(agent: &Agent, name: &str, zone: &str) -> Value {
    let rows = agent.json(&["dns", "secondary", "list"]);
    let row = rows.as_array().into_iter().flatten();
    let row = row.clone().find(|row| row["name"] == name);
    let zones = row.map(|row| row["zones"].clone()).unwrap_or_default();
    let mut zones = zones.as_array().cloned().unwrap_or_default().into_iter();
    zones.find(|row| row["zone"] == zone).unwrap_or_default()
}

/// Has it announce so many services, as files of the configuration.
pub fn services(agent: &Agent, from: usize, count: usize) {
    let folder = agent.dir.join("services.d");
    fs::create_dir_all(&folder).expect("a folder");
    for n in from..from + count {
        let text = format!("name = \"s{n}\"\nport = {}\n", 1000 + n);
        fs::write(folder.join(format!("s{n}.toml")), text).expect("a file");
    }
}
