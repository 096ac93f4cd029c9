//! A run as a story, with a picture of which machine ran when.

use std::fmt::Write as _;

use simulations::{
    outcome::Outcome,
    schedule::{Act, Schedule},
};

/// Columns of the picture.
const COLUMNS: u64 = 60;

/// What the schedule does, in words and as a picture, and what came of it.
pub fn story(schedule: &Schedule, outcome: &Outcome) -> String {
    let mut out = format!(
        "{} machines make a mesh; node0 is its first and its CA. Then, in {} s ({}, seed {}):\n\n",
        schedule.nodes,
        schedule.length_ms / 1000,
        schedule.scenario,
        schedule.seed
    );
    for step in &schedule.steps {
        let _ = writeln!(out, "  {:>9.3} s  {}", step.at_ms as f64 / 1000.0, step.act);
    }
    out.push_str(
        "\nWho ran when (= running, . away, x power failed, + service added, - removed):\n\n",
    );
    picture(schedule, &mut out);
    out.push_str("\nThe end of it, in the time of the world:\n\n");
    for line in &outcome.recent {
        let _ = writeln!(out, "  {line}");
    }
    match &outcome.violation {
        Some(violation) => {
            let _ = writeln!(out, "\nWhat must hold and didn't: {violation}");
        }
        None => {
            let healed = outcome.healed_ms.unwrap_or(0);
            let _ = writeln!(
                out,
                "\nAll held. All agreed {healed} ms after the last fault."
            );
        }
    }
    out
}

fn picture(schedule: &Schedule, out: &mut String) {
    let last = schedule.steps.last().map_or(0, |step| step.at_ms);
    let end = schedule.length_ms.max(last) + 1;
    for node in 0..schedule.nodes {
        let mut running = true;
        let mut row = String::new();
        for column in 0..COLUMNS {
            let (from, to) = (column * end / COLUMNS, (column + 1) * end / COLUMNS);
            let mut mark = None;
            let within = schedule
                .steps
                .iter()
                .filter(|s| (from..to).contains(&s.at_ms));
            for step in within {
                match step.act {
                    Act::Crash(n) | Act::BitFlip(n) | Act::Rollback(n) if n == node => {
                        (running, mark) = (false, Some('x'))
                    }
                    Act::Stop(n) if n == node => running = false,
                    Act::Start(n) if n == node => running = true,
                    Act::Add(n, _) if n == node => mark = mark.or(Some('+')),
                    Act::Remove(n, _) if n == node => mark = mark.or(Some('-')),
                    _ => {}
                }
            }
            row.push(mark.unwrap_or(if running { '=' } else { '.' }));
        }
        let _ = writeln!(out, "  {:<8} {row}", format!("node{node}"));
    }
}
