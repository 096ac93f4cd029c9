//! `agent demo`, from a program that nothing else runs.

use std::{collections::BTreeSet, fs, path::Path};

use innermesh_tests::{Lab, agent::program, wait::ensure, wait_for};

#[test]
fn the_demo_shows_all_it_promises_and_leaves_nothing() {
    let Some(lab) = Lab::new(1) else { return };
    let host = &lab.hosts[0];
    // A name of its own, so that its processes can be told from others.
    let own = host.directory.join("agent-under-demo");
    fs::copy(program(), &own).expect("a copy of the program");
    let before = traces(host);
    let finished = host.run_for(300, &[&own.to_string_lossy(), "demo", "--check"]);
    assert_eq!(finished.code, 0, "{finished}");
    wait_for(
        "the processes of the demo to end",
        innermesh_tests::agent::PATIENCE,
        || {
            let left = running(&own);
            ensure(left.is_empty(), format!("{left:?} still run"))
        },
    );
    assert_eq!(traces(host), before);
}

/// What a demo could leave: interfaces, named namespaces, mounts, sockets.
fn traces(host: &innermesh_tests::Host) -> [String; 4] {
    [
        &["ip", "-brief", "link"][..],
        &["ip", "netns", "list"],
        &["sh", "-c", "cut -d' ' -f2 /proc/mounts | sort"],
        &["ls", "-A", "/run/wireguard"],
    ]
    .map(|words| host.run(words).ok())
}

fn running(program: &Path) -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|p| fs::read_link(p.path().join("exe")).is_ok_and(|exe| exe == program))
        .map(|p| p.file_name().to_string_lossy().into_owned())
        .collect()
}
