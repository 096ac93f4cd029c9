//! What an agent writes into its log: peers that come and go, nothing twice, nothing
//! alarming when it stops as it should, and as much as somebody wants.

use innermesh_tests::{Lab, agent::PATIENCE, wait::ensure, wait_for};

/// How many lines have all these words.
fn lines(log: &str, words: &[&str]) -> usize {
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(has_all).count()
}

#[test]
fn a_peer_that_goes_and_comes_is_told_once_each_and_a_clean_stop_is_no_error() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.mesh();
    let gone = ["a peer is gone", "beta"];
    let here = ["a peer is here", "beta"];
    assert_eq!(lines(&alpha.log(), &here), 1, "{}", alpha.log());
    beta.stop();
    wait_for("alpha to say that beta is gone", PATIENCE, || {
        ensure(lines(&alpha.log(), &gone) > 0, alpha.log())
    });
    beta.start();
    beta.wait_nodes(2);
    wait_for("alpha to say that beta is here", PATIENCE, || {
        ensure(lines(&alpha.log(), &here) > 1, alpha.log())
    });
    alpha.stop();
    beta.stop();
    let log = alpha.log();
    assert_eq!(lines(&log, &gone), 1, "{log}");
    assert_eq!(lines(&log, &here), 2, "{log}");
    for agent in [&alpha, &beta] {
        let log = agent.log();
        assert_eq!(lines(&log, &["ERROR"]), 0, "{log}");
        // The same line is written twice only where the same happened twice.
        let once = ["the agent stops", "this node is no CA node"];
        for phrase in once {
            assert!(lines(&log, &[phrase]) <= 2, "{log}");
        }
    }
}

#[test]
fn the_level_of_the_log_is_configured_and_changed_while_the_agent_runs() {
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha =
        innermesh_tests::Agent::with_config(&lab.hosts[0], "alpha", "[log]\nlevel = \"warn\"\n");
    let _ = alpha.init();
    assert_eq!(lines(&alpha.log(), &[" INFO "]), 0, "{}", alpha.log());
    let told = alpha.json(&["log", "level"]);
    assert_eq!(
        (&told["level"], &told["configured"]),
        (&"warn".into(), &"warn".into())
    );
    let told = alpha.json(&["log", "level", "trace"]);
    assert_eq!(
        (&told["level"], &told["configured"]),
        (&"trace".into(), &"warn".into())
    );
    wait_for("a line of that level", PATIENCE, || {
        let _ = alpha.status();
        ensure(lines(&alpha.log(), &["TRACE"]) > 0, alpha.log())
    });
    let told = alpha.cli(&["log", "level", "configured"]).ok();
    assert_eq!(told, "warn\n");
    alpha.refused(&["log", "level", "debgu"], "no log level");

    let _ = alpha.cli(&["log", "level", "trace"]).ok();
    alpha.stop();
    alpha.start();
    let told = alpha.json(&["log", "level"]);
    assert_eq!(told["level"], "warn", "{told}");
}
