//! A state folder that somebody takes away while the agent runs, and users who may
//! not use one.

use std::{fs, os::unix::fs::PermissionsExt};

use innermesh_tests::{Lab, agent::program, installed};
use serde_json::Value;

fn codes(status: &Value) -> Vec<String> {
    let all = status["findings"].as_array().into_iter().flatten();
    all.filter_map(|found| found["code"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn without_its_state_folder_an_agent_says_so_changes_nothing_and_makes_none_anew() {
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = lab.mesh();
    let state = alpha.dir.join("state");
    let lost = alpha.dir.join("lost");
    fs::rename(&state, &lost).expect("to move it");
    for is_replaced in [false, true] {
        if is_replaced {
            fs::create_dir(&state).expect("to make another");
        }
        let status = alpha.status();
        assert!(
            codes(&status).contains(&"state-folder-gone".into()),
            "{status}"
        );
        for change in [
            &["record", "add", "tv", "A", "192.0.2.9"][..],
            &["service", "add", "wiki", "--port", "80"],
            &["invite"],
            &["cert", "issue", "alpha"],
        ] {
            alpha.refused(change, "was removed or replaced");
        }
        assert!(alpha.cli(&["service", "list"]).ok().lines().count() == 1);
    }
    let there = fs::read_dir(&state).expect("a folder").count();
    assert_eq!(there, 0, "nothing is made anew in part");

    // Put back, all goes on.
    fs::remove_dir(&state).expect("it is empty");
    fs::rename(&lost, &state).expect("to move it back");
    assert!(!codes(&alpha.status()).contains(&"state-folder-gone".into()));
    let _ = alpha.cli(&["record", "add", "tv", "A", "192.0.2.9"]).ok();
    alpha.stop();
}

#[test]
fn another_user_is_told_what_is_so_and_never_to_take_root_s_keys() {
    if !installed(&["setpriv"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = lab.mesh();
    let host = alpha.host;
    for folder in [
        host.directory.as_path(),
        host.directory.parent().expect("the laboratory"),
    ] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    // A build's folder may be closed to others.
    let agent = host.directory.join("agent");
    fs::copy(program(), &agent).expect("a copy");
    let agent = agent.to_string_lossy();
    let dir = alpha.dir.to_string_lossy().into_owned();
    let nobody = |arguments: &[&str]| {
        let user = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
        ];
        host.run(&[&user[..], &[&agent, "--dir", &dir], arguments].concat())
    };
    let init = ["init", "--domain", "other.internal", "--name", "x"];
    for arguments in [&init[..], &["join", "192.0.2.1", "--token", "x"], &["run"]] {
        let told = nobody(arguments);
        assert_eq!(told.code, 1, "{told}");
        assert!(
            told.stderr.contains("belongs to root; run this as root"),
            "{told}"
        );
        for wrong in ["chown", "no mesh", "port", "panicked"] {
            assert!(!told.stderr.contains(wrong), "{wrong}: {told}");
        }
    }
    let looks = nobody(&["status"]);
    assert_eq!(looks.code, 0, "{looks}");
    let changes = nobody(&["service", "add", "wiki", "--port", "80"]);
    assert!(
        changes.stderr.contains("read-only access; use sudo"),
        "{changes}"
    );

    // Where it doesn't run, what is said follows what this user can see.
    alpha.stop();
    let told = nobody(&["status"]);
    assert_eq!(told.code, 3, "{told}");
    assert!(told.stderr.contains("start it with"), "{told}");

    // And in a folder that it can't make.
    let told = host.run(&[
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        &agent,
        "--dir",
        &format!("{dir}/below"),
        "init",
        "--domain",
        "other.internal",
        "--name",
        "x",
    ]);
    assert_eq!(told.code, 1, "{told}");
    assert!(
        told.stderr
            .contains("run this as root, or give a --dir of your own"),
        "{told}"
    );
    assert!(!alpha.dir.join("below").exists());
}

#[test]
fn who_has_left_is_not_told_to_start_the_agent() {
    let Some(lab) = Lab::new(2) else { return };
    let [_alpha, beta] = lab.mesh();
    let _ = beta.cli(&["leave", "--yes"]).ok();
    let told = beta.cli(&["status"]);
    assert_eq!(told.code, 3, "{told}");
    assert!(told.stderr.contains("has left its mesh"), "{told}");
    assert!(!told.stderr.contains("start it with"), "{told}");
}
