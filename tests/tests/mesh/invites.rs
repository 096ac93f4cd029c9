//! What an invite gives, and who has a name.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

fn pending(agent: &Agent, service: &str) -> Option<String> {
    let status = agent.status();
    let rows = status["pending"].as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["name"] == service)?;
    row["reason"].as_str().map(str::to_owned)
}

fn node(agent: &Agent, name: &str) -> Value {
    let status = agent.status();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let found = nodes.into_iter().find(|node| node["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {status}"))
}

#[test]
fn nobody_gives_more_than_they_have_and_is_told_what_is_missing() {
    let Some(lab) = Lab::new(4) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "web-b");
    let mut gamma = Agent::new(&lab.hosts[2], "web-g");
    let _ = alpha.init();
    let overlay = alpha.overlay_ipv4("alpha");
    alpha.refused(&["invite", "--route", "192.168.1.7/24"], "not a network");
    alpha.refused(
        &["invite", "--route", &format!("{overlay}/32")],
        "mesh's own",
    );
    let token = alpha.invite(&[
        "--role",
        "admin",
        "--names",
        "web-*",
        "--route",
        "192.168.1.0/24",
    ]);
    beta.join_with(&alpha, &token);
    beta.wait_nodes(2);
    let roles = &node(&alpha, "web-b")["roles"];
    assert_eq!(*roles, serde_json::json!(["admin"]));

    for (arguments, phrase) in [
        (["--names", "db"], "may have names like web-*"),
        (["--names", "db"], "can: alpha"),
        (["--route", "192.168.0.0/16"], "may bring 192.168.1.0/24"),
        (["--role", "ca"], "hasn't the role ca"),
    ] {
        beta.refused(&[&["invite"][..], &arguments].concat(), phrase);
    }
    let token = beta.invite(&["--names", "web-g*", "--route", "192.168.1.0/25"]);
    gamma.join_with(&beta, &token);
    gamma.wait_nodes(3);
    gamma.refused(&["invite"], "not an admin");
    let _ = gamma.cli(&["service", "add", "db", "--port", "80"]).ok();
    let reason = pending(&gamma, "db").expect("it waits");
    assert!(reason.contains("outside"), "{reason}");

    // A CA node to be says what it waits for.
    let told = alpha.cli(&["invite", "--role", "ca"]).ok();
    assert!(told.contains("agent ca promote"), "{told}");
    let delta = Agent::new(&lab.hosts[3], "delta");
    let token = alpha.invite(&["--role", "ca"]);
    let join = [
        "join",
        &alpha.address(),
        "--token",
        &token,
        "--name",
        "delta",
        "--no-start",
    ];
    let _ = delta.cli(&join).ok();
    let status = alpha.json(&["ca", "status"]);
    assert_eq!(status["waiting"][0]["node"], "delta", "{status}");
    let reason = status["waiting"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("agent ca promote delta"), "{reason}");
}

#[test]
fn a_name_is_its_first_owner_s_until_it_is_shared_or_given_back() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, gamma] = lab.mesh();
    let add = |agent: &Agent, more: &[&str]| {
        let arguments = ["service", "add", "wiki", "--port", "80", "--json"];
        agent.cli(&[&arguments[..], more].concat()).json()
    };
    alpha.refused(
        &[
            "service", "add", "wiki", "--port", "80", "--share", "nobody",
        ],
        "not a member",
    );
    assert_eq!(add(&alpha, &[])["state"], "granted");
    let told = wait_for("beta to know whose it is", PATIENCE, || {
        let told = add(&beta, &[]);
        let reason = told["reason"].as_str().unwrap_or_default().to_owned();
        ensure(reason.contains("taken by alpha"), &told).map(|()| told)
    });
    assert_eq!(told["state"], "pending");
    assert!(
        told["reason"].as_str().is_some_and(|r| r.contains("share")),
        "{told}"
    );
    // Shared, it is another's as well, without anybody's asking again.
    assert_eq!(add(&alpha, &["--share", "beta"])["state"], "granted");
    let own = alpha.overlay_ipv4("alpha");
    let shared = alpha.overlay_ipv4("beta");
    gamma.wait_answer(&["wiki.lab.internal", "A"], &[&own, &shared]);
    wait_for("nothing to wait for", PATIENCE, || {
        let reason = pending(&beta, "wiki");
        ensure(reason.is_none(), reason.unwrap_or_default())
    });
    beta.refused(
        &["service", "rm", "wiki", "--release"],
        "not this machine's",
    );

    // Taken away it stays its owner's; given back it is anybody's.
    let _ = alpha.cli(&["service", "rm", "wiki"]).ok();
    assert_eq!(add(&gamma, &[])["state"], "pending");
    let _ = alpha.cli(&["service", "rm", "wiki", "--release"]).ok();
    let own = gamma.overlay_ipv4("gamma");
    let other = gamma.overlay_ipv4("beta");
    wait_for("somebody to have it", PATIENCE, || {
        let answer = alpha.dig(&["wiki.lab.internal", "A"]).result()?;
        let answer = answer.trim();
        ensure(answer == own || answer == other, answer)
    });
}
