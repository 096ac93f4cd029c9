//! A stranger on a node's LAN: what it sends to overlay addresses, and from them.

use std::net::IpAddr;

use innermesh_tests::{Agent, Lab, agent::PATIENCE};

use crate::world::{
    LAN, SERVICE, STRANGER, Service, address, asks, cable, dropped, overlay_of, pair, reaches,
    reaches_not, shell,
};

#[test]
fn s25_a_stranger_on_the_lan_reaches_nothing_by_an_overlay_address() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
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
        for port in [SERVICE, 7480, 7443, 22] {
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
    assert!(dropped(&alpha, "lan_to_overlay") > before + 8);
    let shown = alpha.cli(&["status"]).ok();
    let line = "to an overlay address, not through the tunnel";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn s25_a_packet_with_a_members_source_counts_only_from_the_tunnel() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
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
