//! Who counts as a second admin: a thief of one admin's laptop can't take the
//! mesh over, nor apart.

use crate::{
    id::NodeId,
    ledger::{request::Role, state::State},
    limits,
};

/// Whether `second`'s word counts beside `first`'s. An admin that the first
/// let in, at any remove, is no second person. The other way round whoever
/// holds one admin's machine could let an admin in and have that begin, or two
/// that agree with each other: so on its first day an admin speaks for whoever
/// made it one.
pub(super) fn is_independent(state: &State, first: NodeId, first_ms: u64, second: NodeId) -> bool {
    let Some(admin) = state.members.get(&first) else {
        return false;
    };
    let counts = first != second
        && admin.roles.contains(&Role::Admin)
        && state.stamp_ms.saturating_sub(first_ms) <= limits::EVICTION_AGREEMENT_MS
        && !state.descends(second, first);
    if state.rules < 2 {
        return counts && (state.is_settled(first) || !state.descends(first, second));
    }
    counts && state.are_two(first, second)
}
