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
    let first = hold(Profile::Message, "all");
    let scenarios = simulations::scenario::all();
    let expected = scenarios.filter(|scenario| scenario.is_for(Profile::Message));
    assert_eq!(first.len(), expected.count());
    // That runs repeat is the agents' doing and seen above: one shows that this network
    // repeats too.
    let again = hold(Profile::Message, "mix");
    let mut first = first.iter();
    let first = first.find(|outcome| outcome["scenario"] == "mix");
    is_the_same(first.unwrap(), &again[0]);
}

#[test]
fn every_scenario_holds_and_repeats_in_another_process() {
    let first = hold(Profile::Wire, "all");
    assert_eq!(first.len(), simulations::scenario::all().count());
    // Those with many machines take long; that such a mesh repeats is the next test.
    let small: Vec<_> = first
        .iter()
        .filter(|outcome| outcome["nodes"].as_u64().unwrap() <= 12)
        .collect();
    assert!(small.len() >= 50, "{}", small.len());
    let names: Vec<&str> = small
        .iter()
        .map(|outcome| outcome["scenario"].as_str().unwrap())
        .collect();
    let again = hold(Profile::Wire, &names.join(","));
    assert_eq!(again.len(), small.len());
    for (first, again) in small.into_iter().zip(&again) {
        is_the_same(first, again);
    }
}

/// Where not all are neighbours, who is depends on all that the ledger holds.
#[test]
fn a_mesh_of_more_than_may_all_be_neighbours_repeats_too() {
    let run = || {
        simulate(&[
            "run",
            "--nodes",
            "14",
            "--minutes",
            "1",
            "--seed",
            "1",
            "--scenario",
            "churn",
        ])
    };
    let ((ok, first), (_, again)) = (run(), run());
    assert!(ok, "{first:?}");
    is_the_same(&first[0], &again[0]);
}

fn is_the_same(first: &serde_json::Value, again: &serde_json::Value) {
    let name = &first["scenario"];
    assert_eq!(name, &again["scenario"]);
    assert_eq!(first["trace_hash"], again["trace_hash"], "{name}");
    assert_eq!(first["faults"], again["faults"], "{name}");
}

/// Runs scenarios once, and gives what came of each.
fn hold(profile: Profile, scenario: &str) -> Vec<serde_json::Value> {
    let name = profile.to_string();
    let (ok, outcomes) = simulate(&[
        "run",
        "--nodes",
        "4",
        "--minutes",
        "1",
        "--seed",
        "1",
        "--scenario",
        scenario,
        "--profile",
        &name,
    ]);
    assert!(ok, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome["profile"] == *name));
    outcomes
}
