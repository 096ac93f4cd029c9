//! A public node in front of a service inside: strangers are seen by their own
//! addresses, reach what is published and nothing else, and are cut off when it ends.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use innermesh_proto::limits;
use innermesh_tests::{
    Agent, Host, Lab,
    agent::PATIENCE,
    installed,
    mail::{self, Net, Seen},
    wait::ensure,
    wait_for,
};
use serde_json::Value;

use crate::{
    containers::Container,
    subnets::{answers, brings, echo_server, echoes, finding, no_finding},
    world::{
        LAN, SERVICE, STRANGER, Service, address, asks, cable, dropped, overlay_of, pair,
        reaches_not, shell,
    },
};

/// After this nothing passes any more.
const CUT_OFF: Duration = Duration::from_secs(2);

/// Publishes a node's port on another, as an admin.
pub fn publish(admin: &Agent, name: &str, port: u16, to_port: u16, on: &str) -> Value {
    let (port, to_port) = (port.to_string(), to_port.to_string());
    admin.json(&[
        "publish",
        name,
        "--port",
        &port,
        "--to-port",
        &to_port,
        "--on",
        on,
    ])
}

/// Waits until a port leads to a node.
pub fn open(agent: &Agent, port: u16, to: &str) {
    wait_for(&format!("port {port} to {to}"), PATIENCE, || {
        let rows = agent.json(&["publish", "list"]);
        let mut all = rows.as_array().into_iter().flatten();
        let found =
            all.any(|row| row["port"] == port && row["to"] == to && row["trouble"].is_null());
        ensure(found, rows)
    });
}

/// Waits until nothing passes any more.
fn ends_soon(held: &mut TcpStream) {
    wait_for("the end of what is open", CUT_OFF, || {
        ensure(!echoes(held), "it is still open")
    });
}

/// The interface and the addresses of the only link on a host.
pub fn link(host: &Host) -> (String, [IpAddr; 2]) {
    let listed = wait_for("a link", PATIENCE, || {
        let listed = shell(host, "ip -o address show scope global");
        ensure(listed.contains("im0p"), &listed).map(|()| listed)
    });
    let lines: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains("im0p"))
        .collect();
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let name = words(lines[0])[1].clone();
    let of = |family: &str| {
        let line = lines.iter().find(|line| words(line)[2] == family);
        let net = words(line.unwrap_or_else(|| panic!("{listed}")))[3].clone();
        address(net.split('/').next().expect("an address"))
    };
    (name, [of("inet"), of("inet6")])
}

#[test]
fn s23_s25_strangers_reach_what_is_published_with_true_addresses_and_nothing_else() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    let _service = Service::start(alpha.host, SERVICE);
    let _other = Service::start(alpha.host, SERVICE + 1);
    let told = publish(&alpha, "alpha", 2525, SERVICE, "beta");
    assert_eq!(told["inside"][0], "alpha", "{told}");
    for agent in [&alpha, &beta] {
        open(agent, 2525, "alpha");
    }
    for (public, own) in LAN.into_iter().zip(STRANGER) {
        assert_eq!(asks(stranger, address(public), 2525), address(own));
    }
    // Nobody of the mesh gets through by that way, not the public node either.
    let (name, ends) = link(alpha.host);
    let before = dropped(&alpha, "not_published");
    for end in ends {
        reaches_not(beta.host, end, SERVICE);
    }
    assert!(dropped(&alpha, "not_published") > before);
    // A public node that was broken into sends whatever it likes.
    let [inside4, _] = ends;
    for (source, port) in [
        (overlay_of(&beta, "beta")[0], SERVICE),
        (address("203.0.113.9"), SERVICE + 1),
        (address("127.0.0.1"), SERVICE),
        (alpha.host.ipv4.into(), SERVICE),
    ] {
        let before = dropped(&alpha, "not_published");
        spoof(beta.host, source, inside4, port);
        wait_for(&format!("{source} is dropped"), PATIENCE, || {
            spoof(beta.host, source, inside4, port);
            ensure(dropped(&alpha, "not_published") > before, "none came")
        });
    }

    // What is open ends with the publication, and all that it took is gone.
    let echo = echo_server(alpha.host);
    let _ = publish(&alpha, "alpha", 2526, 9100, "beta");
    open(&beta, 2526, "alpha");
    let at = SocketAddr::new(address(LAN[0]), 2526);
    let mut held = wait_for("a connection", PATIENCE, || stranger.tcp_to(at));
    assert!(echoes(&mut held));
    let _ = alpha.cli(&["unpublish", "alpha"]).ok();
    ends_soon(&mut held);
    drop((held, echo));
    wait_for("the end of the link", PATIENCE, || {
        let links = shell(
            alpha.host,
            "ip -o link; ip rule; ip -6 rule; ip route show table 111",
        );
        ensure(!links.contains(&name) && !links.contains("906:"), links)
    });
}

/// Sends a SYN with any source into the tunnel, as root of a public node can.
fn spoof(from: &Host, source: IpAddr, to: IpAddr, port: u16) {
    let script = r#"
import socket, struct, sys
def sum16(data):
    s = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
src, dst, port = socket.inet_aton(sys.argv[1]), socket.inet_aton(sys.argv[2]), int(sys.argv[3])
tcp = struct.pack("!HHLLBBHHH", 40000, port, 1, 0, 5 << 4, 2, 1000, 0, 0)
pseudo = src + dst + struct.pack("!BBH", 0, 6, len(tcp))
tcp = tcp[:16] + struct.pack("!H", sum16(pseudo + tcp)) + tcp[18:]
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, src, dst)
ip = ip[:10] + struct.pack("!H", sum16(ip)) + ip[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
s.bind(("im0", 0x0800))
s.send(ip + tcp)
"#;
    let (source, to, port) = (source.to_string(), to.to_string(), port.to_string());
    let _ = from
        .run(&["python3", "-c", script, &source, &to, &port])
        .ok();
}

#[test]
fn nothing_passes_by_a_public_node_that_is_evicted() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    let echo = echo_server(alpha.host);
    let _ = publish(&alpha, "alpha", 2525, 9100, "beta");
    open(&beta, 2525, "alpha");
    let at = SocketAddr::new(address(LAN[0]), 2525);
    let mut held = wait_for("a connection", PATIENCE, || stranger.tcp_to(at));
    assert!(echoes(&mut held));
    let _ = alpha.cli(&["evict", "beta", "--yes"]).ok();
    ends_soon(&mut held);
    drop(echo);
}

#[test]
fn what_is_published_works_again_after_either_agent_was_killed() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (mut alpha, mut beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    let _service = Service::start(alpha.host, SERVICE);
    let _ = publish(&alpha, "alpha", 2525, SERVICE, "beta");
    open(&beta, 2525, "alpha");
    let own = STRANGER.map(address);
    assert_eq!(asks(stranger, address(LAN[0]), 2525), own[0]);
    beta.kill();
    beta.start();
    assert_eq!(asks(stranger, address(LAN[1]), 2525), own[1]);
    alpha.kill();
    alpha.start();
    open(&beta, 2525, "alpha");
    assert_eq!(asks(stranger, address(LAN[0]), 2525), own[0]);
}

/// The overlay's ranges and the networks of hosts, as a mail server's own networks.
fn own_networks(agent: &Agent, more: &[(&str, u8)]) -> Vec<Net> {
    let overlay = overlay_of(agent, &agent.name);
    let overlay = overlay.map(|ip| (ip, if ip.is_ipv4() { 16 } else { 48 }));
    let more = more.iter().map(|(ip, length)| (address(ip), *length));
    overlay.into_iter().chain(more).collect()
}

#[test]
fn s23_a_mail_server_behind_a_public_node_is_no_open_relay_and_stays_none() {
    if !installed(&["iptables"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let (stranger, lan) = (&lab.hosts[2], &lab.hosts[3]);
    let (alpha, beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    // A LAN behind another gateway's cable: alpha itself is in it.
    lab.cable("home", "172.29.0", lan, alpha.host);
    mail::serve(
        alpha.host,
        25,
        own_networks(&alpha, &[("172.29.0.0", 24), ("127.0.0.0", 8)]),
        false,
    );
    let _ = alpha.cli(&["service", "add", "mail", "--port", "25"]).ok();
    wait_for("the name mail", PATIENCE, || {
        let words = ["publish", "mail", "--port", "25", "--on", "beta"];
        alpha.cli(&words).result()
    });
    open(&beta, 25, "alpha");
    let public = LAN.map(address);
    let own = STRANGER.map(address);
    let by = |host: &Host, at: IpAddr| {
        let at = SocketAddr::new(at, 25);
        wait_for(&format!("mail by {at}"), PATIENCE, || mail::send(host, at))
    };
    let seen = |client: IpAddr, relays: bool| Seen { client, relays };
    for (public, own) in public.into_iter().zip(own) {
        assert_eq!(by(stranger, public), seen(own, false));
    }
    let overlay = overlay_of(&alpha, "alpha");
    let of_beta = overlay_of(&beta, "beta");
    assert_eq!(by(beta.host, overlay[0]), seen(of_beta[0], true));
    let container = Container::start(beta.host, 0);
    let said = wait_for("mail from a container", PATIENCE, || {
        container.sends_mail(overlay[0])
    });
    let as_beta = format!("client={}", of_beta[0]);
    assert!(said.contains("250") && said.contains(&as_beta), "{said}");
    let at_home = address("172.29.0.2");
    assert_eq!(by(lan, at_home), seen(address("172.29.0.1"), true));

    // Somebody sets up the well-known rule.
    shell(
        beta.host,
        "iptables -t nat -A POSTROUTING -o im0 -j MASQUERADE
         ip6tables -t nat -A POSTROUTING -j MASQUERADE",
    );
    for (public, own) in public.into_iter().zip(own) {
        assert_eq!(by(stranger, public), seen(own, false));
    }
    let told = finding(&beta, "masquerade");
    let text = told["text"].as_str().expect("a text");
    assert!(
        text.contains("mail server") && text.contains("strangers"),
        "{text}"
    );
    // One before the agent's own: nothing passes, by which it would relay.
    shell(
        beta.host,
        "iptables -t nat -F; ip6tables -t nat -F
         nft add table ip early
         nft 'add chain ip early out { type nat hook postrouting priority 50; }'
         nft add rule ip early out oifname im0 masquerade",
    );
    reaches_not(stranger, public[0], 25);
    assert!(dropped(&beta, "rewritten") + dropped(&alpha, "not_published") > 0);
    shell(beta.host, "nft delete table ip early");
    assert_eq!(by(stranger, public[0]), seen(own[0], false));
    no_finding(&beta, "masquerade");
}

#[test]
fn s23_a_lan_behind_a_gateway_is_seen_by_its_own_addresses_and_a_stranger_never_as_one() {
    let Some(lab) = Lab::new(4) else { return };
    let (stranger, lan) = (&lab.hosts[2], &lab.hosts[3]);
    let (alpha, beta) = pair(&lab);
    // The LAN's cable is beta's, and the stranger is on another one.
    cable(&lab, lan, beta.host, &[]);
    brings(&alpha, &beta);
    let own = overlay_of(&alpha, "alpha");
    answers(lan, own);
    lab.cable("wide", "203.0.113", stranger, beta.host);
    shell(
        stranger,
        "ip route replace default via 203.0.113.2 dev wide",
    );
    let rule = alpha.host.directory.join("policy.toml");
    std::fs::write(
        &rule,
        "[[allow]]\nfrom = [\"198.51.100.0/24\"]\nto = [\"alpha:2500\"]\n",
    )
    .expect("a file");
    let _ = alpha.cli(&["policy", "set", &rule.to_string_lossy()]).ok();
    mail::serve(
        alpha.host,
        2500,
        own_networks(&alpha, &[("198.51.100.0", 24)]),
        false,
    );
    let _ = publish(&alpha, "alpha", 2525, 2500, "beta");
    open(&beta, 2525, "alpha");
    let by = |host: &Host, at: IpAddr, port: u16| {
        let at = SocketAddr::new(at, port);
        wait_for(&format!("mail by {at}"), PATIENCE, || mail::send(host, at))
    };
    assert_eq!(
        by(lan, own[0], 2500),
        Seen {
            client: address(STRANGER[0]),
            relays: true
        }
    );
    assert_eq!(
        by(stranger, address("203.0.113.2"), 2525),
        Seen {
            client: address("203.0.113.1"),
            relays: false
        }
    );
    // The LAN's own hosts are no strangers: by the public port nothing of theirs
    // passes.
    let before = dropped(&alpha, "not_published");
    let refused = mail::send(lan, SocketAddr::new(address(LAN[0]), 2525));
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(dropped(&alpha, "not_published"), before, "beta refuses it");
}

#[test]
fn a_service_that_takes_the_proxy_protocol_is_told_true_addresses() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    mail::serve(alpha.host, 2500, own_networks(&alpha, &[]), true);
    let words = [
        "publish",
        "alpha",
        "--port",
        "2525",
        "--to-port",
        "2500",
        "--on",
        "beta",
        "--proxy-protocol",
    ];
    let told = alpha.json(&words);
    let of_beta = overlay_of(&beta, "beta");
    let needs = told["needs"].to_string();
    assert!(needs.contains(&of_beta[0].to_string()), "{needs}");
    open(&beta, 2525, "alpha");
    for (public, own) in LAN.into_iter().zip(STRANGER) {
        let at = SocketAddr::new(address(public), 2525);
        let seen = wait_for(&format!("mail by {at}"), PATIENCE, || {
            mail::send(stranger, at)
        });
        let client = address(own);
        let relays = false;
        assert_eq!(seen, Seen { client, relays });
    }
    // The mesh and the host itself are no strangers.
    for (host, at) in [(alpha.host, of_beta[0]), (beta.host, address("127.0.0.1"))] {
        let seen = mail::send(host, SocketAddr::new(at, 2525));
        assert!(seen.is_err(), "{at}: {seen:?}");
    }
    // It needs no interface on the inside.
    let links = shell(alpha.host, "ip -o link");
    assert!(!links.contains("im0p"), "{links}");
    let at = SocketAddr::new(address(LAN[0]), 2525);
    // Whoever keeps all of its places open, and is silent, gives one up for the next.
    let silent: Vec<TcpStream> = (0..limits::PROXIED_PER_ADDRESS)
        .map(|_| stranger.tcp_to(at).expect("a connection"))
        .collect();
    let _ = wait_for("mail beside them", PATIENCE, || mail::send(stranger, at));
    drop(silent);
    let mut held = stranger.tcp_to(at).expect("a connection");
    let _ = alpha.cli(&["unpublish", "alpha", "--port", "2525"]).ok();
    held.set_read_timeout(Some(CUT_OFF)).expect("a socket");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut held, &mut rest).expect("it was closed");
    wait_for("the end of the port", PATIENCE, || {
        ensure(stranger.tcp_to(at).is_err(), "somebody listens")
    });
}

#[test]
fn what_can_not_be_published_is_refused_with_what_was_meant() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let _ = alpha.cli(&["service", "add", "mail", "--port", "25"]).ok();
    wait_for("the name mail", PATIENCE, || {
        let words = ["publish", "mial", "--port", "25", "--on", "beta"];
        let told = alpha.cli(&words).stderr;
        ensure(told.contains("did you mean mail?"), told)
    });
    for (words, phrase) in [
        (
            &["publish", "mail", "--port", "25", "--on", "beat"][..],
            "not a member",
        ),
        (
            &["publish", "mail", "--port", "25", "--on", "alpha"],
            "runs on alpha itself",
        ),
        (
            &["publish", "beta", "--port", "7480", "--on", "alpha"],
            "the agent's own",
        ),
        (&["unpublish", "mail"], "isn't published"),
    ] {
        alpha.refused(words, phrase);
    }
    beta.refused(
        &["publish", "mail", "--port", "25", "--on", "beta"],
        "admin",
    );
    let _ = alpha
        .cli(&["publish", "mail", "--port", "25", "--on", "beta"])
        .ok();
    alpha.refused(
        &["publish", "alpha", "--port", "25", "--on", "beta"],
        "leads to mail already",
    );
}

#[test]
fn a_service_in_a_container_is_told_true_addresses_by_the_proxy_protocol() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    let container = Container::start(alpha.host, 0);
    let _server = container.serve_proxied();
    let to_port = container.published().to_string();
    let words = ["publish", "alpha", "--port", "8443", "--to-port", &to_port];
    let more = ["--on", "beta", "--proxy-protocol"];
    let _ = alpha.json(&[&words[..], &more].concat());
    open(&beta, 8443, "alpha");
    for (public, own) in LAN.into_iter().zip(STRANGER) {
        assert_eq!(asks(stranger, address(public), 8443), address(own));
    }
}
