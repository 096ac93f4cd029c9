//! `agent invite list` and `revoke`: what each admin's node gave out that
//! somebody could still join by.

use std::{collections::BTreeSet, time::Duration};

use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{Content, Role, State, content::invite_id, request::RevokeInvite},
    limits,
    message::{GivenInvite, GivenInvites},
    rpc::method,
};

use crate::{
    control::{
        ControlError, ErrorCode,
        members::{InviteList, InviteRow},
    },
    host::UnixTime,
    node::{
        commands::invite::is_open,
        shared::{
            handles::Handles,
            invites::Invites,
            refusals::{decide, not_member, refused},
        },
    },
};

/// How long an admin's node may take to answer.
const ASK: Duration = Duration::from_secs(3);

/// The invites that are open.
///
/// # Errors
/// When this node is no admin.
pub async fn list(node: &Handles, invites: &Invites) -> Result<InviteList, ControlError> {
    let (state, given, unasked) = all(node, invites).await?;
    let mut rows: Vec<InviteRow> = given
        .iter()
        .map(|(by, invite)| row(&state, *by, invite))
        .collect();
    rows.sort_by(|a, b| (a.expires, &a.id).cmp(&(b.expires, &b.id)));
    let unasked = unasked.iter().map(|node| state.name_of(*node)).collect();
    Ok(InviteList {
        invites: rows,
        unasked,
    })
}

/// Has nobody join by an invite any more.
///
/// # Errors
/// Why one still could.
pub async fn revoke(
    node: &Handles,
    invites: &Invites,
    id: &str,
) -> Result<InviteRow, ControlError> {
    let (state, given, unasked) = all(node, invites).await?;
    let mut named = given.iter().filter(|(_, invite)| {
        // Nobody types all of it.
        !id.is_empty() && invite_id(&invite.token).starts_with(&id.to_ascii_lowercase())
    });
    let (by, invite) = match (named.next(), named.next()) {
        (Some(one), None) => one,
        (Some(_), Some(_)) => {
            return Err(refused(format!(
                "several invites begin with {id}; give more of the id that `agent invite list` shows"
            )));
        }
        _ => return Err(unknown(&state, id, &unasked)),
    };
    let revoke = RevokeInvite {
        token: invite.token,
        expires_ms: invite.expires_ms,
    };
    if state.rules < 2 {
        return Err(refused(
            "not all CA nodes know how an invite is revoked; update the agents on all CA nodes \
             first, or wait until it expires",
        ));
    }
    decide(&node.client, &Content::RevokeInvite(revoke)).await?;
    Ok(InviteRow {
        uses_left: 0,
        ..row(&state, *by, invite)
    })
}

fn unknown(state: &State, id: &str, unasked: &BTreeSet<NodeId>) -> ControlError {
    let names: Vec<String> = unasked.iter().map(|node| state.name_of(*node)).collect();
    let asked = if names.is_empty() {
        String::new()
    } else {
        format!(
            " ({} gave no answer, and may have made it)",
            names.join(", ")
        )
    };
    ControlError::new(
        ErrorCode::NotFound,
        format!(
            "no open invite has the id {id}; `agent invite list` shows those that there are{asked}"
        ),
    )
}

type Given = Vec<(NodeId, GivenInvite)>;

/// Every open invite with the node that made it, and the admins that gave no
/// answer.
async fn all(
    node: &Handles,
    invites: &Invites,
) -> Result<(std::sync::Arc<State>, Given, BTreeSet<NodeId>), ControlError> {
    let state = node.ledger.state();
    let own = state.members.get(&node.me).ok_or_else(not_member)?;
    if !own.roles.contains(&Role::Admin) {
        return Err(refused(
            "this machine is not an admin; run `agent invite` on one that is",
        ));
    }
    let now_ms = node.client.now_ms();
    let mut given: Given = invites
        .open(now_ms)
        .into_iter()
        .map(|invite| (node.me, invite))
        .collect();
    let mut unasked: BTreeSet<NodeId> = state.admins().filter(|admin| *admin != node.me).collect();
    let admins = unasked.iter().copied();
    let asked = admins.map(|admin| async move { (admin, ask(node, admin).await) });
    let asked: Vec<_> = asked.collect();
    for (admin, answer) in futures_util::future::join_all(asked).await {
        let Some(answer) = answer else { continue };
        let some = answer.invites.into_iter().take(limits::INVITES_PER_NODE);
        given.extend(some.map(|invite| (admin, invite)));
        unasked.remove(&admin);
    }
    given.retain(|(_, invite)| is_open(&state, invite, now_ms));
    Ok((state, given, unasked))
}

async fn ask(node: &Handles, admin: NodeId) -> Option<GivenInvites> {
    let call = node.transport.call(admin, method::INVITES, Vec::new(), ASK);
    codec::decode(&call.await.ok()?, limits::RPC_BYTES).ok()
}

fn row(state: &State, by: NodeId, invite: &GivenInvite) -> InviteRow {
    let used = state.tokens.get(&invite.token).map_or(0, |used| used.uses);
    InviteRow {
        id: invite_id(&invite.token),
        by: state.name_of(by),
        roles: invite.roles.iter().map(ToString::to_string).collect(),
        names: invite.names.iter().cloned().collect(),
        routes: invite.routes.iter().copied().collect(),
        addresses: invite.addresses.iter().copied().collect(),
        uses: invite.uses,
        uses_left: invite.uses.saturating_sub(used),
        made: UnixTime::from_ms(invite.made_ms),
        expires: UnixTime::from_ms(invite.expires_ms),
    }
}
