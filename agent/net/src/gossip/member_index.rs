//! Which member a short name means.

use std::sync::Arc;

use innermesh_proto::{
    gate::{self, GossipId, Short},
    id::NodeId,
    ledger::State,
};

/// The members' gossip ids, found by their short names: each entry of each
/// digest is.
pub(super) struct MemberIndex {
    pub(super) of: Arc<State>,
    /// By the short name as a number; generations are 0.
    ids: Vec<(u64, GossipId)>,
}

impl MemberIndex {
    pub(super) fn new(state: &Arc<State>) -> Self {
        let id = |node: &NodeId| {
            let number = u64::from_be_bytes(gate::short(node));
            (number, gate::gossip_id(node, 0))
        };
        // Members are sorted by their ids, and so by the first bytes of them.
        let mut ids: Vec<_> = state.members.keys().map(id).collect();
        ids.dedup_by_key(|(number, _)| *number);
        Self {
            of: state.clone(),
            ids,
        }
    }

    pub(super) fn find(&self, short: &Short) -> Option<GossipId> {
        let number = u64::from_be_bytes(*short);
        let place = self
            .ids
            .binary_search_by_key(&number, |(number, _)| *number);
        Some(self.ids[place.ok()?].1)
    }
}
