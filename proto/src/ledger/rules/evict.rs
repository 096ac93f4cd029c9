//! Who may be taken out, by whose word.

use super::{asking::AskingMember, second::is_independent};
use crate::{
    crypto::Verify,
    id::NodeId,
    ledger::{
        effect::Effect,
        refusal::Refusal,
        request::{Evict, Role, Unhold},
        state::{Member, State},
    },
    limits,
};

pub(super) fn rule_evict(
    state: &State,
    author: AskingMember<'_>,
    evict: &Evict,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    let node = evict.node;
    if let Some(signature) = &evict.root {
        let message = Evict::root_message(&state.mesh, &node);
        if !verify.p256(&state.root.spki, &message, signature) {
            return Err(Refusal::RootSignature);
        }
    } else {
        author.require_admin()?;
    }
    if node == author.node {
        return Err(Refusal::Oneself);
    }
    if state.evicted.contains_key(&node) {
        return Ok(Effect::Nothing);
    }
    let member = state.members.get(&node).ok_or(Refusal::NoSuchNode)?;
    check_roster_without(state, node)?;
    if state.rules > 1 && state.is_only_admin(node) {
        return Err(Refusal::LastAdmin);
    }
    let agreed = evict.root.is_some()
        || !needs_two(state, node, member)
        || state
            .proposals_against(node)
            .any(|(first, first_ms)| is_independent(state, first, first_ms, author.node));
    if !agreed {
        return Ok(Effect::Propose {
            node,
            by: author.node,
        });
    }
    Ok(Effect::Evict {
        node,
        hold: evict.hold.map(|hold| (author.node, hold)),
    })
}

impl State {
    /// What would become of an eviction that `author` asks for, as far as the
    /// ledger is known here: whether it comes to pass at once, or waits for a
    /// second admin.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn eviction(
        &self,
        author: NodeId,
        evict: &Evict,
        verify: &dyn Verify,
    ) -> Result<Eviction, Refusal> {
        let member = self.members.get(&author).ok_or(Refusal::NotMember)?;
        let asking = AskingMember {
            node: author,
            member,
        };
        Ok(match rule_evict(self, asking, evict, verify)? {
            Effect::Propose { .. } => Eviction::Waits,
            Effect::Nothing => Eviction::Done,
            _ => Eviction::AtOnce,
        })
    }
}

/// What would become of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It comes to pass.
    AtOnce,
    /// A second admin must ask for the same.
    Waits,
    /// The member is evicted already.
    Done,
}

/// The rest of the roster must be able to go on alone: the evicted node won't
/// help to take it out.
fn check_roster_without(state: &State, node: NodeId) -> Result<(), Refusal> {
    if !state.roster.contains(&node) {
        return Ok(());
    }
    let left = state
        .roster
        .iter()
        .filter(|other| **other != node && state.members.contains_key(other))
        .count();
    match left {
        0 => Err(Refusal::LastCa),
        left if left <= state.roster.len() / 2 => Err(Refusal::NoMajority),
        _ => Ok(()),
    }
}

/// Whether one admin alone isn't enough.
fn needs_two(state: &State, node: NodeId, member: &Member) -> bool {
    member.roles.contains(&Role::Admin)
        || member.roles.contains(&Role::Ca)
        || state.voters.contains_key(&node)
        || state.recent_evictions() >= limits::EVICTIONS_PER_HOUR
}

pub(super) fn rule_unhold(
    state: &State,
    author: AskingMember<'_>,
    unhold: &Unhold,
) -> Result<Effect, Refusal> {
    author.require_admin()?;
    if !state.members.contains_key(&unhold.author) {
        return Err(Refusal::NoSuchHold);
    }
    if state.is_decided(unhold.author, unhold.hold) {
        return Ok(Effect::Nothing);
    }
    Ok(Effect::Unhold(unhold.author, unhold.hold))
}
