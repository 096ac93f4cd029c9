//! Users' DNS records: added on one machine, answered on every one.

use std::net::{IpAddr, Ipv4Addr};

use innermesh_tests::{Agent, Lab, agent::PATIENCE, dns, wait_for};

#[test]
fn records_are_answered_on_every_machine_and_outlive_the_one_that_added_them() {
    let Some(lab) = Lab::new(3) else { return };
    let outside = dns::serve(&lab.hosts[2], Ipv4Addr::new(203, 0, 113, 7));
    lab.hosts[1].use_resolver(IpAddr::V4(lab.hosts[2].ipv4));
    let [mut alpha, mut beta] = lab.mesh();

    for record in [
        &["tv", "A", "198.51.100.9"][..],
        &["tv", "AAAA", "2001:db8:9::9"],
        &["tv", "TXT", "hello there"],
        &["box", "CNAME", "tv"],
        &["www", "CNAME", "site.example.org"],
        &["_sip._udp", "SRV", "1", "2", "5060", "tv"],
        &["@", "MX", "10", "mail.example.org"],
        &["@", "CAA", "0", "issue", "ca.example.org"],
        &["*.lamps", "A", "198.51.100.10"],
    ] {
        let _ = alpha.json(&[&["record", "add"], record].concat());
    }
    for agent in [&alpha, &beta] {
        agent.wait_answer(&["tv.lab.internal", "A"], &["198.51.100.9"]);
        agent.wait_answer(&["tv.lab.internal", "AAAA"], &["2001:db8:9::9"]);
        agent.wait_answer(&["tv.lab.internal", "TXT"], &["\"hello there\""]);
        agent.wait_answer(
            &["box.lab.internal", "A"],
            &["tv.lab.internal.", "198.51.100.9"],
        );
        agent.wait_answer(
            &["_sip._udp.lab.internal", "SRV"],
            &["1 2 5060 tv.lab.internal."],
        );
        agent.wait_answer(&["lab.internal", "MX"], &["10 mail.example.org."]);
        agent.wait_answer(&["lab.internal", "CAA"], &["0 issue \"ca.example.org\""]);
        agent.wait_answer(&["x.lamps.lab.internal", "A"], &["198.51.100.10"]);
    }
    // Beta's host has a resolver outside, which knows where the alias leads.
    beta.wait_answer(
        &["www.lab.internal", "A"],
        &["site.example.org.", "203.0.113.7"],
    );
    assert!(outside.asked() > 0);

    // They are the ledger's: the machine that added them needn't be there.
    alpha.stop();
    beta.stop();
    beta.start();
    beta.wait_answer(&["tv.lab.internal", "A"], &["198.51.100.9"]);
    alpha.start();
    beta.wait_nodes(2);

    let told = beta.json(&["record", "list"]);
    let rows = told.as_array().expect("a list");
    assert_eq!(rows.len(), 9, "{told}");
    assert!(rows.iter().all(|row| row["owner"] == "alpha"), "{told}");
    let _ = alpha.cli(&["record", "rm", "tv", "A"]).ok();
    for agent in [&alpha, &beta] {
        agent.wait_answer(&["tv.lab.internal", "A"], &[]);
        agent.wait_answer(&["tv.lab.internal", "TXT"], &["\"hello there\""]);
    }
}

#[test]
fn records_that_can_not_be_are_refused_with_what_to_do() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let add = |agent: &Agent, record: &[&str], phrase: &str| {
        agent.refused(&[&["record", "add"], record].concat(), phrase);
    };
    add(&alpha, &["tv", "A", "fd00::1"], "needs an IPv4 address");
    add(&alpha, &["tv", "A", "127.0.0.1"], "another machine to each");
    add(&alpha, &["tv", "NS", "ns.example.org"], "A, AAAA, CNAME");
    add(&alpha, &["tv.example.org.", "A", "192.0.2.7"], "not below");
    add(&alpha, &["acme", "A", "192.0.2.7"], "reserved");
    add(&alpha, &["beta", "A", "192.0.2.7"], "use another name");
    add(
        &alpha,
        &["@", "CNAME", "alpha"],
        "never at the domain itself",
    );
    alpha.refused(&["record", "rm", "tv", "A"], "no such record");
    add(&beta, &["tv", "A", "192.0.2.7"], "admin's");
    // At and below its own names a machine needs nobody, as long as they lead to
    // itself.
    let own = beta.overlay_ipv4("beta");
    let _ = beta.cli(&["record", "add", "cam.beta", "A", &own]).ok();
    alpha.wait_answer(&["cam.beta.lab.internal", "A"], &[&own]);
    // A name with records is nobody else's to claim.
    let _ = alpha.cli(&["record", "add", "tv", "A", "192.0.2.7"]).ok();
    wait_for("the claim to be refused", PATIENCE, || {
        let added = beta
            .cli(&["service", "add", "tv", "--port", "80"])
            .result()?;
        if added.contains("taken by alpha") {
            Ok(())
        } else {
            Err(added)
        }
    });
}

#[test]
fn a_record_that_a_service_of_its_name_hides_is_not_said_to_be_answered() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let _ = alpha
        .cli(&["service", "add", "photos", "--port", "80"])
        .ok();
    let own = alpha.overlay_ipv4("alpha");
    alpha.wait_answer(&["photos.lab.internal", "A"], &[&own]);
    let add = |record: &[&str]| alpha.json(&[&["record", "add"], record].concat());
    let told = add(&["photos", "A", "192.0.2.9"]);
    assert_eq!(told["answered"], false, "{told}");
    let told = add(&["photos", "TXT", "holidays"]);
    assert_eq!(told["answered"], true, "{told}");
    let listed = alpha.json(&["record", "list"]);
    let answered = |rtype: &str| {
        let rows = listed.as_array().expect("rows");
        let row = rows.iter().find(|row| row["type"] == rtype);
        row.map(|row| row["answered"].clone())
    };
    assert_eq!(answered("A"), Some(false.into()), "{listed}");
    assert_eq!(answered("TXT"), Some(true.into()), "{listed}");
    alpha.refused(
        &["record", "add", "tv.example.com", "A", "192.0.2.9"],
        "not below",
    );
}

#[test]
fn records_of_newer_types_and_with_a_ttl_are_served_and_go_one_by_one() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let run = |words: &[&str]| alpha.cli(words).ok();
    let _ = run(&["record", "add", "site", "HTTPS", "1 . alpn=h2"]);
    let _ = run(&["record", "add", "site", "A", "192.0.2.9", "--ttl", "1h"]);
    let _ = run(&["record", "add", "site", "A", "192.0.2.10", "--ttl=3600"]);
    let _ = run(&["record", "add", "_dns.ns2", "SVCB", "1", "site", "alpn=dot"]);
    let digest = "ab".repeat(32);
    let _ = run(&["record", "add", "alpha", "SSHFP", "4", "2", &digest]);
    let _ = run(&["record", "add", "_443._tcp.site", "TLSA", "3 1 1", &digest]);
    let text = r#""one" "two \"x\"" \195\188"#;
    let _ = run(&["record", "add", "site", "TXT", text]);
    for agent in [&alpha, &beta] {
        agent.wait_answer(&["site.lab.internal", "HTTPS"], &["1 . alpn=\"h2\""]);
        agent.wait_answer(
            &["_dns.ns2.lab.internal", "SVCB"],
            &["1 site.lab.internal. alpn=\"dot\""],
        );
        agent.wait_answer(
            &["site.lab.internal", "TXT"],
            &[r#""one" "two \"x\"" "\195\188""#],
        );
        let dug = format!("{} {}", "AB".repeat(28), "AB".repeat(4));
        agent.wait_answer(&["alpha.lab.internal", "SSHFP"], &[&format!("4 2 {dug}")]);
        agent.wait_answer(
            &["_443._tcp.site.lab.internal", "TLSA"],
            &[&format!("3 1 1 {dug}")],
        );
        let answer = agent.json(&["dns", "query", "site", "A"]).to_string();
        assert!(answer.contains(" 3600 "), "{answer}");
    }

    // What the list shows is what can be given.
    let rows = |agent: &Agent| agent.json(&["record", "list"]);
    let before = rows(&alpha);
    for row in before.as_array().expect("a list") {
        let word = |field: &str| row[field].as_str().expect("a text").to_owned();
        let (name, rtype, value) = (word("name"), word("type"), word("value"));
        let ttl = row["ttl"].to_string();
        let _ = run(&["record", "rm", &name, &rtype, &value]);
        let added = alpha.json(&["record", "add", &name, &rtype, &value, "--ttl", &ttl]);
        assert_eq!(added["value"], row["value"], "{added}");
        assert_eq!(added["ttl"], row["ttl"], "{added}");
    }
    let sorted = |rows: &serde_json::Value| {
        let mut all: Vec<String> = rows
            .as_array()
            .expect("a list")
            .iter()
            .map(ToString::to_string)
            .collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&rows(&alpha)), sorted(&before));

    // One of two goes, and the other stays; another TTL is no second record.
    let _ = run(&["record", "rm", "site", "A", "192.0.2.9"]);
    alpha.refused(
        &["record", "rm", "site", "A", "192.0.2.9"],
        "no such record",
    );
    let _ = run(&["record", "add", "site", "A", "192.0.2.10", "--ttl", "60"]);
    for agent in [&alpha, &beta] {
        agent.wait_answer(&["site.lab.internal", "A"], &["192.0.2.10"]);
    }
    let answer = alpha.json(&["dns", "query", "site", "A"]).to_string();
    assert!(answer.contains(" 60 "), "{answer}");
    for (words, phrase) in [
        (&["site", "A", "192.0.2.9", "--ttl", "8d"][..], "a week"),
        (&["site", "HTTPS", "1 . colour=red"], "no parameter"),
        (&["site", "SSHFP", "4 2 abcd"], "SHA-256 has 32 octets"),
        (&["site", "TLSA", "3 1 1 xy"], "not hexadecimal"),
        (
            &["site", "HTTPS", "1 . ipv4hint=127.0.0.1"],
            "another machine",
        ),
        (&["alpha", "HTTPS", "0 example.org."], "use another name"),
    ] {
        alpha.refused(&[&["record", "add"], words].concat(), phrase);
    }
    // A node's own may not lead elsewhere by a hint either (S28).
    beta.refused(
        &["record", "add", "x.beta", "HTTPS", "1 . ipv4hint=192.0.2.9"],
        "admin",
    );
}
