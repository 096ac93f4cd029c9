//! Who may be taken out, by whose word.

use super::asking::AskingMember;
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

/// Whether one admin alone isn't enough: a thief of one admin's laptop can't
/// take the mesh over, nor apart.
fn needs_two(state: &State, node: NodeId, member: &Member) -> bool {
    member.roles.contains(&Role::Admin)
        || member.roles.contains(&Role::Ca)
        || state.voters.contains_key(&node)
        || state.recent_evictions() >= limits::EVICTIONS_PER_HOUR
}

/// Whether `second`'s word counts beside `first`'s. An admin that the first
/// let in, at any remove, is no second person. The other way round whoever
/// holds one admin's machine could let an admin in and have that begin: so an
/// admin that the second let in counts as the first only once it has been one
/// for a while.
fn is_independent(state: &State, first: NodeId, first_ms: u64, second: NodeId) -> bool {
    let Some(admin) = state.members.get(&first) else {
        return false;
    };
    let settled = admin.joined_ms.saturating_add(limits::ADMIN_SETTLED_MS) <= state.stamp_ms;
    first != second
        && admin.roles.contains(&Role::Admin)
        && state.stamp_ms.saturating_sub(first_ms) <= limits::EVICTION_AGREEMENT_MS
        && !state.descends(second, first)
        && (settled || !state.descends(first, second))
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
