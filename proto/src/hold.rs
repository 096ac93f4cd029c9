//! Holds: an admin's word, in its own head, that a member is cut off at once,
//! before the ledger could decide so. What a hold is worth follows from the
//! ledger alone, never from a clock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    head::Announcement,
    id::NodeId,
    ledger::{HoldId, Role, State, device::DeviceId},
};

/// An admin's hold on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hold {
    /// By what the ledger decides it.
    pub id: HoldId,
    /// The member.
    pub node: NodeId,
}

/// The holds in force on each member that has any: by whom, and which.
pub type Suspensions = BTreeMap<NodeId, BTreeSet<(NodeId, HoldId)>>;

/// The holds in force, by the ledger and what every node announces.
pub fn in_force<'a>(
    ledger: &State,
    announced: impl IntoIterator<Item = (NodeId, &'a Announcement)>,
) -> Suspensions {
    let mut held = Suspensions::new();
    for (author, announcement) in announced {
        for hold in &announcement.holds {
            if may_hold(ledger, author, hold.node) && !ledger.is_decided(author, hold.id) {
                held.entry(hold.node).or_default().insert((author, hold.id));
            }
        }
    }
    held
}

/// Whether a hold of `author` on a device counts: an admin's, or that of the node
/// that the device belongs to, and until the ledger has removed it.
pub fn may_hold_device(ledger: &State, author: NodeId, device: &DeviceId) -> bool {
    let by = ledger.members.get(&author);
    let is_admin = by.is_some_and(|by| by.roles.contains(&Role::Admin));
    let device = ledger.device(device);
    device.is_some_and(|device| is_admin || device.owner == author)
}

/// Whether a hold of `author` on `node` counts: an admin's, on a member that
/// neither lets machines in nor decides. A thief of one admin's machine can
/// stop a few machines with it, and not those that would stop the thief.
pub fn may_hold(ledger: &State, author: NodeId, node: NodeId) -> bool {
    let admin = |roles: &BTreeSet<Role>| roles.contains(&Role::Admin);
    let by_admin = ledger.members.get(&author).map(|member| &member.roles);
    let target = ledger.members.get(&node).map(|member| &member.roles);
    author != node
        && by_admin.is_some_and(admin)
        && target.is_some_and(|roles| !admin(roles) && !roles.contains(&Role::Ca))
        && !ledger.voters.contains_key(&node)
        && !ledger.roster.contains(&node)
}
