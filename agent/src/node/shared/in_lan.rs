//! Who was reached where in the LANs whose hosts ask this node for names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use innermesh_proto::{id::NodeId, view::MeshView, zone::LanAddresses};

/// This node's own addresses there, and those at which it has reached others.
#[derive(Debug, Default)]
pub(crate) struct InLan(Mutex<Seen>);

/// As it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub own: BTreeSet<IpAddr>,
    pub reached: BTreeMap<NodeId, BTreeSet<IpAddr>>,
}

impl InLan {
    /// Takes what is so now, and tells whether it is something new.
    pub fn set(&self, seen: Seen) -> bool {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *before != seen;
        *before = seen;
        is_new
    }

    /// By the names that nodes have in a view, this one too.
    pub fn addresses(&self, view: &MeshView) -> LanAddresses {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = std::iter::once((&view.me, &seen.own));
        let named = own.chain(&seen.reached).filter_map(|(node, addresses)| {
            let member = view.ledger.members.get(node)?;
            Some((member.name.clone(), addresses.clone()))
        });
        LanAddresses {
            own: seen.own.clone(),
            reached: named.collect(),
        }
    }
}
