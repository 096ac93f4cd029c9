//! `ops/docs/phone.md`, typed line by line.

use std::{fs, path::Path};

use innermesh_tests::{
    Agent, Host, Lab, agent,
    agent::PATIENCE,
    installed,
    phone::{PROGRAMS, Phone},
    wait_for,
};

use crate::world::wait_rules;

/// A line of a block, and where it is typed.
struct Line {
    machine: String,
    typed: String,
    answers: Vec<String>,
}

/// The configuration of the gateway, and the lines of all blocks of `console`.
fn parts(text: &str) -> (String, Vec<Line>) {
    let (mut block, mut config, mut lines) = ("", String::new(), Vec::<Line>::new());
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = kind;
        } else if block == "toml" {
            config.push_str(&format!("{line}\n"));
        } else if block == "console" {
            match line.split_once("# ") {
                Some((machine, typed)) => lines.push(Line {
                    machine: machine.to_owned(),
                    typed: typed.to_owned(),
                    answers: Vec::new(),
                }),
                None => {
                    let last = lines.last_mut().expect("a line before its answer");
                    last.answers.push(line.to_owned());
                }
            }
        }
    }
    (config, lines)
}

/// Types a line with `agent` for the one under test; what others do meanwhile may
/// take a moment.
fn type_line(host: &Host, line: &Line, preamble: &str, folder: &Path) {
    let typed = line
        .typed
        .replace("/tmp/", &format!("{}/", folder.display()));
    let script = format!("{preamble}\n{typed}");
    wait_for(&typed, PATIENCE, || {
        let done = host.run(&["sh", "-c", &script]);
        let said = format!("{}{}", done.stdout, done.stderr);
        match line.answers.iter().find(|answer| !said.contains(*answer)) {
            None if done.code == 0 => Ok(()),
            missing => Err(format!("{missing:?} isn't in {done}")),
        }
    });
}

#[test]
fn a_phone_in_five_minutes() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/docs/phone.md");
    let (config, lines) = parts(&fs::read_to_string(doc).expect("the document"));
    let mut oak = Agent::new(&lab.hosts[0], "oak");
    let _ = oak.init();
    wait_rules(&oak);
    let laptop = Phone::behind(&lab, &lab.hosts[1], &lab.hosts[2]);
    // What the world outside says of the gateway's name.
    laptop.knows("gw.example.org", lab.hosts[0].ipv4.into());
    let folder = lab.hosts[0].directory.clone();
    fs::write(oak.dir.join("config.toml"), config).expect("a file of the laboratory");
    assert!(lines.len() > 10, "{} lines", lines.len());
    for line in &lines {
        match (line.machine.as_str(), line.typed.as_str()) {
            ("oak", "systemctl restart innermesh") => {
                oak.stop();
                oak.start();
            }
            ("oak", _) => {
                let program = agent::program().display();
                let dir = oak.dir.display();
                let preamble = format!("agent() {{ {program} --dir {dir} \"$@\"; }}");
                type_line(oak.host, line, &preamble, &folder);
            }
            ("laptop", _) => type_line(laptop.host, line, &laptop.preamble(), &folder),
            (other, _) => panic!("there is no {other}"),
        }
    }
}
