//! The overlay belongs to its interface (S25): what strangers, containers and
//! forwarding hosts can do with overlay addresses, and what goes on working.

mod containers;
mod docker;
mod forwarding;
mod host;
mod lan;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};

/// Of a service "on the overlay only" that listens on all addresses.
const SERVICE: u16 = 9000;
/// Where a stranger takes a host for the way to the overlay.
const LAN: [&str; 2] = ["198.51.100.2", "2001:db8:5::2"];
/// The stranger's own addresses there.
const STRANGER: [&str; 2] = ["198.51.100.1", "2001:db8:5::1"];

/// Both overlay addresses of a node.
fn overlay_of(agent: &Agent, node: &str) -> [IpAddr; 2] {
    [agent.overlay_ipv4(node), agent.overlay_ipv6(node)].map(address)
}

fn address(text: impl AsRef<str>) -> IpAddr {
    text.as_ref().parse().expect("an address")
}

/// A LAN of two hosts, on which the first takes the second for the way to
/// overlay addresses.
fn cable(lab: &Lab, first: &Host, second: &Host, overlay: &[IpAddr]) {
    lab.connect_directly(first, second);
    for (host, number) in [(first, 1), (second, 2)] {
        shell(
            host,
            &format!(
                "ip address add 2001:db8:5::{number}/64 dev direct nodad
                 echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
                 echo 0 >/proc/sys/net/ipv4/conf/direct/rp_filter"
            ),
        );
    }
    for to in overlay {
        let via = LAN[usize::from(to.is_ipv6())];
        shell(
            first,
            &format!("ip route replace {to} via {via} dev direct"),
        );
    }
}

fn shell(host: &Host, script: &str) -> String {
    host.run(&["sh", "-euc", script]).ok()
}

fn reaches(host: &Host, ip: IpAddr, port: u16) {
    let what = format!("{ip} port {port} from {}", host.name);
    wait_for(&what, PATIENCE, || host.tcp_to((ip, port).into()).map(drop));
}

/// Nothing comes back at all, not even a refusal.
fn reaches_not(host: &Host, ip: IpAddr, port: u16) {
    let script = "exec 3<>/dev/tcp/$0/$1";
    let (to, port) = (ip.to_string(), port.to_string());
    let done = host.run(&["timeout", "2", "bash", "-c", script, &to, &port]);
    assert_eq!(
        done.code, 124,
        "{ip} port {port} from {}: {done}",
        host.name
    );
}

/// How many packets an agent's host has dropped for a reason.
fn dropped(agent: &Agent, why: &str) -> u64 {
    let status = agent.status();
    let packets = status["overlay"]["dropped"][why].as_u64();
    packets.unwrap_or_else(|| panic!("no counter {why}: {status}"))
}

/// A service on all addresses of a host, which answers each connection with
/// the address that it came from.
struct Service {
    address: SocketAddr,
    host_network: std::fs::File,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(host: &Host, port: u16) -> Self {
        let listener = host.listen(([0u16; 8], port).into()).expect("a port");
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ends = ends.clone();
            move || answer(&listener, &ends)
        });
        Self {
            address: (std::net::Ipv6Addr::LOCALHOST, port).into(),
            host_network: host.network().expect("its network"),
            ends,
            thread: Some(thread),
        }
    }
}

fn answer(listener: &TcpListener, ends: &AtomicBool) {
    for stream in listener.incoming() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(mut stream) = stream {
            let from = stream.peer_addr().map(|from| from.ip().to_canonical());
            let line = from.map_or_else(|e| e.to_string(), |ip| ip.to_string());
            let _ = io::Write::write_all(&mut stream, format!("{line}\n").as_bytes());
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let address = self.address;
        let network = self.host_network.try_clone();
        let woken = network.and_then(|network| {
            innermesh_tests::lab::inside(network, move || std::net::TcpStream::connect(address))
        });
        if woken.is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// What the service says at the first connection that works.
fn asks(host: &Host, ip: IpAddr, port: u16) -> IpAddr {
    let what = format!("{ip} port {port} from {}", host.name);
    let said = wait_for(&what, PATIENCE, || {
        let stream = host.tcp_to((ip, port).into()).map_err(|e| e.to_string())?;
        let said = io::read_to_string(stream).map_err(|e| e.to_string())?;
        ensure(!said.is_empty(), "nothing was said").map(|()| said)
    });
    address(said.trim())
}

#[test]
fn s25_a_stranger_on_the_lan_reaches_nothing_by_an_overlay_address() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, stranger] = [0, 1, 2].map(|index| &lab.hosts[index]);
    let mut alpha = Agent::new(alpha, "alpha");
    let mut beta = Agent::new(beta, "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    let overlay = overlay_of(&beta, "alpha");
    let resolver = alpha.dns().ip();
    let _service = Service::start(alpha.host, SERVICE);
    let way = [&overlay[..], &[resolver]].concat();
    cable(&lab, stranger, alpha.host, &way);

    let own = overlay_of(&alpha, "beta");
    for (ip, from) in overlay.into_iter().zip(own) {
        assert_eq!(asks(beta.host, ip, SERVICE), from, "the true source");
        reaches(beta.host, ip, 7480);
    }
    for (ip, from) in LAN.into_iter().zip(STRANGER) {
        let said = asks(stranger, address(ip), SERVICE);
        assert_eq!(said, address(from), "by the LAN's address");
    }
    let before = dropped(&alpha, "lan_to_overlay");
    for ip in overlay {
        for port in [SERVICE, 7480, 22] {
            reaches_not(stranger, ip, port);
        }
    }
    let question = [
        "dig",
        "+tries=1",
        "+time=1",
        &format!("@{resolver}"),
        "alpha.lab.internal",
    ];
    let answer = stranger.run(&question);
    assert_eq!(answer.code, 9, "no name server answers: {answer}");
    assert!(dropped(&alpha, "lan_to_overlay") > before + 6);
    let shown = alpha.cli(&["status"]).ok();
    let line = "to an overlay address, not through the tunnel";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn s25_a_packet_with_a_members_source_counts_only_from_the_tunnel() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, stranger] = [0, 1, 2].map(|index| &lab.hosts[index]);
    let mut alpha = Agent::new(alpha, "alpha");
    let mut beta = Agent::new(beta, "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    let members = overlay_of(&alpha, "beta");
    let own = overlay_of(&beta, "alpha");
    cable(&lab, stranger, alpha.host, &own);
    for member in members {
        shell(
            stranger,
            &format!(
                "ip address add {member} dev direct nodad 2>/dev/null ||
                                  ip address add {member} dev direct"
            ),
        );
    }
    let heard = alpha.host.udp(([0u16; 8], SERVICE).into()).expect("a port");
    heard.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let before = dropped(&alpha, "lan_spoofed");
    for family in [0, 1] {
        let say = |from: IpAddr, to: IpAddr| {
            let socket = stranger.udp((from, 0).into()).expect("a source");
            let sent = socket.send_to(from.to_string().as_bytes(), (to, SERVICE));
            sent.expect("it leaves the stranger");
        };
        say(members[family], own[family]);
        say(members[family], address(LAN[family]));
        // The same way, later: what comes first tells what came before.
        say(address(STRANGER[family]), address(LAN[family]));
        let mut buffer = [0; 100];
        let (length, _) = heard.recv_from(&mut buffer).expect("a packet");
        let said = String::from_utf8_lossy(&buffer[..length]);
        assert_eq!(said, STRANGER[family]);
    }
    assert!(dropped(&alpha, "lan_spoofed") >= before + 4);
}

#[test]
fn s25_a_lan_that_asks_for_an_overlay_address_is_told_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, stranger] = [0, 1].map(|index| &lab.hosts[index]);
    let mut alpha = Agent::new(alpha, "alpha");
    let _ = alpha.init();
    let [own, _] = overlay_of(&alpha, "alpha");
    cable(&lab, stranger, alpha.host, &[]);
    let ask = |ip: &str| {
        shell(
            stranger,
            &format!("ip route replace {ip} dev direct; ping -n -c 1 -W 1 {ip} >&2 || true"),
        );
        shell(stranger, &format!("ip -j neighbour show {ip} dev direct"))
    };
    assert!(
        ask(LAN[0]).contains("lladdr"),
        "the LAN's own address is found"
    );
    assert!(!ask(&own.to_string()).contains("lladdr"));
    assert!(!ask(&alpha.dns().ip().to_string()).contains("lladdr"));
    assert!(dropped(&alpha, "arp_asked") >= 2);
}
