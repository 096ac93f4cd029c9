//! DNS as clients on the outside see it.

use std::net::{IpAddr, Ipv4Addr};

use innermesh_tests::{Lab, agent::PATIENCE, dns, wait::ensure, wait_for};

#[test]
fn a_stranger_is_told_nothing_and_gets_no_recursion() {
    let Some(lab) = Lab::new(3) else { return };
    let upstream = dns::serve(&lab.hosts[2], Ipv4Addr::new(203, 0, 113, 7));
    lab.hosts[0].use_resolver(lab.hosts[2].ipv4.into());
    let [alpha] = lab.mesh();
    let server = alpha.dns();
    assert_eq!(
        alpha.dig(&["other.example", "A"]).ok().trim(),
        "203.0.113.7"
    );
    let before = upstream.asked();

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
    assert_eq!(upstream.asked(), before, "nothing was asked for a stranger");
}

#[test]
fn other_names_are_forwarded_and_can_not_point_into_the_overlay() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha] = lab.mesh();
    let own = alpha.overlay_ipv4("alpha").parse().expect("an address");
    alpha.stop();

    let upstream = dns::serve(&lab.hosts[1], own);
    lab.hosts[0].use_resolver(lab.hosts[1].ipv4.into());
    alpha.start();
    wait_for("the question at the upstream", PATIENCE, || {
        let answer = alpha.dig(&["rebinding.example", "A"]).result()?;
        assert!(
            !answer.contains(&own.to_string()),
            "an overlay address came from outside: {answer}"
        );
        if upstream.asked() > 0 {
            Ok(())
        } else {
            Err("not asked yet".to_owned())
        }
    });
    // A name of the mesh is never asked for outside.
    let before = upstream.asked();
    let missing = alpha.host.run(&[
        "dig",
        "-p",
        &alpha.dns().port().to_string(),
        &format!("@{}", alpha.dns().ip()),
        "nobody.lab.internal",
    ]);
    assert!(missing.stdout.contains("status: NXDOMAIN"), "{missing}");
    assert_eq!(upstream.asked(), before);
}

#[test]
fn questions_are_kept_for_as_long_as_somebody_follows_them() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let wait_on = |is_on: bool| {
        wait_for("the query log to be on or off", PATIENCE, || {
            let log = alpha.json(&["dns", "log"]);
            ensure(log["is_on"] == is_on, log)
        });
    };
    wait_on(false);
    let own = alpha.overlay_ipv4("alpha");
    alpha.wait_answer(&["alpha.lab.internal", "A"], &[&own]);
    assert_eq!(alpha.json(&["dns", "log"])["total"], 0);

    let follower = alpha.start_cli(&["dns", "log", "--follow", "--json"]);
    wait_on(true);
    for question in [
        &["alpha.lab.internal", "A"][..],
        &["alpha.lab.internal", "A", "+tcp"],
        &["nobody.lab.internal", "AAAA"],
    ] {
        let _ = alpha.dig(question);
    }
    let said = |entry: &serde_json::Value| {
        let word = |field: &str| entry[field].as_str().unwrap_or("-").to_owned();
        ["name", "type", "transport", "rcode", "origin"]
            .map(word)
            .join(" ")
    };
    let expected = [
        "alpha.lab.internal. A udp NOERROR zone",
        "alpha.lab.internal. A connection NOERROR zone",
        "nobody.lab.internal. AAAA udp NXDOMAIN zone",
    ];
    wait_for("what was asked", PATIENCE, || {
        let log = follower.log();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        let entries = lines.filter_map(|line| serde_json::from_str(line).ok());
        let all: Vec<String> = entries.map(|entry| said(&entry)).collect();
        let has = |line: &&str| all.iter().any(|it| it == line);
        ensure(expected.iter().all(has), &log)
    });
    let words = alpha.cli(&["dns", "log"]).ok();
    assert!(words.contains("  alpha.lab.internal. A"), "{words}");
    drop(follower);
    wait_on(false);
    let words = alpha.cli(&["dns", "log"]).ok();
    assert!(words.contains("no questions are kept"), "{words}");
}
