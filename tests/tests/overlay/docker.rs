//! Docker itself, with its own rules on the host.

use innermesh_tests::{Host, Lab, agent::PATIENCE, docker::Docker, wait::ensure, wait_for};

use crate::{
    containers::Container,
    firewalls::opens,
    subnets::{answers, brings, finding, no_finding},
    world::{
        LAN, SERVICE, STRANGER, Service, address, asks, cable, dropped, overlay_of, pair,
        reaches_not, shell,
    },
};

/// The status of one HTTP request, 0 where nothing came.
pub fn http(host: &Host, ip: std::net::IpAddr) -> String {
    let url = if ip.is_ipv4() {
        format!("http://{ip}:8080/")
    } else {
        format!("http://[{ip}]:8080/")
    };
    let curl = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-m",
        "5",
        &url,
    ];
    host.run(&curl).stdout
}

#[test]
fn docker_goes_on_published_ports_container_names_and_containers_to_the_mesh() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    let Some(docker) = Docker::start(alpha.host) else {
        return;
    };
    let (own, far) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let resolver = alpha.dns().ip().to_string();
    let _on_beta = Service::start(beta.host, SERVICE);
    cable(&lab, stranger, alpha.host, &own);

    let web = [
        "-d",
        "-p",
        "8080:80",
        "box",
        "/bin/busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/www",
    ];
    let _ = docker.run(&[&["run"], &web[..]].concat()).ok();
    wait_for("the published port for a member", PATIENCE, || {
        let status = http(beta.host, own[0]);
        ensure(status == "200", status)
    });
    assert_eq!(
        http(stranger, address(LAN[0])),
        "200",
        "for the LAN by its own address"
    );
    for ip in own {
        reaches_not(stranger, ip, 8080);
    }

    let name = ["nslookup", "beta.lab.internal"];
    let knows = |said: String| ensure(said.contains(&far[0].to_string()), said);
    wait_for("a name, asked by a container", PATIENCE, || {
        knows(docker.in_container(&["--dns", &resolver], &name)?)
    });
    // On a network of its own Docker's resolver asks for the container.
    let _ = docker.run(&["network", "create", "backend"]).ok();
    wait_for("a name, by Docker's resolver", PATIENCE, || {
        knows(docker.in_container(&["--network", "backend", "--dns", &resolver], &name)?)
    });
    for network in ["bridge", "backend"] {
        let to = far[0].to_string();
        let port = SERVICE.to_string();
        wait_for("another node from a container", PATIENCE, || {
            let said = docker.in_container(&["--network", network], &["nc", &to, &port])?;
            ensure(said.trim() == own[0].to_string(), said)
        });
    }
    assert_eq!(dropped(&alpha, "leak"), 0);
    assert_eq!(dropped(&alpha, "forwarded"), 0);
}

#[test]
fn docker_s_policy_for_forwarding_is_told_where_it_drops_what_members_send_to_others_containers() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let Some(_docker) = Docker::start(alpha.host) else {
        return;
    };
    let (own, far) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let _on_beta = Service::start(beta.host, SERVICE);
    // Of another engine, which Docker knows nothing of.
    let container = Container::start(alpha.host, 0);
    let _server = container.serve();
    let commands = opens(&alpha, &["Docker's policy"], || {
        reaches_not(beta.host, own[0], container.published());
        let _ = container
            .tries(far[0], SERVICE)
            .expect_err("Docker drops it");
    });
    assert_eq!(
        commands,
        ["iptables -I DOCKER-USER -i im0 -j ACCEPT && iptables -I DOCKER-USER -o im0 -j ACCEPT"]
    );
    assert_eq!(asks(beta.host, own[0], container.published()), far[0]);
    assert_eq!(container.asks(far[0], SERVICE), own[0]);
}

#[test]
fn s23_on_a_gateway_docker_s_policy_is_told_and_members_and_a_lan_keep_their_addresses() {
    let Some(lab) = Lab::new(3) else { return };
    let lan = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    let Some(docker) = Docker::start(beta.host) else {
        return;
    };
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    cable(&lab, lan, beta.host, &[]);
    brings(&alpha, &beta);
    answers(lan, own);
    let _on_lan = Service::start(lan, SERVICE);
    let told = finding(&beta, "forward-policy");
    let text = told["text"].as_str().expect("a text");
    assert!(text.starts_with("Docker's policy"), "{text}");
    let remedy = told["remedy"].as_str().expect("a remedy");
    shell(beta.host, remedy.split('`').nth(1).expect("a command"));
    for (far, own) in STRANGER.map(address).into_iter().zip(own) {
        assert_eq!(asks(alpha.host, far, SERVICE), own, "to the LAN");
    }

    // A published port sees who asks, by the mesh and by the LAN.
    let container = ["-d", "--name", "web", "-p", "8080:80", "box"];
    let server = ["/bin/busybox", "httpd", "-f", "-vv", "-h", "/www"];
    let _ = docker
        .run(&[&["run"][..], &container, &server].concat())
        .ok();
    for (from, to, seen) in [
        (alpha.host, far[0], own[0]),
        (lan, address(LAN[0]), address(STRANGER[0])),
    ] {
        wait_for("who the container sees", PATIENCE, || {
            let status = http(from, to);
            let logs = docker.run(&["logs", "web"]);
            let logs = format!("{}{}", logs.stdout, logs.stderr);
            ensure(
                status == "200" && logs.contains(&seen.to_string()),
                format!("{status}, {logs}"),
            )
        });
    }
    // Docker masquerades its containers, and none of the mesh's addresses.
    let status = beta.status();
    let mut all = status["findings"].as_array().into_iter().flatten();
    assert!(!all.any(|it| it["code"] == "masquerade"), "{status}");
    no_finding(&beta, "forward-policy");
}
