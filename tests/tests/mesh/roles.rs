//! Who may do what: roles that are given and taken, invites that are listed and
//! revoked, and machines that come back.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

fn roles(agent: &Agent, name: &str) -> Vec<String> {
    let status = agent.status();
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    let row = nodes.find(|node| node["name"] == name);
    let roles = row.and_then(|row| row["roles"].as_array().cloned());
    let roles = roles.unwrap_or_default().into_iter();
    roles
        .filter_map(|role| role.as_str().map(str::to_owned))
        .collect()
}

/// Whether its status has a finding with this code.
fn finds(agent: &Agent, code: &str) -> bool {
    let status = agent.status();
    let mut findings = status["findings"].as_array().into_iter().flatten();
    findings.any(|finding| finding["code"] == code)
}

#[test]
fn a_second_admin_is_made_and_no_admin_takes_the_other_s_role_alone() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let told = alpha.init();
    assert!(!finds(&alpha, "one-admin"), "alone anyway");
    beta.join(&alpha);
    gamma.join(&alpha);
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    let status = alpha.cli(&["status"]);
    assert!(
        status.stderr.contains("alpha is the only admin"),
        "{status}"
    );
    assert!(finds(&gamma, "one-admin") && finds(&gamma, "one-ca"));

    beta.refused(&["role", "add", "beta", "admin"], "not an admin");
    alpha.refused(&["role", "add", "omega", "admin"], "not a member");
    alpha.refused(&["role", "add", "beta", "ca"], "--root-key FILE");
    let told_by = alpha.cli(&["role", "add", "beta", "admin"]).ok();
    assert_eq!(told_by, "beta has the role admin now\n");
    wait_for("beta to know it", PATIENCE, || {
        ensure(roles(&beta, "beta") == ["admin"], "not yet")
    });
    let _ = beta.invite(&[]);
    assert!(!finds(&alpha, "one-admin") && finds(&alpha, "one-ca"));

    // It isn't taken by one alone, in neither direction.
    let rm = ["role", "rm", "beta", "admin"];
    alpha.refused(&rm, "role rm beta admin --yes`");
    let waits = alpha.waits(&["role", "rm", "beta", "admin", "--yes"]);
    assert_eq!(waits["state"], "waiting", "{waits}");
    let waits = beta.waits(&["role", "rm", "alpha", "admin", "--yes"]);
    assert_eq!(waits["state"], "waiting", "{waits}");
    assert_eq!(roles(&alpha, "beta"), ["admin"]);
    let warned = gamma.status()["warnings"].to_string();
    assert!(
        warned.contains("alpha asks to take the role admin from beta"),
        "{warned}"
    );
    // By itself, with a word of what that leads to; and then no further.
    let given_up = beta.cli(&["role", "rm", "beta", "admin", "--yes"]);
    assert!(given_up.stdout.contains("any more"), "{given_up}");
    assert!(
        given_up.stderr.contains("alpha is the only admin"),
        "{given_up}"
    );
    alpha.refused(&["role", "rm", "alpha", "admin", "--yes"], "only admin");

    // Where the only admin is lost, the root makes another one, on any node.
    alpha.wait_nodes(3);
    let file = told["recovery_file"].as_str().expect("a file").to_owned();
    let passphrase = told["passphrase"].as_str().expect("one");
    gamma.set("INNERMESH_ROOT_PASSPHRASE", passphrase);
    let by_root = ["role", "add", "gamma", "admin", "--root-key", &file];
    let _ = gamma.cli(&by_root).ok();
    wait_for("gamma to be one", PATIENCE, || {
        ensure(roles(&alpha, "gamma") == ["admin"], "not yet")
    });
    let log = gamma.cli(&["ca", "log", "--kind", "give-role"]).ok();
    assert!(log.contains("alpha gave beta the role admin"), "{log}");
    assert!(log.contains("by the root's signature"), "{log}");
}

fn invites(agent: &Agent) -> Vec<Value> {
    let list = agent.json(&["invite", "list"]);
    list["invites"].as_array().cloned().unwrap_or_default()
}

#[test]
fn invites_are_listed_by_every_admin_and_one_that_is_revoked_lets_nobody_in() {
    let Some(lab) = Lab::new(4) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let _ = alpha.init();
    let token = alpha.invite(&["--uses", "3", "--ttl", "2h"]);
    beta.join_with(&alpha, &token);
    alpha.wait_nodes(2);
    beta.wait_nodes(2);
    beta.refused(&["invite", "list"], "not an admin");
    let open = invites(&alpha);
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(
        (&open[0]["by"], &open[0]["uses_left"]),
        (&"alpha".into(), &2.into())
    );
    let id = open[0]["id"].as_str().expect("an id").to_owned();

    // One with a single use is over with it.
    let once = alpha.json(&["invite", "--role", "admin"]);
    assert_eq!(invites(&alpha).len(), 2);
    gamma.join_with(&alpha, once["token"].as_str().expect("a token"));
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    wait_for("gamma to see alpha's", PATIENCE, || {
        let rows = invites(&gamma);
        ensure(
            rows.len() == 1 && rows[0]["id"] == id.as_str(),
            format!("{rows:?}"),
        )
    });
    // Also once the agent was started anew.
    alpha.stop();
    alpha.start();
    assert_eq!(invites(&alpha).len(), 1);

    gamma.wait_nodes(3);
    gamma.refused(&["invite", "revoke", "zz"], "no open invite");
    let _ = wait_for("to revoke it", PATIENCE, || {
        gamma.cli(&["invite", "revoke", &id[..6]]).result()
    });
    assert!(invites(&gamma).is_empty());
    let late = Agent::new(&lab.hosts[3], "late");
    let join = ["join", &gamma.address(), "--token", &token, "--no-start"];
    late.refused(&[&join[..], &["--name", "late"]].concat(), "was revoked");
}

#[test]
fn a_machine_that_was_set_up_anew_is_told_how_to_come_back() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, mut beta] = lab.mesh();
    // A join that was cut short before the agent was started.
    beta.stop();
    let join = |agent: &Agent, token: &str| {
        let (seed, name) = (alpha.address(), agent.name.clone());
        let join = [
            "join",
            &seed,
            "--token",
            token,
            "--name",
            &name,
            "--no-start",
        ];
        agent.cli(&join)
    };
    let again = join(&beta, &alpha.invite(&[]));
    assert_eq!(again.code, 1, "{again}");
    for part in ["in the mesh lab.internal already", "start it with", "run`"] {
        assert!(again.stderr.contains(part), "{again}");
    }
    // It has lost its state folder.
    std::fs::rename(beta.dir.join("state"), beta.dir.join("lost")).expect("to move it");
    let token = alpha.invite(&[]);
    let told = join(&beta, &token);
    assert!(told.stderr.contains("`agent evict beta`"), "{told}");
    let _ = alpha.cli(&["evict", "beta", "--yes"]).ok();
    beta.join_with(&alpha, &token);
    alpha.wait_nodes(2);
    // Where the root's key is, nobody is told to throw it away.
    let init = [
        "init",
        "--domain",
        "other.internal",
        "--name",
        "alpha",
        "--no-start",
    ];
    let told = alpha.cli(&init);
    assert!(told.stderr.contains("its agent runs"), "{told}");
    assert!(!told.stderr.contains("move"), "{told}");
}
