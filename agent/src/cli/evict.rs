//! `agent evict`.

use std::path::PathBuf;

use innermesh_proto::{id::NodeId, ledger::request::Evict, name::Label};
use serde::Serialize;

use super::{failure::Failure, output::Output, root_key};
use crate::control::{
    Client, Der,
    members::{CutOffSeen, EvictRequest, EvictUndoRequest, Evicted, EvictionState},
    node::StatusRequest,
};

/// Remove a node from the mesh for good.
///
/// It is cut off at once: its connections, routes, names and records go, and
/// its key never comes back. The output says which nodes have confirmed that,
/// this one first. To evict an admin, a CA node, or more than three nodes
/// within an hour, a second admin must run the same command on another node
/// within the hour, or the root's key is needed. Run it on an admin's node.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the node to evict.
    #[arg(value_name = "NODE")]
    node: Label,
    /// Use the root's recovery file in place of a second admin.
    ///
    /// Its passphrase is asked for, or taken from INNERMESH_ROOT_PASSPHRASE.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// Readmit a node that is cut off and not evicted yet.
    #[arg(long, conflicts_with = "root_key")]
    undo: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn evict(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    if arguments.undo {
        return undo(&arguments, client).await;
    }
    let root = match &arguments.root_key {
        Some(file) => Some(Der(by_root(file, &arguments.node, client).await?)),
        None => None,
    };
    let request = EvictRequest {
        node: arguments.node,
        root,
    };
    let evicted = client.ask(&request).await?;
    arguments.output.print(&evicted, || text(&evicted))
}

async fn undo(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Undone<'a> {
        node: &'a Label,
    }
    let node = &arguments.node;
    client.ask(&EvictUndoRequest { node: node.clone() }).await?;
    arguments.output.print(&Undone { node }, || {
        format!("{node} is let in again as soon as the others hear of it\n")
    })
}

/// The root's signature that `node` is to go.
async fn by_root(
    file: &std::path::Path,
    name: &Label,
    client: &Client,
) -> Result<Vec<u8>, Failure> {
    let status = client.ask(&StatusRequest {}).await?;
    let row = status.nodes.iter().find(|row| row.name == name.as_str());
    let row = row.ok_or_else(|| {
        Failure::failed(format!(
            "{name} is not a node of the mesh; `agent status` lists them"
        ))
    })?;
    let node: NodeId = row.id.parse().map_err(Failure::failed)?;
    let text = root_key::read(file)?;
    let root = root_key::decrypt(&text, file)?;
    root_key::check_mesh(&root, &status.mesh, file)?;
    root.sign(&Evict::root_message(&root.mesh(), &node))
        .map_err(Failure::failed)
}

fn text(evicted: &Evicted) -> String {
    let Evicted { node, .. } = evicted;
    let second = format!(
        "needs a second admin: run `agent evict {node}` on another admin's node within an hour (not one that this admin invited)"
    );
    let mut out = match (evicted.state, evicted.cut_off) {
        (EvictionState::Evicted, _) => {
            format!("{node} is evicted: its key never comes back\n")
        }
        (EvictionState::Waiting, true) => format!("{node} is suspended; {second}\n"),
        (EvictionState::Waiting, false) => {
            format!("{node} is not cut off yet; {second}, or use --root-key here\n")
        }
        (EvictionState::Pending, _) => format!(
            "{node} is suspended; no CA node can be reached, so this agent evicts it later, by \
             itself, while it runs\n"
        ),
    };
    if let Some(seen) = &evicted.seen {
        out.push_str(&observed(seen));
    }
    out
}

/// What was seen, and nothing more.
fn observed(seen: &CutOffSeen) -> String {
    let mut out = if seen.here {
        "cut off here: yes\n".to_owned()
    } else {
        "cut off here: no; `agent status` says why\n".to_owned()
    };
    if seen.everywhere() {
        out.push_str("cut off everywhere: each node has confirmed it\n");
        return out;
    }
    for (answer, said) in [
        (Some(true), "yes"),
        (Some(false), "no, not yet"),
        (None, "not known, it gave no answer"),
    ] {
        for peer in seen.peers.iter().filter(|peer| peer.cut_off == answer) {
            out.push_str(&format!("cut off at {}: {said}\n", peer.node));
        }
    }
    if !seen.unreached.is_empty() {
        out.push_str(&format!(
            "not asked, as not connected now: {}; they cut it off when they follow the ledger\n",
            seen.unreached.join(", ")
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::members::CutOffAt;

    #[test]
    fn a_person_is_told_what_happened_and_what_is_missing() {
        let told = |state, cut_off| {
            text(&Evicted {
                node: "beta".into(),
                state,
                cut_off,
                seen: None,
            })
        };
        assert!(told(EvictionState::Evicted, true).contains("never comes back"));
        let waits = told(EvictionState::Waiting, true);
        assert!(waits.contains("suspended; needs a second admin: run `agent evict beta`"));
        assert!(told(EvictionState::Waiting, false).contains("not cut off yet"));
        assert!(told(EvictionState::Pending, true).contains("later, by itself"));
    }
    #[test]
    fn everywhere_is_said_only_where_each_node_has_confirmed_it() {
        let at = |node: &str, cut_off| CutOffAt {
            node: node.into(),
            cut_off,
        };
        let mut seen = CutOffSeen {
            here: true,
            peers: vec![at("alpha", Some(true))],
            unreached: Vec::new(),
        };
        assert!(observed(&seen).contains("everywhere"));
        seen.unreached.push("delta".into());
        assert!(!observed(&seen).contains("everywhere"));
        assert!(observed(&seen).contains("not connected now: delta"));
        seen.unreached.clear();
        seen.peers.push(at("gamma", None));
        let told = observed(&seen);
        assert!(!told.contains("everywhere") && told.contains("cut off at gamma: not known"));
        seen.peers.pop();
        seen.here = false;
        assert!(observed(&seen).starts_with("cut off here: no"));
    }
}
