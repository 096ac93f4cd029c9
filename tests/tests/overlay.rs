//! The overlay belongs to its interface (S25): what strangers, containers and
//! forwarding hosts can do with overlay addresses, and what goes on working.

use std::net::{IpAddr, SocketAddr, TcpListener};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait_for};

/// Of a service "on the overlay only" that listens on all addresses.
const SERVICE: u16 = 9000;

#[test]
fn s25_a_stranger_on_the_lan_reaches_nothing_by_an_overlay_address() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, stranger] = [0, 1, 2].map(|index| &lab.hosts[index]);
    let mut alpha = Agent::new(alpha, "alpha");
    let mut beta = Agent::new(beta, "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    let overlay = overlay_of(&beta, "alpha");
    let _service = serve(alpha.host);
    let lan = cable(&lab, stranger, alpha.host, &overlay);

    for ip in overlay {
        reaches(beta.host, ip, SERVICE);
        reaches(beta.host, ip, 7480);
    }
    for ip in lan {
        reaches(stranger, ip, SERVICE);
    }
    let before = dropped(&alpha, "lan_to_overlay");
    for ip in overlay {
        for port in [SERVICE, 7480, 22] {
            reaches_not(stranger, ip, port);
        }
    }
    assert!(dropped(&alpha, "lan_to_overlay") >= before + 6);
    let shown = alpha.cli(&["status"]).ok();
    assert!(
        shown.contains("to an overlay address, not through the tunnel"),
        "{shown}"
    );
}

/// Both overlay addresses of a node.
fn overlay_of(agent: &Agent, node: &str) -> [IpAddr; 2] {
    [agent.overlay_ipv4(node), agent.overlay_ipv6(node)].map(|ip| ip.parse().expect("an address"))
}

/// A service on all addresses of a host.
fn serve(host: &Host) -> Vec<TcpListener> {
    let all: SocketAddr = ([0u16; 8], SERVICE).into();
    vec![host.listen(all).expect("a port")]
}

/// A LAN of two hosts, on which the first takes the second for the way to
/// overlay addresses; returns the second's addresses there.
fn cable(lab: &Lab, first: &Host, second: &Host, overlay: &[IpAddr]) -> [IpAddr; 2] {
    lab.connect_directly(first, second);
    for (host, address) in [(first, "2001:db8:5::1/64"), (second, "2001:db8:5::2/64")] {
        ip(host, &["address", "add", address, "dev", "direct", "nodad"]);
    }
    let lan = ["198.51.100.2", "2001:db8:5::2"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    for to in overlay {
        let via = lan[usize::from(to.is_ipv6())].to_string();
        ip(first, &["route", "add", &to.to_string(), "via", &via]);
    }
    lan
}

fn ip(host: &Host, arguments: &[&str]) {
    let _ = host.run(&[&["ip"], arguments].concat()).ok();
}

fn reaches(host: &Host, ip: IpAddr, port: u16) {
    wait_for(
        &format!("{ip} port {port} from {}", host.name),
        PATIENCE,
        || host.tcp_to((ip, port).into()).map(drop),
    );
}

/// Nothing comes back at all, not even a refusal.
fn reaches_not(host: &Host, ip: IpAddr, port: u16) {
    let words = [
        "timeout",
        "2",
        "bash",
        "-c",
        "exec 3<>/dev/tcp/$0/$1",
        &ip.to_string(),
        &port.to_string(),
    ];
    let done = host.run(&words);
    assert_eq!(
        done.code, 124,
        "{ip} port {port} from {}: {done}",
        host.name
    );
}

/// How many packets an agent's host has dropped for a reason.
fn dropped(agent: &Agent, why: &str) -> u64 {
    let status = agent.status();
    status["overlay"]["dropped"][why]
        .as_u64()
        .unwrap_or_else(|| panic!("no counter: {status}"))
}
