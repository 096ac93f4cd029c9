//! `agent role add` and `rm`, and `agent ca demote`: who may do what in the mesh.

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, Refusal, Role, State,
        request::{RoleChange, RootWord},
    },
    name::Label,
};

use crate::{
    control::{
        ControlError,
        ca::DemoteRequest,
        finding::{Finding, code},
        members::{RoleChanged, RoleRequest, RoleState, RoleWord},
    },
    ledger::client::RequestError,
    node::{
        commands::invite::not_known,
        shared::{
            handles::Handles,
            refusals::{PATIENCE, invalid, no_node, not_done, not_member, refused},
        },
    },
};

/// What goes into the root's word for a change of this node's roles.
///
/// # Errors
/// When there is no such node, or the mesh knows no such word.
pub fn word(node: &Handles, name: &Label) -> Result<RoleWord, ControlError> {
    let state = node.ledger.state();
    let (id, _) = state.member_by_name(name).ok_or_else(|| no_node(name))?;
    check_rules(&state)?;
    Ok(RoleWord {
        mesh: state.mesh.to_string(),
        node: id.to_string(),
        author: node.me.to_string(),
        number: state.next_root_word(),
        now_ms: node.client.now_ms(),
    })
}

/// Has the ledger give a node a role, or take it.
///
/// # Errors
/// Why it stays as it is.
pub async fn change(node: &Handles, request: RoleRequest) -> Result<RoleChanged, ControlError> {
    let state = node.ledger.state();
    let own = state.members.get(&node.me).ok_or_else(not_member)?;
    let RoleRequest {
        node: name,
        role,
        give,
        root,
    } = request;
    let (id, _) = state.member_by_name(&name).ok_or_else(|| no_node(&name))?;
    let role: Role = role.parse().map_err(invalid)?;
    if give && role == Role::Ca {
        return Err(refused(Refusal::CaByPromotion));
    }
    let is_own = id == node.me && !give;
    if root.is_none() && !is_own && !own.roles.contains(&Role::Admin) {
        return Err(refused(
            "this machine is not an admin; run this on one that is (`agent status` shows roles), \
             or give the root's recovery file with --root-key",
        ));
    }
    let change = RoleChange {
        node: id,
        role,
        root: root.map(|word| RootWord {
            until_ms: word.until_ms,
            signature: word.signature.0,
        }),
    };
    let content = content(&state, change, give)?;
    let state = match node.client.ask(&content, PATIENCE).await {
        Ok(accepted) if accepted.is_waiting => RoleState::Waiting,
        Ok(_) => RoleState::Done,
        Err(error) => return Err(why(error, &name)),
    };
    Ok(RoleChanged {
        node: name.to_string(),
        role: role.to_string(),
        give,
        state,
    })
}

/// Has the ledger make a CA node an ordinary one.
///
/// # Errors
/// Why it stays one.
pub async fn demote(node: &Handles, request: DemoteRequest) -> Result<RoleChanged, ControlError> {
    let request = RoleRequest {
        node: request.node,
        role: Role::Ca.to_string(),
        give: false,
        root: request.root,
    };
    change(node, request).await
}

/// What is asked of the ledger; under earlier rules there was one change of a
/// role alone.
fn content(state: &State, change: RoleChange, give: bool) -> Result<Content, ControlError> {
    let is_demotion = change.role == Role::Ca && !give && change.root.is_none();
    if is_demotion && state.rules < 2 {
        return Ok(Content::Demote(change.node));
    }
    check_rules(state)?;
    let role = change.role;
    let content = if give {
        Content::GiveRole(change)
    } else {
        Content::TakeRole(change)
    };
    if content.since_rules() > state.rules {
        return Err(not_known(role));
    }
    Ok(content)
}

fn check_rules(state: &State) -> Result<(), ControlError> {
    if state.rules < 2 {
        return Err(refused(
            "not all CA nodes know how roles are changed; update the agents on all CA nodes first",
        ));
    }
    Ok(())
}

fn why(error: RequestError, name: &Label) -> ControlError {
    match error {
        RequestError::Refused(Refusal::LastCa) => refused(format!(
            "{name} is the only CA node: nobody could decide anything any more; \
             `agent ca promote` two others first"
        )),
        RequestError::Refused(Refusal::LastAdmin) => refused(format!(
            "{name} is the only admin: nobody could let a machine in any more; \
             `agent role add NODE admin` first"
        )),
        other => not_done(other),
    }
}

/// What is to be said of roles that wait to be taken.
pub fn findings(state: &State) -> Vec<Finding> {
    let proposals = state.proposed_role_changes();
    let told = proposals.map(|(node, role, by): (NodeId, Role, NodeId)| {
        let (name, by) = (state.name_of(node), state.name_of(by));
        let command = match role {
            Role::Ca => format!("agent ca demote {name}"),
            _ => format!("agent role rm {name} {role}"),
        };
        Finding::warning(
            code::ROLE_CHANGE_WAITS,
            format!("{by} asks to take the role {role} from {name}"),
            format!(
                "If that is right, run `{command}` on another admin's machine within an hour of the \
                 asking"
            ),
        )
    });
    told.collect()
}
