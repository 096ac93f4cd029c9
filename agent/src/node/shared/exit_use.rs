//! Whether exits can do what they are for: this node as one, and the one that it uses.

use innermesh_proto::{filter::FilterPlan, view::MeshView};

use super::exit_setting::ChosenExit;
use crate::control::finding::{Finding, code};

/// Its name where it isn't known any more.
const UNKNOWN: &str = "unknown";

/// The name of the exit that was chosen.
pub(crate) fn name(view: &MeshView, chosen: &ChosenExit) -> String {
    let node = chosen.node.map(|node| view.ledger.name_of(node));
    node.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Why nothing reaches the internet by the exit that was chosen; `None` as far as is
/// known here.
pub(crate) fn trouble(view: &MeshView, chosen: &ChosenExit) -> Option<String> {
    let Some(node) = chosen.node else {
        return Some("which node it is can't be read in the state folder any more".into());
    };
    let name = view.ledger.name_of(node);
    if !view.ledger.members.contains_key(&node) {
        return Some(format!("{name} is not in the mesh any more"));
    }
    if view.held.contains_key(&node) {
        return Some(format!("{name} is cut off"));
    }
    if !view.is_exit(&node) {
        return Some(format!("{name} is no exit any more"));
    }
    if node == view.me || view.is_exit(&view.me) {
        return Some("this node is an exit itself".into());
    }
    if !view.may_use_exits() {
        return Some("the mesh's policy lets this node reach nothing of the internet".into());
    }
    if !view.nodes.get(&node).is_some_and(|seen| seen.live) {
        return Some(format!("{name} is not there"));
    }
    let ways = view.exit_ways(&node)?;
    (!ways.ipv4 && !ways.ipv6).then(|| format!("{name} has no default route"))
}

/// What somebody should do something about.
pub(crate) fn findings(
    view: &MeshView,
    chosen: Option<ChosenExit>,
    plan: Option<&FilterPlan>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(chosen) = chosen
        && let Some(why) = trouble(view, &chosen)
    {
        found.push(Finding::error(
            code::EXIT_UNUSABLE,
            format!(
                "nothing on the internet is reached from here: the exit in use is {}, and {why}",
                name(view, &chosen)
            ),
            "`agent exit use NODE` uses another, and `agent exit off` none",
        ));
    }
    let exit = plan.and_then(|plan| plan.exit.as_ref());
    if exit.is_some_and(|exit| exit.outer.is_empty()) {
        found.push(Finding::error(
            code::EXIT_NO_ROUTE,
            "this node is an exit and has no default route: nothing reaches the internet by it",
            "Give this host a default route, or take the role by `agent role rm NODE exit`",
        ));
    }
    found
}
