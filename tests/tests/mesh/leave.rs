//! A machine leaves: what others have a part in goes to them, and nothing of
//! it runs any more.

use std::fs;

use innermesh_tests::{Lab, agent::PATIENCE, wait::ensure, wait_for};

#[test]
fn a_machine_that_leaves_hands_over_says_goodbye_and_does_not_run_again() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let _ = alpha.init();
    alpha.refused(&["leave"], "leave --yes`");
    alpha.refused(&["leave", "--yes"], "the whole mesh");
    beta.join(&alpha);
    gamma.join(&alpha);
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    alpha.refused(&["leave", "--yes"], "last CA node");
    for service in [
        &["wiki", "--port", "80", "--share", "beta"][..],
        &["photos", "--port", "81"],
    ] {
        let _ = gamma.cli(&[&["service", "add"], service].concat()).ok();
    }
    let _ = beta.cli(&["service", "add", "wiki", "--port", "80"]).ok();
    let (own, other) = (gamma.overlay_ipv4("gamma"), gamma.overlay_ipv4("beta"));
    alpha.wait_answer(&["wiki.lab.internal", "A"], &[&own, &other]);

    let told = gamma.json(&["leave", "--yes"]);
    assert_eq!(
        (&told["state"], &told["node"]),
        (&"left".into(), &"gamma".into())
    );
    let to = |name: &str| {
        let names = told["names"].as_array().expect("names");
        let found = names.iter().find(|row| row["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {told}"))["to"].clone()
    };
    assert_eq!((to("wiki"), to("photos")), ("beta".into(), ().into()));
    for agent in [&alpha, &beta] {
        agent.wait_nodes(2);
        agent.wait_answer(&["gamma.lab.internal", "A"], &[]);
        agent.wait_answer(&["photos.lab.internal", "A"], &[]);
        agent.wait_answer(&["wiki.lab.internal", "A"], &[&other]);
        let nodes = agent.status()["nodes"].as_array().map(Vec::len);
        assert_eq!(nodes, Some(2));
    }
    let _ = alpha
        .cli(&["service", "add", "photos", "--port", "82"])
        .ok();
    let freed = alpha.overlay_ipv4("alpha");
    beta.wait_answer(&["photos.lab.internal", "A"], &[&freed]);

    let certificates = alpha.json(&["cert", "list"]);
    let mut rows = certificates.as_array().into_iter().flatten();
    assert!(
        rows.any(|row| row["node"] == "gamma (gone)"),
        "{certificates}"
    );

    // Its agent has ended by itself, and nothing of it is left on the host.
    gamma.wait_stopped();
    let links = lab.hosts[2].run(&["ip", "-o", "link"]).ok();
    assert!(
        !links.contains("im0") && !links.contains("innermesh"),
        "{links}"
    );
    gamma.refused(&["run"], "left the mesh lab.internal");
    let (seed, token) = (alpha.address(), alpha.invite(&[]));
    let join = [
        "join",
        &seed,
        "--token",
        &token,
        "--name",
        "gamma",
        "--no-start",
    ];
    gamma.refused(&join, "move");
    let state = gamma.dir.join("state");
    let told = fs::read_to_string(state.join("left")).expect("what it says");
    assert!(told.contains("agent join"), "{told}");

    // Away with the folder, and it may come back.
    fs::rename(&state, gamma.dir.join("old")).expect("to move it");
    gamma.join_with(&alpha, &token);
    alpha.wait_nodes(3);
    wait_for("gamma's name", PATIENCE, || {
        let answer = beta.dig(&["gamma.lab.internal", "A"]).result()?;
        ensure(!answer.trim().is_empty(), "none")
    });
}
