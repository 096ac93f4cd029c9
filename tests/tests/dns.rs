//! DNS as clients on the outside see it.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait_for};

#[test]
fn a_stranger_is_told_nothing_and_gets_no_recursion() {
    let Some(lab) = Lab::new(3) else { return };
    let (upstream, asked) = upstream(&lab.hosts[2], Ipv4Addr::new(203, 0, 113, 7));
    lab.hosts[0].use_resolver(upstream);
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    let server = alpha.dns();
    assert_eq!(
        alpha.dig(&["other.example", "A"]).ok().trim(),
        "203.0.113.7"
    );
    let before = asked.load(Ordering::Relaxed);

    // The stranger sits on the same link, and sends to the resolver's address.
    let stranger = &lab.hosts[1];
    lab.connect_directly(&lab.hosts[0], stranger);
    let _ = stranger
        .run(&[
            "ip",
            "route",
            "add",
            &server.ip().to_string(),
            "via",
            "198.51.100.1",
        ])
        .ok();
    let underlay = [
        IpAddr::V4(lab.hosts[0].ipv4),
        server.ip(),
        Ipv4Addr::new(198, 51, 100, 1).into(),
    ];
    for address in underlay {
        for name in ["alpha.lab.internal", "lab.internal", "other.example"] {
            for transport in ["+notcp", "+tcp"] {
                let at = format!("@{address}");
                let port = server.port().to_string();
                let answer = stranger.run(&[
                    "dig", "+tries=1", "+time=1", transport, "-p", &port, &at, name,
                ]);
                let refused = answer.stdout.contains("status: REFUSED");
                let nobody = answer.stdout.contains("timed out")
                    || answer.stdout.contains("refused")
                    || answer.stdout.contains("no servers could be reached");
                assert!(refused || nobody, "{name} at {address}: {answer}");
                assert!(!answer.stdout.contains("ANSWER SECTION"), "{answer}");
            }
        }
    }
    assert_eq!(
        asked.load(Ordering::Relaxed),
        before,
        "nothing was asked for a stranger"
    );
}

#[test]
fn other_names_are_forwarded_and_can_not_point_into_the_overlay() {
    let Some(lab) = Lab::new(2) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    let own = alpha.overlay_ipv4("alpha").parse().expect("an address");
    alpha.stop();

    let (address, asked) = upstream(&lab.hosts[1], own);
    lab.hosts[0].use_resolver(address);
    alpha.start();
    wait_for("the question at the upstream", PATIENCE, || {
        let answer = alpha.dig(&["rebinding.example", "A"]).result()?;
        assert!(
            !answer.contains(&own.to_string()),
            "an overlay address came from outside: {answer}"
        );
        if asked.load(Ordering::Relaxed) > 0 {
            Ok(())
        } else {
            Err("not asked yet".to_owned())
        }
    });
    // A name of the mesh is never asked for outside.
    let before = asked.load(Ordering::Relaxed);
    let missing = alpha.host.run(&[
        "dig",
        "-p",
        &alpha.dns().port().to_string(),
        &format!("@{}", alpha.dns().ip()),
        "nobody.lab.internal",
    ]);
    assert!(missing.stdout.contains("status: NXDOMAIN"), "{missing}");
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

/// A name server that has the same address for every name, and counts.
fn upstream(host: &Host, address: Ipv4Addr) -> (IpAddr, Arc<AtomicUsize>) {
    let socket = host
        .udp((host.ipv4, 53).into())
        .expect("port 53 of a fresh host");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || answer_all(&socket, address, &counter));
    (host.ipv4.into(), count)
}

fn answer_all(socket: &UdpSocket, address: Ipv4Addr, count: &AtomicUsize) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        count.fetch_add(1, Ordering::Relaxed);
        // The question, up to its end: whatever follows (EDNS) is left out.
        let Some(end) = buffer[12..length].iter().position(|b| *b == 0) else {
            continue;
        };
        let question = &buffer[12..12 + end + 5];
        let is_a = question[question.len() - 4..] == [0, 1, 0, 1];
        let mut message = buffer[..2].to_vec();
        message.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        message.extend(question);
        if is_a {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            message.extend(address.octets());
        }
        let _ = socket.send_to(&message, from);
    }
}
