//! By what each member's places among its neighbours are computed, from rules 8 on:
//! the hash of the batch after the one that admitted it, which nobody knows when it
//! makes its key (see [`crate::links::rings`]).
//!
//! A batch's header may have the hash of the state after it, so no state holds the hash
//! of its own batch: it is put down with the batch after that.

use serde::{Deserialize, Serialize};

use super::{sizes::SALT, state::State};
use crate::{crypto::Hash, id::NodeId, map::Map};

/// The rules that brought them.
pub(super) const SALTS_SINCE: u32 = 8;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Salts {
    /// The hash of the header of the batch after the one that admitted each.
    pub known: Map<NodeId, Hash>,
    /// The other members, and the index of the batch that admitted each: the newest one,
    /// or the one before it. For those from before these rules it is the batch that
    /// brought them.
    pub awaited: Map<NodeId, u64>,
}

impl State {
    /// The hash of the header of the batch after the one that admitted a member, or for one
    /// from before rules 8 of the batch after the one that brought them; none while there is
    /// no such batch, and under earlier rules.
    pub fn batch_after(&self, node: &NodeId) -> Option<Hash> {
        let salts = &self.extension.salts;
        let newest = || {
            let admitted = salts.awaited.get(node)?;
            (*admitted < self.position.index).then_some(self.position.hash)
        };
        salts.known.get(node).copied().or_else(newest)
    }

    /// Whether the next batch is to be written at once, empty or not: of several members
    /// one has no place among its neighbours before.
    pub fn awaits_batch(&self) -> bool {
        let mut awaited = self.extension.salts.awaited.values();
        self.members.len() > 1 && awaited.any(|admitted| *admitted >= self.position.index)
    }

    /// Puts the hash of the newest batch down for those who waited for it. The next batch
    /// begins with that.
    pub(super) fn note_newest_batch(&mut self) {
        let newest = self.position;
        let salts = &mut self.extension.salts;
        let awaited = salts.awaited.iter();
        let due = awaited.filter(|(_, admitted)| **admitted < newest.index);
        let due: Vec<NodeId> = due.map(|(node, _)| *node).collect();
        for node in due {
            salts.awaited.remove(&node);
            salts.known.insert(node, newest.hash);
        }
    }

    /// Batch `index` admits a member.
    pub(super) fn await_batch_after(&mut self, node: NodeId, index: u64) {
        if self.rules >= SALTS_SINCE {
            self.extension.salts.awaited.insert(node, index);
        }
    }

    /// Batch `index` brings these rules: all members wait for the one after it, and what
    /// that takes is their share's, where that wasn't counted under these rules already.
    pub(super) fn begin_salts(&mut self, index: u64, is_counted: bool) {
        for (node, _) in self.members.clone().iter() {
            self.await_batch_after(*node, index);
            if !is_counted {
                self.charge(*node, SALT);
            }
        }
    }

    pub(super) fn forget_batch_after(&mut self, node: &NodeId) {
        let salts = &mut self.extension.salts;
        salts.known.remove(node);
        salts.awaited.remove(node);
    }

    /// Whether there is something of each member and of nobody else.
    pub(super) fn salts_agree(&self) -> bool {
        let Salts { known, awaited } = &self.extension.salts;
        if self.rules < SALTS_SINCE {
            return known.is_empty() && awaited.is_empty();
        }
        let is_one = |node: &NodeId| known.contains_key(node) != awaited.contains_key(node);
        known.len() + awaited.len() == self.members.len() && self.members.keys().all(is_one)
    }
}
