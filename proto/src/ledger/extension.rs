//! What the state holds from rules 1 on. Under rules 0 it is empty and no part
//! of the state's encoding, so that builds of either kind agree on its hash.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{shares::Shares, tunnel_keys::TunnelKeys};
use crate::{id::NodeId, map::Map};

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
}
