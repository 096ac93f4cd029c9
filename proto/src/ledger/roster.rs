//! Who decides: how the roster grows and shrinks, and who leads when.

use std::collections::BTreeSet;

use super::{request::Role, state::State};
use crate::{crypto::Hash, id::NodeId, limits};

impl State {
    /// Whether `node` is a CA node that belongs in the roster, sooner or later.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains_key(&node)
            && self
                .members
                .get(&node)
                .is_some_and(|member| member.roles.contains(&Role::Ca))
    }

    /// CA nodes that wait for a place in the roster, longest first.
    pub fn waiting(&self) -> Vec<NodeId> {
        let mut waiting: Vec<(u64, NodeId)> = self
            .voters
            .iter()
            .filter(|(node, _)| !self.roster.contains(node) && self.is_voter(**node))
            .map(|(node, number)| (*number, *node))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, node)| node).collect()
    }

    /// The roster that should be next, if another than the one in force. A
    /// node that is no CA node any more is taken out by itself; else whoever
    /// waits comes in when that makes 3 or 5: with an even number one failure
    /// more is possible and none more is survived.
    pub fn wanted_roster(&self) -> Option<BTreeSet<NodeId>> {
        let mut next = self.roster.clone();
        if let Some(gone) = self.roster.iter().find(|node| !self.is_voter(**node)) {
            next.remove(gone);
            return Some(next).filter(|next| !next.is_empty());
        }
        let waiting = self.waiting();
        let room = limits::ROSTER.saturating_sub(self.roster.len());
        // One makes an even roster odd, two keep an odd one odd.
        let newcomers = 1 + self.roster.len() % 2;
        if newcomers > room || newcomers > waiting.len() {
            return None;
        }
        next.extend(waiting.into_iter().take(newcomers));
        Some(next)
    }

    /// Whether `next` may follow the roster in force: by one node that doesn't
    /// belong in it any more less, or by as many of those that wait more as
    /// make it 3 or 5.
    pub fn may_become(&self, next: &BTreeSet<NodeId>) -> bool {
        let gone: Vec<&NodeId> = self.roster.difference(next).collect();
        let come: Vec<&NodeId> = next.difference(&self.roster).collect();
        match (&gone[..], &come[..]) {
            ([gone], []) => !self.is_voter(**gone) && !next.is_empty(),
            ([], come) => {
                come.len() == 1 + self.roster.len() % 2
                    && next.len() <= limits::ROSTER
                    && come.iter().all(|node| self.is_voter(**node))
            }
            _ => false,
        }
    }

    /// Who should lead in `slot` (ledger time in terms), best first: by
    /// rendezvous hashing, and only nodes that can issue certificates. One that
    /// an admin wants evicted comes last: others' certificates shouldn't hang
    /// from it.
    pub fn leader_order(&self, slot: u64) -> Vec<NodeId> {
        let unwanted: BTreeSet<NodeId> = self.proposed_evictions().map(|(node, _)| node).collect();
        let mut order: Vec<(bool, Hash, NodeId)> = self
            .roster
            .iter()
            .filter(|node| self.can_issue(**node))
            .map(|node| {
                let seed = [&self.mesh.0[..], &slot.to_le_bytes(), &node.0].concat();
                (unwanted.contains(node), Hash::of(&seed), *node)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., node)| node).collect()
    }
}
