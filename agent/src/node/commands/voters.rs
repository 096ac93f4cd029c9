//! `agent ca promote`: which nodes decide the ledger and sign certificates, and
//! the keys that the root signs for them.

use std::time::Duration;

use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{Content, Role, request::Promote, state::Member},
    limits,
    message::IssuerKeys,
    name::Label,
    rpc::method,
};

use crate::{
    control::{
        ControlError, Der,
        ca::{CaKeys, PromoteRequest},
    },
    node::{
        commands::recovery,
        shared::{
            handles::Handles,
            refusals::{PATIENCE, decide, no_node, not_member, refused, unavailable},
        },
    },
    quic::CallError,
};

/// How long another node may take for a question.
const ASK: Duration = Duration::from_secs(5);
/// Between two attempts to reach one.
const PAUSE: Duration = Duration::from_millis(250);

/// What the root is to sign so that a node can issue certificates.
///
/// # Errors
/// When this machine may not ask, or the node can't be asked.
pub async fn keys(node: &Handles, name: Label) -> Result<CaKeys, ControlError> {
    let (id, _) = promotable(node, &name)?;
    let keys = if id == node.me {
        node.ledger.issuer_keys().await.map_err(unavailable)?
    } else {
        keys_of(node, &name, id).await?
    };
    let state = node.ledger.state();
    Ok(CaKeys {
        mesh: state.mesh.to_string(),
        is_ca: state.is_voter(id),
        now_ms: node.client.now_ms(),
        held: recovery::held(&state, id, keys.held),
        offered: keys.offered.into_iter().map(Der).collect(),
    })
}

/// Has the ledger take a node as a CA node, or renew it as one.
///
/// # Errors
/// Why it stays as it is.
pub async fn promote(node: &Handles, request: PromoteRequest) -> Result<(), ControlError> {
    let (id, _) = promotable(node, &request.node)?;
    let issuers = request.issuers.into_iter().map(|der| der.0).collect();
    let promote = Promote { node: id, issuers };
    decide(&node.client, &Content::Promote(promote)).await?;
    Ok(())
}

/// The member, if this machine may make it a CA node or renew it as one.
fn promotable(node: &Handles, name: &Label) -> Result<(NodeId, Member), ControlError> {
    let view = node.view.borrow().clone();
    let state = &view.ledger;
    let own = view.own_member().ok_or_else(not_member)?;
    let (id, member) = state.member_by_name(name).ok_or_else(|| no_node(name))?;
    let may = own.roles.contains(&Role::Admin) || (id == view.me && state.is_voter(id));
    if may {
        Ok((id, member.clone()))
    } else {
        Err(refused(
            "this machine is not an admin; run `agent ca promote` on one that is \
             (`agent status` shows roles)",
        ))
    }
}

async fn keys_of(node: &Handles, name: &Label, id: NodeId) -> Result<IssuerKeys, ControlError> {
    let clock = &node.host.clock;
    let end = clock.now() + PATIENCE;
    let answer = loop {
        let call = node
            .transport
            .call(id, method::ISSUER_KEYS, Vec::new(), ASK);
        match call.await {
            Ok(answer) => break answer,
            // It may just have started.
            Err(CallError::NotConnected(_)) if clock.now() < end => clock.sleep(PAUSE).await,
            Err(error) => {
                return Err(unavailable(format!(
                    "{name} can't be asked for the keys of its issuers ({error}); its agent \
                     must run and be reached from here, see `agent ping {name}`"
                )));
            }
        }
    };
    codec::decode(&answer, limits::RPC_BYTES)
        .map_err(|error| unavailable(format!("{name}'s answer can't be read: {error}")))
}
