//! What secondaries have, and how soon.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, dns, installed, wait::ensure, wait_for};

use crate::servers::{Bind, Knot, Nsd, SERVERS, SOON, Secondary, add, lines, services};

#[test]
fn bind_knot_and_nsd_copy_five_thousand_records_and_follow_each_change_at_once() {
    if !installed(&SERVERS) {
        return;
    }
    let Some(lab) = Lab::new(6) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let mut gamma = Agent::new(&lab.hosts[2], "gamma");
    services(&beta, 0, 900);
    services(&gamma, 900, 900);
    alpha.init();
    beta.join(&alpha);
    gamma.join(&alpha);
    alpha.wait_nodes(3);
    let zone = || alpha.cli(&["dns", "zone", "--zone", "lab.internal"]).ok();
    wait_for("5,000 records", PATIENCE, || {
        let lines = zone().lines().count();
        ensure(lines >= 5_000, format!("{lines} records"))
    });
    let mut secondaries: Vec<Secondary> = [Bind, Knot, Nsd]
        .into_iter()
        .zip(&lab.hosts[3..])
        .map(|(server, host)| Secondary::new(server, host))
        .collect();
    for secondary in &mut secondaries {
        let name = secondary.server.name();
        let added = add(&alpha, name, &secondary.address(), &[]);
        secondary.run(&lines(&added, secondary.server));
    }
    for secondary in &secondaries {
        secondary.wait(
            &["beta.lab.internal"],
            &alpha.overlay_ipv4("beta"),
            PATIENCE,
        );
        let own = alpha.overlay_ipv4("alpha");
        secondary.wait(&["-x", &own], "alpha.lab.internal.", PATIENCE);
    }
    let watched = Watched::new(&alpha, &secondaries);
    // A change is there in a moment, and nothing but the change was sent.
    for round in 0..3 {
        let (name, value) = (format!("r{round}.lab.internal"), format!("192.0.2.{round}"));
        let _ = alpha
            .cli(&["record", "add", &format!("r{round}"), "A", &value])
            .ok();
        let after = watched.until_all_have(&name, &value);
        eprintln!("change {round} is there after {after:?}");
    }
    // So are several, one right after the other.
    let changes = 3..6;
    for round in changes.clone() {
        let (name, value) = (format!("r{round}"), format!("192.0.2.{round}"));
        let _ = alpha.cli(&["record", "add", &name, "A", &value]).ok();
    }
    for round in changes {
        let (name, value) = (format!("r{round}.lab.internal"), format!("192.0.2.{round}"));
        let after = watched.until_all_have(&name, &value);
        eprintln!("of three in a row {round} is there after {after:?} more");
    }
    // NSD 4.6 fetches all of a zone again that changes while it loads a change.
    let log = alpha.log();
    for server in ["bind", "knot"] {
        let count = |kind: &str| {
            let kind = format!("kind=\"{kind}\"");
            let lines = log
                .lines()
                .filter(|line| line.contains("zone=lab.internal. "));
            let lines = lines.filter(|line| line.contains(&format!("secondary={server} ")));
            lines.filter(|line| line.contains(&kind)).count()
        };
        let (whole, changes) = (count("AXFR"), count("IXFR"));
        assert!(whole == 1 && changes >= 3, "{server}: {whole}, {changes}");
    }
    // What they have is what the agent prints.
    let knot = &secondaries[1];
    let file = knot.host.directory.join("knot");
    let text = fs::read_to_string(file.join("conf")).expect("its lines");
    let mut lines = text.lines().map(str::trim);
    let secret = lines.find_map(|line| line.strip_prefix("secret: "));
    let secret = secret.expect("a secret");
    let key = format!("hmac-sha256:knot.lab.internal:{secret}");
    wait_for("what is printed", PATIENCE, || {
        let (copied, printed) = (sorted(&kdig(knot.host, &alpha, &key)), sorted(&zone()));
        let differ = copied
            .iter()
            .zip(&printed)
            .find(|(one, other)| one != other);
        let told = format!("{} and {}: {differ:?}", copied.len(), printed.len());
        ensure(copied == printed, told)
    });
    let _ = alpha.cli(&["record", "rm", "r0", "A"]).ok();
    for secondary in &secondaries {
        wait_for("its end", SOON, || {
            let told = secondary.dig(&["r0.lab.internal"]);
            ensure(told.is_empty(), told)
        });
    }
}

/// The agent and its secondaries, to be asked without starting a process.
struct Watched(Vec<(String, UdpSocket)>);

impl Watched {
    fn new(agent: &Agent, secondaries: &[Secondary]) -> Self {
        let place = |secondary: &Secondary| {
            let name = secondary.server.name().to_owned();
            (name, SocketAddr::from((secondary.host.ipv4, 53)))
        };
        let own = ("the agent".to_owned(), agent.dns());
        let places = secondaries.iter().map(place).chain([own]);
        let sockets = places.map(|(who, at)| {
            let socket = agent.host.udp_to(at).expect("a socket");
            let patience = Some(Duration::from_millis(20));
            socket.set_read_timeout(patience).expect("a timeout");
            (who, socket)
        });
        Self(sockets.collect())
    }

    /// Waits until all have an address of a name; gives how long after now each had it.
    fn until_all_have(&self, name: &str, address: &str) -> BTreeMap<&str, Duration> {
        let began = Instant::now();
        let address: Ipv4Addr = address.parse().expect("an address");
        let has_it = |socket: &UdpSocket| {
            let _ = socket.send(&dns::query(7, name));
            let mut reply = [0; 1500];
            let length = socket.recv(&mut reply).ok()?;
            let answer = dns::parse(&reply[..length])?;
            answer.addresses.contains(&address).then_some(())
        };
        let mut after = BTreeMap::new();
        while after.len() < self.0.len() {
            for (who, socket) in &self.0 {
                if !after.contains_key(who.as_str()) && has_it(socket).is_some() {
                    after.insert(who.as_str(), began.elapsed());
                }
            }
            assert!(began.elapsed() < SOON, "{name} is at {after:?} alone");
            // They have other work as well.
            thread::sleep(Duration::from_millis(2));
        }
        after
    }
}

/// The records of the mesh's domain by a transfer with that key.
fn kdig(host: &Host, agent: &Agent, key: &str) -> String {
    let at = format!("@{}", agent.host.ipv4);
    let words = [
        "kdig",
        &at,
        "-y",
        key,
        "lab.internal",
        "AXFR",
        "+noall",
        "+answer",
    ];
    host.run(&words).ok()
}

/// Owner, type and data of each record, but for the SOA.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty() && !line.contains("SOA"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}
