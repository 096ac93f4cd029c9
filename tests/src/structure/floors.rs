//! Which room may use which.

use super::{Arrows, SourceFile, Tree};

/// A room: its name, its modules where it is part of the crate `agent` and not a
/// crate of its own, and the rooms it may use.
type Room = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const ROOMS: &[Room] = &[
    ("host", &[], &[]),
    ("ca", &[], &["host"]),
    ("net", &[], &["host"]),
    ("ledger", &[], &["net", "ca", "host"]),
    ("control", &[], &["host"]),
    ("serve", &[], &["host", "ca", "control"]),
    (
        "node",
        &["node", "enroll", "config"],
        &["host", "ca", "net", "ledger", "serve", "control"],
    ),
    (
        "program",
        &["cli"],
        &["host", "ca", "net", "ledger", "serve", "control", "node"],
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
    let own = file.package.strip_prefix("innermesh_");
    let found = ROOMS.iter().find(|(name, modules, _)| {
        if modules.is_empty() {
            own == Some(name)
        } else {
            own == Some("agent") && first.is_some_and(|first| modules.contains(&first))
        }
    });
    found.map(|(name, _, may)| (*name, *may))
}
