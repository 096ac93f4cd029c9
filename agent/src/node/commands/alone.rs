//! What hangs on one node alone: the mesh goes on without it, and can't change
//! any more.

use innermesh_proto::ledger::State;

use crate::control::finding::{Finding, Severity, code};

/// What one node alone can do, where there are others that could as well.
pub fn findings(state: &State) -> Vec<Finding> {
    if state.members.len() < 2 {
        return Vec::new();
    }
    only_admin(state)
        .into_iter()
        .chain(only_ca(state))
        .collect()
}

fn only_admin(state: &State) -> Option<Finding> {
    let mut admins = state.admins();
    let (Some(admin), None) = (admins.next(), admins.next()) else {
        return None;
    };
    let text = format!(
        "{} is the only admin: if it is lost, no machine can be let in and none evicted",
        state.name_of(admin)
    );
    let remedy = "Make another node an admin with `agent role add NODE admin`";
    Some(Finding::new(
        code::ONE_ADMIN,
        Severity::Warning,
        text,
        remedy,
    ))
}

/// Who decides is one node.
pub fn only_ca(state: &State) -> Option<Finding> {
    if state.roster.len() > 1 {
        return None;
    }
    let text = "Only one CA node. While it is offline no node, name or certificate can be added; \
                existing ones keep working";
    let remedy = "Make two more CA nodes with `agent ca promote NODE`";
    Some(Finding::new(
        code::ONE_CA,
        Severity::Warning,
        text.into(),
        remedy,
    ))
}
