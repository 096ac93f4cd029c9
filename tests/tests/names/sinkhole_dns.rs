//! The mesh's domain delegated to its sinkholes: strangers are answered by them, every
//! name alike.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, dns, installed, wait::ensure, wait_for};

const VALUE: &str = "Aq0zYx8wv7ut6sr5qp4on3ml2kj1ih0gf9ed8cb7a_-";
const OTHER: &str = "Bq0zYx8wv7ut6sr5qp4on3ml2kj1ih0gf9ed8cb7a_-";
const TXT: u16 = 16;
pub fn config(host: &Host) -> String {
    format!("[sinkhole]\ndns = [\"{}\", \"{}\"]\n", host.ipv4, host.ipv6)
}

/// A stranger who asks over UDP and shows the cookie that it was given.
struct Stranger {
    socket: UdpSocket,
    cookie: Vec<u8>,
}

impl Stranger {
    fn new(host: &Host, server: IpAddr) -> Self {
        let socket = host.udp_to(SocketAddr::new(server, 53)).expect("a socket");
        let patience = Some(Duration::from_secs(5));
        socket.set_read_timeout(patience).expect("a timeout");
        let mut stranger = Self {
            socket,
            cookie: b"12345678".to_vec(),
        };
        let reply = stranger.ask("first.lab.internal", 1).expect("an answer");
        let at = reply.len() - 24;
        assert_eq!(reply[at - 4..at], [0, 10, 0, 24], "a cookie of both sides");
        assert_eq!(reply[at..at + 8], *b"12345678");
        stranger.cookie = reply[at..].to_vec();
        stranger
    }

    fn send(&self, name: &str, rtype: u16, cookie: &[u8]) -> usize {
        let mut message = dns::query(7, name);
        let end = message.len();
        message[end - 4..end - 2].copy_from_slice(&rtype.to_be_bytes());
        if !cookie.is_empty() {
            message[11] = 1;
            let length = u8::try_from(cookie.len()).expect("a cookie");
            message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, length + 4]);
            message.extend([0, 10, 0, length]);
            message.extend(cookie);
        }
        self.socket.send(&message).expect("it is sent")
    }

    fn heard(&self) -> Option<Vec<u8>> {
        let mut reply = [0; 2048];
        let length = self.socket.recv(&mut reply).ok()?;
        Some(reply[..length].to_vec())
    }

    fn ask(&self, name: &str, rtype: u16) -> Option<Vec<u8>> {
        let _ = self.send(name, rtype, &self.cookie);
        self.heard()
    }

    /// All but what the question itself says, and the cookie.
    fn told(&self, name: &str, rtype: u16) -> Vec<u8> {
        let mut reply = self.ask(name, rtype).expect("an answer");
        let question = 12 + name.len() + 2 + 4;
        reply.drain(12..question);
        reply.truncate(reply.len() - 24);
        reply
    }
}

pub fn role(by: &Agent, node: &str) {
    let _ = by.cli(&["role", "add", node, "sinkhole"]).ok();
}

fn dig(host: &Host, server: &str, question: &[&str]) -> String {
    let at = format!("@{server}");
    let words = ["dig", "+tries=1", "+time=3", &at];
    host.run(&[&words, question].concat()).stdout
}

fn wait_told(host: &Host, server: &str, question: &[&str], parts: &[&str]) -> String {
    wait_for(&format!("{parts:?} to {question:?}"), PATIENCE, || {
        let told = dig(host, server, question);
        let all = parts.iter().all(|part| told.contains(part));
        ensure(all, told.clone()).map(|()| told)
    })
}

/// Two sinkholes, which answer alike.
fn wait_both(stranger: &Host, servers: [&str; 2]) {
    for server in servers {
        let parts = ["ns1.lab.internal.", "ns2.lab.internal.", "ADDITIONAL: 5"];
        let _ = wait_told(stranger, server, &["lab.internal", "NS"], &parts);
    }
}

#[test]
fn strangers_are_told_the_same_of_every_name_by_both_sinkholes_and_members_the_truth() {
    if !installed(&["dig", "kdig"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [a, b, c, stranger] = [0, 1, 2, 3].map(|n| &lab.hosts[n]);
    let [at_a, at_b] = [a, b].map(|host| host.ipv4.to_string());
    let mut alpha = Agent::with_config(a, "alpha", &config(a));
    let mut beta = Agent::with_config(b, "beta", &config(b));
    let mut gamma = Agent::new(c, "gamma");
    alpha.init();
    beta.join(&alpha);
    gamma.join(&alpha);
    alpha.wait_nodes(3);
    assert!(!dig(stranger, &at_a, &["lab.internal"]).contains("status"));
    alpha.refused(
        &["dns", "zone", "--public", "--delegated"],
        "no sinkhole answers strangers' dns",
    );
    role(&alpha, "alpha");
    role(&alpha, "beta");
    wait_both(stranger, [&at_a, &at_b]);
    let _ = gamma
        .cli(&["service", "add", "photo", "--port", "443"])
        .ok();
    for agent in [&alpha, &beta] {
        let found = ["photo._https._tcp.lab.internal."];
        agent.wait_answer(&["_https._tcp.lab.internal", "PTR"], &found);
    }

    let whole = wait_told(stranger, &at_a, &["gamma.lab.internal"], &["NOERROR"]);
    assert!(whole.contains("flags: qr aa rd;"), "{whole}");
    for address in [&at_a, &at_b] {
        assert!(whole.contains(&format!("IN\tA\t{address}")), "{whole}");
    }
    let outside = dig(stranger, &at_a, &["example.org"]);
    assert!(outside.contains("status: REFUSED"), "{outside}");
    let any = dig(stranger, &at_a, &["gamma.lab.internal", "ANY"]);
    assert!(any.contains("RFC8482"), "{any}");
    let moved = dig(stranger, &at_a, &["lab.internal", "AXFR"]);
    assert!(moved.contains("Transfer failed"), "{moved}");
    let mixed = dig(stranger, &at_a, &["GaMMa.LaB.inTernal", "MX"]);
    assert!(mixed.contains(";GaMMa.LaB.inTernal."), "{mixed}");
    assert!(
        mixed.contains("ns1.LaB.inTernal. hostmaster.LaB.inTernal."),
        "{mixed}"
    );
    for options in [
        "+tcp",
        "+cookie",
        "+noedns",
        "+bufsize=512",
        "+dnssec",
        "+ednsopt=65001",
    ] {
        let at = format!("@{at_b}");
        let told = stranger.run(&["kdig", &at, options, "gamma.lab.internal", "AAAA"]);
        assert!(told.stdout.contains("status: NOERROR"), "{options}: {told}");
        assert!(
            told.stdout.contains(&a.ipv6.to_string()),
            "{options}: {told}"
        );
    }

    // What exists inside, and what doesn't: of one length each, so that all else is equal.
    let names = [
        "gamma",
        "nobdy",
        "alpha",
        "photo",
        "xx.gamma",
        "xx.nobdy",
        "_https._tcp",
        "_nobdy._tcp",
        "photo._https._tcp",
        "nobdy._https._tcp",
        "_services._dns-sd._udp",
        "_nothings._dns-sd._udp",
    ];
    let asked = [a, b].map(|host| {
        let six = Stranger::new(stranger, host.ipv6.into());
        let four = Stranger::new(stranger, host.ipv4.into());
        let mut told: BTreeMap<(usize, u16), Vec<Vec<u8>>> = BTreeMap::new();
        for name in names {
            for rtype in [
                1, 2, 5, 6, 12, 13, 15, TXT, 28, 33, 43, 48, 64, 65, 99, 255, 257,
            ] {
                let full = format!("{name}.lab.internal");
                let all = told.entry((name.len(), rtype)).or_default();
                all.push(four.told(&full, rtype));
                all.push(six.told(&full, rtype));
            }
        }
        told
    });
    assert_eq!(asked[0], asked[1], "both sinkholes answer alike");
    for (question, answers) in &asked[0] {
        let first = &answers[0];
        assert!(
            answers.iter().all(|other| other == first),
            "{question:?}: {answers:?}"
        );
    }

    // Members, also on the sinkhole itself, are told what is so.
    let inner = alpha.overlay_ipv4("gamma");
    alpha.wait_answer(&["gamma.lab.internal"], &[&inner]);
    let here = dig(a, &at_a, &["+short", "gamma.lab.internal"]);
    assert!(here.contains(&at_b) && !here.contains(&inner), "{here}");
    // Without the role nobody is answered any more.
    let _ = alpha.cli(&["role", "rm", "beta", "sinkhole", "--yes"]).ok();
    wait_for("its end", PATIENCE, || {
        let told = dig(stranger, &at_b, &["gamma.lab.internal"]);
        ensure(!told.contains("status:"), told)
    });
    wait_told(stranger, &at_a, &["lab.internal", "NS"], &["ANSWER: 1,"]);
}

/// The two texts of a name's challenge, and how long the whole answer is.
fn texts(stranger: &Host, server: &str, name: &str) -> (Vec<String>, String) {
    let told = dig(stranger, server, &[name, "TXT", "+nocookie"]);
    let text = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let lines = told.lines().filter(|line| line.contains('"'));
    let size = told.lines().find(|line| line.contains("MSG SIZE"));
    (
        lines.filter_map(text).collect(),
        size.unwrap_or_default().to_owned(),
    )
}

#[test]
fn a_challenge_is_there_once_every_sinkhole_serves_it_and_other_names_look_alike() {
    if !installed(&["dig", "nft"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [a, b, c, stranger] = [0, 1, 2, 3].map(|n| &lab.hosts[n]);
    let [at_a, at_b] = [a, b].map(|host| host.ipv4.to_string());
    let mut alpha = Agent::with_config(a, "alpha", &config(a));
    let mut beta = Agent::with_config(b, "beta", &config(b));
    let mut gamma = Agent::new(c, "gamma");
    alpha.init();
    beta.join(&alpha);
    gamma.join(&alpha);
    role(&alpha, "alpha");
    role(&alpha, "beta");
    wait_both(stranger, [&at_a, &at_b]);
    gamma.wait_nodes(3);
    let add = |name: &str, value: &str| {
        let words = ["record", "add", name, "TXT", value, "--public", "--json"];
        gamma.cli(&words)
    };
    wait_for("both name servers", PATIENCE, || {
        let told = gamma
            .cli(&["dns", "zone", "--public", "--delegated"])
            .result()?;
        ensure(told.contains("ns2.lab.internal. 300 IN A"), told)
    });
    let before = texts(stranger, &at_a, "_acme-challenge.nobdy.lab.internal");
    assert_eq!(before.0.len(), 2, "{before:?}");
    assert!(before.0.iter().all(|text| text.len() == 43), "{before:?}");

    let told = add("_acme-challenge.gamma", VALUE).json();
    for row in told["sinkholes"].as_array().expect("each sinkhole") {
        assert!(row["serves"] == true && row["live"] == true, "{told}");
    }
    assert_eq!(
        told["sinkholes"].as_array().map(Vec::len),
        Some(2),
        "{told}"
    );
    // There it is, at once.
    for server in [&at_a, &at_b] {
        let (texts, _) = texts(stranger, server, "_acme-challenge.gamma.lab.internal");
        assert!(texts.contains(&VALUE.to_owned()), "{texts:?}");
    }
    let nobody = "_acme-challenge.nobdy.lab.internal";
    let of = |name: &str| [&at_a, &at_b].map(|server| texts(stranger, server, name));
    let [first, second] = of(nobody);
    assert_eq!(first, second, "both have the same stand-ins");
    assert_ne!(first.0, before.0, "all are new with each challenge");
    let [real, _] = of("_acme-challenge.gamma.lab.internal");
    assert_eq!((real.0.len(), &real.1), (first.0.len(), &first.1));

    // A name and its wildcard, and no third one; no other form; no name of others.
    let _ = add("_acme-challenge.gamma", OTHER).ok();
    let [both, _] = of("_acme-challenge.gamma.lab.internal");
    assert_eq!(both.0, [VALUE, OTHER]);
    assert_eq!(both.1, first.1);
    let third = VALUE.replace('A', "C");
    let words = |name, value| ["record", "add", name, "TXT", value, "--public"];
    gamma.refused(
        &words("_acme-challenge.gamma", &third),
        "challenges already",
    );
    gamma.refused(&words("_acme-challenge.x.gamma", "short"), "43 characters");
    gamma.refused(&words("_acme-challenge.alpha", VALUE), "alpha");
    let _ = gamma
        .cli(&["record", "rm", "_acme-challenge.gamma", "TXT"])
        .ok();
    wait_for("its end", PATIENCE, || {
        let [now, _] = of("_acme-challenge.gamma.lab.internal");
        ensure(!now.0.contains(&VALUE.to_owned()), format!("{now:?}"))
    });

    // One that strangers don't reach is named.
    let drop = "add table inet t; add chain inet t in { type filter hook input priority 0; }; \
                add rule inet t in meta l4proto { tcp, udp } th dport 53 drop";
    let _ = b.run(&["nft", drop]).ok();
    let late = gamma.cli(&words("_acme-challenge.gamma", VALUE));
    assert_eq!(late.code, 4, "{late}");
    assert!(
        late.stdout.contains("alpha serves it to strangers"),
        "{late}"
    );
    assert!(
        late.stdout.contains("beta wasn't seen to serve it"),
        "{late}"
    );
}

#[test]
fn a_burst_of_strangers_without_a_cookie_is_cut_and_one_with_a_cookie_isn_t() {
    let Some(lab) = Lab::new(2) else { return };
    let [a, stranger] = [0, 1].map(|n| &lab.hosts[n]);
    let mut alpha = Agent::with_config(a, "alpha", &config(a));
    alpha.init();
    role(&alpha, "alpha");
    let _ = wait_told(
        stranger,
        &a.ipv4.to_string(),
        &["lab.internal", "NS"],
        &["ns1."],
    );
    let known = Stranger::new(stranger, a.ipv4.into());
    let burst = |cookie: &[u8]| {
        let begin = std::time::Instant::now();
        let asked: usize = (0..200)
            .map(|n| known.send(&format!("x{n}.lab.internal"), 1, cookie))
            .sum();
        let patience = Some(Duration::from_secs(1));
        known.socket.set_read_timeout(patience).expect("a timeout");
        let heard: Vec<Vec<u8>> = std::iter::from_fn(|| known.heard()).collect();
        (asked, heard, begin.elapsed().as_secs_f64())
    };
    let (asked, heard, took) = burst(&[]);
    let (cut, whole): (Vec<_>, Vec<_>) = heard.iter().partition(|reply| reply[2] & 2 != 0);
    // So many a second and so many at once, whatever the machine's load.
    assert!(whole.len() as f64 <= 20.0 + 20.0 * took, "{}", whole.len());
    // Some were spent before.
    assert!(whole.len() >= 10, "{}", whole.len());
    let over = 200 - whole.len();
    assert!(
        cut.len() <= over / 2 + 1 && cut.len() * 3 >= over,
        "{}",
        cut.len()
    );
    let bytes: usize = heard.iter().map(Vec::len).sum();
    println!(
        "{asked} bytes asked, {bytes} answered, {} whole",
        whole.len()
    );
    assert!(bytes <= asked, "{bytes} bytes for {asked}");

    let (_, heard, _) = burst(&known.cookie);
    assert!(
        heard
            .iter()
            .all(|reply| reply[2] & 2 == 0 && reply[3] & 15 == 0)
    );
    assert!(heard.len() >= 150, "{}", heard.len());
    // With a client's cookie alone it is told the server's, and no more.
    let (_, heard, _) = burst(b"abcdefgh");
    let bad = heard.iter().filter(|reply| reply[3] & 15 == 7).count();
    assert!(bad > 0, "BADCOOKIE");
    let over_tcp = stranger.run(&["dig", "+tcp", &format!("@{}", a.ipv4), "x.lab.internal"]);
    assert!(over_tcp.stdout.contains("NOERROR"), "{over_tcp}");
}

#[test]
fn names_that_a_rule_lists_and_the_mesh_lacks_are_asked_outside() {
    if !installed(&["dig"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let [a, world] = [0, 1].map(|n| &lab.hosts[n]);
    let outside = dns::serve(world, [203, 0, 113, 80].into());
    let config = format!(
        "[dns]\nupstream = [\"{}\"]\nfall_through = [\"www\", \"@ A\", \"*.shop A\"]\n",
        world.ipv4
    );
    let mut alpha = Agent::with_config(a, "alpha", &config);
    alpha.init();
    for name in ["www", "x.shop"] {
        alpha.wait_answer(&[&format!("{name}.lab.internal")], &["203.0.113.80"]);
    }
    alpha.wait_answer(&["lab.internal"], &["203.0.113.80"]);
    let asked = outside.asked();
    for name in ["nobody", "x.www", "shop", "x.alpha"] {
        let told = alpha.dig(&[&format!("{name}.lab.internal")]);
        assert!(!told.stdout.contains("203.0.113.80"), "{name}: {told}");
    }
    assert_eq!(outside.asked(), asked, "no other name is asked outside");
    // What the mesh has never falls through, with any type.
    let _ = alpha.cli(&["record", "add", "www", "TXT", "inside"]).ok();
    wait_for("the mesh's own", PATIENCE, || {
        let told = alpha.dig(&["www.lab.internal"]).stdout;
        ensure(!told.contains("203.0.113.80"), told)
    });
    let config = |rule: &str| format!("[dns]\nfall_through = [\"{rule}\"]\n");
    let file = alpha.dir.join("config.toml");
    for (rule, why) in [
        ("@", "needs a type"),
        ("*", "mistyped"),
        ("a b c", "can't be a rule"),
    ] {
        fs::write(&file, config(rule)).expect("a file");
        let refused = alpha.cli(&["config", "check"]);
        assert!(
            refused.code != 0 && refused.stderr.contains(why),
            "{refused}"
        );
    }
}
