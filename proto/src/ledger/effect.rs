//! What a request that isn't refused needs and will change.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::IpNet;

use super::{
    device::{AddDevice, DeviceChange, DeviceId},
    outcome::Outcome,
    publish::{PublicPort, Publish, PublishKey},
    request::{
        AddRecord, HoldId, RemoveRecord, RemoveRecords, RevokeInvite, Role, Share, Withdraw,
    },
    route::RouteChange,
    state::Member,
};
use crate::{
    certificate::{KeptCertificate, LeafPlan, Serial},
    crypto::PublicKey,
    id::NodeId,
    name::Label,
    policy::Policy,
    tunnel::TunnelKey,
};

/// What a request that isn't refused still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, not even to be written down: it was decided before, like this.
    Repeat(Outcome),
    /// Nothing.
    Plain,
    /// A certificate by this plan, as the entry's attachment.
    Certificate(LeafPlan),
}

/// What a request that passed every check will change.
pub(super) enum Effect {
    /// Was applied before: this was the outcome.
    Repeat(Outcome),
    /// Was asked for and is so already.
    Nothing,
    Join(Box<JoinEffect>),
    Renew(LeafPlan, NodeId),
    Claim(Label, NodeId),
    Share(Share),
    Unshare(Share),
    Release(Label),
    Certify(LeafPlan, NodeId),
    Promote(NodeId, Vec<KeptCertificate>),
    Demote(NodeId),
    Roster(BTreeSet<NodeId>),
    Leave(NodeId),
    /// A first admin's word; the second's is awaited.
    Propose {
        node: NodeId,
        by: NodeId,
    },
    Evict {
        node: NodeId,
        hold: Option<(NodeId, HoldId)>,
    },
    Unhold(NodeId, HoldId),
    Revoke(Serial),
    AddRecord(AddRecord, NodeId),
    /// The record is there, with another TTL or for others.
    ChangeRecord(AddRecord),
    RemoveRecords(RemoveRecords),
    RemoveRecord(RemoveRecord),
    Rules(u32),
    TunnelKey(NodeId, TunnelKey),
    GiveRole(RoleGiven),
    TakeRole(RoleTaken),
    /// As `Propose`, for a role.
    ProposeTaking {
        node: NodeId,
        role: Role,
        by: NodeId,
    },
    Withdraw(Withdraw, NodeId),
    RevokeInvite(RevokeInvite, NodeId),
    AddDevice(Box<AddDevice>, Ipv4Addr),
    ChangeDevice(DeviceId, Box<DeviceChange>),
    RemoveDevice(DeviceId),
    AddRoute(RouteChange),
    RemoveRoute(RouteChange),
    /// Its text, what that says, and who sets it.
    Policy(Box<(String, Policy)>, NodeId),
    Publish(Box<Publish>, NodeId),
    Unpublish(PublicPort),
    /// Of the node inside, with the address of its end.
    PublishKey(NodeId, PublishKey, Ipv4Addr),
}

pub(super) struct RoleGiven {
    pub node: NodeId,
    pub role: Role,
    /// None where the root gives it.
    pub maker: Option<NodeId>,
}

pub(super) struct RoleTaken {
    pub node: NodeId,
    pub role: Role,
    pub is_by_root: bool,
}

pub(super) struct JoinEffect {
    pub member: Member,
    /// Addresses outside the mesh that its names may lead to.
    pub addresses: BTreeSet<IpNet>,
    /// The token that it spends, and until when that counts.
    pub token: Option<(PublicKey, u64)>,
    pub plan: LeafPlan,
    /// The WireGuard key that it gets with its membership.
    pub tunnel: Option<TunnelKey>,
}
