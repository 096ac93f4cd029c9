//! Whose configuration is no longer right, and why.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::world::{make_gateway, mesh, row};

fn wait_stale(agent: &Agent, phrase: &str) {
    wait_for(phrase, PATIENCE, || {
        let row = row(agent, "phone")?;
        let stale = row["stale"].as_array().cloned().unwrap_or_default();
        let said = stale.iter().filter_map(|why| why.as_str());
        ensure(said.into_iter().any(|why| why.contains(phrase)), row)
    });
}

fn wait_fresh(agent: &Agent) {
    wait_for("nothing stale", PATIENCE, || {
        let row = row(agent, "phone")?;
        ensure(row["stale"] == serde_json::json!([]), row)
    });
}

#[test]
fn a_list_says_whose_configuration_is_no_longer_right_and_renewing_makes_it_right() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, mut beta] = mesh(&lab);
    make_gateway(&alpha, "beta");
    let _ = alpha.json(&["device", "add", "phone", "--gateway", "beta"]);
    wait_fresh(&alpha);

    let _ = beta.cli(&["tunnel", "rekey"]).ok();
    wait_stale(&alpha, "beta has another WireGuard key");
    let text = alpha.cli(&["device", "list"]).ok();
    assert!(text.contains("agent device renew phone --qr"), "{text}");
    let _ = alpha.json(&["device", "renew", "phone"]);
    wait_fresh(&alpha);

    beta.stop();
    let config = "[tunnel]\nendpoint = \"gw.example.org:4500\"\n";
    std::fs::write(beta.dir.join("config.toml"), config).expect("a file of the laboratory");
    beta.start();
    wait_stale(&alpha, "beta is found at gw.example.org:4500");
    let renewed = alpha.json(&["device", "renew", "phone"]);
    assert_eq!(
        renewed["configurations"][0]["endpoint"],
        "gw.example.org:4500"
    );
    wait_fresh(&alpha);

    let _ = alpha.cli(&["role", "rm", "beta", "gateway", "--yes"]).ok();
    wait_stale(&alpha, "beta is no gateway any more");
    // The other gateway takes its place.
    let renewed = alpha.json(&["device", "renew", "phone"]);
    assert_eq!(renewed["device"]["gateways"], serde_json::json!(["alpha"]));
    wait_fresh(&alpha);
}

#[test]
fn a_network_that_no_gateway_has_is_told_before_and_after() {
    const NET: &str = "192.168.9.0/24";
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = mesh(&lab);
    let told = alpha.json(&["device", "add", "early", "--routes", NET]);
    let warning = told["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("agent route add 192.168.9.0/24"), "{told}");
    let beside = "ip link add lan0 type veth peer name lan1
        ip address add 192.168.9.1/24 dev lan0
        ip link set lan1 up
        ip link set lan0 up";
    let _ = alpha.host.run(&["sh", "-euc", beside]).ok();
    let _ = alpha.cli(&["route", "add", NET]).ok();
    let told = alpha.json(&["device", "add", "phone", "--routes", NET]);
    assert_eq!(told["warnings"], serde_json::json!([]), "{told}");
    let allowed = told["configurations"][0]["allowed_ips"].to_string();
    assert!(allowed.contains(NET), "{told}");
    wait_fresh(&alpha);
    let _ = alpha.cli(&["route", "rm", NET]).ok();
    wait_stale(&alpha, "no gateway has a route to 192.168.9.0/24");
}

#[test]
fn whoever_adds_a_device_is_told_when_only_its_own_network_finds_the_gateway() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = mesh(&lab);
    let told = alpha.json(&["device", "add", "phone"]);
    assert_eq!(told["warnings"], serde_json::json!([]), "{told}");
    // The laboratory's addresses count as public; a LAN's don't.
    let renumber = "ip link add lan0 type veth peer name lan1
        ip address add 192.168.7.1/24 dev lan0
        ip link set lan1 up
        ip link set lan0 up
        ip address flush dev eth0 scope global";
    let _ = alpha.host.run(&["sh", "-euc", renumber]).ok();
    wait_for("a warning", PATIENCE, || {
        let told = alpha.cli(&["device", "add", "tablet"]);
        let _ = alpha.cli(&["device", "rm", "tablet", "--yes"]);
        let warned = told.stderr.contains("Set `endpoint` of [tunnel]");
        ensure(warned && told.code == 0, told)
    });
}
