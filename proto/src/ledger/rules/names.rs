//! Who gets a name, and who else may use it.

use std::collections::BTreeSet;

use super::asking::AskingMember;
use crate::{
    id::NodeId,
    ledger::{
        effect::Effect,
        refusal::Refusal,
        request::{Role, Share},
        state::{NameKind, State},
    },
    limits,
    name::{Label, NamePattern},
    policy,
};

impl State {
    /// Whether `node` would be granted `name`, as far as the ledger is known
    /// here. Who asks for what is refused for sure only makes it longer.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn may_claim(&self, node: NodeId, name: &Label) -> Result<(), Refusal> {
        let member = self.members.get(&node).ok_or(Refusal::NotMember)?;
        rule_claim(self, AskingMember { node, member }, name.clone()).map(|_| ())
    }
}

pub(super) fn rule_claim(
    state: &State,
    author: AskingMember<'_>,
    name: Label,
) -> Result<Effect, Refusal> {
    let AskingMember { node, member } = author;
    if let Some(held) = state.names.get(&name)
        && (held.owner == node || held.shared.contains(&node))
    {
        return match held.kind {
            NameKind::Service => Ok(Effect::Nothing),
            NameKind::Node => Err(Refusal::NodeName(name)),
            NameKind::Device => Err(Refusal::DeviceName(name)),
            // The records' own name becomes a service's as well.
            NameKind::Records => Ok(Effect::Claim(name, node)),
        };
    }
    if state.names_held_by(node) as usize >= limits::NAMES_PER_NODE {
        return Err(Refusal::TooManyNames);
    }
    let name = free_name(state, &member.names, &name)?;
    Ok(Effect::Claim(name, node))
}

pub(super) fn rule_share(
    state: &State,
    author: AskingMember<'_>,
    share: Share,
) -> Result<Effect, Refusal> {
    let shared = owned_service(state, author.node, &share.name)?;
    if !state.members.contains_key(&share.with) {
        return Err(Refusal::NoSuchNode);
    }
    if shared.contains(&share.with) || share.with == author.node {
        return Ok(Effect::Nothing);
    }
    if shared.len() >= limits::SERVICE_SHARES {
        return Err(Refusal::TooManyShares);
    }
    Ok(Effect::Share(share))
}

pub(super) fn rule_unshare(
    state: &State,
    author: AskingMember<'_>,
    share: Share,
) -> Result<Effect, Refusal> {
    let shared = owned_service(state, author.node, &share.name)?;
    if shared.contains(&share.with) {
        Ok(Effect::Unshare(share))
    } else {
        Ok(Effect::Nothing)
    }
}

pub(super) fn rule_release(
    state: &State,
    author: AskingMember<'_>,
    name: Label,
) -> Result<Effect, Refusal> {
    owned_service(state, author.node, &name)?;
    Ok(Effect::Release(name))
}

/// With whom the author shares its name.
fn owned_service<'s>(
    state: &'s State,
    node: NodeId,
    name: &Label,
) -> Result<&'s BTreeSet<NodeId>, Refusal> {
    match state.names.get(name) {
        Some(held) if held.owner != node => Err(Refusal::NotOwner(name.clone())),
        Some(held) => match held.kind {
            NameKind::Node => Err(Refusal::NodeName(name.clone())),
            NameKind::Device => Err(Refusal::DeviceName(name.clone())),
            NameKind::Service => Ok(&held.shared),
            NameKind::Records => Err(Refusal::NotOwner(name.clone())),
        },
        None => Err(Refusal::NotOwner(name.clone())),
    }
}

pub(super) fn free_name(
    state: &State,
    allowed: &BTreeSet<NamePattern>,
    name: &Label,
) -> Result<Label, Refusal> {
    let name = name
        .clone()
        .grantable()
        .map_err(|_| Refusal::NameReserved(name.clone()))?;
    // It is a policy's word for what exits lead to.
    if state.rules >= Role::Exit.since_rules() && name.as_str() == policy::INTERNET {
        return Err(Refusal::NameReserved(name));
    }
    if let Some(held) = state.names.get(&name) {
        let owner = state
            .members
            .get(&held.owner)
            .map_or_else(|| name.clone(), |member| member.name.clone());
        return Err(Refusal::NameTaken { name, owner });
    }
    if !allowed.iter().any(|pattern| pattern.matches(&name)) {
        return Err(Refusal::NameNotAllowed(name));
    }
    Ok(name)
}
