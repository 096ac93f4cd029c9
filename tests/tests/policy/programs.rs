//! Test programs of several files: each is built, and so is run.

use std::{fs, path::PathBuf};

use crate::root;

/// Folders of test programs, each a file or a folder with a `main.rs`.
fn folders() -> Vec<PathBuf> {
    let members = ["tests", "simulations", "proto", "agent"].map(|member| root().join(member));
    let below = fs::read_dir(root().join("agent")).expect("the agent's crates");
    let crates = below.map(|entry| entry.expect("an entry").path());
    let all = members.into_iter().chain(crates);
    all.map(|member| member.join("tests"))
        .filter(|tests| tests.is_dir())
        .collect()
}

#[test]
fn every_file_of_a_test_program_is_a_part_of_it() {
    let mut seen = 0;
    for folder in folders() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let program = entry.expect("an entry").path();
            if !program.join("main.rs").is_file() {
                continue;
            }
            let files = fs::read_dir(&program).expect("a folder");
            let files = files.map(|entry| entry.expect("an entry").path());
            let files: Vec<PathBuf> = files
                .filter(|file| file.extension().is_some_and(|it| it == "rs"))
                .collect();
            let read = |file: &PathBuf| fs::read_to_string(file).expect("a source file");
            let text: String = files.iter().map(read).collect();
            for file in files.iter().filter(|file| !file.ends_with("main.rs")) {
                let name = file.file_stem().expect("a name").to_string_lossy();
                let line = format!("mod {name};");
                let is_named = text.lines().any(|it| it.trim_start_matches("pub ") == line);
                assert!(is_named, "{} is in no program", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 60, "{seen}");
}
