//! Requests about who may: users' records, evictions, leaving, revoked
//! certificates, and machines that ask to be let in. As in [`super::api`],
//! field names are a contract with scripts.

use async_trait::async_trait;
use std::net::{IpAddr, SocketAddr};

use innermesh_proto::{
    certificate::Serial,
    name::{Label, NamePattern},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::api::{ControlError, Der};

/// What the running agent can be asked about who may.
#[async_trait]
pub trait Authority: Send + Sync {
    /// Users' DNS records.
    async fn record_list(&self) -> Vec<RecordRow>;
    /// Adds one.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](super::ErrorCode::Invalid) for what is no record,
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused) where the mesh's rules
    /// are against it.
    async fn record_add(&self, record: RecordAdd) -> Result<RecordRow, ControlError>;
    /// Takes all records of one name and type away.
    ///
    /// # Errors
    /// As [`Authority::record_add`].
    async fn record_rm(&self, name: String, rtype: String) -> Result<(), ControlError>;
    /// Cuts a member off and has the ledger evict it, as far as this node's
    /// word goes.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused),
    /// [`ErrorCode::NotFound`](super::ErrorCode::NotFound), or
    /// [`ErrorCode::Unavailable`](super::ErrorCode::Unavailable) when nothing
    /// could be done.
    async fn evict(&self, request: EvictRequest) -> Result<Evicted, ControlError>;
    /// Lets a member back in that was cut off and isn't evicted yet.
    ///
    /// # Errors
    /// As [`Authority::evict`].
    async fn evict_undo(&self, node: Label) -> Result<(), ControlError>;
    /// Who asks to be let in without a token, at any connected member.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused) when this node is no admin.
    async fn request_list(&self) -> Result<Vec<RequestRow>, ControlError>;
    /// Lets the machine in that shows this code.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused), and the requests are
    /// void, for a code that no machine shows.
    async fn approve(&self, request: ApproveRequest) -> Result<Admitted, ControlError>;
    /// Refuses a machine, by its code or its name.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`](super::ErrorCode::NotFound).
    async fn deny(&self, which: String) -> Result<Denied, ControlError>;
    /// Revokes a certificate of this node's, or as an admin any.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused).
    async fn cert_revoke(&self, serial: Serial) -> Result<CertRevoked, ControlError>;
    /// Takes this machine out of the mesh, or takes the next step towards it:
    /// to be asked again until it has left. The agent ends then.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused) for the last CA node
    /// and the last admin.
    async fn leave(&self) -> Result<Left, ControlError>;
    /// Gives this node a new WireGuard key.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`](super::ErrorCode::Unavailable) when no CA
    /// node is reached; the old key is in use then.
    async fn tunnel_rekey(&self) -> Result<Rekeyed, ControlError>;
}

/// This node's WireGuard keys, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeyed {
    /// The one in use now.
    pub key: String,
    /// The one before.
    pub previous: String,
}

/// A DNS record to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordAdd {
    /// Its full name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as in a master file; names in it are full.
    pub value: String,
    /// Whether strangers may see it too.
    pub public: bool,
}

/// One row of `record list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    /// Its full name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as in a master file.
    pub value: String,
    /// Whether strangers may see it too.
    pub public: bool,
    /// Name of the node that added it.
    pub owner: String,
}

/// Whom to evict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictRequest {
    /// Its name.
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
    /// Its name.
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

/// How far leaving has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveState {
    /// The other CA nodes are about to go on without this one.
    HandingOver,
    /// This machine is no member any more.
    Left,
}

/// What became of leaving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// How far it has come.
    pub state: LeaveState,
    /// The name that this machine had.
    pub node: String,
    /// Domain of the mesh.
    pub domain: String,
    /// The names that it held.
    pub names: Vec<NameLeft>,
}

/// A name of a machine that left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameLeft {
    /// The name.
    pub name: String,
    /// Who has it now; null when it is free.
    pub to: Option<String>,
}

/// A certificate that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertRevoked {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Its names.
    pub names: Vec<String>,
    /// Name of the node that it was issued to.
    pub node: String,
}

/// What a machine that is let in is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Its roles.
    pub roles: Vec<String>,
    /// Names that it may be granted; none stands for all that the admin may give.
    pub names: Vec<NamePattern>,
    /// Networks that it may bring.
    pub routes: Vec<IpNet>,
}

/// A machine that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRow {
    /// The name that it wants.
    pub name: String,
    /// Its id.
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
    /// Its name.
    pub name: String,
    /// Its id.
    pub node: String,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
}

/// A machine that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The name that it wanted.
    pub name: String,
    /// Its address; several when more than one wanted the name.
    pub addresses: Vec<SocketAddr>,
}
