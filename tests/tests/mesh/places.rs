//! Who takes all places of a listener keeps nobody else out: strangers over
//! QUIC, members over the overlay, users of the host itself.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::{DOMAIN, PATIENCE, PORT},
    installed, page, quic,
    wait::ensure,
    wait_for,
};

/// What a reconnect and a join may take, whoever else is there.
const AT_MOST: Duration = Duration::from_secs(3);
/// What each greedy source wants to hold.
const GREEDY: usize = 200;

#[test]
fn five_addresses_and_a_64_full_of_strangers_keep_no_join_and_no_reconnect_out() {
    let Some(lab) = Lab::new(8) else { return };
    let (nodes, strangers) = lab.hosts.split_at(3);
    let mut alpha = Agent::new(&nodes[0], "alpha");
    let mut beta = Agent::new(&nodes[1], "beta");
    let gamma = Agent::new(&nodes[2], "gamma");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let token = alpha.invite(&[]);

    let crowd = Crowd::start(strangers, &nodes[0]);
    wait_for("all places to be taken", PATIENCE, || {
        let held = crowd.held.load(Ordering::Relaxed);
        ensure(held >= 60, format!("{held} connections"))
    });
    let begin = Instant::now();
    let address = alpha.address();
    let words = ["--token", &token, "--name", "gamma", "--no-start"];
    let _ = gamma
        .cli(&[&["join", address.as_str()][..], &words].concat())
        .ok();
    let joined = begin.elapsed();
    beta.kill();
    beta.start();
    let begin = Instant::now();
    beta.wait_nodes(2);
    let reconnected = begin.elapsed();
    println!(
        "joined in {joined:?}, reconnected in {reconnected:?}, beside {} handshakes of strangers",
        crowd.dialed.load(Ordering::Relaxed)
    );
    assert!(joined < AT_MOST, "the join took {joined:?}");
    assert!(reconnected < AT_MOST, "the reconnect took {reconnected:?}");
    crowd.stop();
}

#[test]
fn a_member_and_a_user_with_200_connections_to_each_tcp_port_keep_nobody_out() {
    if !installed(&["dig", "setpriv"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, _beta, _gamma] = lab.mesh();
    let overlay = SocketAddr::new(
        alpha.overlay_ipv4("alpha").parse().expect("an address"),
        page::PORT,
    );
    let resolver = alpha.dns().ip();
    let acme = format!("https://acme.{DOMAIN}:7443/directory");
    let to = format!("acme.{DOMAIN}:7443:{resolver}");
    let directory = || {
        let words = [
            "curl",
            "--silent",
            "--insecure",
            "--fail",
            "--max-time",
            "3",
        ];
        alpha
            .host
            .run(&[&words[..], &["--resolve", &to, &acme]].concat())
    };
    wait_for("ACME", PATIENCE, || directory().result());

    // The member.
    let mut member = Vec::new();
    for _ in 0..GREEDY {
        // Where there is no place it waits, and is not reset.
        member.push(lab.hosts[1].tcp_to(overlay).expect("a connection"));
    }
    // A user of the host, at each port.
    let hold = format!(
        "for port in 53 7443 {}; do for n in $(seq {GREEDY}); do \
         exec {{fd}}<>/dev/tcp/{resolver}/$port || exit 1; done; done; echo all; sleep 600",
        page::PORT
    );
    let words = [
        "setpriv",
        "--reuid=1234",
        "--clear-groups",
        "bash",
        "-c",
        &hold,
    ];
    let user = alpha.host.start("greedy", &words, &[]);
    wait_for("the user's connections", PATIENCE, || {
        ensure(user.log().contains("all"), user.log())
    });

    let url = format!("http://{overlay}/fingerprint");
    let fetch = |host: &Host| {
        let begin = Instant::now();
        let words = ["curl", "--silent", "--fail", "--max-time", "3", &url];
        let _ = host.run(&words).ok();
        begin.elapsed()
    };
    println!("the page: {:?} by a member", fetch(&lab.hosts[2]));
    println!("the page: {:?} by the host's root", fetch(&lab.hosts[0]));
    let begin = Instant::now();
    let _ = directory().ok();
    println!("ACME: {:?}", begin.elapsed());
    let begin = Instant::now();
    let name = format!("alpha.{DOMAIN}");
    let answer = alpha.dig(&["+tcp", "+tries=1", "+time=3", &name, "A"]).ok();
    assert_eq!(answer.trim(), overlay.ip().to_string());
    println!("DNS over TCP: {:?}", begin.elapsed());
    drop(member);
}

#[test]
fn a_hundred_and_twenty_acme_connections_at_once_are_all_answered() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let resolver = alpha.dns().ip();
    let to = format!("acme.{DOMAIN}:7443:{resolver}");
    let url = format!("https://acme.{DOMAIN}:7443/new-nonce?[1-120]");
    let ask = |url: &str, more: &[&str]| {
        let words = [
            "curl",
            "--silent",
            "--show-error",
            "--insecure",
            // Each has a connection of its own.
            "--http1.1",
            "--head",
            "--max-time",
            "20",
            "--write-out",
            "%{http_code} %{num_connects}\n",
            "--output",
            "/dev/null",
            "--resolve",
            &to,
            url,
        ];
        alpha.host.run(&[&words[..], more].concat())
    };
    wait_for("ACME", PATIENCE, || {
        let answer = ask(&url.replace("[1-120]", "0"), &[]).result()?;
        ensure(answer.starts_with("200"), answer)
    });
    let begin = Instant::now();
    let at_once = [
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        "120",
    ];
    let answers = ask(&url, &at_once).ok();
    println!("120 connections at once: {:?}", begin.elapsed());
    let answered = answers.lines().filter(|line| line.starts_with("200"));
    assert_eq!(answered.count(), 120, "{answers}");
}

/// Strangers that connect from each of their addresses for as long as they can.
struct Crowd {
    ends: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    dialed: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn start(hosts: &[Host], target: &Host) -> Self {
        let mut crowd = Self {
            ends: Arc::default(),
            held: Arc::default(),
            dialed: Arc::default(),
            threads: Vec::new(),
        };
        for host in hosts {
            let families = [
                (host.ipv4.into(), target.ipv4.into()),
                (host.ipv6.into(), target.ipv6.into()),
            ];
            for (own, to) in families {
                let socket = host.udp(SocketAddr::new(own, 0)).expect("a socket");
                let target = SocketAddr::new(to, PORT);
                let (ends, held) = (crowd.ends.clone(), crowd.held.clone());
                let dialed = crowd.dialed.clone();
                crowd.threads.push(std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    let besieged = besiege(socket, target, &ends, &held, &dialed);
                    runtime.block_on(besieged).expect("an endpoint");
                }));
            }
        }
        crowd
    }

    fn stop(self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
    }
}

async fn besiege(
    socket: UdpSocket,
    target: SocketAddr,
    ends: &AtomicBool,
    held: &AtomicUsize,
    dialed: &AtomicUsize,
) -> io::Result<()> {
    let config = quinn::EndpointConfig::default();
    let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
    let mut own: Vec<quinn::Connection> = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    while !ends.load(Ordering::Relaxed) {
        pace.tick().await;
        let before = own.len();
        own.retain(|connection| connection.close_reason().is_none());
        held.fetch_sub(before - own.len(), Ordering::Relaxed);
        if own.len() >= 20 {
            continue;
        }
        let connecting = endpoint.connect_with(quic::stranger(), target, "innermesh");
        let connecting = connecting.map_err(io::Error::other)?;
        let connection = tokio::time::timeout(Duration::from_secs(2), connecting).await;
        if let Ok(Ok(connection)) = connection {
            dialed.fetch_add(1, Ordering::Relaxed);
            held.fetch_add(1, Ordering::Relaxed);
            own.push(connection);
        }
    }
    endpoint.close(0_u32.into(), b"");
    Ok(())
}
