//! Ways that are narrower than the tunnel's packets, and silent about it.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, mesh::connect, wait::ensure, wait_for};

/// What fills a packet of the tunnel's 1280 bytes, behind the headers of ICMP
/// and of IPv4 or IPv6.
const FULL: [(&str, &str); 2] = [("-4", "1252"), ("-6", "1232")];

/// Packets that fill the tunnel's pass, to both overlay addresses.
fn passes(from: &Agent, to: &str) {
    let addresses = [from.overlay_ipv4(to), from.overlay_ipv6(to)];
    for (address, (family, size)) in addresses.iter().zip(FULL) {
        wait_for(&format!("packets to {address}"), PATIENCE, || {
            ensure(from.pings(address), "none")
        });
        let ping = [
            "ping", family, "-M", "do", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, address,
        ];
        let _ = from.host.run(&ping).ok();
    }
    let told = from.json(&["ping", to]);
    let passed = |n: usize| {
        (
            &told["tunnel"]["packets"][n]["bytes"],
            &told["tunnel"]["packets"][n]["rtt_ms"],
        )
    };
    for (n, size) in [84, 1280].into_iter().enumerate() {
        let (bytes, rtt) = passed(n);
        assert!(*bytes == size && rtt.as_f64().is_some(), "{told}");
    }
}

/// The hop is as narrow as it is said to be: what may not be cut is lost.
fn is_narrow(from: &Agent, to: &Agent) {
    let to = to.host.ipv4.to_string();
    for (size, passes) in [("1200", true), ("1300", false)] {
        let ping = ["ping", "-M", "do", "-c", "1", "-W", "2", "-s", size, &to];
        let done = from.host.run(&ping);
        assert_eq!(done.code == 0, passes, "{size}: {done}");
    }
}

#[test]
fn full_packets_pass_a_silent_hop_of_1280_bytes_over_ipv4() {
    let Some(lab) = Lab::new(2) else { return };
    for host in &lab.hosts {
        let _ = host
            .run(&["ip", "-6", "address", "flush", "dev", "eth0"])
            .ok();
    }
    let [alpha, beta] = lab.mesh();
    lab.narrow(1280);
    is_narrow(&alpha, &beta);
    passes(&alpha, "beta");
}

#[test]
fn full_packets_pass_a_silent_hop_of_1280_bytes_over_ipv6() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    lab.narrow(1280);
    for host in &lab.hosts {
        let _ = host
            .run(&["ip", "-4", "address", "flush", "dev", "eth0"])
            .ok();
    }
    let outside = beta.host.ipv6.to_string();
    wait_for("the tunnel to go over IPv6", PATIENCE, || {
        let peers = alpha.json(&["peers"]).to_string();
        ensure(peers.contains(&format!("[{outside}]")), peers)
    });
    let route = ["ip", "-6", "route", "show", &outside, "proto", "105"];
    // Large packets are on the way, and lost.
    let address = alpha.overlay_ipv4("beta");
    let full = ["ping", "-c", "1", "-W", "1", "-s", FULL[0].1, &address];
    wait_for("the way to be found narrow", PATIENCE, || {
        let _ = alpha.host.run(&full);
        let told = alpha.host.run(&route).ok().to_string();
        ensure(told.contains("mtu 1280"), told)
    });
    // The other end finds the same for itself.
    wait_for("a full packet to come back", PATIENCE, || {
        ensure(alpha.host.run(&full).code == 0, "none")
    });
    passes(&alpha, "beta");
    // It goes when the node does.
    let _ = beta.cli(&["leave", "--yes"]).ok();
    wait_for("the route to go", PATIENCE, || {
        let told = alpha.host.run(&route).ok().to_string();
        ensure(!told.contains("1280"), told)
    });
}

/// 1,500 bytes are 1,420 inside, over IPv6, where padding adds nothing to that.
#[test]
fn packets_at_any_mtu_pass_whole() {
    let Some(lab) = Lab::new(2) else { return };
    let config = "[tunnel]\nbackend = \"embedded\"\nmtu = 1420\n";
    let mut agents = [0, 1].map(|n| Agent::with_config(&lab.hosts[n], &format!("node{n}"), config));
    let _ = connect(&mut agents);
    let [alpha, beta] = &agents;
    for host in &lab.hosts {
        let _ = host
            .run(&["ip", "-4", "address", "flush", "dev", "eth0"])
            .ok();
    }
    let outside = beta.host.ipv6.to_string();
    wait_for("the tunnel to go over IPv6", PATIENCE, || {
        let peers = alpha.json(&["peers"]).to_string();
        ensure(peers.contains(&format!("[{outside}]")), peers)
    });
    let address = alpha.overlay_ipv4("node1");
    wait_for("packets to node1", PATIENCE, || {
        ensure(alpha.pings(&address), "none")
    });
    let link = alpha.host.run(&["ip", "-o", "link", "show", "im0"]).ok();
    let mut words = link.split_whitespace();
    let mtu = words.find(|word| *word == "mtu").and(words.next());
    let mtu: u32 = mtu.and_then(|mtu| mtu.parse().ok()).expect("its MTU");
    let size = (mtu - 28).to_string();
    let ping = [
        "ping", "-M", "do", "-c", "3", "-W", "2", "-s", &size, &address,
    ];
    let _ = alpha.host.run(&ping).ok();
    let told = ["grep", "Ip6FragCreates", "/proc/net/snmp6"];
    let told = alpha.host.run(&told).ok();
    assert_eq!(told.split_whitespace().nth(1), Some("0"), "{told}");
}

#[test]
fn a_ping_says_what_the_tunnel_loses() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let address = alpha.overlay_ipv4("beta");
    wait_for("packets to beta", PATIENCE, || {
        ensure(alpha.pings(&address), "none")
    });
    lab.lose_larger(1300);
    let told = alpha.cli(&["ping", "beta"]);
    let text = told.to_string();
    assert_eq!(told.code, 4, "{text}");
    assert!(
        text.contains("84 bytes came back, of 1280 bytes not") && text.contains("loses packets"),
        "{text}"
    );
    drop(beta);
}
