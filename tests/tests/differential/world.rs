//! An agent whose zones have something of everything, and Knot and NSD beside it on the
//! same host with what `agent dns zone` writes.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use innermesh_tests::{Agent, Host, Process, agent::PATIENCE, wait::ensure, wait_for};

use crate::question::Places;

const KNOT: u16 = 5301;
const NSD: u16 = 5302;
/// Other names are nobody's here: the agent refuses them as the others do.
const CONFIG: &str = "[dns]\nanswer = \"mesh\"\nmanage = \"off\"\n";
const RECORDS: [&[&str]; 35] = [
    &["tv", "A", "198.51.100.9"],
    &["tv", "A", "198.51.100.10"],
    &["tv", "AAAA", "2001:db8:9::9"],
    &["tv", "TXT", r#""one" "two \"x\"" \195\188"#],
    &["tv", "CAA", "128", "issue", "ca.example.org"],
    &["box", "CNAME", "tv", "--ttl", "1h"],
    &["twice", "CNAME", "box"],
    &["www", "CNAME", "site.example.org"],
    &["none", "CNAME", "no-such"],
    &["nodata", "CNAME", "mail"],
    &["to-wild", "CNAME", "x.y.lamps.lab.internal"],
    &["round", "CNAME", "about"],
    &["about", "CNAME", "round"],
    &["_sip._udp", "SRV", "1", "2", "5060", "tv"],
    &["_sip._udp", "SRV", "2", "2", "5060", "alpha"],
    &["@", "MX", "10", "mail.example.org"],
    &["@", "CAA", "0", "issue", "ca.example.org"],
    &["mail", "MX", "10", "tv"],
    &["mail", "MX", "20", "alpha"],
    &["*.lamps", "A", "198.51.100.10"],
    &["*.lamps", "TXT", "wild"],
    &["*.lamps", "MX", "5", "tv"],
    &["below.lamps", "TXT", "here"],
    &["*.alias", "CNAME", "tv"],
    &["a.b.c.deep.lab.internal", "TXT", "deep"],
    &["site", "HTTPS", "1 . alpn=h2 port=8443"],
    &["site", "A", "192.0.2.9"],
    &["_8443._https.site", "HTTPS", "0 site"],
    &["_dns.ns2", "SVCB", "1", "site", "alpn=dot"],
    &["to-nobody", "SVCB", "2", "no-such", "alpn=doq"],
    &["tv", "SSHFP", "4", "2", SHA_256],
    &["tv", "SSHFP", "1", "1", SHA_1],
    &["*.lamps", "SSHFP", "4", "2", SHA_256],
    &["_443._tcp.tv", "TLSA", "3", "1", "1", SHA_256],
    &["_25._tcp.mail", "TLSA", "2", "0", "1", SHA_256],
];
const SHA_1: &str = "00112233445566778899aabbccddeeff00112233";
const SHA_256: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const SERVICES: [&[&str]; 2] = [
    &["web", "--port", "80"],
    &["time", "--port", "123", "--proto", "udp"],
];
/// Answers that are too long for UDP, or for some who ask by it.
const TEXTS: usize = 8;
const ADDRESSES: usize = 30;

pub struct World<'lab> {
    pub host: &'lab Host,
    agent: Agent<'lab>,
    pub places: Places,
    /// The agent, Knot and NSD.
    pub servers: [SocketAddr; 3],
    zones: Vec<Zone>,
    _beside: [Process; 2],
}

struct Zone {
    origin: String,
    file: PathBuf,
}

impl<'lab> World<'lab> {
    pub fn start(host: &'lab Host) -> Self {
        let mut agent = Agent::with_config(host, "alpha", CONFIG);
        agent.init();
        for service in SERVICES {
            let _ = agent.cli(&[&["service", "add"], service].concat()).ok();
        }
        for record in RECORDS {
            let _ = agent.cli(&[&["record", "add"], record].concat()).ok();
        }
        for n in 0..TEXTS {
            let text = format!("{n}{}", "x".repeat(200));
            let _ = agent.cli(&["record", "add", "long", "TXT", &text]).ok();
        }
        for n in 0..ADDRESSES {
            let address = format!("198.51.101.{n}");
            let _ = agent.cli(&["record", "add", "many", "A", &address]).ok();
        }
        for name in ["web", "time"] {
            agent.wait_answer(
                &[&format!("{name}.lab.internal")],
                &[&agent.overlay_ipv4("alpha")],
            );
        }
        let zones = export(&agent);
        let own = |address: &str| format!("{}.", reversed(address));
        let places = Places {
            v4: zones[1].origin.clone(),
            v6: zones[2].origin.clone(),
            own_v4: own(&agent.overlay_ipv4("alpha")),
            own_v6: own(&agent.overlay_ipv6("alpha")),
        };
        let knot = knot(host, &zones);
        let nsd = nsd(host, &zones);
        let servers = [agent.dns(), loopback(KNOT), loopback(NSD)];
        for (zone, server) in zones.iter().flat_map(|zone| servers.map(|at| (zone, at))) {
            let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
            let words = ["kdig", "+norec", "-p", &port, &at, &zone.origin, "SOA"];
            wait_for("all zones", PATIENCE, || {
                let told = host.run(&words);
                ensure(told.stdout.contains("hostmaster"), told)
            });
        }
        Self {
            host,
            agent,
            places,
            servers,
            zones,
            _beside: [knot, nsd],
        }
    }

    /// Each name that has records.
    pub fn owners(&self) -> BTreeSet<String> {
        let zones = self.zones.iter().map(|zone| {
            let text = fs::read_to_string(&zone.file).expect("a zone");
            let owner = |line: &str| Some(line.split_whitespace().next()?.to_owned());
            text.lines().filter_map(owner).collect::<Vec<_>>()
        });
        zones.flatten().collect()
    }

    /// That the agent's zones are still those that the others have.
    pub fn assert_unchanged(&self) {
        for zone in &self.zones {
            let before = fs::read_to_string(&zone.file).expect("a zone");
            let now = self
                .agent
                .cli(&["dns", "zone", "--zone", &zone.origin])
                .ok();
            // The serial is another whenever the zone is made anew.
            let records = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| !line.contains(" SOA "));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(records(&before), records(&now));
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn export(agent: &Agent) -> Vec<Zone> {
    let folder = agent.host.directory.join("zones");
    let written = agent.json(&["dns", "zone", "--out", &folder.to_string_lossy()]);
    let written = written.as_array().expect("a list").iter();
    let zones: Vec<Zone> = written
        .map(|zone| Zone {
            origin: zone["zone"].as_str().expect("a name").to_owned(),
            file: zone["file"].as_str().expect("a file").into(),
        })
        .collect();
    assert_eq!(zones.len(), 3);
    zones
}

/// An address's name in the reverse tree (RFC 1035 §3.5, RFC 3596 §2.5).
fn reversed(address: &str) -> String {
    innermesh_proto::zone::DomainName::reverse(address.parse().expect("an address"))
        .to_string()
        .trim_end_matches('.')
        .to_owned()
}

fn start(host: &Host, name: &str, config: &str, words: &[&str]) -> Process {
    let path = folder(host, name).join("conf");
    fs::write(&path, config).expect("a file");
    let path = path.to_string_lossy();
    let home = [("HOME", "/nonexistent")];
    host.start(name, &[words, &[&path]].concat(), &home)
}

fn folder(host: &Host, name: &str) -> PathBuf {
    let folder = host.directory.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn each(zones: &[Zone], line: impl Fn(&str, &Path) -> String) -> String {
    let lines = zones.iter().map(|zone| line(&zone.origin, &zone.file));
    lines.collect()
}

fn knot(host: &Host, zones: &[Zone]) -> Process {
    let run = folder(host, "knot");
    let run = run.display();
    let head = format!(
        "server:\n    listen: 127.0.0.1@{KNOT}\n    rundir: {run}\n    udp-workers: 1\n    \
         tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: {run}\nzone:\n"
    );
    let zones = each(zones, |origin, file| {
        format!(
            "  - domain: {origin}\n    file: {}\n    zonefile-load: whole\n    \
             zonefile-sync: -1\n    journal-content: none\n",
            file.display()
        )
    });
    start(host, "knot", &(head + &zones), &["knotd", "-c"])
}

fn nsd(host: &Host, zones: &[Zone]) -> Process {
    let run = folder(host, "nsd");
    let run = run.display();
    // As Knot does it: what isn't asked for isn't added. Cookies as the agent has them.
    let head = format!(
        "server:\n  ip-address: 127.0.0.1@{NSD}\n  server-count: 1\n  username: \"\"\n  \
         chroot: \"\"\n  zonesdir: \"{run}\"\n  database: \"\"\n  pidfile: \"{run}/nsd.pid\"\n  \
         xfrdfile: \"{run}/nsd.xfrd\"\n  xfrdir: \"{run}\"\n  zonelistfile: \"{run}/nsd.zones\"\n  \
         rrl-ratelimit: 0\n  minimal-responses: yes\n  answer-cookie: yes\nremote-control:\n  \
         control-enable: no\n"
    );
    let zones = each(zones, |origin, file| {
        format!(
            "zone:\n  name: {origin}\n  zonefile: \"{}\"\n",
            file.display()
        )
    });
    start(host, "nsd", &(head + &zones), &["nsd", "-d", "-c"])
}
