//! The mesh's zones as a person and other programs have them.

use std::fs;

use innermesh_tests::{Agent, Lab, agent::PATIENCE, installed, wait_for};

/// The serial of the mesh's domain, as dig shows it.
fn serial(agent: &Agent) -> Option<u32> {
    let answer = agent.dig(&["lab.internal", "SOA"]).result().ok()?;
    answer.split_whitespace().nth(2)?.parse().ok()
}

fn wait_serial(agent: &Agent) -> u32 {
    wait_for("a serial", PATIENCE, || serial(agent).ok_or("none"))
}

#[test]
fn the_serial_of_the_zone_never_goes_back() {
    if !installed(&["dig"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = lab.mesh();
    let mut last = wait_serial(&alpha);
    for round in 0..4 {
        let name = format!("s{round}");
        let _ = alpha.cli(&["record", "add", &name, "A", "192.0.2.9"]).ok();
        let changed = wait_serial(&alpha);
        assert!(changed > last, "{changed} after {last}");
        if round == 0 {
            alpha.stop();
        } else {
            alpha.kill();
        }
        // The clock isn't all that it goes by: another one was far ahead.
        if round == 1 {
            let file = alpha.dir.join("state/zone.serial");
            fs::write(file, (u64::from(changed) + 1_000_000).to_string()).expect("its file");
        }
        alpha.start();
        last = wait_serial(&alpha);
        assert!(last > changed, "{last} after {changed}");
        if round >= 1 {
            assert!(last >= changed + 1_000, "{last} after {changed}");
        }
    }
}

#[test]
fn each_zone_is_printed_alone_or_written_to_a_file_that_named_would_load() {
    if !installed(&["dig", "named-checkzone"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let _ = alpha.cli(&["service", "add", "web", "--port", "80"]).ok();
    for record in [
        &["site", "HTTPS", "1 . alpn=h2"][..],
        &["site", "TXT", r#""one" "two \"x\"" \195\188"#],
        &["@", "CAA", "0", "issue", "ca.example.org"],
        &["@", "MX", "0", "."],
        &[
            "site",
            "SSHFP",
            "1 1 000102030405060708090a0b0c0d0e0f10111213",
        ],
        &["_443._tcp.site", "TLSA", "3 1 0 3003020107"],
        &["www", "CNAME", "site.example.org."],
    ] {
        let _ = alpha.cli(&[&["record", "add"], record].concat()).ok();
    }
    let zone = alpha.cli(&["dns", "zone", "--zone", "Lab.Internal"]).ok();
    let lines: Vec<&str> = zone.lines().collect();
    assert!(lines[0].contains(" IN SOA "), "{zone}");
    assert!(
        lines.iter().all(|line| line.contains("lab.internal. ")),
        "{zone}"
    );
    assert!(
        lines.iter().any(|line| line.contains(" HTTPS 1 . alpn=h2")),
        "{zone}"
    );
    alpha.refused(&["dns", "zone", "--zone", "example.org"], "lab.internal.");
    alpha.refused(
        &["dns", "zone", "--zone", "x", "--out", "y"],
        "cannot be used",
    );

    let folder = lab.hosts[0].directory.join("zones");
    let out = folder.to_string_lossy().into_owned();
    let written = alpha.json(&["dns", "zone", "--out", &out]);
    let written = written.as_array().expect("a list");
    assert_eq!(written.len(), 3, "{written:?}");
    for zone in written {
        let origin = zone["zone"].as_str().expect("a name");
        let file = zone["file"].as_str().expect("a file");
        let check = ["named-checkzone", "-i", "local", origin, file];
        let said = alpha.host.run(&check).ok();
        assert!(said.contains("OK"), "{said}");
    }
}

#[test]
fn a_query_looks_addresses_up_and_ends_as_its_answer_says() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let query = |words: &[&str]| alpha.cli(&[&["dns", "query"], words].concat());
    for address in [alpha.overlay_ipv4("alpha"), alpha.overlay_ipv6("alpha")] {
        let pointer = query(&[&address]).ok();
        assert!(pointer.contains(" PTR alpha.lab.internal."), "{pointer}");
    }
    let own = alpha.overlay_ipv4("alpha");
    assert!(query(&["alpha"]).ok().contains(&own));
    // That there is no such type is an answer.
    assert!(query(&["alpha", "TXT"]).ok().contains("NOERROR"));
    for words in [
        &["nobody"][..],
        &["192.0.2.77", "NS"],
        &["nobody", "--json"],
    ] {
        let finished = query(words);
        assert_eq!(finished.code, 1, "{finished}");
        assert!(!finished.stdout.is_empty(), "{finished}");
    }
    let missing = query(&["nobody"]);
    assert!(missing.stdout.contains("; NXDOMAIN"), "{missing}");
}
