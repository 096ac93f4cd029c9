//! Which room may use which.

use super::{Arrows, SourceFile, Tree};

/// The rooms of the agent, each with what it may use besides what those may use.
const ROOMS: &[(&str, &[&str], &[&str])] = &[
    ("host", &["host", "config"], &[]),
    ("net", &["quic", "tls", "gossip"], &["host"]),
    ("ledger", &["ledger"], &["net", "host"]),
    (
        "serve",
        &["dns", "acme", "page", "ca", "renewal", "services"],
        &["host"],
    ),
    ("control", &["control"], &["host"]),
    (
        "node",
        &["mesh", "enroll", "overlay", "tunnel"],
        &["host", "net", "ledger", "serve", "control"],
    ),
    (
        "program",
        &["cli", "telemetry"],
        &["host", "net", "ledger", "serve", "control", "node"],
    ),
];

/// Arrows that no room may have.
pub fn against(tree: &Tree, arrows: &Arrows) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to) in arrows {
        let Some((room, may)) = room(&tree[from]) else {
            continue;
        };
        for to in to {
            if let Some((other, _)) = self::room(&tree[to])
                && other != room
                && !may.contains(&other)
            {
                wrong.push(format!("{from} ({room}) -> {to} ({other})"));
            }
        }
    }
    wrong
}

fn room(file: &SourceFile) -> Option<(&'static str, &'static [&'static str])> {
    let first = file.module.first()?;
    ROOMS
        .iter()
        .find(|(_, modules, _)| {
            file.package == "innermesh_agent" && modules.contains(&first.as_str())
        })
        .map(|(name, _, may)| (*name, *may))
}
