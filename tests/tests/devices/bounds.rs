//! What is refused, with the reason, and changes nothing.

use innermesh_tests::{Agent, Lab};
use serde_json::Value;

use crate::world::mesh;

/// Most devices of one owner.
const MOST: usize = 16;

fn key_of_node(agent: &Agent) -> String {
    let key = agent.host.run(&["wg", "show", "im0", "public-key"]).ok();
    key.trim().to_owned()
}

fn devices(agent: &Agent) -> Value {
    agent.json(&["device", "list"])
}

#[test]
fn what_can_not_be_is_refused_and_changes_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = mesh(&lab);
    let told = alpha.json(&["device", "add", "phone"]);
    let key = told["device"]["key"].as_str().expect("a key");
    let before = devices(&alpha);
    let add = |more: &[&str], phrase: &str| {
        alpha.refused(&[&["device", "add"], more].concat(), phrase);
        assert_eq!(devices(&alpha), before, "{more:?}");
    };
    // Keys of a node and of another device, and what is no key.
    add(
        &["tablet", "--public-key", &key_of_node(&beta)],
        "another node or device has it",
    );
    add(
        &["tablet", "--public-key", &key_of_node(&alpha)],
        "another node or device has it",
    );
    add(
        &["tablet", "--public-key", key],
        "another node or device has it",
    );
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    add(
        &["tablet", "--public-key", zero],
        "not a WireGuard public key",
    );
    add(
        &["tablet", "--public-key", "abcd"],
        "not a WireGuard public key",
    );
    // Names that others have.
    add(&["phone"], "phone");
    add(&["beta"], "beta");
    add(&["acme"], "acme");
    // Nodes that there aren't, or that are no gateways.
    add(&["tablet", "--gateway", "gamma"], "not a member");
    add(
        &["tablet", "--gateway", "beta"],
        "agent role add beta gateway",
    );
    add(&["tablet", "--owner", "gamma"], "not a member");
    // Networks.
    add(&["tablet", "--routes", "0.0.0.0/0"], "--full-tunnel");
    add(&["tablet", "--routes", "::/0"], "--full-tunnel");
    add(&["tablet", "--full-tunnel"], "agent role add NODE exit");
    add(
        &["tablet", "--full-tunnel", "--gateway", "alpha"],
        "agent role add alpha exit",
    );
    add(&["tablet", "--routes", "0.0.0.0/1"], "can't be a route");
    add(&["tablet", "--routes", "10.0.0.0/8"], "can't be a route");
    add(&["tablet", "--routes", "127.0.0.0/8"], "can't be a route");
    let many: Vec<String> = (0..17).map(|n| format!("192.168.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().flat_map(|net| ["--routes", net]).collect();
    add(&[&["tablet"][..], &many].concat(), "at most 4, 16 and 8");
    // A file that is there.
    let file = alpha.host.directory.join("there");
    std::fs::write(&file, "mine").expect("a file of the laboratory");
    add(
        &["tablet", "--out", &file.to_string_lossy()],
        "is there already",
    );

    alpha.refused(&["device", "rename", "phone", "beta"], "beta");
    alpha.refused(&["device", "rename", "tablet", "x"], "no device");
    alpha.refused(&["device", "renew", "tablet"], "no device");
    alpha.refused(&["device", "show", "tablet"], "no device");
    alpha.refused(&["device", "rm", "tablet", "--yes"], "no device");
    // Who is no admin.
    beta.refused(&["device", "add", "tablet"], "only an admin");
    beta.refused(&["device", "rm", "phone", "--yes"], "another node's");
    beta.refused(&["device", "rename", "phone", "x"], "another node's");
    assert_eq!(devices(&alpha), before);
}

#[test]
fn an_owner_has_sixteen_devices_at_most() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = mesh(&lab);
    for number in 0..MOST {
        let _ = alpha.json(&["device", "add", &format!("phone{number}")]);
    }
    alpha.refused(
        &["device", "add", "one-more"],
        "as many devices as there may be",
    );
    assert_eq!(devices(&alpha).as_array().map(Vec::len), Some(MOST));
    let _ = alpha.cli(&["device", "rm", "phone3", "--yes"]).ok();
    let _ = alpha.json(&["device", "add", "one-more"]);
}

#[test]
fn without_a_gateway_there_is_no_way_in_and_that_is_said() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = mesh(&lab);
    let _ = alpha.cli(&["role", "rm", "alpha", "gateway", "--yes"]).ok();
    alpha.refused(&["device", "add", "phone"], "agent role add NODE gateway");
    assert_eq!(devices(&alpha), serde_json::json!([]));
}
