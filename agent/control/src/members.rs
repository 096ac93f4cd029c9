//! Requests about who is a member: invites, evictions, and machines that ask to
//! be let in.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{IpAddr, SocketAddr};

use innermesh_proto::name::{Label, NamePattern};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    der::Der,
    request::{Done, requests},
};
use innermesh_host::UnixTime;

requests! {
    /// What is asked about who is a member.
    MembersRequest {
        changes POST "/v1/invites": Invite(InviteRequest) -> Invite,
        // An open invite lets somebody in, so read-only users don't see them.
        changes GET "/v1/invites": InviteList(InviteListRequest) -> InviteList,
        changes DELETE "/v1/invites/{id}": InviteRevoke(InviteRevokeRequest) -> InviteRow,
        changes POST "/v1/roles": Role(RoleRequest) -> RoleChanged,
        changes POST "/v1/roles/word": RoleWord(RoleWordRequest) -> RoleWord,
        changes POST "/v1/evictions": Evict(EvictRequest) -> Evicted,
        changes DELETE "/v1/evictions/{node}": EvictUndo(EvictUndoRequest) -> Done,
        // It has machines show their codes: more than looking.
        changes POST "/v1/requests": Admissions(AdmissionsRequest) -> Vec<RequestRow>,
        changes POST "/v1/requests/approve": Approve(ApproveRequest) -> Admitted,
        changes POST "/v1/requests/deny": Deny(DenyRequest) -> Denied,
    }
}

/// What to put into a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Its life, in seconds.
    pub ttl_s: u64,
    /// How many may join by it.
    pub uses: u32,
    /// Roles that they get.
    pub roles: Vec<String>,
    /// Names that they may be granted; none stands for all that the inviter may give.
    pub names: Vec<NamePattern>,
    /// Networks that they may bring.
    #[serde(default)]
    pub routes: Vec<IpNet>,
    /// Networks outside the mesh to whose addresses their names may lead.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// By which it can be revoked.
    #[serde(default)]
    pub id: String,
    pub token: String,
    /// The whole command that spends it, for a shell: the token goes through a
    /// pipe, as other users see what stands on a command line.
    pub command: String,
    /// The command without the token, which it asks for.
    #[serde(default)]
    pub asking: String,
    pub expires: UnixTime,
    /// The same, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// The invites that are open, as the connected admins' nodes and this one know
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteListRequest {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteList {
    pub invites: Vec<InviteRow>,
    /// Names of the admins' nodes that gave no answer: invites of theirs aren't
    /// listed.
    pub unasked: Vec<String>,
}

/// An invite that somebody can still join by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRow {
    /// By which it can be revoked.
    pub id: String,
    /// Name of the node on which it was made.
    pub by: String,
    pub roles: Vec<String>,
    /// Names that may be granted.
    pub names: Vec<NamePattern>,
    /// Networks that may be brought.
    pub routes: Vec<IpNet>,
    /// Networks outside the mesh that names may lead to.
    pub addresses: Vec<IpNet>,
    /// How many may join by it in all, and how many more.
    pub uses: u32,
    pub uses_left: u32,
    pub made: UnixTime,
    pub expires: UnixTime,
}

/// Nobody joins by an invite any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRevokeRequest {
    pub id: String,
}

/// Gives a node a role, or takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRequest {
    pub node: Label,
    pub role: String,
    /// Whether it is given.
    pub give: bool,
    /// In place of admins: what the root signed.
    #[serde(default)]
    pub root: Option<RootSigned>,
}

/// The root's word for a change of a role, asked for with [`RoleWordRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootSigned {
    /// Until when it counts, in milliseconds of ledger time.
    pub until_ms: u64,
    /// The signature over
    /// [`RoleChange::root_message`](innermesh_proto::ledger::request::RoleChange::root_message).
    pub signature: Der,
}

/// How far a change of a role has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleState {
    Done,
    /// The ledger waits for a second admin.
    Waiting,
}

/// What became of a change of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChanged {
    /// Name of the node.
    pub node: String,
    pub role: String,
    /// Whether it was to be given.
    pub give: bool,
    pub state: RoleState,
}

/// What goes into the root's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleWordRequest {
    pub node: Label,
}

/// What goes into the root's word, besides what is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleWord {
    /// Id of the mesh, in hexadecimal.
    pub mesh: String,
    /// Id of the node.
    pub node: String,
    /// Id of this node, which asks for the change.
    pub author: String,
    /// The ledger's number for it.
    pub number: u64,
    /// The time now, in milliseconds since 1970, as the ledger has it.
    pub now_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictRequest {
    pub node: Label,
    /// In place of a second admin: the root's signature over
    /// [`Evict::root_message`](innermesh_proto::ledger::request::Evict::root_message).
    pub root: Option<Der>,
}

/// How far an eviction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvictionState {
    /// The ledger has it: it is no member any more.
    Evicted,
    /// The ledger waits for a second admin.
    Waiting,
    /// No CA node is reached; the ledger is asked again by itself.
    Pending,
}

/// What became of an eviction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Name of the node.
    pub node: String,
    /// How far it has come.
    pub state: EvictionState,
    /// Whether it is to be cut off already.
    pub cut_off: bool,
    /// What was seen of that; null where it isn't to be cut off yet.
    #[serde(default)]
    pub seen: Option<CutOffSeen>,
}

/// Where a node was seen to be cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffSeen {
    /// Whether this node has no connection and no route to it any more.
    pub here: bool,
    /// What each connected node says of itself.
    pub peers: Vec<CutOffAt>,
    /// Names of the nodes that weren't asked: they aren't connected with this
    /// one now.
    pub unreached: Vec<String>,
}

/// What a node says of its connections and routes to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffAt {
    pub node: String,
    /// Whether it has none any more; null where no answer came.
    pub cut_off: Option<bool>,
}

impl CutOffSeen {
    /// Whether every node has confirmed it.
    pub fn everywhere(&self) -> bool {
        self.here
            && self.unreached.is_empty()
            && self.peers.iter().all(|peer| peer.cut_off == Some(true))
    }
}

/// Lets a member back in that was cut off and isn't evicted yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictUndoRequest {
    pub node: Label,
}

/// Who asks to be let in without a token, at any connected member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionsRequest {}

/// A machine that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRow {
    /// The name that it wants.
    pub name: String,
    pub node: String,
    /// Its address, as the member that it asked sees it.
    pub address: SocketAddr,
    /// Name of that member.
    pub via: String,
    /// How long it has been waiting, in seconds.
    pub age_s: u64,
    /// Whether it can be approved here.
    pub state: RequestState,
    /// Name of the admin's machine that has answered it.
    pub admin: Option<String>,
}

/// Whether a request can be approved here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It can, by the code that the machine shows.
    Ready,
    /// Another admin's machine has answered it, or this one did before it was
    /// started again.
    Elsewhere,
}

/// What a machine that is let in is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    pub roles: Vec<String>,
    /// Names that it may be granted; none stands for all that the admin may give.
    pub names: Vec<NamePattern>,
    /// Networks that it may bring.
    pub routes: Vec<IpNet>,
}

/// Whom to let in, as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// The code that the machine shows.
    pub code: String,
    /// What it is given.
    pub grants: Grants,
}

/// A machine that was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    pub name: String,
    pub node: String,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyRequest {
    /// The machine's code or its name.
    pub which: String,
}

/// A machine that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The name that it wanted.
    pub name: String,
    /// Its address; several when more than one wanted the name.
    pub addresses: Vec<SocketAddr>,
}
