//! Members whose requests the leader turns away, as an admin's `agent status`
//! names them: a machine that asks without end has gone mad, or is somebody
//! else's by now.

use std::time::Duration;

use innermesh_proto::{
    codec, id::NodeId, ledger::Role, limits, message::Spenders, rpc::method, view::MeshView,
};

use crate::{
    control::finding::{Finding, code},
    node::shared::handles::Handles,
};

/// How long a CA node may take to answer: status waits for it.
const ASK: Duration = Duration::from_millis(500);

/// A finding for each, on an admin's node.
pub async fn findings(node: &Handles, view: &MeshView) -> Vec<Finding> {
    let is_admin = view
        .own_member()
        .is_some_and(|own| own.roles.contains(&Role::Admin));
    if !is_admin {
        return Vec::new();
    }
    let spenders = find(node, view).await;
    let nodes = spenders.nodes.into_iter().take(limits::SPENDERS);
    nodes
        .map(|(whom, wait_ms)| {
            let name = view.ledger.name_of(whom);
            let minutes = (wait_ms / 60_000).max(1);
            Finding::warning(
                code::NODE_ASKS_TOO_MUCH,
                format!(
                    "{name} asks too much of the ledger and is turned away for {minutes} minutes or \
                     more"
                ),
                format!("Look what runs there; `agent evict {name}` cuts it off"),
            )
        })
        .collect()
}

/// As the leader says, whoever that is.
async fn find(node: &Handles, view: &MeshView) -> Spenders {
    let own = node.ledger.spenders().await;
    let others = view.ledger.roster.iter().filter(|other| **other != node.me);
    if own.leads {
        return own;
    }
    let asked = others.map(|other| ask(node, *other));
    let answers = futures_util::future::join_all(asked).await;
    let mut leaders = answers.into_iter().flatten();
    leaders.find(|answer| answer.leads).unwrap_or_default()
}

async fn ask(node: &Handles, whom: NodeId) -> Option<Spenders> {
    let call = node.transport.call(whom, method::SPENDERS, Vec::new(), ASK);
    codec::decode(&call.await.ok()?, limits::RPC_BYTES).ok()
}
