//! `agent evict`.

use std::path::{Path, PathBuf};

use innermesh_proto::{id::NodeId, ledger::request::Evict, name::Label};
use serde::Serialize;

use super::{
    alone::warn_alone,
    consent::Consent,
    context::Context,
    failure::{self, Failure},
    output::Output,
    root_key,
    root_word::with_key,
};
use crate::control::{
    Client, Der,
    members::{CutOffSeen, EvictRequest, EvictUndoRequest, Evicted, EvictionState},
    node::{Status, StatusRequest},
};

/// Remove a node from the mesh for good.
///
/// It is cut off at once: its connections, routes, names and records go, and
/// its key never comes back. The output says which nodes have confirmed that,
/// this one first. To evict an admin, a CA node, or more than three nodes
/// within an hour, a second admin must run the same command on another node
/// within the hour, or the root's key is needed: until then it ends with 5. On
/// its first day an admin counts as whoever made it one. Asks before it does
/// anything. Run it on an admin's node.
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
    /// Take back an eviction that isn't done yet.
    ///
    /// A node that is cut off is let in again, and one whose eviction waits for a
    /// second admin stays.
    #[arg(long, alias = "undo", conflicts_with = "root_key")]
    withdraw: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn evict(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let client = &context.client();
    if arguments.withdraw {
        return withdraw(&arguments, client).await;
    }
    let node = &arguments.node;
    let status = client.ask(&StatusRequest {}).await?;
    let command = format!("agent{} evict {node}", context.paths.option());
    let command = with_key(command, arguments.root_key.as_deref());
    let what = happens(&status, node, arguments.root_key.is_some());
    arguments.consent.ask(&what, &command)?;
    let root = match &arguments.root_key {
        Some(file) => Some(Der(by_root(file, node, &status)?)),
        None => None,
    };
    let request = EvictRequest {
        node: arguments.node,
        root,
    };
    let evicted = client.ask(&request).await?;
    arguments.output.print(&evicted, || text(&evicted))?;
    if evicted.state == EvictionState::Evicted {
        return warn_alone(arguments.output, client).await;
    }
    Err(Failure::silent(failure::WAITING))
}

/// What will have happened, before anybody agrees to it.
fn happens(status: &Status, node: &Label, by_root: bool) -> String {
    let row = status.nodes.iter().find(|row| row.name == node.as_str());
    let roles = row.map(|row| &row.roles[..]).unwrap_or_default();
    let matters = roles.iter().any(|role| role == "admin" || role == "ca");
    let mut what = format!(
        "{node} is cut off from {}, its names, records and certificates are gone, and its key never \
         comes back.",
        status.domain
    );
    if matters && !by_root {
        what.push_str(&format!(
            " As it has the role {}, that happens only once a second admin asks for it.",
            roles.join(" and ")
        ));
    }
    what
}

async fn withdraw(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Undone<'a> {
        node: &'a Label,
    }
    let node = &arguments.node;
    client.ask(&EvictUndoRequest { node: node.clone() }).await?;
    arguments.output.print(&Undone { node }, || {
        format!("{node} stays: nodes that cut it off let it in again as soon as they hear of it\n")
    })
}

/// The root's signature that `node` is to go.
fn by_root(file: &Path, name: &Label, status: &Status) -> Result<Vec<u8>, Failure> {
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
        "needs a second admin: run `agent evict {node}` on another admin's node within an hour (not \
         one that this admin made one). `agent evict {node} --withdraw` here takes it back"
    );
    let mut out = match (evicted.state, evicted.cut_off) {
        (EvictionState::Evicted, _) => {
            format!("{node} is evicted: its key never comes back\n")
        }
        (EvictionState::Waiting, true) => format!("{node} is suspended; {second}\n"),
        (EvictionState::Waiting, false) => {
            format!("{node} is not cut off yet, and may be by --root-key here; else it {second}\n")
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
