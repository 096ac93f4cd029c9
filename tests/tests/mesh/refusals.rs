//! Bad input from people, files and the network: a clear error, nothing
//! changed, and never a panic (which [`Agent`] looks for in every log).

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::{PATIENCE, PORT},
    quic,
    wait::ensure,
    wait_for,
};

#[test]
fn a_token_that_is_wrong_expired_or_used_up_admits_nobody() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let _ = alpha.init();
    let seed = alpha.address();
    let join = |token: &str, phrase: &str| {
        beta.refused(
            &[
                "join",
                &seed,
                "--token",
                token,
                "--name",
                "beta",
                "--no-start",
            ],
            phrase,
        );
    };

    let token = alpha.invite(&[]);
    join("not-a-token", "not a token");
    join(&token[..token.len() - 2], "not a whole one");
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'a' {
        "b"
    } else {
        "a"
    };
    join(
        &format!("{}{other}{}", &token[..middle], &token[middle + 1..]),
        "token",
    );

    let (expiring, made) = (alpha.invite(&["--ttl", "1s"]), Instant::now());
    wait_for("the token to expire", PATIENCE, || {
        ensure(made.elapsed() > Duration::from_secs(2), "not yet")
    });
    join(&expiring, "expired");

    assert_eq!(nodes(&alpha), 1, "nobody was admitted");
    assert!(beta.file("ledger").is_none(), "nothing was written");
    // After all that, the good token still works in the same folder.
    beta.join_with(&alpha, &token);
    alpha.wait_nodes(2);
    // Beta has the usual ports of its host.
    let elsewhere = "listen = \"[::]:51919\"\n[page]\nport = 7580\n[acme]\nport = 7543\n";
    let again = Agent::with_config(&lab.hosts[1], "again", elsewhere);
    again.refused(
        &[
            "join",
            &seed,
            "--token",
            &token,
            "--name",
            "again",
            "--no-start",
        ],
        "used",
    );
    assert_eq!(nodes(&alpha), 2);
    beta.refused(
        &[
            "join",
            &seed,
            "--token",
            &token,
            "--no-start",
            "--name",
            "beta",
        ],
        "already",
    );
}

#[test]
fn a_seed_that_is_no_agent_of_the_mesh_is_told_apart() {
    let Some(lab) = Lab::new(3) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut other = Agent::new(&lab.hosts[1], "other");
    let beta = Agent::new(&lab.hosts[2], "beta");
    let _ = alpha.init();
    let _ = other.init();
    let token = alpha.invite(&[]);
    let join = |seed: &str, phrase: &str| {
        beta.refused(
            &[
                "join",
                seed,
                "--token",
                &token,
                "--name",
                "beta",
                "--no-start",
            ],
            phrase,
        );
    };
    join(&other.address(), "another mesh");
    // Where the token's own addresses don't answer either.
    lab.set_link(&lab.hosts[0], false);
    // A host, but no agent there; no such host; something else on the port.
    join(
        &format!("{}:{PORT}", lab.hosts[2].ipv4),
        "no agent of this mesh answers",
    );
    join("192.0.2.250", "no agent of this mesh answers");
    let _deaf = lab.hosts[2]
        .udp((lab.hosts[2].ipv4, 4000).into())
        .expect("a port");
    join(
        &format!("{}:4000", lab.hosts[2].ipv4),
        "no agent of this mesh answers",
    );
    join("seed.invalid", "can't be resolved");
    join("::nonsense::", "address");
    join("192.0.2.10:99999", "address");
    assert!(beta.file("ledger").is_none(), "nothing was written");
    assert_eq!((nodes(&alpha), nodes(&other)), (1, 1));
}

#[test]
fn names_that_are_taken_malformed_or_reserved_are_refused() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let _ = alpha.init();
    let (seed, token) = (alpha.address(), alpha.invite(&[]));
    for (name, phrase) in [
        ("alpha", "alpha"),
        ("Has Space", "name"),
        ("-dash", "name"),
        ("under_score", "name"),
        (&"x".repeat(64), "name"),
        ("acme", "reserved"),
        ("wpad", "reserved"),
    ] {
        beta.refused(
            &[
                "join",
                &seed,
                &format!("--name={name}"),
                "--token",
                &token,
                "--no-start",
            ],
            phrase,
        );
    }
    beta.join_with(&alpha, &token);
    alpha.wait_nodes(2);

    for (name, phrase) in [
        ("bad name", "name"),
        ("acme", "reserved"),
        ("", "name"),
        ("ca", "reserved"),
    ] {
        beta.refused(&["service", "add", name, "--port", "80"], phrase);
    }
    beta.refused(&["service", "add", "web", "--port", "70000"], "port");
    beta.refused(
        &[
            "service", "add", "web", "--port", "80", "--check", "nonsense",
        ],
        "check",
    );
    beta.refused(&["service", "rm", "nothing"], "nothing");

    // The first to have a service's name keeps it.
    let _ = alpha.cli(&["service", "add", "web", "--port", "80"]).ok();
    let owner = alpha.overlay_ipv4("alpha");
    beta.wait_answer(&["web.lab.internal", "A"], &[&owner]);
    let _ = beta.cli(&["service", "add", "web", "--port", "81"]);
    beta.wait_answer(&["web.lab.internal", "A"], &[&owner]);
    // And it is no way to a certificate for it, or for anything outside.
    let out = beta
        .host
        .directory
        .join("out")
        .to_string_lossy()
        .into_owned();
    for name in [
        "web.lab.internal",
        "alpha.lab.internal",
        "www.example.org",
        "lab.internal",
        "*.lab.internal",
    ] {
        beta.refused(&["cert", "issue", name, "--out", &out], "");
    }
    assert!(!Path::new(&out).exists() || fs::read_dir(&out).expect("a folder").next().is_none());
}

#[test]
fn a_mesh_is_not_made_under_a_domain_that_can_not_be_its_own() {
    let Some(lab) = Lab::new(1) else { return };
    let alpha = Agent::new(&lab.hosts[0], "alpha");
    for (domain, phrase) in [
        ("home.local", ".local"),
        ("local", "local"),
        ("mesh.lan", "lan"),
        ("com", "com"),
        ("", "domain"),
        ("a..b", "domain"),
        ("1.2.3.4", "number"),
    ] {
        alpha.refused(
            &["init", "--domain", domain, "--name", "alpha", "--no-start"],
            phrase,
        );
    }
    for (network, phrase) in [
        ("8.8.0.0/16", "overlay"),
        ("100.64.0.0/16", "overlay"),
        ("10.0.0.0/30", "overlay"),
        ("nonsense", "ipv4"),
    ] {
        alpha.refused(
            &[
                "init",
                "--domain",
                "lab.internal",
                "--name",
                "alpha",
                "--ipv4",
                network,
                "--no-start",
            ],
            phrase,
        );
    }
    assert!(alpha.file("ledger").is_none(), "no mesh was made");
}

#[test]
fn a_port_that_is_taken_is_told_with_its_holder() {
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = lab.mesh();
    alpha.stop();
    let host = &lab.hosts[0];
    let any = |port| SocketAddr::from(([0u16; 8], port));
    let holder = format!("pid {}", std::process::id());
    let taken = host.udp(any(PORT)).expect("a free port");
    alpha.refused(&["run"], "51819");
    alpha.refused(&["run"], &holder);
    drop(taken);
    // Without the port of names it runs, and says so.
    let _taken = host.udp(any(53)).expect("a free port");
    alpha.start();
    let warnings = alpha.status()["warnings"].to_string();
    assert!(warnings.contains(&holder), "{warnings}");
}

#[test]
fn an_overlay_that_clashes_with_a_local_network_is_refused() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, beta] = lab.agents();
    for host in &lab.hosts {
        let _ = host
            .run(&["ip", "link", "add", "lan0", "type", "bridge"])
            .ok();
        let _ = host.run(&["ip", "link", "set", "lan0", "up"]).ok();
    }
    let _ = lab.hosts[0]
        .run(&["ip", "address", "add", "10.7.3.1/24", "dev", "lan0"])
        .ok();
    let init = [
        "init",
        "--domain",
        "lab.internal",
        "--name",
        "alpha",
        "--no-start",
        "--ipv4",
    ];
    alpha.refused(&[&init[..], &["10.7.0.0/16"]].concat(), "clash");
    let _ = alpha.cli(&[&init[..], &["10.8.0.0/16"]].concat()).ok();
    alpha.start();

    let _ = lab.hosts[1]
        .run(&["ip", "route", "add", "10.8.9.0/24", "dev", "lan0"])
        .ok();
    let token = alpha.invite(&[]);
    beta.refused(
        &[
            "join",
            &alpha.address(),
            "--token",
            &token,
            "--name",
            "beta",
            "--no-start",
        ],
        "clash",
    );
    assert_eq!(nodes(&alpha), 1, "the token wasn't spent");
    let _ = lab.hosts[1]
        .run(&["ip", "route", "del", "10.8.9.0/24"])
        .ok();
    let _ = beta
        .cli(&[
            "join",
            &alpha.address(),
            "--token",
            &token,
            "--name",
            "beta",
            "--no-start",
        ])
        .ok();
}

#[test]
fn a_state_folder_that_is_damaged_or_open_or_of_another_is_not_used() {
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = lab.mesh();
    alpha.refused(
        &[
            "init",
            "--domain",
            "lab.internal",
            "--name",
            "alpha",
            "--no-start",
        ],
        "already",
    );
    alpha.refused(&["run"], "another agent runs");
    alpha.stop();

    let identity = alpha.file("identity.key").expect("an identity");
    let ledger = alpha.file("ledger").expect("a ledger");
    let state = identity.parent().expect("a folder").to_owned();

    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("its mode");
    alpha.refused(&["run"], "open to other users");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("its mode");

    chown(&state, Some(65534), None).expect("its owner");
    alpha.refused(&["run"], "belongs to user");
    chown(&state, Some(0), None).expect("its owner");

    damaged(&alpha, &identity, |_| b"nonsense".to_vec(), "damaged");
    damaged(&alpha, &identity, |_| Vec::new(), "damaged");
    damaged(&alpha, &ledger, |_| b"nonsense".to_vec(), "damaged");
    damaged(
        &alpha,
        &ledger,
        |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        },
        "damaged",
    );
    let config = alpha.dir.join("config.toml");
    for (text, phrase) in [
        ("listen = 7\n", "line 1"),
        ("\nunknown = true\n", "line 2"),
        ("[tunnel]\nmtu = 12\n", "mtu"),
        ("listen = \"0.0.0.0:51820\"\n", "51820"),
    ] {
        fs::write(&config, text).expect("a file");
        alpha.refused(&["run"], phrase);
    }
    fs::remove_file(&config).expect("a file");

    alpha.start();
    assert_eq!(nodes(&alpha), 1, "with all of it put back, it is as it was");
}

/// Changes a file, sees the agent refuse it and leave it alone, and puts it
/// back.
fn damaged(agent: &Agent, file: &Path, change: impl Fn(Vec<u8>) -> Vec<u8>, phrase: &str) {
    let good = fs::read(file).expect("a file");
    let bad = change(good.clone());
    fs::write(file, &bad).expect("a file");
    agent.refused(&["run"], phrase);
    assert_eq!(
        fs::read(file).expect("the file is still there"),
        bad,
        "it is evidence"
    );
    fs::write(file, good).expect("a file");
}

#[test]
fn garbage_and_oversized_frames_on_the_quic_port_do_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let _ = alpha.init();
    let target = SocketAddr::from((lab.hosts[0].ipv4, PORT));
    throw_garbage(&lab.hosts[1], target);
    throw_frames(&lab.hosts[1], target);
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let resident = alpha.process().expect("it runs").resident_kib();
    assert!(resident < 200 * 1024, "{resident} KiB");
}

/// Packets of every length and first byte, and the starts of real ones.
fn throw_garbage(host: &Host, target: SocketAddr) {
    let socket = host.udp_to(target).expect("a socket");
    let mut state = 1_u64;
    for round in 0..4000_usize {
        let mut packet: Vec<u8> = (0..round % 1400)
            .map(|_| {
                // Knuth's MMIX generator: anything will do, if it repeats.
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect();
        if let Some(first) = packet.first_mut() {
            *first = u8::try_from(round % 256).expect("below 256");
        }
        if round % 3 == 0 && packet.len() > 5 {
            // A long header of version 1.
            packet[0] |= 0xc0;
            packet[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        // The kernel may be out of buffers for a moment.
        let _ = socket.send(&packet);
    }
}

/// Frames on real QUIC streams, without a certificate: empty, garbage, too
/// long, unfinished.
fn throw_frames(host: &Host, target: SocketAddr) {
    let socket = host.udp(([0, 0, 0, 0], 0).into()).expect("a socket");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = quinn::EndpointConfig::default();
        let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime));
        let endpoint = endpoint.expect("an endpoint");
        let frames = [
            vec![],
            vec![0xff; 1],
            vec![0; 1000],
            vec![0xff; 60_000],
            vec![1; 300_000],
            vec![0xff; 6_000_000],
        ];
        for frame in frames {
            let connection = endpoint
                .connect_with(quic::stranger(), target, "innermesh")
                .expect("an address")
                .await
                .expect("a handshake, as joining nodes make it");
            let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
            let length = frame.len();
            let written = send.write_all(&frame).await;
            let finished = written.is_ok() && send.finish().is_ok();
            let answer =
                tokio::time::timeout(Duration::from_secs(20), receive.read_to_end(1 << 20)).await;
            let answer = answer
                .unwrap_or_else(|_| panic!("{length} bytes were neither answered nor refused"));
            // An answer can only say no; a frame too long is cut off.
            assert!(
                length < 100_000 || !finished || answer.is_err(),
                "{length} bytes were taken"
            );
            connection.close(0_u32.into(), b"");
        }
        endpoint.wait_idle().await;
    });
}

fn nodes(agent: &Agent) -> usize {
    agent.status()["nodes"].as_array().map_or(0, Vec::len)
}
