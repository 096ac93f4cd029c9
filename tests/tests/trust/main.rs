//! `agent ca trust` with the real stores of a Debian machine: its bundle, NSS
//! databases, Java's keystore. All of it happens on a host of the laboratory,
//! whose files lie over the machine's, so that nothing of that changes.

mod machine;

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use innermesh_tests::{
    Lab,
    agent::{DOMAIN, program},
};
use serde_json::Value;

use self::machine::{Machine, Site, USER};

const ANCHORS: &str = "/usr/local/share/ca-certificates";

#[test]
fn clients_without_options_accept_the_mesh_until_its_root_is_taken_out() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "alpha") else {
        return;
    };
    let mut alpha = machine.agent("alpha");
    let _ = alpha.init();
    alpha.set("SUDO_UID", USER);
    let site = Site::new(&alpha);
    let before = machine.bundle();
    machine.refused(&site);
    for row in machine.status(&alpha) {
        assert_eq!(
            (&row["state"], &row["writable"]),
            (&"absent".into(), &true.into()),
            "{row}"
        );
    }

    let told = alpha.json(&["ca", "trust", "install"]);
    assert_eq!(
        results(&told),
        vec!["installed"; machine.stores.len()],
        "{told}"
    );
    assert_eq!(kinds(&told), machine.stores, "{told}");
    machine.accepted(&site);
    // What was written in the user's home is the user's still.
    for file in ["cert9.db", "key4.db", "pkcs11.txt"] {
        for folder in machine.databases() {
            let owner = fs::metadata(folder.join(file)).expect("a database").uid();
            assert_eq!(owner.to_string(), USER, "{file}");
        }
    }
    let name = told["stores"][0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let fingerprint = told["stores"][0]["fingerprint_sha256"]
        .as_str()
        .expect("one");
    assert_eq!(name, format!("innermesh-{DOMAIN}-{}", &fingerprint[..12]));
    let file = Path::new(ANCHORS).join(format!("{name}.crt"));
    let mode = machine
        .host
        .run(&["stat", "-c", "%a", &file.to_string_lossy()]);
    assert_eq!(mode.ok().trim(), "644");

    let again = alpha.json(&["ca", "trust", "install"]);
    assert_eq!(
        results(&again),
        vec!["already"; machine.stores.len()],
        "{again}"
    );
    for row in machine.status(&alpha) {
        assert_eq!(
            (&row["state"], &row["recorded"]),
            (&"installed".into(), &true.into()),
            "{row}"
        );
    }

    // Also while no agent runs.
    alpha.stop();
    let mut expected = machine.stores.clone();
    expected.reverse();
    let told = alpha.json(&["ca", "trust", "uninstall"]);
    assert_eq!(
        results(&told),
        vec!["removed"; machine.stores.len()],
        "{told}"
    );
    assert_eq!(kinds(&told), expected, "{told}");
    machine.refused(&site);
    assert!(
        machine.bundle() == before,
        "something is left in the bundle"
    );
    let told = alpha.cli(&["ca", "trust", "uninstall"]).ok();
    assert!(
        told.contains("Nothing that was installed from here is left"),
        "{told}"
    );
    for row in machine.status(&alpha) {
        assert_eq!(
            (&row["state"], &row["recorded"]),
            (&"absent".into(), &false.into()),
            "{row}"
        );
    }
}

#[test]
fn roots_of_two_meshes_of_one_domain_live_side_by_side_and_go_together() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "old") else {
        return;
    };
    let install = ["ca", "trust", "install"];
    let mut old = machine.agent("old");
    let _ = old.init();
    old.set("SUDO_UID", USER);
    let site = Site::new(&old);
    let _ = old.json(&install);
    old.stop();

    // The same folder, with a new mesh in it.
    let state = old.dir.join("state");
    let record = fs::read(state.join("trust.json")).expect("a record");
    fs::remove_dir_all(&state).expect("the state");
    let mut new = machine.agent("new");
    let _ = new.init();
    new.set("SUDO_UID", USER);
    fs::write(new.dir.join("state/trust.json"), record).expect("a record");
    for row in machine.status(&new) {
        assert_eq!(row["state"], "other", "{row}");
        let detail = row["detail"].as_str().expect("which");
        assert!(detail.contains("another root of lab.internal"), "{row}");
    }
    let told = new.json(&install);
    assert_eq!(
        results(&told),
        vec!["installed"; machine.stores.len()],
        "{told}"
    );
    machine.accepted(&site);
    machine.accepted(&Site::new(&new));
    let status = new.json(&["ca", "trust", "status"]);
    let others = status["others"].as_array().expect("a list");
    assert_eq!(others.len(), machine.stores.len(), "{status}");
    let told = new.json(&["ca", "trust", "uninstall"]);
    assert_eq!(
        results(&told),
        vec!["removed"; 2 * machine.stores.len()],
        "{told}"
    );
    machine.refused(&site);
}

#[test]
fn without_root_the_own_browsers_are_done_and_the_rest_is_left_to_sudo() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "alpha") else {
        return;
    };
    let mut alpha = machine.agent("alpha");
    let _ = alpha.init();
    let install = machine.as_user(&alpha, &["ca", "trust", "install", "--json"]);
    assert_eq!(install.code, 1, "{install}");
    let told: Value = serde_json::from_str(&install.stdout).expect("JSON");
    for row in told["stores"].as_array().expect("a list") {
        let own = ["chromium", "firefox"].contains(&row["kind"].as_str().expect("a kind"));
        let expected = if own { "installed" } else { "needs_root" };
        assert_eq!(row["result"], expected, "{row}");
    }
    let text = machine.as_user(&alpha, &["ca", "trust", "install"]);
    assert!(text.stdout.contains("already there  Chromium"), "{text}");
    let sudo = format!(
        "`sudo agent --dir {} ca trust install`",
        alpha.dir.display()
    );
    assert!(text.stderr.contains(&sudo), "{text}");
    for folder in machine.databases() {
        let _ = machine
            .certutil(&["-V", "-u", "L", "-n", &name(&told)], &folder)
            .ok();
    }

    // Root undoes what root did, and says whose the rest is.
    alpha.set("SUDO_UID", USER);
    let other = alpha.cli(&["ca", "trust", "uninstall"]);
    assert_eq!(other.code, 1, "{other}");
    assert!(
        other.stderr.contains("installed without sudo is undone by"),
        "{other}"
    );
    let undone = machine.as_user(&alpha, &["ca", "trust", "uninstall", "--json"]);
    let undone = undone.json();
    assert_eq!(
        results(&undone),
        vec!["removed"; machine.databases().len()],
        "{undone}"
    );
    let _ = alpha.cli(&["ca", "trust", "uninstall"]).ok();
}

#[test]
fn a_store_that_can_not_be_changed_is_told_and_stops_no_other() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "alpha") else {
        return;
    };
    let mut alpha = machine.agent("alpha");
    let _ = alpha.init();
    alpha.set("SUDO_UID", USER);
    // A profile with a password, one that is damaged, and one that went away.
    let locked = machine.profile("locked", "password");
    let damaged = machine.profile("damaged", "");
    fs::write(damaged.join("cert9.db"), "not a database").expect("a file");
    let gone = machine.profile("gone", "");
    let install = alpha.cli(&["ca", "trust", "install", "--json"]);
    assert_eq!(install.code, 1, "{install}");
    let told: Value = serde_json::from_str(&install.stdout).expect("JSON");
    for row in told["stores"].as_array().expect("a list") {
        let place = Path::new(row["place"].as_str().expect("a place"));
        let failed = [&locked, &damaged].contains(&&place.to_owned());
        let expected = if failed { "failed" } else { "installed" };
        assert_eq!(row["result"], expected, "{row}");
        let detail = row["detail"].as_str().unwrap_or_default();
        let says = if place == locked {
            "it has a password"
        } else {
            "certutil failed"
        };
        assert_eq!(detail.contains(says), failed, "{row}");
    }
    // Nor does anything wait for a password on a terminal.
    let dir = alpha.dir.display();
    let words = format!(
        "SUDO_UID={USER} JAVA_HOME= {} --dir {dir} ca trust install",
        program().display()
    );
    let shown = machine.host.run(&["script", "-qec", &words, "/dev/null"]);
    assert_eq!(shown.code, 1, "{shown}");
    // As wide as a terminal.
    let words: Vec<&str> = shown.stdout.split_whitespace().collect();
    assert!(words.join(" ").contains("it has a password"), "{shown}");
    let list = machine.certutil(&["-L"], &locked).ok();
    assert!(!list.contains("innermesh"), "{list}");

    fs::remove_dir_all(&gone).expect("a profile");
    let told = alpha.json(&["ca", "trust", "uninstall"]);
    for row in told["stores"].as_array().expect("a list") {
        let expected = if Path::new(row["place"].as_str().expect("a place")) == gone {
            "absent"
        } else {
            "removed"
        };
        assert_eq!(row["result"], expected, "{row}");
    }
}

fn rows<'a>(told: &'a Value, field: &str) -> Vec<&'a str> {
    let rows = told["stores"].as_array().expect("a list");
    let rows = rows.iter().map(|row| row[field].as_str().expect("text"));
    rows.collect()
}

fn results(told: &Value) -> Vec<&str> {
    rows(told, "result")
}

fn kinds(told: &Value) -> Vec<&str> {
    rows(told, "kind")
}

fn name(told: &Value) -> String {
    rows(told, "name")[0].to_owned()
}
