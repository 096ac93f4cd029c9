//! Networks behind gateways: true sources both ways, the way back of the LAN's
//! router, a LAN with the same range elsewhere, and a second gateway.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

use crate::world::{
    LAN, SERVICE, STRANGER, Service, address, asks, cable, dropped, overlay_of, pair, reaches_not,
    shell,
};

/// Of the LAN that the cable `direct` is.
pub const NETS: [&str; 2] = ["198.51.100.0/24", "2001:db8:5::/64"];

/// Makes a node a gateway that brings the cable's networks, as its admin.
pub fn brings(admin: &Agent, gateway: &Agent) {
    let _ = admin.cli(&["role", "add", &gateway.name, "gateway"]).ok();
    for net in NETS {
        let _ = admin
            .cli(&["route", "add", net, "--gateway", &gateway.name])
            .ok();
    }
}

/// The codes of a node's findings.
pub fn codes(agent: &Agent) -> Vec<String> {
    let status = agent.status();
    let findings = status["findings"].as_array().into_iter().flatten();
    findings
        .map(|finding| finding["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Waits until a node has a finding, and returns it.
pub fn finding(agent: &Agent, code: &str) -> Value {
    wait_for(&format!("{code} at {}", agent.name), PATIENCE, || {
        let status = agent.status();
        let mut findings = status["findings"].as_array().into_iter().flatten();
        let found = findings.find(|finding| finding["code"] == code).cloned();
        found.ok_or_else(|| status["findings"].to_string())
    })
}

/// Waits until a node has a finding no more.
pub fn no_finding(agent: &Agent, code: &str) {
    wait_for(&format!("no {code} at {}", agent.name), PATIENCE, || {
        let all = codes(agent);
        ensure(!all.iter().any(|it| it == code), format!("{all:?}"))
    });
}

/// What `route list` says of a network by a gateway.
fn row(agent: &Agent, net: &str, gateway: &str) -> Value {
    let rows = agent.json(&["route", "list"]);
    let mut all = rows.as_array().into_iter().flatten();
    let row = all.find(|row| row["net"] == net && row["gateway"] == gateway);
    row.cloned().unwrap_or_else(|| panic!("no {net}: {rows}"))
}

fn waits_for(agent: &Agent, net: &str, gateway: &str, field: &str, value: &str) {
    wait_for(&format!("{field} {value} of {net}"), PATIENCE, || {
        let row = row(agent, net, gateway);
        ensure(row[field] == value, row)
    });
}

/// The LAN's host is its router, and answers overlay addresses by the gateway.
pub fn answers(lan: &Host, overlay: [IpAddr; 2]) {
    let nets = overlay.map(|ip| match ip {
        IpAddr::V4(ip) => format!("{}.{}.0.0/16", ip.octets()[0], ip.octets()[1]),
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    });
    for (net, via) in nets.iter().zip(LAN) {
        shell(lan, &format!("ip route replace {net} via {via} dev direct"));
    }
}

/// Lets the LAN's hosts reach the service on alpha.
pub fn allows_lan(alpha: &Agent) {
    let file = alpha.host.directory.join("policy.toml");
    let [v4, v6] = NETS;
    let rule = format!("[[allow]]\nfrom = [\"{v4}\", \"{v6}\"]\nto = [\"alpha:{SERVICE}\"]\n");
    std::fs::write(&file, rule).expect("a file");
    let _ = alpha.cli(&["policy", "set", &file.to_string_lossy()]).ok();
}

fn setting(host: &Host, path: &str) -> String {
    shell(host, &format!("cat /proc/sys/net/{path}"))
        .trim()
        .to_owned()
}

/// A connection on which lines are echoed by a service of the host `on`.
pub fn echo_server(on: &Host) -> std::thread::JoinHandle<()> {
    let listener = on.listen(([0u16; 8], 9100).into()).expect("a port");
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|n| n == 1) && stream.write_all(&byte).is_ok() {}
    })
}

/// Whether a byte comes back within two seconds.
pub fn echoes(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read(&mut byte).is_ok_and(|n| n == 1)
}

#[test]
fn s23_members_and_a_lan_reach_each_other_with_true_addresses_and_all_is_put_back() {
    let Some(lab) = Lab::new(3) else { return };
    let lan = &lab.hosts[2];
    let (mut alpha, beta) = pair(&lab);
    let all = overlay_of(&alpha, "alpha");
    cable(&lab, lan, beta.host, &[]);
    // As a host that has its addresses by router advertisements.
    shell(
        beta.host,
        "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
         echo 1 >/proc/sys/net/ipv6/conf/direct/accept_ra",
    );
    let settings = [
        "ipv4/conf/im0/forwarding",
        "ipv4/conf/direct/forwarding",
        "ipv4/conf/eth0/forwarding",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/direct/accept_ra",
        "ipv6/conf/default/accept_ra",
    ];
    let before = settings.map(|path| setting(beta.host, path));
    let _on_lan = Service::start(lan, SERVICE);
    let _on_alpha = Service::start(alpha.host, SERVICE);

    beta.refused(&["route", "add", NETS[0]], "no gateway");
    let _ = alpha.cli(&["role", "add", "beta", "gateway"]).ok();
    beta.refused(&["route", "add", NETS[0]], "grant");
    brings(&alpha, &beta);
    for (path, value) in settings
        .into_iter()
        .zip(["1", "1", &before[2], "1", "2", "2"])
    {
        wait_for(path, PATIENCE, || {
            let now = setting(beta.host, path);
            ensure(now == value, format!("{now}, not {value}"))
        });
    }

    // The LAN's router doesn't know the way back yet; it is the one with a route
    // to everywhere.
    shell(
        beta.host,
        &format!(
            "ip route add default via {} dev direct metric 900",
            STRANGER[0]
        ),
    );
    let missing = finding(&beta, "route-no-return");
    let command = row(&beta, NETS[0], "beta")["returns"].clone();
    let command = command.as_str().expect("a command");
    let remedy = missing["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains(command), "{missing}");
    shell(lan, command);
    no_finding(&beta, "route-no-return");
    waits_for(&beta, NETS[0], "beta", "back", "seen");
    answers(lan, all);
    // From a LAN nobody comes in without a rule.
    reaches_not(lan, all[0], SERVICE);
    allows_lan(&alpha);

    for (far, own) in STRANGER.map(address).into_iter().zip(all) {
        assert_eq!(asks(alpha.host, far, SERVICE), own, "to the LAN");
        assert_eq!(asks(lan, own, SERVICE), far, "from the LAN");
        // By an address of the overlay nobody comes from a LAN.
        let forged = overlay_of(&alpha, "beta")[usize::from(own.is_ipv6())];
        let spoofed = dropped(&beta, "lan_spoofed");
        shell(lan, &format!("ip address add {forged} dev lo"));
        let _ = lan.run(&[
            "ping",
            "-c",
            "1",
            "-W",
            "1",
            "-I",
            &forged.to_string(),
            &own.to_string(),
        ]);
        assert!(dropped(&beta, "lan_spoofed") > spoofed);
    }
    assert_eq!(row(&alpha, NETS[0], "beta")["way"], "tunnel");
    // beta announces its address in that LAN too, which only the tunnel leads to.
    let begin = shell(alpha.host, "nft list chain inet innermesh begin");
    assert!(begin.contains("udp sport { 51819, 51820 } drop"), "{begin}");
    alpha.stop();
    alpha.start();
    alpha.wait_nodes(2);
    assert_eq!(asks(alpha.host, address(STRANGER[0]), SERVICE), all[0]);
    let endpoints = shell(alpha.host, "wg show im0 endpoints");
    // Either of its addresses beside that LAN will do.
    let beside = [
        format!("{}:", beta.host.ipv4),
        format!("[{}]:", beta.host.ipv6),
    ];
    let is_beside = beside.iter().any(|at| endpoints.contains(at));
    assert!(is_beside, "{endpoints}");
    assert!(!endpoints.contains("198.51.100."), "{endpoints}");

    // What is open is cut as well.
    let _echo = echo_server(lan);
    let mut open = wait_for("a connection", PATIENCE, || {
        alpha.host.tcp_to((address(STRANGER[0]), 9100).into())
    });
    assert!(echoes(&mut open));
    let _ = beta.cli(&["route", "rm", NETS[0]]).ok();
    let removed = Instant::now();
    wait_for("the end of the route", Duration::from_secs(2), || {
        ensure(!echoes(&mut open), "it goes on")
    });
    assert!(removed.elapsed() < Duration::from_secs(5));
    let closed = (address(STRANGER[0]), SERVICE).into();
    let error = alpha.host.tcp_to(closed).expect_err("there is no way");
    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);

    let _ = alpha.cli(&["role", "rm", "beta", "gateway", "--yes"]).ok();
    for (path, value) in settings.into_iter().zip(&before) {
        wait_for(path, PATIENCE, || {
            let now = setting(beta.host, path);
            ensure(now == *value, format!("{now}, not {value}"))
        });
    }
    assert_eq!(
        codes(&beta)
            .iter()
            .filter(|code| code.starts_with("route"))
            .count(),
        0
    );
}

#[test]
fn an_equal_range_elsewhere_is_told_and_never_chosen_and_the_lan_itself_goes_the_direct_way() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    alpha.init();
    for node in [&mut beta, &mut gamma] {
        node.join(&alpha);
    }
    for node in [&alpha, &beta, &gamma] {
        node.wait_nodes(3);
    }
    // beta stands in a LAN, and gamma in another with its range.
    shell(
        beta.host,
        "ip link add home type veth peer name far
         ip link set home up; ip link set far up
         ip address add 198.51.100.2/24 dev home",
    );
    shell(
        gamma.host,
        "ip link add cafe type veth peer name far
         ip link set cafe up; ip link set far up
         ip address add 198.51.100.7/24 dev cafe",
    );
    let _ = alpha.cli(&["role", "add", "beta", "gateway"]).ok();
    let _ = alpha
        .cli(&["route", "add", NETS[0], "--gateway", "beta"])
        .ok();
    let way = |to: &str| shell(gamma.host, &format!("ip route get {to}"));
    let told = finding(&gamma, "route-overlap");
    let text = told["text"].as_str().expect("a text");
    assert!(text.contains("beta") && text.contains("cafe"), "{text}");
    assert_eq!(row(&gamma, NETS[0], "beta")["way"], "overlap");
    assert!(way("198.51.100.9").contains("cafe"));

    // On the road again.
    shell(gamma.host, "ip link del cafe");
    waits_for(&gamma, NETS[0], "beta", "way", "tunnel");
    wait_for("the route through the tunnel", PATIENCE, || {
        let way = way("198.51.100.9");
        ensure(way.contains("im0"), way)
    });
    no_finding(&gamma, "route-overlap");

    // At home: beta's certificate is at its address in that LAN.
    shell(beta.host, "ip link del home");
    lab.connect_directly(gamma.host, beta.host);
    waits_for(&gamma, NETS[0], "beta", "way", "direct");
    assert!(way("198.51.100.9").contains("direct"));
    no_finding(&gamma, "route-overlap");
}

#[test]
fn members_reach_a_lan_by_its_second_gateway_once_the_first_is_gone() {
    let Some(lab) = Lab::new(4) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let lan = &lab.hosts[3];
    alpha.init();
    for node in [&mut beta, &mut gamma] {
        node.join(&alpha);
    }
    for node in [&alpha, &beta, &gamma] {
        node.wait_nodes(3);
    }
    // One switch, of which the LAN's host is a part.
    shell(
        lan,
        "ip link add lan type bridge; ip link set lan up
         ip address add 198.51.100.1/24 dev lan",
    );
    for (number, node) in [(2, &beta), (3, &gamma)] {
        let network = node.host.network_path();
        shell(
            lan,
            &format!(
                "ip link add port{number} type veth peer name direct
                 ip link set port{number} master lan up
                 ip link set direct netns {network}"
            ),
        );
        shell(
            node.host,
            &format!("ip address add 198.51.100.{number}/24 dev direct; ip link set direct up"),
        );
        let _ = alpha.cli(&["role", "add", &node.name, "gateway"]).ok();
        let _ = alpha
            .cli(&["route", "add", NETS[0], "--gateway", &node.name])
            .ok();
    }
    let _on_lan = Service::start(lan, SERVICE);
    let own = overlay_of(&alpha, "alpha")[0];
    let far = address(STRANGER[0]);
    let back = |via: u8| {
        let IpAddr::V4(ip) = own else {
            unreachable!("it is IPv4's")
        };
        let [a, b, ..] = ip.octets();
        shell(
            lan,
            &format!("ip route replace {a}.{b}.0.0/16 via 198.51.100.{via}"),
        );
    };
    let used = || {
        ["beta", "gamma"]
            .into_iter()
            .find(|name| row(&alpha, NETS[0], name)["used"] == true)
    };
    let first = wait_for("a gateway that is used", PATIENCE, || {
        used().ok_or("none is")
    });
    let via = |name: &str| if name == "beta" { 2 } else { 3 };
    back(via(first));
    assert_eq!(asks(alpha.host, far, SERVICE), own);

    let (dead, other) = if first == "beta" {
        (&mut beta, "gamma")
    } else {
        (&mut gamma, "beta")
    };
    dead.kill();
    back(via(other));
    let killed = Instant::now();
    assert_eq!(asks(alpha.host, far, SERVICE), own, "by the other gateway");
    let took = killed.elapsed();
    eprintln!("the second gateway was used after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(used(), Some(other));
}
