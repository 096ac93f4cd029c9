//! Names lead to the node whose they are: what a member can't do to the others
//! with its own valid key, and what an admin can.

use nix::sys::signal::Signal;

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

const LAN: &str = "192.168.1.9";

/// Why a service of this node isn't served.
fn pending(agent: &Agent, name: &str) -> Option<String> {
    let status = agent.status();
    let mut all = status["pending"].as_array()?.iter();
    let one = all.find(|one| one["name"] == name)?;
    Some(one["reason"].as_str()?.to_owned())
}

/// What is answered, at once.
fn addresses(agent: &Agent, name: &str) -> String {
    agent.dig(&[name, "A", "+short"]).ok()
}

#[test]
fn a_member_s_names_lead_to_no_other_member_and_to_no_machine_beside_the_mesh() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let _ = alpha.init();
    beta.join(&alpha);
    let token = alpha.invite(&["--addresses", "192.168.1.0/24"]);
    gamma.join_with(&alpha, &token);
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    let victim = alpha.overlay_ipv4("gamma");
    let own = alpha.overlay_ipv4("beta");

    let add = |record: &[&str], phrase: &str| {
        beta.refused(&[&["record", "add"], record].concat(), phrase);
    };
    add(&["x.beta", "A", &victim], "not an address of this node");
    add(&["x.beta", "A", LAN], "ask an admin");
    add(&["x.beta", "CNAME", "gamma"], "not this node's name");
    add(
        &["_x._tcp.beta", "SRV", "0", "0", "80", "gamma"],
        "share it",
    );
    add(&["x.beta", "MX", "10", "mail.example.org"], "only an admin");

    // An instance goes by gossip, past whoever decides: what counts is that
    // nobody serves it. A service that was added later is there already.
    let at = |address| {
        [
            "service",
            "add",
            "web",
            "--port",
            "80",
            "--address",
            address,
        ]
    };
    beta.refused(&at(&victim), "--share");
    beta.refused(
        &["service", "add", "gamma", "--port", "80"],
        "name of a node",
    );
    assert_eq!(pending(&beta, "web"), None);
    // Its own configuration says so all the same.
    let folder = beta.dir.join("services.d");
    std::fs::create_dir(&folder).expect("a folder");
    let web = format!("name = 'web'\nport = 80\naddress = '{victim}'\n");
    std::fs::write(folder.join("web.toml"), web).expect("a file");
    beta.process().expect("it runs").signal(Signal::SIGHUP);
    for (name, address) in [("web", victim.as_str()), ("cam", LAN)] {
        if name == "cam" {
            let _ = beta
                .cli(&["service", "add", name, "--port", "80", "--address", address])
                .ok();
        }
        wait_for("the service to be announced", PATIENCE, || {
            ensure(pending(&beta, name).is_some(), beta.status())
        });
        let marker = format!("after-{name}");
        let _ = beta.cli(&["service", "add", &marker, "--port", "80"]).ok();
        for agent in [&alpha, &gamma, &beta] {
            agent.wait_answer(&[&format!("{marker}.lab.internal"), "A"], &[&own]);
            for full in [
                format!("{name}.lab.internal"),
                format!("{name}.beta.lab.internal"),
            ] {
                let told = addresses(agent, &full);
                assert!(!told.contains(address), "{full} at {}: {told}", agent.name);
            }
        }
    }
    let reason = pending(&beta, "web").expect("it isn't served");
    assert!(reason.contains("--share"), "{reason}");
    let reason = pending(&beta, "cam").expect("it isn't served");
    let command = format!("record add cam A {LAN}");
    assert!(reason.contains(&command), "{reason}");

    // What it says to do helps; the name stays the member's.
    let words: Vec<&str> = command.split(' ').collect();
    let _ = alpha.cli(&words).ok();
    let _ = alpha.cli(&["record", "add", "tv", "A", LAN]).ok();
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_answer(&["cam.lab.internal", "A"], &[LAN]);
        agent.wait_answer(&["tv.lab.internal", "A"], &[LAN]);
    }
    wait_for("nothing to be pending", PATIENCE, || {
        ensure(pending(&beta, "cam").is_none(), beta.status())
    });

    // A granted network, and no other.
    let _ = gamma.cli(&["record", "add", "tv.gamma", "A", LAN]).ok();
    alpha.wait_answer(&["tv.gamma.lab.internal", "A"], &[LAN]);
    let other = ["record", "add", "tv.gamma", "A", "192.168.2.9"];
    gamma.refused(&other, "wasn't granted");
}
