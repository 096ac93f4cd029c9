//! Containers, as a container engine makes them: a network namespace behind a
//! bridge, the host's masquerading, and a published port.

use std::net::IpAddr;

use innermesh_tests::{Finished, Host, Lab, Process, agent::PATIENCE, wait::ensure, wait_for};

use crate::world::{
    LAN, SERVICE, Service, Widened, address, asks, cable, dropped, overlay_of, pair, pair_with,
    reaches_not, shell,
};

/// A container on a bridge of its own, with its port 80 published.
pub struct Container<'lab> {
    host: &'lab Host,
    number: u8,
}

impl<'lab> Container<'lab> {
    /// A container engine's work: a namespace, a bridge, and what the host's
    /// filter does for both.
    pub fn start(host: &'lab Host, number: u8) -> Self {
        let container = Self { host, number };
        let [v4, v6] = container.addresses();
        let n = number;
        let port = container.published();
        shell(
            host,
            &format!(
                "echo 1 >/proc/sys/net/ipv4/ip_forward
                 echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
                 ip link add br-c{n} type bridge
                 ip address add 172.30.{n}.1/24 dev br-c{n}
                 ip address add fd00:c:{n}::1/64 dev br-c{n} nodad
                 ip link set br-c{n} up
                 ip netns add c{n}
                 ip link add veth-c{n} type veth peer name eth0 netns c{n}
                 ip link set veth-c{n} master br-c{n} up
                 ip -n c{n} link set lo up
                 ip -n c{n} link set eth0 up
                 ip -n c{n} address add {v4}/24 dev eth0
                 ip -n c{n} address add {v6}/64 dev eth0 nodad
                 ip -n c{n} route add default via 172.30.{n}.1
                 ip -n c{n} route add default via fd00:c:{n}::1
                 nft -f - <<'RULES'
                 table inet engine{n} {{
                     chain published {{
                         type nat hook prerouting priority dstnat;
                         fib daddr type local tcp dport {port} meta nfproto ipv4 dnat ip to {v4}:80
                         fib daddr type local tcp dport {port} meta nfproto ipv6 dnat ip6 to [{v6}]:80
                     }}
                     chain out {{
                         type nat hook postrouting priority srcnat;
                         ip saddr 172.30.{n}.0/24 oifname != \"br-c{n}\" masquerade
                         ip6 saddr fd00:c:{n}::/64 oifname != \"br-c{n}\" masquerade
                     }}
                 }}
RULES"
            ),
        );
        container
    }

    fn addresses(&self) -> [IpAddr; 2] {
        let number = self.number;
        [
            address(format!("172.30.{number}.2")),
            address(format!("fd00:c:{number}::2")),
        ]
    }

    /// The host's port that leads here.
    pub fn published(&self) -> u16 {
        8080 + u16::from(self.number)
    }

    pub fn run(&self, words: &[&str]) -> Finished {
        let name = format!("c{}", self.number);
        self.host
            .run(&[&["ip", "netns", "exec", &name], words].concat())
    }

    /// Asks a [`Service`] from here: who it was for that one.
    pub fn asks(&self, ip: IpAddr, port: u16) -> IpAddr {
        let what = format!("{ip} port {port} from container {}", self.number);
        let said = wait_for(&what, PATIENCE, || self.tries(ip, port));
        address(said.trim())
    }

    pub fn tries(&self, ip: IpAddr, port: u16) -> Result<String, String> {
        let script = "exec 3<>/dev/tcp/$0/$1 && cat <&3";
        let (to, port) = (ip.to_string(), port.to_string());
        let words = ["timeout", "3", "bash", "-c", script, &to, &port];
        let said = self.run(&words).result()?;
        ensure(!said.is_empty(), "nothing was said").map(|()| said)
    }

    pub fn digs(&self, server: IpAddr) -> Result<String, String> {
        let server = format!("@{server}");
        let dig = ["dig", "+short", "+tries=1", "+time=3", &server];
        let words = [&dig[..], &["beta.lab.internal"]].concat();
        self.run(&words).result()
    }

    /// Sends one UDP packet as `source`, which it says too.
    fn says_it_is(&self, source: IpAddr, to: IpAddr) {
        let (length, nodad) = if source.is_ipv4() {
            (32, "")
        } else {
            (128, "nodad")
        };
        let (add, delete) = if self.addresses().contains(&source) {
            (String::new(), String::new())
        } else {
            (
                format!("ip address add {source}/{length} dev eth0 {nodad}"),
                format!("ip address delete {source}/{length} dev eth0"),
            )
        };
        let script = format!(
            "{add}
             python3 - <<'SEND'
import socket
s = socket.socket(socket.AF_INET6 if ':' in '{to}' else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('{source}', 0))
s.sendto(b'{source}', ('{to}', {SERVICE}))
SEND
             {delete}"
        );
        let _ = self.run(&["sh", "-euc", &script]).ok();
    }

    /// Tries to send mail from here to elsewhere by a server: what that answers.
    pub fn sends_mail(&self, server: IpAddr) -> Result<String, String> {
        let script = "import smtplib, sys
s = smtplib.SMTP(sys.argv[1], 25, timeout=3)
s.ehlo()
s.mail('ben@example.net')
print(*s.rcpt('anna@elsewhere.example'))";
        self.run(&["python3", "-c", script, &server.to_string()])
            .result()
    }

    /// A server here, which answers with the client's address that it is told by the
    /// PROXY protocol.
    pub fn serve_proxied(&self) -> Process {
        let script = "import ipaddress, socket
s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, a = s.accept()
    head = c.recv(16, socket.MSG_WAITALL)
    rest = c.recv(head[15], socket.MSG_WAITALL)
    client = rest[:4] if head[13] == 0x11 else rest[:16]
    c.sendall((str(ipaddress.ip_address(client)) + '\\n').encode())
    c.close()
";
        let name = format!("c{}", self.number);
        self.host.start(
            &format!("proxied-{name}"),
            &["ip", "netns", "exec", &name, "python3", "-c", script],
            &[],
        )
    }

    /// A server here, which answers with the address that it was asked from.
    pub fn serve(&self) -> Process {
        let script = "import socket
s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, a = s.accept()
    c.sendall((a[0].removeprefix('::ffff:') + '\\n').encode())
    c.close()
";
        let name = format!("c{}", self.number);
        self.host.start(
            &format!("server-{name}"),
            &["ip", "netns", "exec", &name, "python3", "-c", script],
            &[],
        )
    }
}

#[test]
fn containers_reach_this_node_its_resolver_and_as_this_node_all_others() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let host = alpha.host;
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    // The agent runs already when the engine makes its network.
    let container = Container::start(host, 0);
    let _on_alpha = Service::start(host, SERVICE);
    let _on_beta = Service::start(beta.host, SERVICE);

    for family in [0, 1] {
        let from = container.asks(own[family], SERVICE);
        assert_eq!(from, container.addresses()[family], "the true source");
        let from = container.asks(far[family], SERVICE);
        assert_eq!(from, own[family], "as this node");
    }
    let resolver = alpha.dns().ip();
    wait_for("an answer to the container", PATIENCE, || {
        let said = container.digs(resolver)?;
        ensure(said.trim() == far[0].to_string(), said)
    });
    let shown = alpha.status()["overlay"]["containers"].to_string();
    assert!(shown.contains("br-c0 172.30.0.0/24"), "{shown}");
    assert_eq!(dropped(&alpha, "leak"), 0);

    // A network card among the ports: the bridge is a LAN from now on.
    shell(
        host,
        "ip tuntap add card mode tap; ip link set card master br-c0",
    );
    wait_for("a bridge that is a LAN", PATIENCE, || {
        let shown = alpha.status()["overlay"]["containers"].to_string();
        ensure(!shown.contains("br-c0"), shown)
    });
    for family in [0, 1] {
        let _ = container.tries(own[family], SERVICE).expect_err("closed");
        let _ = container.tries(far[family], SERVICE).expect_err("closed");
    }
    let said = container.digs(resolver);
    assert!(said.is_err(), "{said:?}");
}

#[test]
fn containers_stay_on_this_host_where_the_configuration_says_so() {
    let Some(lab) = Lab::new(2) else { return };
    let config = "[containers]\nmesh = false\n";
    let (alpha, beta) = pair_with(&lab, config);
    let container = Container::start(alpha.host, 0);
    let _on_alpha = Service::start(alpha.host, SERVICE);
    let _on_beta = Service::start(beta.host, SERVICE);
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    for family in [0, 1] {
        asks(alpha.host, far[family], SERVICE);
        container.asks(own[family], SERVICE);
        let before = dropped(&alpha, "forwarded");
        let _ = container.tries(far[family], SERVICE).expect_err("closed");
        assert!(dropped(&alpha, "forwarded") > before);
    }
}

#[test]
fn a_containers_published_port_is_for_members_and_the_lan_and_its_address_for_neither() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    let (own, members) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let container = Container::start(alpha.host, 0);
    let _server = container.serve();
    cable(&lab, stranger, alpha.host, &own);
    for family in [0, 1] {
        let lan = address(LAN[family]);
        assert_eq!(
            asks(beta.host, own[family], 8080),
            members[family],
            "a member"
        );
        asks(stranger, lan, 8080);
        reaches_not(stranger, own[family], 8080);
        // The host itself, by either address.
        asks(alpha.host, container.addresses()[family], 80);
    }
    let nets = container.addresses().map(|ip| ip.to_string());
    let widened = Widened::new(&beta, &alpha, &nets.each_ref().map(String::as_str));
    for ip in container.addresses() {
        widened.is_dropped_by(&alpha, ip, 80);
    }
    assert_eq!(asks(beta.host, own[0], 8080), members[0], "it goes on");
}

#[test]
fn s25_of_several_container_networks_behind_a_node_a_member_reaches_published_ports_only() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let (own, members) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let behind: Vec<Container> = (0..3).map(|n| Container::start(alpha.host, n)).collect();
    let _servers: Vec<Process> = behind.iter().map(Container::serve).collect();
    let elsewhere = Container::start(beta.host, 9);
    for container in &behind {
        for family in [0, 1] {
            let asked = asks(beta.host, own[family], container.published());
            assert_eq!(asked, members[family], "a published port");
            assert_eq!(
                elsewhere.asks(own[family], container.published()),
                members[family],
                "from a container, as its node"
            );
        }
    }
    // All of them at once, and each by itself.
    let mut nets = vec!["172.30.0.0/16".to_owned(), "fd00:c::/40".to_owned()];
    for ip in behind.iter().flat_map(Container::addresses) {
        nets.push(ip.to_string());
    }
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let widened = Widened::new(&beta, &alpha, &nets);
    for ip in behind.iter().flat_map(Container::addresses) {
        widened.is_dropped_by(&alpha, ip, 80);
        let _ = elsewhere.tries(ip, 80).expect_err("closed");
    }
    assert_eq!(dropped(&alpha, "leak"), 0);
}

#[test]
fn s25_a_container_counts_by_its_bridge_and_its_address_and_by_nothing_else() {
    let Some(lab) = Lab::new(3) else { return };
    let (alpha, beta) = pair(&lab);
    let stranger = &lab.hosts[2];
    let (own, far) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let [first, second] = [0, 1].map(|n| Container::start(alpha.host, n));
    let heard = [&alpha, &beta].map(|agent| {
        let heard = agent.host.udp(([0u16; 8], SERVICE).into()).expect("a port");
        heard.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        heard
    });
    cable(&lab, stranger, alpha.host, &[own, far].concat());
    for family in [0, 1] {
        let (mine, others) = (first.addresses()[family], second.addresses()[family]);
        let before = ["lan_spoofed", "lan_to_overlay"].map(|why| dropped(&alpha, why));
        // With the address of a member, to this node by both of its addresses.
        first.says_it_is(far[family], own[family]);
        first.says_it_is(far[family], address(LAN[family]));
        // With an address of the other container's network, or of none.
        for source in [others, address(["203.0.113.9", "2001:db8:9::9"][family])] {
            first.says_it_is(source, own[family]);
            first.says_it_is(source, far[family]);
        }
        // A stranger that has a container's address, to this node and through it.
        let nodad = if family == 1 { "nodad" } else { "" };
        shell(
            stranger,
            &format!("ip address replace {mine} dev direct {nodad}"),
        );
        for to in [own[family], far[family]] {
            let socket = stranger.udp((mine, 0).into()).expect("a source");
            let sent = socket.send_to(mine.to_string().as_bytes(), (to, SERVICE));
            let _ = sent.expect("it leaves the stranger");
        }
        wait_for("all of them at alpha", PATIENCE, || {
            let now = ["lan_spoofed", "lan_to_overlay"].map(|why| dropped(&alpha, why));
            let all = now[0] >= before[0] + 2 && now[1] >= before[1] + 6;
            ensure(all, format!("{before:?} then {now:?}"))
        });
        // What is heard first tells that nothing was heard before.
        for (heard, to) in heard.iter().zip([own, far]) {
            first.says_it_is(mine, to[family]);
            let mut buffer = [0; 100];
            let (length, from) = heard.recv_from(&mut buffer).expect("a packet");
            let said = String::from_utf8_lossy(&buffer[..length]);
            assert_eq!(said, mine.to_string());
            let as_whom = if to == own { mine } else { own[family] };
            assert_eq!(from.ip().to_canonical(), as_whom);
        }
    }
    assert_eq!(dropped(&alpha, "leak"), 0);
}
