//! Every scenario, as `simulate` runs it: all holds, the faults that it
//! promises happen, and the same seed in another process is the same run.

use std::process::Command;

use simulations::schedule::Profile;

/// The lines of `simulate` with these arguments.
fn simulate(arguments: &[&str]) -> (bool, Vec<serde_json::Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args(arguments)
        .args(["--json", "--save"])
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (output.status.success(), lines.collect())
}

#[test]
fn every_scenario_holds_and_repeats_in_another_process() {
    repeats(Profile::Wire);
}

#[test]
fn a_scenario_about_datagrams_is_for_the_wire_alone() {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args([
            "run",
            "--scenario",
            "mtu-black-hole",
            "--profile",
            "message",
        ])
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(why.contains("wire profile only"), "{why}");
}

#[test]
fn so_it_does_when_agents_talk_without_packets() {
    repeats(Profile::Message);
}

fn repeats(profile: Profile) {
    let name = profile.to_string();
    let arguments = [
        "run",
        "--nodes",
        "4",
        "--minutes",
        "1",
        "--seed",
        "1",
        "--profile",
        &name,
    ];
    let (ok, first) = simulate(&arguments);
    let scenarios = simulations::scenario::all();
    let expected = scenarios.filter(|scenario| scenario.is_for(profile));
    assert!(ok && first.len() == expected.count());
    assert!(first.iter().all(|outcome| outcome["profile"] == *name));
    let (_, again) = simulate(&arguments);
    for (first, again) in first.iter().zip(&again) {
        let name = &first["scenario"];
        assert_eq!(first["trace_hash"], again["trace_hash"], "{name}");
        assert_eq!(first["faults"], again["faults"], "{name}");
    }
}
