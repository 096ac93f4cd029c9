//! The policy: who may reach what, on hosts with packets. What changes is in force
//! at once, for open connections too, and what is refused changes nothing.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

/// How soon what is no longer allowed is cut off, with the machine's load.
const CUT: Duration = Duration::from_secs(2);
const KEPT: u16 = 9001;
const LOST: u16 = 9002;
const COUNTED: u16 = 9003;

fn address(agent: &Agent, node: &str, v4: bool) -> IpAddr {
    let text = if v4 {
        agent.overlay_ipv4(node)
    } else {
        agent.overlay_ipv6(node)
    };
    text.parse().expect("an address")
}

/// Answers each line with itself.
fn echo(host: &Host, port: u16) {
    let listener = host.listen(([0u16; 8], port).into()).expect("a port");
    thread::spawn(move || serve(&listener));
}

fn serve(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(count) = stream.read(&mut bytes) {
                if count == 0 || stream.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        });
    }
}

fn connect(host: &Host, to: SocketAddr) -> TcpStream {
    let mut opened = None;
    wait_for(&format!("{to} to be reached"), PATIENCE, || {
        opened = Some(host.tcp_to(to).map_err(|error| error.to_string())?);
        Ok::<(), String>(())
    });
    let stream = opened.expect("it is open");
    stream.set_read_timeout(Some(CUT)).expect("a limit");
    stream
}

/// Whether what is written comes back.
fn answers(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut bytes).is_ok()
}

fn write_policy(agent: &Agent, text: &str) -> String {
    let path = agent.host.directory.join("policy.toml");
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

fn set(agent: &Agent, text: &str) -> Value {
    let file = write_policy(agent, text);
    agent.json(&["policy", "set", &file])
}

/// Waits until a node enforces the policy with this number.
fn follows(agent: &Agent, number: u64) {
    wait_for(&format!("policy {number}"), PATIENCE, || {
        let shown = agent.json(&["policy", "show"]);
        ensure(shown["enforced"] == number, shown.to_string())
    });
}

/// Waits until a node's ruleset has this.
fn enforces(agent: &Agent, words: &str) {
    let command = ["nft", "list", "table", "inet", "innermesh"];
    wait_for(&format!("{words} in the ruleset"), PATIENCE, || {
        let listed = agent.host.run(&command).stdout;
        ensure(listed.contains(words), listed)
    });
}

/// Rules that no policy changes, with the numbers that they got when they were written.
fn handles(agent: &Agent) -> String {
    let command = ["nft", "-a", "list", "chain", "inet", "innermesh", "tunnel"];
    agent
        .host
        .run(&command)
        .result()
        .expect("a chain")
        .to_owned()
}

fn dropped(agent: &Agent) -> u64 {
    let status = agent.status();
    let packets = status["overlay"]["dropped"]["not_allowed"].as_u64();
    packets.unwrap_or_else(|| panic!("no counter: {status}"))
}

const CLOSED: &str = "[default]\nmembers = \"closed\"\n";

/// Numbered datagrams from one host to another, 500 in a second.
struct Stream {
    ends: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<BTreeSet<u32>>,
}

impl Stream {
    fn start(from: &Host, to: &Host, address: SocketAddr) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let receiver = to.udp(([0u16; 8], address.port()).into()).expect("a port");
        let sender = from.udp_to(address).expect("a socket");
        Self {
            receiver: thread::spawn({
                let ends = ends.clone();
                move || receive(&receiver, &ends)
            }),
            sender: thread::spawn({
                let ends = ends.clone();
                move || send(&sender, &ends)
            }),
            ends,
        }
    }

    /// When each was sent, and the numbers of those that have arrived.
    fn end(self) -> (Vec<Instant>, BTreeSet<u32>) {
        self.ends.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("it ends");
        (sent, self.receiver.join().expect("it ends"))
    }
}

/// When each was sent.
fn send(socket: &UdpSocket, ends: &AtomicBool) -> Vec<Instant> {
    let mut sent = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let number = u32::try_from(sent.len()).expect("not that many");
        // Also where the kernel refuses it: that is a lost one.
        sent.push(Instant::now());
        let _ = socket.send(&number.to_be_bytes());
        thread::sleep(Duration::from_millis(2));
    }
    sent
}

/// Until half a second has passed without any, once there are no more.
fn receive(socket: &UdpSocket, ends: &AtomicBool) -> BTreeSet<u32> {
    let pause = Some(Duration::from_millis(500));
    socket.set_read_timeout(pause).expect("a limit");
    let mut received = BTreeSet::new();
    let mut bytes = [0; 4];
    loop {
        match socket.recv(&mut bytes) {
            Ok(_) => {
                received.insert(u32::from_be_bytes(bytes));
            }
            Err(_) if ends.load(Ordering::Relaxed) => return received,
            Err(_) => {}
        }
    }
}

#[test]
fn a_changed_policy_cuts_open_connections_and_keeps_others_without_a_lost_packet() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, gamma] = lab.mesh();
    for port in [KEPT, LOST] {
        echo(beta.host, port);
    }
    let families = [true, false];
    let to = |v4: bool, port: u16| SocketAddr::new(address(&beta, "beta", v4), port);
    let open = |port: u16| families.map(|v4| connect(gamma.host, to(v4, port)));
    let (mut kept, mut lost) = (open(KEPT), open(LOST));
    assert!(kept.iter_mut().chain(&mut lost).all(answers));
    assert_eq!(alpha.json(&["policy", "show"])["number"], 0);

    let stream = Stream::start(gamma.host, beta.host, to(true, COUNTED));
    let allow =
        |ports: &str| format!("{CLOSED}[[allow]]\nfrom = [\"gamma\"]\nto = [\"beta:{ports}\"]\n");
    assert_eq!(set(&alpha, &allow("9001,udp/9003"))["number"], 1);
    follows(&beta, 1);
    let begun = Instant::now();
    let mut changes = Vec::new();
    // What was sent before it was cut may be answered once more.
    for stream in &mut lost {
        while answers(stream) {
            assert!(begun.elapsed() < CUT, "it goes on");
        }
    }
    assert!(kept.iter_mut().all(answers));
    let new = gamma.host.run(&[
        "timeout",
        "2",
        "bash",
        "-c",
        "exec 3<>/dev/tcp/$0/$1",
        &address(&beta, "beta", true).to_string(),
        &LOST.to_string(),
    ]);
    assert_eq!(new.code, 124, "{new}");
    assert!(dropped(&beta) > 0);
    // Echo requests pass where anything does, and there alone.
    let beta_ipv4 = address(&beta, "beta", true).to_string();
    let ping = |from: &Agent, to: &str| from.host.run(&["ping", "-c", "1", "-W", "2", to]).code;
    assert_eq!(ping(&gamma, &beta_ipv4), 0);
    assert_ne!(ping(&alpha, &beta_ipv4), 0);
    // What beta itself begins is for gamma to judge, and the answers come back.
    assert_ne!(ping(&beta, &address(&beta, "gamma", true).to_string()), 0);

    // Other rules around it, and its own by another name.
    let more = format!(
        "{}[[allow]]\nfrom = [\"alpha\"]\nto = [\"beta:22\"]\n",
        allow("9001,udp/9003")
    );
    assert_eq!(set(&alpha, &more)["number"], 2);
    follows(&beta, 2);
    changes.push(begun.elapsed());
    enforces(&beta, "22 : \"allow_");
    let before = handles(&beta);
    assert_eq!(set(&alpha, &allow("9001-9003"))["number"], 3);
    follows(&beta, 3);
    enforces(&beta, "9001-9003 : \"allow_");
    assert_eq!(
        handles(&beta),
        before,
        "what hadn't changed was written again"
    );
    changes.push(begun.elapsed());
    assert!(kept.iter_mut().all(answers));
    let (sent, received) = stream.end();
    assert!(sent.len() > 100);
    let lost: Vec<(usize, Duration)> = (0..sent.len())
        .filter(|number| !received.contains(&(*number as u32)))
        .map(|number| (number, sent[number] - begun))
        .collect();
    assert!(
        lost.is_empty(),
        "packets of an allowed flow were lost: {lost:?}, changes at {changes:?}"
    );

    // Without a policy all of it is as before.
    assert_eq!(set(&alpha, "")["number"], 4);
    follows(&beta, 4);
    let _ = connect(gamma.host, to(true, LOST));
    assert_eq!(ping(&alpha, &beta_ipv4), 0);
}

#[test]
fn a_policy_that_is_refused_changes_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let good = "[groups]\nfriends = [\"beta\"]\n[[allow]]\nfrom = [\"group:friends\"]\nto = [\"alpha:22\"]\n";
    let told = set(&alpha, good);
    assert_eq!(told["number"], 1);
    // Members are open: the rule says nothing more.
    assert!(
        told["notes"][0]
            .as_str()
            .unwrap_or_default()
            .contains("line 3: rule 1"),
        "{told}"
    );
    let failing = format!(
        "{CLOSED}{good}[[expect]]\nfrom = \"beta\"\nto = \"alpha:23\"\nresult = \"allow\"\n"
    );
    let rules = format!("allow = [{}]", "{from=[],to=[]},".repeat(10_000));
    for (text, phrase) in [
        (
            "[groups]\na = [\"group:b\"]\nb = [\"group:a\"]\n",
            "the group a contains itself: a → b → a",
        ),
        (
            "[[allow]]\nfrom = [\"beat\"]\nto = [\"alpha\"]\n",
            "line 1: no node, device or service is called beat; did you mean beta?",
        ),
        (
            "[[allow]]\nfrom = [\"group:friend\"]\nto = [\"alpha\"]\n",
            "line 2: there is no group friend",
        ),
        ("[[alow]]\n", "did you mean allow?"),
        (
            &failing,
            "line 8: the test fails: beta to alpha:tcp/23,udp/23 is not allowed",
        ),
        (&rules, "at most 2048 rules, and this has 10000"),
    ] {
        let file = write_policy(&alpha, text);
        alpha.refused(&["policy", "set", &file], phrase);
        alpha.refused(&["policy", "check", &file], phrase);
    }
    let large = write_policy(&alpha, &"#".repeat(300_000));
    alpha.refused(&["policy", "set", &large], "more than 262144 bytes");
    let file = write_policy(&beta, CLOSED);
    beta.refused(&["policy", "set", &file], "not an admin");
    assert_eq!(beta.cli(&["policy", "show"]).ok(), good);

    // A whole one, of as many bytes as it may have.
    let most = format!("{good}#{}", "x".repeat(262_144 - good.len() - 1));
    assert_eq!(set(&alpha, &most)["number"], 2);
    follows(&beta, 2);
    let log = alpha.cli(&["ca", "log"]).ok();
    assert!(
        log.contains("alpha set the policy, with one rule and 0 tests"),
        "{log}"
    );
}

#[test]
fn a_policy_is_edited_explained_and_outlives_restarts() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.mesh();
    let script = alpha.host.directory.join("edit");
    std::fs::write(
        &script,
        "#!/bin/sh\nprintf '[default]\\nmembers = \"closed\"\\n[[allow]]\\nfrom = [\"beta\"]\\nto = [\"alpha:22\"]\\n' >\"$1\"\n",
    )
    .expect("a script");
    alpha.set("EDITOR", &format!("sh {}", script.display()));
    alpha.refused(&["policy", "edit"], "policy edit --yes`");
    let told = alpha.cli(&["policy", "edit", "--yes"]).ok();
    assert_eq!(told, "policy 1 is in force\n");
    alpha.set("EDITOR", "true");
    let unchanged = alpha.cli(&["policy", "edit", "--yes"]);
    assert!(
        unchanged.stderr.contains("nothing was changed"),
        "{unchanged}"
    );
    alpha.set("EDITOR", "false");
    alpha.refused(
        &["policy", "edit", "--yes"],
        "the editor `false` ended with",
    );

    for agent in [&alpha, &beta] {
        follows(agent, 1);
    }
    let alpha_ipv4 = address(&beta, "alpha", true).to_string();
    let explained = |agent: &Agent, from: &str, to: &str| {
        agent.json(&["policy", "explain", from, to])["pairs"][0].clone()
    };
    assert!(
        beta.host
            .run(&["ping", "-c", "3", "-i", "0.2", &alpha_ipv4])
            .code
            == 0
    );
    let pair = explained(&alpha, "beta", "alpha:tcp/22");
    assert_eq!(pair["allowed"], true, "{pair}");
    assert_eq!(pair["by"], "rule 1 (line 3)");
    assert_eq!(pair["enforced_on"], serde_json::json!(["alpha"]));
    assert!(pair["packets"].as_u64() >= Some(3), "{pair}");
    let pair = explained(
        &beta,
        &address(&beta, "beta", true).to_string(),
        &format!("{alpha_ipv4}:tcp/23"),
    );
    assert_eq!(pair["allowed"], false, "{pair}");
    assert_eq!(pair["packets"], Value::Null);
    alpha.refused(
        &["policy", "explain", "btea", "alpha:22"],
        "did you mean beta?",
    );

    for agent in [&mut alpha, &mut beta] {
        agent.stop();
        agent.start();
    }
    beta.wait_nodes(2);
    wait_for("the rule to count again", PATIENCE, || {
        let pinged = beta.host.run(&["ping", "-c", "1", "-W", "1", &alpha_ipv4]);
        ensure(pinged.code == 0, pinged.to_string())
    });
    let beta_ipv4 = address(&alpha, "beta", true).to_string();
    let pinged = alpha.host.run(&["ping", "-c", "1", "-W", "1", &beta_ipv4]);
    assert_ne!(pinged.code, 0, "{pinged}");

    // A node that leaves is in no rule any more, and that is told.
    let _ = beta.cli(&["leave", "--yes"]).ok();
    wait_for("a finding", PATIENCE, || {
        let findings = alpha.status()["findings"].to_string();
        ensure(findings.contains("policy-stale"), &findings)
    });
}
