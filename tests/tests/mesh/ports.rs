//! Ports that other programs have: `init` and `join` change nothing then, and
//! WireGuard takes the next free port and keeps it.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::{DOMAIN, PATIENCE, PORT},
    wait_for,
};
use serde_json::Value;

/// This process, which holds the ports here.
fn own_pid() -> String {
    format!("pid {}", std::process::id())
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn udp(host: &Host, port: u16) -> UdpSocket {
    host.udp(at(port)).expect("a free port")
}

fn tcp(host: &Host, port: u16) -> TcpListener {
    host.listen(at(port)).expect("a free port")
}

/// What there is in its folder beside the configuration.
fn files(agent: &Agent) -> Vec<String> {
    let entries = fs::read_dir(&agent.dir).expect("its folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "config.toml").collect()
}

fn init<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["init", "--domain", DOMAIN, "--name", "alpha", "--no-start"];
    [&usual[..], more].concat()
}

fn wireguard_port(agent: &Agent) -> Value {
    agent.status()["tunnel"]["port"].clone()
}

fn wait_ping(agent: &Agent, address: &str) {
    wait_for("a packet through the tunnel", PATIENCE, || {
        agent.pings(address).then_some(()).ok_or("not yet")
    });
}

#[test]
fn a_taken_port_is_told_with_its_holder_before_init_or_join_writes_anything() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    for (holder, port, remedy) in [
        (Holder::Udp(udp(alpha.host, PORT)), PORT, "`listen`"),
        (Holder::Tcp(tcp(alpha.host, 7480)), 7480, "[page]"),
        (Holder::Tcp(tcp(alpha.host, 7443)), 7443, "[acme]"),
    ] {
        // Those before it in the list are free again by then.
        for part in [&port.to_string(), &own_pid(), remedy] {
            alpha.refused(&init(&[]), part);
        }
        assert_eq!(files(&alpha), [""; 0], "port {port}");
        drop(holder);
    }
    let _ = alpha.init();
    let token = alpha.invite(&[]);
    let holder = udp(beta.host, PORT);
    let address = alpha.address();
    let words = ["join", &address, "--token", &token, "--no-start"];
    for part in ["51819", &own_pid(), "nothing was changed"] {
        beta.refused(&[&words[..], &["--name", "beta"]].concat(), part);
    }
    assert_eq!(files(&beta), [""; 0]);
    drop(holder);
    // The token wasn't spent.
    beta.join_with(&alpha, &token);
    alpha.wait_nodes(2);
}

enum Holder {
    Udp(#[allow(dead_code, reason = "held")] UdpSocket),
    Tcp(#[allow(dead_code, reason = "held")] TcpListener),
}

#[test]
fn wireguard_takes_the_next_free_port_tells_it_and_keeps_it() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let holders = [udp(alpha.host, 51820), udp(alpha.host, 51821)];
    let told = alpha.cli(&init(&[])).ok();
    for part in ["51820", &own_pid(), "port 51822"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    alpha.start();
    assert_eq!(wireguard_port(&alpha), 51822);
    beta.join(&alpha);
    alpha.wait_nodes(2);
    assert_eq!(wireguard_port(&beta), 51820);
    let (first, second) = (alpha.overlay_ipv4("alpha"), alpha.overlay_ipv4("beta"));
    // Beta learns the port from alpha: it dials first.
    wait_ping(&beta, &first);
    wait_ping(&alpha, &second);
    // Others know it by now, so it stays also where the usual one is free.
    drop(holders);
    alpha.stop();
    alpha.start();
    assert_eq!(wireguard_port(&alpha), 51822);
    wait_ping(&beta, &first);
    // A program that came in between has the next start go on to the next one.
    alpha.stop();
    let _holder = udp(alpha.host, 51822);
    alpha.start();
    assert_eq!(wireguard_port(&alpha), 51823);
    alpha.wait_nodes(2);
    wait_ping(&beta, &first);
    wait_ping(&alpha, &second);
}

#[test]
fn a_port_of_wireguard_that_the_configuration_names_is_never_another() {
    let Some(lab) = Lab::new(1) else { return };
    let config = "[tunnel]\nlisten_port = 51820\n";
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", config);
    let holder = udp(alpha.host, 51820);
    for part in ["51820", &own_pid(), "`listen_port`"] {
        alpha.refused(&init(&[]), part);
    }
    assert_eq!(files(&alpha), [""; 0]);
    drop(holder);
    let _ = alpha.init();
    alpha.stop();
    let _holder = udp(alpha.host, 51820);
    for part in ["51820", &own_pid(), "tunnel.listen_port"] {
        alpha.refused(&["run"], part);
    }
}
