//! Who made whom an admin, and since when: from rules 2 on. All that is kept of
//! it stands, so that nobody sheds where it came from by leaving, coming back,
//! or giving its role up and having it again from somebody else.

use std::collections::BTreeSet;

use super::{
    request::Role,
    state::{Member, State},
};
use crate::{id::NodeId, limits};

const FIRST: NodeId = NodeId([0; 16]);
const LAST: NodeId = NodeId([0xff; 16]);

/// What is known.
impl State {
    /// The number of the next change of a role that the root signs.
    pub fn next_root_word(&self) -> u64 {
        self.extension.appointments.root_words + 1
    }

    /// Roles whose taking waits for a second admin: whose, which, and by whom.
    pub fn proposed_role_changes(&self) -> impl Iterator<Item = (NodeId, Role, NodeId)> {
        let since = self.stamp_ms.saturating_sub(limits::EVICTION_AGREEMENT_MS);
        let proposals = self.extension.appointments.proposals.iter();
        proposals
            .filter(move |(_, at_ms)| **at_ms >= since)
            .map(|(key, _)| *key)
    }

    /// Who asked for a member's role to be taken, and when.
    pub(super) fn role_proposals(
        &self,
        node: NodeId,
        role: Role,
    ) -> impl Iterator<Item = (NodeId, u64)> {
        let proposals = &self.extension.appointments.proposals;
        proposals
            .range((node, role, FIRST)..=(node, role, LAST))
            .map(|((.., by), at_ms)| (*by, *at_ms))
    }

    /// The admins.
    pub fn admins(&self) -> impl Iterator<Item = NodeId> {
        let admins = self.members.iter();
        admins
            .filter(|(_, member)| member.roles.contains(&Role::Admin))
            .map(|(node, _)| *node)
    }

    /// Whether a node is an admin and no other one is.
    pub fn is_only_admin(&self, node: NodeId) -> bool {
        self.admins().eq([node])
    }

    fn makers_of(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let last = self.inviters.get(&node).copied();
        let earlier = &self.extension.appointments.makers;
        let earlier = earlier.range((node, FIRST)..=(node, LAST));
        last.into_iter()
            .chain(earlier.map(|((_, maker), ())| *maker))
    }

    /// Whether `by` may still become one of those that made `node` an admin.
    pub(super) fn has_room_for_maker(&self, node: NodeId, by: NodeId) -> bool {
        self.makers_of(node).any(|maker| maker == by)
            || self.makers_of(node).count() <= limits::MAKERS
    }

    /// Whether `node` was made an admin by `by`, at any remove.
    pub(super) fn descends(&self, node: NodeId, by: NodeId) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![node];
        while let Some(at) = open.pop() {
            for maker in self.makers_of(at) {
                if maker == by {
                    return true;
                }
                if seen.insert(maker) {
                    open.push(maker);
                }
            }
        }
        false
    }

    /// Whether a node has been an admin for long enough to speak for itself.
    pub(super) fn is_settled(&self, node: NodeId) -> bool {
        let since = self.extension.appointments.since.get(&node);
        let since_ms = since.copied().flatten().unwrap_or(0);
        self.members.get(&node).is_some_and(|member| {
            let since_ms = member.joined_ms.max(since_ms);
            since_ms.saturating_add(limits::ADMIN_SETTLED_MS) <= self.stamp_ms
        })
    }

    /// Whose word an admin's is: its own, once it has been one for a day; until
    /// then that of those who made it one.
    fn speaks_for(&self, admin: NodeId) -> BTreeSet<NodeId> {
        let mut speakers = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![admin];
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            let makers: Vec<NodeId> = self.makers_of(at).collect();
            if makers.is_empty() || self.is_settled(at) {
                speakers.insert(at);
            } else {
                open.extend(makers);
            }
        }
        speakers
    }

    /// Whether two admins' words are those of two persons, as far as the ledger
    /// can tell: nobody speaks in both, and nobody behind the second came by one
    /// behind the first.
    pub(super) fn are_two(&self, first: NodeId, second: NodeId) -> bool {
        let (firsts, seconds) = (self.speaks_for(first), self.speaks_for(second));
        let apart = |one: &NodeId| {
            let mut seconds = seconds.iter();
            seconds.all(|second| one != second && !self.descends(*second, *one))
        };
        // Those who made each other speak for nobody.
        !firsts.is_empty() && !seconds.is_empty() && firsts.iter().all(apart)
    }
}

/// How it changes.
impl State {
    /// A machine has joined.
    pub(super) fn note_admission(&mut self, node: NodeId, member: &Member) {
        let is_admin = member.roles.contains(&Role::Admin);
        let was_admin = self.inviters.contains_key(&node);
        if let Some(inviter) = member.invited_by.filter(|_| is_admin) {
            self.note_maker(node, inviter);
        }
        if self.rules > 1 {
            let since = &mut self.extension.appointments.since;
            if is_admin {
                since.remove(&node);
            } else if was_admin {
                since.insert(node, None);
            }
        }
    }

    pub(super) fn note_maker(&mut self, node: NodeId, maker: NodeId) {
        let before = self.inviters.get(&node).copied();
        if let Some(before) = before.filter(|before| self.rules > 1 && *before != maker) {
            self.extension
                .appointments
                .makers
                .insert((node, before), ());
        }
        self.inviters.insert(node, maker);
    }

    /// The root speaks for a node: whoever did before counts no more.
    pub(super) fn forget_makers(&mut self, node: NodeId) {
        self.inviters.remove(&node);
        let makers = &mut self.extension.appointments.makers;
        makers.retain(|(made, _), ()| *made != node);
    }

    pub(super) fn forget_role_proposals(&mut self, since_ms: u64) {
        let proposals = &mut self.extension.appointments.proposals;
        proposals.retain(|_, at_ms| *at_ms >= since_ms);
    }

    /// What was asked by a node, or against it.
    pub(super) fn forget_role_proposals_of(&mut self, node: NodeId) {
        let proposals = &mut self.extension.appointments.proposals;
        proposals.retain(|(target, _, by), _| *target != node && *by != node);
    }
}
