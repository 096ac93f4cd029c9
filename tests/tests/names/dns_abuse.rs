//! A name server under abuse: strangers who flood it over UDP, and hundreds of clients that
//! hold connections and say little, too much or nonsense. How soon members are answered
//! meanwhile is measured by `ops/bench abuse`.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
};

use innermesh_tests::{
    Agent, Host, Lab,
    abuse::{FORMS, HARMS, HTTPS, World},
    agent::PATIENCE,
    dns, installed,
    wait::ensure,
    wait_for,
};

/// What the agent may have more in memory than before, in KiB: places, windows and
/// buffers of all connections that there may be, and a debug build's.
const MORE_MEMORY: u64 = 48 * 1024;
/// How often a member asks by each way at least.
const ASKED: usize = 10;

/// A program of the agent's own host, which asks by every way.
struct Member<'lab> {
    host: &'lab Host,
    resolver: SocketAddr,
    own: Ipv4Addr,
    root: String,
}

impl Member<'_> {
    /// One question each; each is answered, and by the first try.
    fn ask(&self) {
        let question = dns::query(7, "alpha.lab.internal");
        let socket = self.host.udp_to(self.resolver).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.send(&question).expect("it is sent");
        let mut reply = [0; 1500];
        let length = socket.recv(&mut reply).expect("an answer over UDP");
        self.is_right("UDP", &reply[..length]);
        let reply = over_tcp(self.host, self.resolver, &question);
        self.is_right("TCP", &reply.expect("an answer over TCP"));
        let https = HTTPS.to_string();
        for words in [&["+tls"][..], &["+https", "-p", &https]] {
            let at = format!("@{}", self.resolver.ip());
            let ca = format!("+tls-ca={}", self.root);
            let fixed = [
                "kdig",
                "+short",
                "+retry=0",
                "+time=30",
                "+tls-hostname=ns.lab.internal",
                &ca,
                &at,
                "alpha.lab.internal",
            ];
            let told = self.host.run(&[&fixed[..], words].concat());
            assert!(told.stdout.contains(&self.own.to_string()), "{told}");
        }
    }

    fn is_right(&self, how: &str, reply: &[u8]) {
        let answer = dns::parse(reply).expect("an answer");
        assert_eq!(
            (answer.code, &answer.addresses[..]),
            (0, &[self.own][..]),
            "{how}"
        );
    }
}

fn over_tcp(host: &Host, to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = host.tcp_to(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).expect("a question");
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

#[test]
fn under_abuse_members_are_answered_memory_has_a_bound_and_nothing_is_amplified() {
    if !installed(&["kdig"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let (world, mut alpha) = World::start(&lab);
    let root = alpha.dir.join("root.pem");
    fs::write(&root, alpha.cli(&["ca", "root"]).ok()).expect("a file of the laboratory");
    let own = alpha.overlay_ipv4("alpha").parse().expect("an address");
    let member = Member {
        host: alpha.host,
        resolver: alpha.dns(),
        own,
        root: root.to_string_lossy().into_owned(),
    };
    member.ask();
    let before = memory(&mut alpha);
    let (flooded, (most, asked)) = world.abuse(|abuse| {
        let (mut most, mut asked) = (0, 0);
        wait_for("every harm", 3 * PATIENCE, || {
            member.ask();
            asked += 1;
            most = most.max(memory(&mut alpha));
            let done = abuse.done();
            let missing = HARMS.iter().find(|harm| !done.contains_key(harm.name));
            let told = format!("{asked} asked; {done:?}");
            ensure(asked >= ASKED && missing.is_none(), told)
        });
        is_answered(&world);
        (most, asked)
    });
    is_answered(&world);
    eprintln!(
        "{asked} times asked by each way; {} messages sent, {} answered; {before} KiB before, \
         {most} KiB at most",
        flooded.sent, flooded.received
    );
    assert!(most < before + MORE_MEMORY, "{before} KiB, then {most} KiB");
    assert!(flooded.longer.is_empty(), "{:?}", flooded.longer);
    assert!(flooded.received_bytes <= flooded.sent_bytes, "{flooded:?}");
    // Most of them are refused, and nobody answers the others.
    assert!(flooded.answered.len() > FORMS / 2, "{:?}", flooded.answered);
    // What they do fills no log.
    let log = alpha.log();
    assert!(!log.contains("h2::"), "{log}");
    for silent in ["a response", "half a header", "nothing"] {
        assert_eq!(flooded.answered.get(silent), None, "{silent}");
    }
}

/// Who behaves is answered also where others of its network don't: they share its places,
/// and it may have to come again.
fn is_answered(world: &World) {
    let question = dns::query(7, "alpha.lab.internal");
    wait_for("a neighbour's answer", PATIENCE, || {
        let reply = over_tcp(world.neighbour, world.target.tcp, &question);
        let reply = reply.map_err(|error| error.to_string())?;
        let code = dns::parse(&reply).map(|answer| answer.code);
        ensure(code == Some(0), format!("{code:?}"))
    });
}

fn memory(agent: &mut Agent) -> u64 {
    let process = agent.process().expect("it runs");
    process.resident_kib()
}
