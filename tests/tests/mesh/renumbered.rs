//! A mesh whose hosts were all given other addresses while they were off.

use innermesh_tests::{Lab, agent::PATIENCE, wait::ensure, wait_for};

#[test]
fn a_node_that_finds_nobody_says_so_and_is_told_where_one_is() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.mesh();
    for agent in [&mut alpha, &mut beta] {
        agent.stop();
    }
    let [_, at_beta] = [0, 1].map(|n| lab.renumber(&lab.hosts[n]));
    for agent in [&mut alpha, &mut beta] {
        agent.start();
    }
    let status = wait_for("alpha to be alone", PATIENCE, || {
        let status = alpha.status();
        let codes = status["findings"].to_string();
        ensure(codes.contains("\"alone\""), codes).map(|()| status)
    });
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("agent seed add"), "{warnings}");

    // Where nobody answers nothing is kept.
    let refused = alpha.cli(&["seed", "add", "192.0.2.77"]);
    assert_ne!(refused.code, 0, "{refused}");
    assert!(
        refused.stderr.contains("no member of this mesh"),
        "{refused}"
    );

    let told = alpha.json(&["seed", "add", &at_beta.to_string()]);
    assert_eq!(told["node"], "beta", "{told}");
    for agent in [&alpha, &beta] {
        agent.wait_nodes(2);
    }
    // Paths that worked are kept too, so that the next start needs no help.
    alpha.stop();
    alpha.start();
    alpha.wait_nodes(2);
}
