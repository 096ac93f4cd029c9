//! Schedules that once broke something: they hold now.

#![allow(
    clippy::disallowed_methods,
    reason = "the schedules are files of this repository"
)]

use std::{fs, path::Path, process::Command};

#[test]
fn what_once_broke_something_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut replayed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
            .arg("replay")
            .arg(&path)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{errors}", path.display());
        replayed += 1;
    }
    assert!(replayed >= 5, "{replayed}");
}
