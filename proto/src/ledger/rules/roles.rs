//! Who gives a role and who takes it, from rules 2 on. Taking `admin` or `ca`
//! from another needs what evicting it needs: else it could be taken first, and
//! the rest done alone.

use super::{asking::AskingMember, roster, second::is_independent};
use crate::{
    crypto::Verify,
    id::NodeId,
    ledger::{
        effect::{Effect, RoleGiven, RoleTaken},
        refusal::Refusal,
        request::{Role, RoleChange, Withdraw},
        state::State,
    },
    limits,
};

/// A role is given by who may let machines in with it, or by the root.
pub(super) fn rule_give(
    state: &State,
    author: AskingMember<'_>,
    change: &RoleChange,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    let RoleChange { node, role, .. } = *change;
    let is_by_root = check_word(state, author, change, true, verify)?;
    let member = state.members.get(&node).ok_or(Refusal::NoSuchNode)?;
    // Without an intermediate certificate, which the root signs, there is no
    // CA node.
    if role == Role::Ca {
        return Err(Refusal::CaByPromotion);
    }
    if member.roles.contains(&role) {
        return Ok(Effect::Nothing);
    }
    let maker = (!is_by_root).then_some(author.node);
    if role == Role::Admin && maker.is_some_and(|maker| !state.has_room_for_maker(node, maker)) {
        return Err(Refusal::TooManyMakers);
    }
    Ok(Effect::GiveRole(RoleGiven { node, role, maker }))
}

/// A node gives a role up by itself; from another an admin takes it, with a
/// second one where that matters, or the root.
pub(super) fn rule_take(
    state: &State,
    author: AskingMember<'_>,
    change: &RoleChange,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    let RoleChange { node, role, .. } = *change;
    let is_by_root = if change.root.is_none() && author.node == node {
        false
    } else {
        check_word(state, author, change, false, verify)?
    };
    let member = state.members.get(&node).ok_or(Refusal::NoSuchNode)?;
    match role {
        Role::Ca => roster::check_demotion(state, node, member)?,
        _ if !member.roles.contains(&role) => return Ok(Effect::Nothing),
        Role::Admin if state.is_only_admin(node) => return Err(Refusal::LastAdmin),
        _ => {}
    }
    let takes_two = matches!(role, Role::Admin | Role::Ca) && author.node != node && !is_by_root;
    let agreed = !takes_two
        || state
            .role_proposals(node, role)
            .any(|(first, first_ms)| is_independent(state, first, first_ms, author.node));
    if !agreed {
        return Ok(Effect::ProposeTaking {
            node,
            role,
            by: author.node,
        });
    }
    Ok(Effect::TakeRole(RoleTaken {
        node,
        role,
        is_by_root,
    }))
}

/// Whether the root says so; without its word the author must be an admin.
fn check_word(
    state: &State,
    author: AskingMember<'_>,
    change: &RoleChange,
    is_given: bool,
    verify: &dyn Verify,
) -> Result<bool, Refusal> {
    let Some(word) = &change.root else {
        author.require_admin()?;
        return Ok(false);
    };
    let latest_ms = state.stamp_ms + 2 * limits::REQUEST_LIFETIME_MS;
    if !(state.stamp_ms..=latest_ms).contains(&word.until_ms) {
        return Err(Refusal::Expired);
    }
    let (number, until_ms) = (state.next_root_word(), word.until_ms);
    let message = change.root_message(&state.mesh, &author.node, is_given, number, until_ms);
    if !verify.p256(&state.root.spki, &message, &word.signature) {
        return Err(Refusal::RootSignature);
    }
    Ok(true)
}

/// By whoever asked for it, and nobody else: one that is to go doesn't keep
/// itself.
pub(super) fn rule_withdraw(
    state: &State,
    author: NodeId,
    withdraw: Withdraw,
) -> Result<Effect, Refusal> {
    let asked = match withdraw.role {
        Some(role) => {
            let mut proposals = state.role_proposals(withdraw.node, role);
            proposals.any(|(by, _)| by == author)
        }
        None => {
            let mut proposals = state.proposals_against(withdraw.node);
            proposals.any(|(by, _)| by == author)
        }
    };
    if !asked {
        return Err(Refusal::NothingToWithdraw);
    }
    Ok(Effect::Withdraw(withdraw, author))
}
