//! Who gets no UDP out is a full member by a lane: QUIC inside a TCP connection to a relay.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use innermesh_tests::{
    Agent, Host, Lab, agent::PATIENCE, installed, nat::NatKind, wait::ensure, wait_for,
};

use crate::{CONFIG, agent, peer};

/// UDP is tried once a minute.
const UDP_AGAIN: Duration = Duration::from_secs(120);
const RELAY: &str = "[tunnel]\nbackend = \"embedded\"\n[lane]\nlisten_tls = [\"0.0.0.0\"]\n";

const RELAY_OF_BOTH: &str = "[tunnel]\nbackend = \"embedded\"\n[lane]\nlisten_tls = [\"0.0.0.0\"]\n\
                             listen = [\"0.0.0.0\"]\n";

/// Waits until a node is connected by a lane with a relay alone.
fn wait_lane(agent: &Agent, relay: &str) -> Duration {
    let began = Instant::now();
    wait_for("a lane", PATIENCE, || {
        let told = agent.json(&["netcheck"]);
        ensure(told["lanes"][0] == relay, told.to_string())
    });
    began.elapsed()
}

fn wait_pings(from: &Agent, to: &str) {
    let address = from.overlay_ipv4(to);
    wait_for(&format!("pings to {to}"), PATIENCE, || {
        ensure(from.pings(&address), peer(from, to).to_string())
    });
}

#[test]
fn who_loses_udp_is_back_by_a_lane_and_goes_back_to_udp_after_it() {
    let Some(lab) = Lab::new(3) else { return };
    let mut relay = Agent::with_config(&lab.hosts[0], "relay", RELAY);
    let _ = relay.init();
    let _ = relay.cli(&["role", "add", "relay", "relay"]).ok();
    let nat = lab.put_behind_nat(NatKind::PortRestricted, &[&lab.hosts[1]]);
    let mut hotel = agent(&lab, 1, "hotel");
    hotel.join(&relay);
    let mut other = Agent::with_config(&lab.hosts[2], "other", CONFIG);
    other.join(&relay);
    for agent in [&relay, &hotel, &other] {
        agent.wait_nodes(3);
    }
    wait_pings(&hotel, "other");
    wait_for("what a relay announces", PATIENCE, || {
        let kept = hotel.dir.join("lanes");
        let kept = [kept.clone(), hotel.dir.join("state/lanes")];
        ensure(kept.iter().any(|file| file.exists()), "no lane is known")
    });

    nat.translate(NatKind::NoUdp);
    let began = Instant::now();
    wait_pings(&hotel, "relay");
    println!("back by a lane after {:?}", began.elapsed());
    let _ = wait_lane(&hotel, "relay");
    for (from, to) in [(&hotel, "relay"), (&hotel, "other"), (&other, "hotel")] {
        wait_pings(from, to);
    }
    let told = peer(&hotel, "relay");
    assert_eq!(told["tcp"], true, "{told}");
    let told = peer(&hotel, "other");
    assert_eq!(
        (&told["path"], &told["tcp"]),
        (&"relay".into(), &true.into()),
        "{told}"
    );
    let shown = hotel.cli(&["peers"]).ok();
    assert!(shown.contains("relay relay (tcp)"), "{shown}");
    let shown = hotel.cli(&["netcheck"]).ok();
    assert!(shown.contains("UDP is blocked here"), "{shown}");
    let findings = &hotel.status()["findings"];
    let codes: Vec<&str> = findings
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|finding| finding["code"].as_str())
        .collect();
    assert!(codes.contains(&"udp-blocked"), "{findings}");
    println!("{codes:?}");
    // The names of both are answered at both.
    let address = other.overlay_ipv4("hotel");
    other.wait_answer(&["hotel.lab.internal", "A"], &[&address]);
    let address = hotel.overlay_ipv4("other");
    hotel.wait_answer(&["other.lab.internal", "A"], &[&address]);

    // It starts again where UDP is blocked still.
    hotel.stop();
    hotel.start();
    println!("by a lane {:?} after a start", wait_lane(&hotel, "relay"));
    wait_pings(&hotel, "other");

    nat.translate(NatKind::PortRestricted);
    wait_for("UDP", UDP_AGAIN, || {
        let told = hotel.json(&["netcheck"]);
        ensure(
            told["lanes"].as_array().is_some_and(Vec::is_empty),
            told.to_string(),
        )
    });
    wait_pings(&hotel, "other");
    assert_eq!(peer(&hotel, "relay")["tcp"], false);
}

/// What ops/docs/relay.md says for each, with the address of this host in place of a name.
fn web_servers(relay: &Host) -> [(&'static str, String, String); 3] {
    let ip = relay.ipv4;
    let file = |name: &str, text: String| {
        let path = relay.directory.join(name);
        fs::write(&path, text).expect("a file of the laboratory");
        path.to_string_lossy().into_owned()
    };
    let caddy = format!(
        "{{\n admin off\n auto_https disable_redirects\n skip_install_trust\n}}\n\
         https://{ip} {{\n tls internal\n reverse_proxy /innermesh 127.0.0.1:8443\n}}\n"
    );
    let nginx = format!(
        "daemon off;\npid {0}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n access_log off;\n \
         client_body_temp_path {0}/body;\n proxy_temp_path {0}/proxy;\n fastcgi_temp_path {0}/fastcgi;\n \
         uwsgi_temp_path {0}/uwsgi;\n scgi_temp_path {0}/scgi;\n server {{\n listen {ip}:8081;\n \
         location /innermesh {{\n proxy_pass http://127.0.0.1:8443;\n proxy_http_version 1.1;\n \
         proxy_set_header Upgrade $http_upgrade;\n proxy_set_header Connection upgrade;\n \
         proxy_set_header X-Forwarded-For $remote_addr;\n proxy_read_timeout 1h;\n }}\n }}\n}}\n",
        relay.directory.display()
    );
    let haproxy = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         frontend http\n bind {ip}:8082\n default_backend innermesh\n\
         backend innermesh\n option forwardfor\n timeout tunnel 1h\n server agent 127.0.0.1:8443\n"
    );
    let run = |text: &str, file: String| text.replace("FILE", &file);
    [
        (
            "caddy",
            run(
                "caddy run --adapter caddyfile --config FILE",
                file("Caddyfile", caddy),
            ),
            format!("wss://{ip}/innermesh"),
        ),
        (
            "nginx",
            run("nginx -c FILE", file("nginx.conf", nginx)),
            format!("ws://{ip}:8081/innermesh"),
        ),
        (
            "haproxy",
            run("haproxy -f FILE", file("haproxy.cfg", haproxy)),
            format!("ws://{ip}:8082/innermesh"),
        ),
    ]
}

#[test]
fn machines_without_udp_join_through_web_servers_and_start_again() {
    if !installed(&["caddy", "nginx", "haproxy"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let config = format!(
        "{CONFIG}[lane]\nlisten = [\"127.0.0.1:8443\"]\naddress = \"wss://{}/innermesh\"\n",
        lab.hosts[0].ipv4
    );
    let mut relay = Agent::with_config(&lab.hosts[0], "relay", &config);
    let _ = relay.init();
    let _ = relay.cli(&["role", "add", "relay", "relay"]).ok();
    let inside = [&lab.hosts[1], &lab.hosts[2], &lab.hosts[3]];
    let _nat = lab.put_behind_nat(NatKind::NoUdp, &inside);
    let home = relay.host.directory.to_string_lossy().into_owned();
    let environment = [("HOME", home.as_str())];
    let mut servers = Vec::new();
    let mut joined = Vec::new();
    for (n, (name, command, url)) in web_servers(relay.host).into_iter().enumerate() {
        let words: Vec<&str> = command.split(' ').collect();
        servers.push(relay.host.start(name, &words, &environment));
        let mut agent = agent(&lab, n + 1, name);
        let token = relay.invite(&[]);
        let join = [
            "join",
            &url,
            "--token",
            &token,
            "--name",
            name,
            "--no-start",
        ];
        wait_for(&format!("a join through {name}"), PATIENCE, || {
            agent.cli(&join).result()
        });
        agent.start();
        println!("by a lane {:?} after the start", wait_lane(&agent, "relay"));
        joined.push(agent);
    }
    for agent in &joined {
        agent.wait_nodes(4);
    }
    for agent in &mut joined {
        wait_pings(agent, "relay");
        agent.stop();
        agent.start();
        let _ = wait_lane(agent, "relay");
    }
    wait_pings(&joined[0], "nginx");
    wait_pings(&joined[2], "caddy");
    // The relay sees whom the web server speaks for.
    let outer = lab.hosts[1].ipv4.to_string();
    for name in ["caddy", "nginx", "haproxy"] {
        let told = peer(&relay, name);
        let from = told["endpoint"].as_str().unwrap_or_default();
        assert!(from.starts_with(&outer), "{told}");
    }
}

#[test]
fn strangers_at_a_lane_are_bounded_and_in_nobodys_way() {
    let Some(lab) = Lab::new(3) else { return };
    let mut relay = Agent::with_config(&lab.hosts[0], "relay", RELAY_OF_BOTH);
    let _ = relay.init();
    let _ = relay.cli(&["role", "add", "relay", "relay"]).ok();
    let _nat = lab.put_behind_nat(NatKind::NoUdp, &[&lab.hosts[1]]);
    let [tls, plain] = [443, 8443].map(|port| SocketAddr::from((relay.host.ipv4, port)));
    // More than one address may have, which say nothing, or little by little.
    let stranger = &lab.hosts[2];
    let began = Instant::now();
    let mut waiting: Vec<TcpStream> = Vec::new();
    for n in 0..100 {
        let at = if n % 2 == 0 { tls } else { plain };
        let mut stream = stranger.tcp_to(at).expect("it listens");
        let _ = stream.write_all(b"GET /innermesh HTTP/1.1\r\nHost: x\r\n");
        waiting.push(stream);
    }
    for noise in [
        &b"\x16\x03\x01\x00\xff"[..],
        b"\0\0\0\0\r\n\r\n",
        &[0xff; 100_000],
    ] {
        for at in [tls, plain] {
            let mut stream = stranger.tcp_to(at).expect("it listens");
            let _ = stream.write_all(noise);
            waiting.push(stream);
        }
    }
    let mut hotel = agent(&lab, 1, "hotel");
    let url = format!("wss://{}/innermesh", relay.host.ipv4);
    let token = relay.invite(&[]);
    let join = [
        "join",
        &url,
        "--token",
        &token,
        "--name",
        "hotel",
        "--no-start",
    ];
    let _ = hotel.cli(&join).ok();
    hotel.start();
    let _ = wait_lane(&hotel, "relay");
    wait_pings(&hotel, "relay");
    for stream in &mut waiting {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        // Whatever is answered, it ends.
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it waits still"),
            _ => {}
        }
        assert!(answer.len() < 1000, "nothing is amplified");
    }
    println!("all ended within {:?}", began.elapsed());
    let counters = &relay.status()["counters"];
    assert!(counters["lanes_failed"].as_u64() > Some(20), "{counters}");
    assert_eq!(counters["lanes"], 2, "{counters}");
    assert!(hotel.pings(&hotel.overlay_ipv4("relay")));
}
