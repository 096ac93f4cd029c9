//! WireGuard keys are facts of the ledger: changed without a break, recovered
//! after a crash, and nobody else's whatever is announced.

use std::{fs, path::PathBuf};

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

fn wait_pings(agent: &Agent, address: &str) {
    wait_for(&format!("packets to {address}"), PATIENCE, || {
        ensure(agent.pings(address), "none")
    });
}

/// The keys of an agent's peers, as its device has them.
fn peers(agent: &Agent) -> String {
    agent.host.run(&["wg", "show", "im0", "peers"]).ok()
}

fn own_key(agent: &Agent) -> String {
    let shown = agent.host.run(&["wg", "show", "im0", "public-key"]).ok();
    shown.trim().to_owned()
}

fn file(agent: &Agent, name: &str) -> PathBuf {
    agent.dir.join("state").join(name)
}

/// Waits until the ledger has the key.
fn wait_listed(agent: &Agent, key: &str) {
    wait_for("the ledger to have the key", PATIENCE, || {
        let log = agent.cli(&["ca", "log"]).ok();
        ensure(log.contains(key), &log)
    });
}

#[test]
fn a_key_is_changed_while_packets_pass_and_a_crash_in_between_loses_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, mut beta] = lab.mesh();
    let address = alpha.overlay_ipv4("beta");
    wait_pings(&alpha, &address);
    // The founder asked by itself, and beta joined with its own.
    wait_listed(&alpha, &own_key(&alpha));
    let old = own_key(&beta);
    assert!(peers(&alpha).contains(&old));
    let old_file = fs::read(file(&beta, "wireguard.key")).expect("a key");

    // What is on its way meanwhile: counted, as a handshake that comes before
    // the new head is made again after 5 s.
    let ping = ["ping", "-i", "0.1", "-c", "100", "-q", &address];
    let passing = alpha.host.start("ping", &ping, &[]);
    let told = beta.json(&["tunnel", "rekey"]);
    assert_eq!(told["previous"], old.as_str(), "{told}");
    let new = told["key"].as_str().expect("a key").to_owned();
    assert_eq!(own_key(&beta), new);
    wait_listed(&alpha, &new);
    wait_for("the new key at alpha", PATIENCE, || {
        let peers = peers(&alpha);
        ensure(peers.contains(&new) && !peers.contains(&old), &peers)
    });
    wait_pings(&alpha, &address);
    assert!(!file(&beta, "wireguard.new.key").exists());
    let mut passing = passing;
    passing.wait(PATIENCE);
    let counted = passing.log();
    println!("{counted}");
    assert!(counted.contains("100 packets transmitted"), "{counted}");

    // As if it had died once the ledger had decided, and before it switched.
    beta.stop();
    let new_file = fs::read(file(&beta, "wireguard.key")).expect("a key");
    fs::write(file(&beta, "wireguard.new.key"), new_file).expect("a file");
    fs::write(file(&beta, "wireguard.key"), &old_file).expect("a file");
    beta.start();
    assert_eq!(own_key(&beta), new);
    wait_pings(&alpha, &address);
    wait_for("the files to be in order", PATIENCE, || {
        ensure(!file(&beta, "wireguard.new.key").exists(), "two keys")
    });

    // With a key that the ledger doesn't know any more it asks for that one.
    beta.stop();
    fs::remove_file(file(&beta, "wireguard.key")).expect("it is there");
    beta.start();
    let third = own_key(&beta);
    assert!(third != new && third != old);
    wait_listed(&alpha, &third);
    wait_pings(&alpha, &address);
}

#[test]
fn who_announces_anothers_key_takes_nothing_from_it() {
    let Some(lab) = Lab::new(3) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut older = Agent::new(&lab.hosts[1], "older");
    let mut newer = Agent::new(&lab.hosts[2], "newer");
    let _ = alpha.init();
    older.join(&alpha);
    newer.join(&alpha);
    for agent in [&alpha, &older, &newer] {
        agent.wait_nodes(3);
    }
    let address = alpha.overlay_ipv4("newer");
    let other = alpha.overlay_ipv4("older");
    wait_pings(&alpha, &address);
    wait_pings(&alpha, &other);
    let stolen = own_key(&newer);
    wait_for(
        "the older one to know the newer one's key",
        PATIENCE,
        || ensure(peers(&older).contains(&stolen), "not yet"),
    );

    older.stop();
    fs::copy(file(&newer, "wireguard.key"), file(&older, "wireguard.key")).expect("a key");
    older.start();
    // It sees whose the key is, and makes another one; meanwhile, and after it,
    // packets to the newer node pass.
    wait_for("the thief to have another key", PATIENCE, || {
        assert!(alpha.pings(&address), "the route is gone");
        ensure(own_key(&older) != stolen, "the stolen one")
    });
    assert!(older.log().contains("wireguard.key is another node's"));
    let ping = alpha.json(&["ping", "newer"]);
    assert_eq!(ping["tunnel"]["works"], true, "{ping}");
    assert!(peers(&alpha).contains(&stolen));
    wait_pings(&alpha, &other);
    assert!(alpha.pings(&address), "the route is gone");
}
