//! Services by the labels of containers.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use innermesh_tests::{
    Agent, Host, Lab, agent::PATIENCE, dns, docker::Docker, mesh::NAMES, wait::ensure, wait_for,
};

use crate::{docker::http, world::overlay_of};

/// Alpha reads the labels of the Docker on its host; beta looks on.
fn mesh(lab: &Lab) -> [Agent<'_>; 2] {
    let config = Docker::agent_config(&lab.hosts[0]);
    let mut alpha = Agent::with_config(&lab.hosts[0], NAMES[0], &config);
    let mut beta = Agent::new(&lab.hosts[1], NAMES[1]);
    let _ = alpha.init();
    beta.join(&alpha);
    for agent in [&alpha, &beta] {
        agent.wait_nodes(2);
    }
    [alpha, beta]
}

const SERVER: [&str; 7] = ["box", "/bin/busybox", "httpd", "-f", "-p", "80", "-h"];

/// Starts a web server with these options; its id.
fn run(docker: &Docker, options: &[&str]) -> String {
    let words = [&["run", "-d"], options, &SERVER, &["/www"]].concat();
    docker.run(&words).ok().trim().to_owned()
}

fn labels(name: &str) -> [String; 2] {
    [
        format!("--label=innermesh.name={name}"),
        "--label=innermesh.port=80".to_owned(),
    ]
}

/// Waits until the agent tells that a container's labels make no service.
fn told(agent: &Agent, part: &str) {
    wait_for(part, PATIENCE, || {
        let status = agent.status();
        let mut all = status["findings"].as_array().into_iter().flatten();
        let found = all.any(|it| {
            let text = it["text"].as_str().unwrap_or_default();
            it["code"] == "container-label" && text.contains(part)
        });
        ensure(found, status)
    });
}

fn healthy(agent: &Agent, name: &str, healthy: bool) {
    wait_for(&format!("{name} healthy={healthy}"), PATIENCE, || {
        let status = agent.status();
        let mut all = status["services"].as_array().into_iter().flatten();
        let found = all.any(|it| it["name"] == name && it["healthy"] == healthy);
        ensure(found, status)
    });
}

#[test]
fn a_labelled_container_is_a_service_while_it_runs() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = mesh(&lab);
    let Some(docker) = Docker::start(alpha.host) else {
        return;
    };
    let own = overlay_of(&beta, "alpha");
    let [name, port] = labels("photos");
    let _ = run(&docker, &["--name", "web", &name, &port, "-p", "8080:80"]);
    let [v4, v6] = own.map(|ip| ip.to_string());
    for full in ["photos.lab.internal", "photos.alpha.lab.internal"] {
        beta.wait_answer(&[full, "A"], &[&v4]);
        beta.wait_answer(&[full, "AAAA"], &[&v6]);
    }
    let srv = beta.dig(&["_photos._tcp.lab.internal", "SRV"]).ok();
    assert!(srv.contains(" 8080 "), "the port of the host: {srv}");
    for ip in own {
        assert_eq!(http(beta.host, ip), "200");
    }
    let shown = alpha.cli(&["service", "list"]).ok();
    assert!(shown.contains("photos"), "{shown}");
    alpha.refused(&["service", "rm", "photos"], "labels of a container");
    let _ = docker.run(&["pause", "web"]).ok();
    healthy(&beta, "photos", false);
    let _ = docker.run(&["unpause", "web"]).ok();
    healthy(&beta, "photos", true);
    let _ = docker.run(&["stop", "-t", "0", "web"]).ok();
    beta.wait_answer(&["photos.lab.internal", "A"], &[]);
    let _ = docker.run(&["start", "web"]).ok();
    beta.wait_answer(&["photos.lab.internal", "A"], &[&v4]);

    // Its own check, which the labels' gives way to.
    let check = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
    ];
    let [name, port] = labels("wiki");
    let options = ["--name", "wiki", &name, &port, "-p", "8081:80"];
    let _ = run(&docker, &[&options, &check[..]].concat());
    healthy(&beta, "wiki", false);
    let _ = docker
        .run(&["exec", "wiki", "/bin/busybox", "mkdir", "-p", "/tmp/well"])
        .ok();
    healthy(&beta, "wiki", true);
    let _ = docker
        .run(&["exec", "wiki", "/bin/busybox", "rmdir", "/tmp/well"])
        .ok();
    healthy(&beta, "wiki", false);
}

#[test]
fn labels_that_make_no_service_are_told_and_change_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = mesh(&lab);
    let Some(docker) = Docker::start(alpha.host) else {
        return;
    };
    let v4 = overlay_of(&beta, "alpha")[0].to_string();
    let _ = beta.cli(&["service", "add", "taken", "--port", "1"]).ok();
    let _ = alpha
        .cli(&["service", "add", "byhand", "--port", "443"])
        .ok();
    docker.import("theirs", &["LABEL innermesh.name=bank"]);
    for (name, more, part) in [
        ("inside", &[][..], "port 80/tcp isn't published"),
        (
            "local",
            &["-p", "127.0.0.1:8001:80"],
            "published at 127.0.0.1 only",
        ),
        ("wpad", &["-p", "8002:80"], "reserved"),
        ("a_b", &["-p", "8003:80"], "innermesh.name: "),
        ("beta", &["-p", "8004:80"], "isn't granted"),
        ("taken", &["-p", "8005:80"], "isn't granted"),
        ("byhand", &["-p", "8006:80"], "that a person described"),
        (
            "typo",
            &["-p", "8007:80", "--label=innermesh.prto=tcp"],
            "did you mean innermesh.proto?",
        ),
    ] {
        let [name, port] = labels(name);
        let id = run(&docker, &[&[name.as_str(), &port], more].concat());
        told(&alpha, part);
        let _ = docker.run(&["rm", "-f", &id]).ok();
    }
    let image = [
        "run",
        "-d",
        "--label=innermesh.port=80",
        "-p",
        "8008:80",
        "theirs",
    ];
    let command = ["/bin/busybox", "sleep", "1000"];
    let _ = docker.run(&[&image[..], &command].concat()).ok();
    told(&alpha, "comes with its image");
    for name in ["inside", "local", "wpad", "typo", "bank"] {
        beta.wait_answer(&[&format!("{name}.lab.internal"), "A"], &[]);
    }
    let srv = beta.dig(&["_byhand._tcp.lab.internal", "SRV"]).ok();
    assert!(srv.contains(" 443 "), "{srv}");
    // By the host's network, and at the node's own address alone.
    let [name, port] = labels("onhost");
    let _ = run(&docker, &[&name, &port, "--network", "host"]);
    beta.wait_answer(&["onhost.lab.internal", "A"], &[&v4]);
    let [name, port] = labels("onmesh");
    let _ = run(&docker, &[&name, &port, "-p", &format!("{v4}:8009:80")]);
    beta.wait_answer(&["onmesh.lab.internal", "A"], &[&v4]);
    beta.wait_answer(&["onmesh.lab.internal", "AAAA"], &[]);
}

#[test]
fn a_restart_of_docker_or_of_the_agent_loses_no_service_and_leaves_none() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, beta] = mesh(&lab);
    let Some(mut docker) = Docker::start(alpha.host) else {
        return;
    };
    let v4 = overlay_of(&beta, "alpha")[0].to_string();
    for (name, policy) in [("stays", "always"), ("goes", "no")] {
        let [label, port] = labels(name);
        let host = if name == "stays" {
            "8001:80"
        } else {
            "8002:80"
        };
        let _ = run(&docker, &[&label, &port, "-p", host, "--restart", policy]);
        beta.wait_answer(&[&format!("{name}.lab.internal"), "A"], &[&v4]);
    }
    docker.stop();
    wait_for("Docker to be missed", PATIENCE, || {
        let status = alpha.status();
        let mut all = status["findings"].as_array().into_iter().flatten();
        ensure(all.any(|it| it["code"] == "docker-unreached"), status)
    });
    docker.launch();
    beta.wait_answer(&["stays.lab.internal", "A"], &[&v4]);
    beta.wait_answer(&["goes.lab.internal", "A"], &[]);
    alpha.stop();
    alpha.start();
    beta.wait_answer(&["stays.lab.internal", "A"], &[&v4]);
    beta.wait_answer(&["goes.lab.internal", "A"], &[]);
    let status = alpha.status();
    let mut all = status["findings"].as_array().into_iter().flatten();
    assert!(!all.any(|it| it["code"] == "docker-unreached"), "{status}");
}

/// When an agent's answer changes, asked without a pause.
struct Changes {
    thread: JoinHandle<Vec<(bool, SystemTime)>>,
    ends: Arc<AtomicBool>,
}

impl Changes {
    fn watch(agent: &Agent, name: &str) -> Self {
        let socket: UdpSocket = agent.host.udp_to(agent.dns()).expect("a socket");
        let wait = Some(Duration::from_secs(1));
        socket.set_read_timeout(wait).expect("a deadline");
        let ends = Arc::new(AtomicBool::new(false));
        let (name, until) = (name.to_owned(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut seen: Vec<(bool, SystemTime)> = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let mut buffer = [0; 1500];
                let asked = socket.send(&dns::query(7, &name));
                let Ok(length) = asked.and_then(|_| socket.recv(&mut buffer)) else {
                    continue;
                };
                let there =
                    dns::parse(&buffer[..length]).is_some_and(|it| !it.addresses.is_empty());
                if seen.last().is_none_or(|(before, _)| *before != there) {
                    seen.push((there, SystemTime::now()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        Self { thread, ends }
    }

    fn end(self) -> Vec<(bool, SystemTime)> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends")
    }
}

/// When the container web was started or has ended, as Docker tells.
fn moment(docker: &Docker, host: &Host, field: &str) -> SystemTime {
    let format = format!("{{{{.State.{field}}}}}");
    let said = docker.run(&["inspect", "-f", &format, "web"]).ok();
    let nanos = host.run(&["date", "-d", said.trim(), "+%s%N"]).ok();
    UNIX_EPOCH + Duration::from_nanos(nanos.trim().parse().expect("a time"))
}

#[test]
fn a_service_comes_and_goes_with_its_container_within_a_moment() {
    const ROUNDS: usize = 10;
    // Far more than it takes, on a machine that does much else meanwhile.
    const BOUND: Duration = Duration::from_secs(3);
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = mesh(&lab);
    let Some(docker) = Docker::start(alpha.host) else {
        return;
    };
    let v4 = overlay_of(&beta, "alpha")[0].to_string();
    let [name, port] = labels("photos");
    let _ = run(&docker, &["--name", "web", &name, &port, "-p", "8080:80"]);
    beta.wait_answer(&["photos.lab.internal", "A"], &[&v4]);
    let changes = Changes::watch(&beta, "photos.lab.internal");
    let (mut ends, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let _ = docker.run(&["kill", "web"]).ok();
        beta.wait_answer(&["photos.lab.internal", "A"], &[]);
        ends.push(moment(&docker, alpha.host, "FinishedAt"));
        let _ = docker.run(&["start", "web"]).ok();
        beta.wait_answer(&["photos.lab.internal", "A"], &[&v4]);
        starts.push(moment(&docker, alpha.host, "StartedAt"));
    }
    let seen = changes.end();
    for (what, there, happened) in [("end", false, ends), ("start", true, starts)] {
        let changed = seen.iter().skip(1).filter(|(now, _)| *now == there);
        let mut took: Vec<Duration> = changed
            .zip(&happened)
            .map(|((_, seen), then)| seen.duration_since(*then).unwrap_or_default())
            .collect();
        assert_eq!(took.len(), ROUNDS, "{what}: {seen:?}");
        took.sort_unstable();
        println!("{what}: median {:?}, all {took:?}", took[ROUNDS / 2]);
        assert!(took.iter().all(|it| *it < BOUND), "{what}: {took:?}");
    }
}
