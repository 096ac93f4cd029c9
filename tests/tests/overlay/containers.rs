//! Containers, as a container engine makes them: a network namespace behind a
//! bridge, the host's masquerading, and a published port.

use std::net::IpAddr;

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::{LAN, SERVICE, Service, address, asks, cable, dropped, overlay_of, reaches_not, shell};

/// The container's addresses.
const CONTAINER: [&str; 2] = ["172.30.0.2", "fd00:c::2"];
/// A container `c1` on a host, with its port 80 published as 8080.
fn contain(host: &Host) {
    shell(
        host,
        "echo 1 >/proc/sys/net/ipv4/ip_forward
         echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
         ip link add br-c type bridge
         ip address add 172.30.0.1/24 dev br-c
         ip address add fd00:c::1/64 dev br-c nodad
         ip link set br-c up
         ip netns add c1
         ip link add veth-c type veth peer name eth0 netns c1
         ip link set veth-c master br-c up
         ip -n c1 link set lo up
         ip -n c1 link set eth0 up
         ip -n c1 address add 172.30.0.2/24 dev eth0
         ip -n c1 address add fd00:c::2/64 dev eth0 nodad
         ip -n c1 route add default via 172.30.0.1
         ip -n c1 route add default via fd00:c::1
         nft -f - <<'RULES'
         table inet engine {
             chain published {
                 type nat hook prerouting priority dstnat;
                 fib daddr type local tcp dport 8080 meta nfproto ipv4 dnat ip to 172.30.0.2:80
                 fib daddr type local tcp dport 8080 meta nfproto ipv6 dnat ip6 to [fd00:c::2]:80
             }
             chain out {
                 type nat hook postrouting priority srcnat;
                 ip saddr 172.30.0.0/24 oifname != \"br-c\" masquerade
                 ip6 saddr fd00:c::/64 oifname != \"br-c\" masquerade
             }
         }
RULES",
    );
}

/// Asks a [`Service`] from the container: who it was for that one.
fn container_asks(host: &Host, ip: IpAddr, port: u16) -> IpAddr {
    let what = format!("{ip} port {port} from the container");
    let said = wait_for(&what, PATIENCE, || container_tries(host, ip, port));
    address(said.trim())
}

fn container_tries(host: &Host, ip: IpAddr, port: u16) -> Result<String, String> {
    let script = "exec 3<>/dev/tcp/$0/$1 && cat <&3";
    let (to, port) = (ip.to_string(), port.to_string());
    let words = [
        "ip", "netns", "exec", "c1", "timeout", "3", "bash", "-c", script, &to, &port,
    ];
    let said = host.run(&words).result()?;
    ensure(!said.is_empty(), "nothing was said").map(|()| said)
}

fn container_digs(host: &Host, server: IpAddr) -> Result<String, String> {
    let server = format!("@{server}");
    let dig = [
        "dig",
        "+short",
        "+tries=1",
        "+time=3",
        &server,
        "beta.lab.internal",
    ];
    let words = [&["ip", "netns", "exec", "c1"], &dig[..]].concat();
    host.run(&words).result()
}

/// A server in the container, which answers with the address that it was
/// asked from.
fn serve_in_container(host: &Host) -> innermesh_tests::Process {
    let script = "import socket
s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, a = s.accept()
    c.sendall((a[0].removeprefix('::ffff:') + '\\n').encode())
    c.close()
";
    host.start(
        "container",
        &["ip", "netns", "exec", "c1", "python3", "-c", script],
        &[],
    )
}

#[test]
fn containers_reach_this_node_its_resolver_and_as_this_node_all_others() {
    let Some(lab) = Lab::new(2) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let host = alpha.host;
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    // The agent runs already when the engine makes its network.
    contain(host);
    let _on_alpha = Service::start(host, SERVICE);
    let _on_beta = Service::start(beta.host, SERVICE);

    for family in [0, 1] {
        let from = container_asks(host, own[family], SERVICE);
        assert_eq!(from, address(CONTAINER[family]), "the true source");
        let from = container_asks(host, far[family], SERVICE);
        assert_eq!(from, own[family], "as this node");
    }
    let resolver = alpha.dns().ip();
    wait_for("an answer to the container", PATIENCE, || {
        let said = container_digs(host, resolver)?;
        ensure(said.trim() == far[0].to_string(), said)
    });
    let shown = alpha.status()["overlay"]["containers"].to_string();
    assert!(shown.contains("br-c 172.30.0.0/24"), "{shown}");
    assert_eq!(dropped(&alpha, "leak"), 0);

    // A network card among the ports: the bridge is a LAN from now on.
    shell(
        host,
        "ip tuntap add card mode tap; ip link set card master br-c",
    );
    wait_for("a bridge that is a LAN", PATIENCE, || {
        let shown = alpha.status()["overlay"]["containers"].to_string();
        ensure(!shown.contains("br-c"), shown)
    });
    for family in [0, 1] {
        let _ = container_tries(host, own[family], SERVICE).expect_err("closed");
        let _ = container_tries(host, far[family], SERVICE).expect_err("closed");
    }
    let said = container_digs(host, resolver);
    assert!(said.is_err(), "{said:?}");
}

#[test]
fn containers_stay_on_this_host_where_the_configuration_says_so() {
    let Some(lab) = Lab::new(2) else { return };
    let config = "[containers]\nmesh = false\n";
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", config);
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    contain(alpha.host);
    let _on_alpha = Service::start(alpha.host, SERVICE);
    let _on_beta = Service::start(beta.host, SERVICE);
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    for family in [0, 1] {
        asks(alpha.host, far[family], SERVICE);
        container_asks(alpha.host, own[family], SERVICE);
        let before = dropped(&alpha, "forwarded");
        let _ = container_tries(alpha.host, far[family], SERVICE).expect_err("closed");
        assert!(dropped(&alpha, "forwarded") > before);
    }
}

#[test]
fn a_containers_published_port_is_for_members_and_the_lan_and_its_address_for_neither() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, stranger] = [0, 1, 2].map(|index| &lab.hosts[index]);
    let mut alpha = Agent::new(alpha, "alpha");
    let mut beta = Agent::new(beta, "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let (own, members) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    contain(alpha.host);
    let _server = serve_in_container(alpha.host);
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
        asks(alpha.host, address(CONTAINER[family]), 80);
    }
    // A member that sends for the container's own address into the tunnel.
    let before = dropped(&alpha, "tunnel_through");
    let key = shell(alpha.host, "wg show im0 public-key");
    let [v4, v6] = CONTAINER;
    shell(
        beta.host,
        &format!("ip route add {v4} dev im0; ip route add {v6} dev im0"),
    );
    for ip in CONTAINER.map(address) {
        wait_for("packets for the container in the tunnel", PATIENCE, || {
            shell(
                beta.host,
                &format!(
                    "wg set im0 peer {} allowed-ips {},{},{v4}/32,{v6}/128",
                    key.trim(),
                    own[0],
                    own[1]
                ),
            );
            reaches_not(beta.host, ip, 80);
            ensure(dropped(&alpha, "tunnel_through") > before, "none came")
        });
    }
    assert_eq!(asks(beta.host, own[0], 8080), members[0], "it goes on");
}
