//! Which room may use which.

use super::{Arrows, SourceFile, Tree};

/// A room: its name, the modules of the agent in it, and the rooms it may use.
/// `host` is a crate of its own.
type Room = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const ROOMS: &[Room] = &[
    ("host", &[], &[]),
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
        &["mesh", "enroll", "config"],
        &["host", "net", "ledger", "serve", "control"],
    ),
    (
        "program",
        &["cli"],
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
    let first = file.module.first().map(String::as_str);
    let found = ROOMS
        .iter()
        .find(|(name, modules, _)| match file.package.as_str() {
            "innermesh_host" => *name == "host",
            "innermesh_agent" => first.is_some_and(|first| modules.contains(&first)),
            _ => false,
        });
    found.map(|(name, _, may)| (*name, *may))
}
