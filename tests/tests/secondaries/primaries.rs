//! Primaries that start again, and others in their place.

use std::{fs, time::Instant};

use innermesh_tests::{Agent, Lab, agent::PATIENCE, installed, wait::ensure, wait_for};
use serde_json::Value;

use crate::servers::{Bind, Knot, Nsd, SERVERS, SOON, Secondary, add, lines, listed, secret};

#[test]
fn secondaries_and_primary_go_on_where_they_were_after_a_restart_of_either() {
    if !installed(&SERVERS) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    alpha.init();
    let mut secondaries: Vec<Secondary> = [Bind, Knot, Nsd]
        .into_iter()
        .zip(&lab.hosts[1..])
        .map(|(server, host)| Secondary::new(server, host))
        .collect();
    for secondary in &mut secondaries {
        let added = add(&alpha, secondary.server.name(), &secondary.address(), &[]);
        secondary.run(&lines(&added, secondary.server));
    }
    let own = alpha.overlay_ipv4("alpha");
    for secondary in &secondaries {
        secondary.wait(&["alpha.lab.internal"], &own, PATIENCE);
    }
    let before = secondaries[0].serial("lab.internal").expect("a serial");
    // Nothing is new, and nobody is given anything.
    for kill in [true, false] {
        if kill {
            alpha.kill();
        } else {
            alpha.stop();
        }
        alpha.start();
        wait_for("the zone", PATIENCE, || {
            let row = listed(&alpha, "bind", "lab.internal");
            ensure(row["serial"] == before, row.to_string())
        });
    }
    assert!(!alpha.log().contains("kind=\"IXFR\""));
    let _ = alpha.cli(&["record", "add", "one", "A", "192.0.2.91"]).ok();
    let began = Instant::now();
    for secondary in &secondaries {
        secondary.wait(&["one.lab.internal"], "192.0.2.91", SOON);
        eprintln!("{:?} has it after {:?}", secondary.server, began.elapsed());
    }
    // What changes while it is off is there once it is back.
    for secondary in &mut secondaries {
        secondary.stop();
    }
    let _ = alpha.cli(&["record", "add", "two", "A", "192.0.2.92"]).ok();
    for secondary in &mut secondaries {
        secondary.start();
        secondary.wait(&["two.lab.internal"], "192.0.2.92", PATIENCE);
    }
    assert!(secondaries[2].serial("lab.internal") > Some(before));
    // They answer while the primary is off.
    alpha.kill();
    for secondary in &secondaries {
        secondary.wait(&["two.lab.internal"], "192.0.2.92", PATIENCE);
    }
}

#[test]
fn another_node_becomes_the_primary_and_serials_go_on() {
    if !installed(&SERVERS) {
        return;
    }
    let Some(lab) = Lab::new(5) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    beta.wait_nodes(2);
    let mut secondaries: Vec<Secondary> = [Bind, Knot, Nsd]
        .into_iter()
        .zip(&lab.hosts[2..])
        .map(|(server, host)| Secondary::new(server, host))
        .collect();
    let keys: Vec<(String, String)> = secondaries
        .iter_mut()
        .map(|secondary| {
            let added = add(&alpha, secondary.server.name(), &secondary.address(), &[]);
            secondary.run(&lines(&added, secondary.server));
            secret(&added)
        })
        .collect();
    for secondary in &secondaries {
        secondary.wait(
            &["beta.lab.internal"],
            &alpha.overlay_ipv4("beta"),
            PATIENCE,
        );
    }
    // The first primary's serials are a day ahead of the clock.
    alpha.stop();
    let file = alpha.dir.join("state/zone.transferred");
    let text = fs::read_to_string(&file).expect("its serials");
    let mut given: Value = serde_json::from_str(&text).expect("JSON");
    for zone in given.as_object_mut().expect("an object").values_mut() {
        zone["serial"] = (zone["serial"].as_u64().expect("a number") + 86_400).into();
        zone["hash"] = "00".into();
    }
    fs::write(&file, given.to_string()).expect("its serials");
    alpha.start();
    beta.wait_nodes(2);
    let _ = alpha.cli(&["record", "add", "one", "A", "192.0.2.91"]).ok();
    for secondary in &secondaries {
        secondary.wait(&["one.lab.internal"], "192.0.2.91", PATIENCE);
    }
    let before = secondaries[0].serial("lab.internal").expect("a serial");

    for (secondary, (name, secret)) in secondaries.iter_mut().zip(&keys) {
        let path = beta.dir.join(format!("{name}.key"));
        let text =
            format!("key \"{name}\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{secret}\";\n}};\n");
        fs::write(&path, text).expect("a file");
        let file = path.to_string_lossy();
        let server = secondary.server.name();
        let added = add(&beta, server, &secondary.address(), &["--key", &file]);
        assert_eq!(secret_of(&added), *secret);
        secondary.stop();
        secondary.run(&lines(&added, secondary.server));
        let _ = alpha.cli(&["dns", "secondary", "rm", server]).ok();
    }
    alpha.stop();
    let _ = beta.cli(&["service", "add", "web", "--port", "80"]);
    for secondary in &secondaries {
        let web = beta.overlay_ipv4("beta");
        secondary.wait(&["web.beta.lab.internal"], &web, PATIENCE);
        secondary.wait(
            &["_web._tcp.beta.lab.internal", "SRV"],
            "80 beta.lab.internal.",
            PATIENCE,
        );
        let serial = secondary.serial("lab.internal").expect("a serial");
        assert!(serial > before, "{serial} after {before}");
    }
}

fn secret_of(added: &Value) -> String {
    secret(added).1
}
