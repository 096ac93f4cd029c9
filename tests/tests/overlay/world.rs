//! What the tests of the overlay are made of: two members, a LAN beside them, a
//! service that says who asks, members that send what they shouldn't, and
//! counters on the far side of a cable.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::PATIENCE,
    mesh::{NAMES, connect},
    wait::ensure,
    wait_for,
};

/// Of a service "on the overlay only" that listens on all addresses.
pub const SERVICE: u16 = 9000;
/// Where a stranger takes a host for the way to the overlay.
pub const LAN: [&str; 2] = ["198.51.100.2", "2001:db8:5::2"];
/// The stranger's own addresses there.
pub const STRANGER: [&str; 2] = ["198.51.100.1", "2001:db8:5::1"];

/// The members alpha and beta on the first two hosts, which know each other.
pub fn pair(lab: &Lab) -> (Agent<'_>, Agent<'_>) {
    pair_with(lab, "")
}

/// As [`pair`], with a configuration of both.
pub fn pair_with<'lab>(lab: &'lab Lab, config: &str) -> (Agent<'lab>, Agent<'lab>) {
    let mut pair = [0, 1].map(|n| Agent::with_config(&lab.hosts[n], NAMES[n], config));
    let _ = connect(&mut pair);
    pair.into()
}

/// Both overlay addresses of a node.
pub fn overlay_of(agent: &Agent, node: &str) -> [IpAddr; 2] {
    [agent.overlay_ipv4(node), agent.overlay_ipv6(node)].map(address)
}

pub fn address(text: impl AsRef<str>) -> IpAddr {
    text.as_ref().parse().expect("an address")
}

/// A LAN of two hosts, on which the first takes the second for the way to
/// overlay addresses.
pub fn cable(lab: &Lab, first: &Host, second: &Host, overlay: &[IpAddr]) {
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

pub fn shell(host: &Host, script: &str) -> String {
    host.run(&["sh", "-euc", script]).ok()
}

pub fn reaches(host: &Host, ip: IpAddr, port: u16) {
    let what = format!("{ip} port {port} from {}", host.name);
    wait_for(&what, PATIENCE, || host.tcp_to((ip, port).into()).map(drop));
}

/// Nothing comes back at all, not even a refusal.
pub fn reaches_not(host: &Host, ip: IpAddr, port: u16) {
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
pub fn dropped(agent: &Agent, why: &str) -> u64 {
    let status = agent.status();
    let packets = status["overlay"]["dropped"][why].as_u64();
    packets.unwrap_or_else(|| panic!("no counter {why}: {status}"))
}

/// A service on all addresses of a host, which answers each connection with
/// the address that it came from.
pub struct Service {
    address: SocketAddr,
    host_network: std::fs::File,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub fn start(host: &Host, port: u16) -> Self {
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
            innermesh_tests::namespace::inside(network, move || {
                std::net::TcpStream::connect(address)
            })
        });
        if woken.is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// What the service says at the first connection that works.
pub fn asks(host: &Host, ip: IpAddr, port: u16) -> IpAddr {
    let what = format!("{ip} port {port} from {}", host.name);
    let said = wait_for(&what, PATIENCE, || {
        let stream = host.tcp_to((ip, port).into()).map_err(|e| e.to_string())?;
        let said = io::read_to_string(stream).map_err(|e| e.to_string())?;
        ensure(!said.is_empty(), "nothing was said").map(|()| said)
    });
    address(said.trim())
}

/// A member that sends for networks of others into another's tunnel: WireGuard
/// lets each side choose where it sends to.
pub struct Widened<'lab> {
    from: &'lab Host,
    set: String,
}

impl<'lab> Widened<'lab> {
    /// `from` sends for all of `nets` to `to`.
    pub fn new(from: &Agent<'lab>, to: &Agent, nets: &[&str]) -> Self {
        let key = shell(to.host, "wg show im0 public-key");
        let own = overlay_of(from, &from.name);
        for net in nets {
            let source = own[usize::from(net.contains(':'))];
            shell(
                from.host,
                &format!("ip route replace {net} dev im0 src {source}"),
            );
        }
        let [v4, v6] = overlay_of(from, &to.name);
        let set = format!(
            "wg set im0 peer {} allowed-ips {v4},{v6},{}",
            key.trim(),
            nets.join(",")
        );
        Self {
            from: from.host,
            set,
        }
    }

    /// Sends until something has come by the tunnel of `to` that wasn't for it
    /// and was dropped there. The own agent takes the networks away again.
    pub fn is_dropped_by(&self, to: &Agent, ip: IpAddr, port: u16) {
        let before = dropped(to, "tunnel_through");
        wait_for(
            &format!("a packet for {ip} in the tunnel"),
            PATIENCE,
            || {
                shell(self.from, &self.set);
                reaches_not(self.from, ip, port);
                ensure(dropped(to, "tunnel_through") > before, "none came")
            },
        );
    }
}

/// Counts what comes in by a host's cable `direct` with one of some addresses,
/// as source or destination, or is asked for there.
pub struct Seen<'lab>(&'lab Host);

impl<'lab> Seen<'lab> {
    /// Counts from now on.
    pub fn on(host: &'lab Host, addresses: &[IpAddr]) -> Self {
        let all = |v4: bool| -> String {
            let all = addresses.iter().filter(|ip| ip.is_ipv4() == v4);
            let all: Vec<String> = all.map(IpAddr::to_string).collect();
            all.join(", ")
        };
        let (v4, v6) = (all(true), all(false));
        shell(
            host,
            &format!(
                "nft -f - <<'RULES'
                 table inet seen {{
                     chain in {{
                         type filter hook prerouting priority -400;
                         iifname \"direct\" ip daddr {{ {v4} }} counter
                         iifname \"direct\" ip saddr {{ {v4} }} counter
                         iifname \"direct\" ip6 daddr {{ {v6} }} counter
                         iifname \"direct\" ip6 saddr {{ {v6} }} counter
                     }}
                 }}
                 table arp seen {{
                     chain in {{
                         type filter hook input priority -400;
                         iifname \"direct\" arp daddr ip {{ {v4} }} counter
                     }}
                 }}
RULES"
            ),
        );
        Self(host)
    }

    /// So many packets of IPv4 and of IPv6 so far.
    pub fn packets(&self) -> [u64; 2] {
        let rules = shell(self.0, "nft list table inet seen; nft list table arp seen");
        let mut seen = [0, 0];
        for line in rules.lines() {
            let mut words = line.split_whitespace().skip_while(|w| *w != "packets");
            if let Some(packets) = words.nth(1) {
                let packets: u64 = packets.parse().expect("a number");
                seen[usize::from(line.contains("ip6"))] += packets;
            }
        }
        seen
    }
}
