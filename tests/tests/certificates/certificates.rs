//! Certificates that end before their time.

use std::collections::BTreeSet;

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

fn listed(agent: &Agent, serial: &str) -> Option<Value> {
    let told = agent.json(&["cert", "list"]);
    let rows = told.as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["serial"] == serial)
}

#[test]
fn its_owner_or_an_admin_revokes_a_certificate_and_its_key_is_not_certified_again() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, gamma] = lab.mesh();
    let out = beta.dir.join("certs").to_string_lossy().into_owned();
    let issue = ["cert", "issue", "beta.lab.internal", "--out", &out];
    let serial = |told: &Value| told["serial"].as_str().expect("a serial").to_owned();
    let issued = beta.json(&issue);
    let first = serial(&issued);
    assert_eq!(listed(&beta, &first).expect("a row")["revoked"], false);

    wait_for("gamma to know it", PATIENCE, || {
        ensure(listed(&gamma, &first).is_some(), "not yet")
    });
    gamma.refused(&["cert", "revoke", &first], "its owner or an admin");
    gamma.refused(
        &["cert", "revoke", "00112233445566778899aabbccddeeff"],
        "no certificate",
    );
    // As browsers write it.
    let upper = first.to_uppercase();
    let colons: Vec<&str> = (0..16).map(|at| &upper[2 * at..2 * at + 2]).collect();
    let told = alpha.json(&["cert", "revoke", &colons.join(":")]);
    assert_eq!(
        (&told["serial"], &told["node"]),
        (&first.clone().into(), &"beta".into())
    );
    for agent in [&alpha, &beta, &gamma] {
        wait_for("the list to say so", PATIENCE, || {
            let row = listed(agent, &first).expect("a row");
            ensure(row["revoked"] == true, &row)
        });
    }
    beta.refused(&issue, "revoked");
    let key = issued["key"].as_str().expect("a key");
    let cert = issued["cert"].as_str().expect("a certificate");
    for file in [key, cert] {
        std::fs::remove_file(file).expect("it is there");
    }
    let second = serial(&beta.json(&issue));
    let _ = beta.cli(&["cert", "revoke", &second]).ok();

    // A membership is no certificate to revoke.
    let rows = alpha.json(&["cert", "list"]);
    let rows = rows.as_array().expect("a list");
    let member = rows
        .iter()
        .find(|row| row["kind"] == "member" && row["node"] == "gamma")
        .expect("gamma's");
    let serial = member["serial"].as_str().expect("a serial");
    alpha.refused(&["cert", "revoke", serial], "evict the machine");
}

#[test]
fn each_certificate_is_another_also_within_a_second() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let out = alpha.dir.join("certs").to_string_lossy().into_owned();
    let mut serials = BTreeSet::new();
    for _ in 0..8 {
        let told = alpha.json(&["cert", "issue", "alpha", "--out", &out]);
        let serial = told["serial"].as_str().expect("a serial").to_owned();
        assert!(serials.insert(serial), "told of an earlier one: {told}");
    }
}
