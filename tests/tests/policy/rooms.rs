//! The rooms of the node: who uses whom, read from the source.

use std::collections::BTreeSet;

use innermesh_tests::structure;

use crate::root;

/// The room of a file of the node.
fn room(path: &str) -> Option<&str> {
    let below = path.strip_prefix("agent/src/node/")?;
    Some(below.split_once('/').map_or("", |(room, _)| room))
}

/// Which rooms a room may use besides itself. Everybody may use what lies at the
/// top and knows no room: the configuration and why an agent can't start.
fn may_use(room: &str) -> Option<&'static [&'static str]> {
    match room {
        "shared" => Some(&[]),
        "follow" | "peer" => Some(&["shared"]),
        "commands" => Some(&["follow", "peer", "shared"]),
        _ => None,
    }
}

#[test]
fn the_rooms_of_the_node_use_only_those_below_them() {
    const TOP: [&str; 2] = ["agent/src/node/build_error.rs", "agent/src/node/config.rs"];
    let tree = structure::read(root(), &structure::crates(root()).unwrap()).unwrap();
    let arrows = structure::arrows(&tree);
    let mut seen = BTreeSet::new();
    for (from, to) in &arrows {
        let Some(own) = room(from) else { continue };
        let Some(may) = may_use(own) else { continue };
        seen.insert(own);
        for to in to.iter().filter(|to| !TOP.contains(&to.as_str())) {
            if let Some(other) = room(to) {
                assert!(other == own || may.contains(&other), "{from} uses {to}");
            }
        }
    }
    assert_eq!(
        seen,
        BTreeSet::from(["commands", "follow", "peer", "shared"])
    );
}
