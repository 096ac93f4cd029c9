//! The servers, one worker each, at ports of one host's loopback address. Knot is
//! the upstream of all that forward.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use innermesh_tests::{Agent, Host, Lab, Process, wait_for};

use super::{cpu_s, resident_kib};

const INNERMESH: u16 = 5300;
const KNOT: u16 = 5301;
const NSD: u16 = 5302;
const DNSMASQ: u16 = 5303;
const UNBOUND: u16 = 5304;
/// Its ports of DNS over TLS and HTTPS.
const UNBOUND_TLS: u16 = 5305;
const UNBOUND_HTTPS: u16 = 5306;
const TLS: u16 = 853;
const HTTPS: u16 = 8443;
/// Names outside of the mesh.
const OUTSIDE: usize = 1000;

/// All of them.
pub struct Servers<'lab> {
    agent: Agent<'lab>,
    all: Vec<Server>,
    others: Vec<Process>,
    /// Questions for names of the zone, as dnsperf reads them.
    pub own_names: PathBuf,
    /// The same for names outside.
    pub outside_names: PathBuf,
}

/// One that is asked.
pub struct Server {
    pub name: String,
    pub at: SocketAddr,
    /// Ports of DNS over TLS and HTTPS, of those that have them.
    encrypted: Option<[u16; 2]>,
    pid: u32,
}

impl Server {
    /// The port by a transport of dnsperf's.
    pub fn port(&self, transport: &str) -> u16 {
        match (transport, self.encrypted) {
            ("dot", Some([tls, _])) => tls,
            ("doh", Some([_, https])) => https,
            _ => self.at.port(),
        }
    }

    pub fn cpu_s(&self) -> Result<f64, String> {
        cpu_s(self.pid)
    }

    pub fn resident_kib(&self) -> u64 {
        resident_kib(self.pid)
    }
}

impl<'lab> Servers<'lab> {
    pub fn start(lab: &'lab Lab, services: usize) -> Result<Self, String> {
        let host = &lab.hosts[0];
        let config = format!(
            "[dns]\nlisten = [\"127.0.0.1:{INNERMESH}\"]\nupstream = [\"127.0.0.1:{KNOT}\"]\nmanage = \"off\"\nhttps = {HTTPS}\n"
        );
        let mut agent = Agent::with_config(host, "node0", &config);
        let _ = agent.init();
        for n in 0..services {
            let port = (8000 + n).to_string();
            let name = format!("s{n}");
            agent
                .cli(&["service", "add", &name, "--port", &port])
                .result()?;
        }
        let domain = agent.status()["domain"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let zone = host.directory.join("own.zone");
        let records = agent.cli(&["dns", "zone", "--zone", &domain]).result()?;
        fs::write(&zone, &records).map_err(|e| e.to_string())?;
        let outside = write_outside(host)?;
        let own_names = write_names(host, "own", &records)?;
        let text = fs::read_to_string(&outside).map_err(|e| e.to_string())?;
        let outside_names = write_names(host, "outside", &text)?;
        let pid = agent.process().ok_or("the agent doesn't run")?.id();
        let mut all = vec![Server {
            name: "innermesh".into(),
            at: agent.dns(),
            encrypted: Some([TLS, HTTPS]),
            pid,
        }];
        for port in [TLS, HTTPS] {
            let at = SocketAddr::new(agent.dns().ip(), port);
            wait_for("encrypted DNS", Duration::from_secs(60), || {
                host.tcp_to(at).map(drop).map_err(|e| e.to_string())
            });
        }
        let mut others = Vec::new();
        for (name, port, words) in [
            ("knot", KNOT, knot(host, &domain, &zone, &outside)?),
            ("nsd", NSD, nsd(host, &domain, &zone)?),
            ("dnsmasq", DNSMASQ, dnsmasq()),
            ("unbound", UNBOUND, unbound(host)?),
        ] {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let process = host.start(name, &words, &[]);
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let asked = if name == "nsd" {
                &own_names
            } else {
                &outside_names
            };
            until_answers(host, name, at, asked, &process);
            all.push(Server {
                name: name.into(),
                at,
                encrypted: (name == "unbound").then_some([UNBOUND_TLS, UNBOUND_HTTPS]),
                pid: worker(process.id()),
            });
            others.push(process);
        }
        Ok(Self {
            agent,
            all,
            others,
            own_names,
            outside_names,
        })
    }

    /// The processes that answer.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.all.iter().map(|server| server.pid)
    }

    pub fn named(&mut self, name: &str) -> Result<&mut Server, String> {
        // They run for as long as these are held.
        let _ = (&self.agent, &self.others);
        let found = self.all.iter_mut().find(|server| server.name == name);
        found.ok_or_else(|| format!("no server {name}"))
    }
}

/// The process that answers: NSD's is a child of its child.
fn worker(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let last = children
        .split_whitespace()
        .last()
        .and_then(|c| c.parse().ok());
    last.map_or(pid, worker)
}

fn until_answers(host: &Host, name: &str, at: SocketAddr, names: &Path, process: &Process) {
    let names = fs::read_to_string(names).unwrap_or_default();
    let asked = names
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    let socket: UdpSocket = host.udp_to(at).expect("a socket of a fresh host");
    let _ = socket.set_read_timeout(Some(Duration::from_millis(300)));
    wait_for(name, Duration::from_secs(20), || {
        match super::ask(&socket, 7, &asked) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}: {}", process.log())),
        }
    });
}

/// Questions for the addresses in a zone.
fn write_names(host: &Host, name: &str, zone: &str) -> Result<PathBuf, String> {
    let mut names = String::new();
    for line in zone.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [owner, .., rtype @ ("A" | "AAAA"), _] = *words
            && !owner.contains('*')
        {
            names.push_str(&format!("{owner} {rtype}\n"));
        }
    }
    let path = host.directory.join(format!("{name}.names"));
    fs::write(&path, names).map_err(|e| e.to_string())?;
    Ok(path)
}

fn write_outside(host: &Host) -> Result<PathBuf, String> {
    let mut zone = String::from(
        "example.net. 3600 IN SOA ns.example.net. h.example.net. 1 3600 900 604800 300\n\
         example.net. 3600 IN NS ns.example.net.\n\
         ns.example.net. 3600 IN A 192.0.2.53\n\
         *.new.example.net. 3600 IN A 198.19.0.1\n",
    );
    for n in 0..OUTSIDE {
        let (high, low) = (n / 250, n % 250 + 1);
        zone.push_str(&format!(
            "www{n}.example.net. 3600 IN A 198.18.{high}.{low}\n"
        ));
    }
    let path = host.directory.join("outside.zone");
    fs::write(&path, zone).map_err(|e| e.to_string())?;
    Ok(path)
}

fn written(host: &Host, name: &str, text: &str) -> Result<String, String> {
    let path = host.directory.join(name);
    fs::write(&path, text).map_err(|e| e.to_string())?;
    Ok(path.display().to_string())
}

fn knot(host: &Host, domain: &str, zone: &Path, outside: &Path) -> Result<Vec<String>, String> {
    let run = host.directory.join("knot");
    fs::create_dir_all(&run).map_err(|e| e.to_string())?;
    let (run, zone, outside) = (run.display(), zone.display(), outside.display());
    let text = format!(
        "server:\n    listen: 127.0.0.1@{KNOT}\n    rundir: {run}\n    udp-workers: 1\n    \
         tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: {run}\nzone:\n  \
         - domain: {domain}\n    file: {zone}\n    zonefile-load: whole\n    zonefile-sync: -1\n    \
         journal-content: none\n  - domain: example.net\n    file: {outside}\n    \
         zonefile-load: whole\n    zonefile-sync: -1\n    journal-content: none\n"
    );
    let path = written(host, "knot.conf", &text)?;
    Ok(["/usr/sbin/knotd", "-c", &path].map(String::from).into())
}

fn nsd(host: &Host, domain: &str, zone: &Path) -> Result<Vec<String>, String> {
    let run = host.directory.display();
    let zone = zone.display();
    let text = format!(
        "server:\n  ip-address: 127.0.0.1@{NSD}\n  server-count: 1\n  username: \"\"\n  \
         chroot: \"\"\n  zonesdir: \"{run}\"\n  database: \"\"\n  pidfile: \"{run}/nsd.pid\"\n  \
         xfrdfile: \"{run}/nsd.xfrd\"\n  zonelistfile: \"{run}/nsd.zones\"\n  rrl-ratelimit: 0\n\
         remote-control:\n  control-enable: no\nzone:\n  name: {domain}\n  zonefile: \"{zone}\"\n"
    );
    let path = written(host, "nsd.conf", &text)?;
    Ok(["/usr/sbin/nsd", "-d", "-c", &path]
        .map(String::from)
        .into())
}

fn dnsmasq() -> Vec<String> {
    [
        "/usr/sbin/dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        "--bind-interfaces",
        "--listen-address=127.0.0.1",
        &format!("--port={DNSMASQ}"),
        &format!("--server=127.0.0.1#{KNOT}"),
        "--cache-size=10000",
        "--dns-forward-max=2000",
    ]
    .map(String::from)
    .into()
}

fn unbound(host: &Host) -> Result<Vec<String>, String> {
    let run = host.directory.display();
    // A key of the same kind as the agent's.
    let openssl = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
         -subj /CN=unbound -keyout {run}/unbound.key -out {run}/unbound.crt"
    );
    host.run(&["sh", "-euc", &openssl]).result()?;
    let text = format!(
        "server:\n  interface: 127.0.0.1@{UNBOUND}\n  interface: 127.0.0.1@{UNBOUND_TLS}\n  \
         interface: 127.0.0.1@{UNBOUND_HTTPS}\n  tls-port: {UNBOUND_TLS}\n  \
         https-port: {UNBOUND_HTTPS}\n  tls-service-key: \"{run}/unbound.key\"\n  \
         tls-service-pem: \"{run}/unbound.crt\"\n  do-daemonize: no\n  username: \"\"\n  \
         chroot: \"\"\n  directory: \"{run}\"\n  pidfile: \"\"\n  use-syslog: no\n  num-threads: 1\n  \
         module-config: \"iterator\"\n  do-not-query-localhost: no\n  msg-cache-size: 64m\n  \
         rrset-cache-size: 64m\n  access-control: 127.0.0.0/8 allow\nremote-control:\n  \
         control-enable: no\nforward-zone:\n  name: \".\"\n  forward-addr: 127.0.0.1@{KNOT}\n"
    );
    let path = written(host, "unbound.conf", &text)?;
    Ok(["/usr/sbin/unbound", "-d", "-c", &path]
        .map(String::from)
        .into())
}
