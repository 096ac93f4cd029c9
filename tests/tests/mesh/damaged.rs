//! An agent whose ledger's file is damaged has it again from another one, and
//! says meanwhile what it waits for.

use std::fs;

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

/// Changes a bit of the first batch in an agent's ledger.
fn damage(agent: &Agent) {
    let path = agent.dir.join("state/ledger");
    let mut bytes = fs::read(&path).expect("a ledger");
    // Each frame has a head of 12 bytes that begins with its length.
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes[12 + length as usize + 12 + 5] ^= 1;
    fs::write(&path, bytes).expect("a ledger");
}

#[test]
fn an_agent_with_a_damaged_ledger_waits_for_another_and_says_so() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.mesh();
    beta.stop();
    alpha.stop();
    damage(&beta);
    beta.launch();
    wait_for("beta says what it waits for", PATIENCE, || {
        let status = beta.cli(&["status"]);
        ensure(status.stderr.contains("are damaged"), &status)
    });
    let status = beta.cli(&["status"]);
    assert_eq!(status.code, 1, "{status}");

    alpha.start();
    for agent in [&alpha, &beta] {
        agent.wait_nodes(2);
    }
    let warnings = beta.status()["warnings"].to_string();
    assert!(warnings.contains("were damaged"), "{warnings}");
    assert_eq!(
        beta.json(&["ca", "log"])["problem"],
        serde_json::Value::Null
    );
    beta.stop();
    // Without anybody that it could ask it ends when it is told to.
    alpha.stop();
    damage(&beta);
    beta.launch();
    wait_for("beta says what it waits for", PATIENCE, || {
        let status = beta.cli(&["status"]);
        ensure(status.stderr.contains("are damaged"), &status)
    });
    beta.stop();
}

#[test]
fn nobody_is_told_to_move_away_a_damaged_folder_with_the_only_root_key() {
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    let _ = alpha.cli(&["invite"]).ok();
    alpha.stop();
    // From its start on, and what it could be made again from.
    let state = alpha.dir.join("state");
    let mut bytes = fs::read(state.join("ledger")).expect("a ledger");
    bytes[17] ^= 1;
    fs::write(state.join("ledger"), bytes).expect("a ledger");
    fs::remove_file(state.join("raft.log")).expect("a log");
    let run = alpha.cli(&["run"]);
    assert_eq!(run.code, 1, "{run}");
    assert!(
        run.stderr
            .contains("take it out first with `agent ca root-key export"),
        "{run}"
    );
}
