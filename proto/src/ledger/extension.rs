//! What the state holds from rules 1 on. Under rules 0 it is empty and no part
//! of the state's encoding, so that builds of either kind agree on its hash; and
//! so is what later rules brought under those before them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{access::Access, publish::Published, role::Role, salts::Salts};
use crate::{
    certificate::Serial,
    crypto::{Hash, PublicKey},
    id::NodeId,
    map::Map,
    tunnel::TunnelKey,
};

/// Facts that rules 1 brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extension {
    /// What each node takes up of the state.
    pub shares: Shares,
    /// Addresses beside the mesh that a node's names may lead to; at most
    /// [`crate::limits::GRANT_ADDRESSES`] for each.
    pub addresses: Map<NodeId, BTreeSet<IpNet>>,
    /// Index of the batch that brought rules 1: names and records from before
    /// it lead where they led.
    pub stands_until: u64,
    /// WireGuard keys.
    pub tunnel: TunnelKeys,
    /// Who made whom an admin; from rules 2 on.
    #[serde(skip)]
    pub appointments: Appointments,
    /// Devices and routes; from rules 4 on.
    #[serde(skip)]
    pub access: Access,
    /// What is published; from rules 5 on.
    #[serde(skip)]
    pub published: Published,
    /// By what members' places are computed; from rules 8 on.
    #[serde(skip)]
    pub salts: Salts,
}

/// Counts by node; what they count stands elsewhere in the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shares {
    /// Bytes of what each node has.
    pub used: Map<NodeId, u64>,
    /// Bytes beyond what is reserved for each member, of all nodes together.
    pub excess: u64,
    /// Users' records by who added them.
    pub records: Map<NodeId, u32>,
    /// The newest certificate for a key and names, of each owner.
    pub certificates: Map<(NodeId, Hash), Serial>,
    /// Tokens in use, by who gave them out.
    pub invites: Map<(NodeId, PublicKey), ()>,
    /// Requests that are remembered, by their authors.
    pub requests: Map<NodeId, u32>,
    /// Up to when each member has had its renewals, in milliseconds of ledger
    /// time; see [`super::State::may_renew`].
    pub renewed: Map<NodeId, u64>,
}

/// Who made whom an admin, and what waits for a second admin's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Appointments {
    /// When each node was made an admin after it had joined, in milliseconds of
    /// ledger time; none once that was taken from it.
    pub since: Map<NodeId, Option<u64>>,
    /// Nodes, and who made them admins before the last one that did, which
    /// [`super::State`] has; at most [`limits::MAKERS`] for each.
    pub makers: Map<(NodeId, NodeId), ()>,
    /// Whose role is to be taken, which, by whose word, and when that was said,
    /// in milliseconds of ledger time.
    pub proposals: Map<(NodeId, Role, NodeId), u64>,
    /// How often the root has changed a role.
    pub root_words: u64,
}

/// Keys by node, and nodes by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TunnelKeys {
    pub of: Map<NodeId, NodeKeys>,
    pub holders: Map<TunnelKey, NodeId>,
}

/// The WireGuard keys of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKeys {
    /// The one that it asked for last.
    pub current: TunnelKey,
    /// The one before, which it uses until it announces the current one.
    pub previous: Option<TunnelKey>,
}

impl NodeKeys {
    /// The key by which the node is reached while it announces `announced`:
    /// that picks one of the two, and nothing else.
    pub fn in_use(&self, announced: TunnelKey) -> TunnelKey {
        match self.previous {
            Some(previous) if announced != self.current => previous,
            _ => self.current,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = TunnelKey> {
        std::iter::once(self.current).chain(self.previous)
    }
}
