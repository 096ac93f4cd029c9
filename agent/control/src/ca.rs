//! Requests about the mesh's certificate authority: who decides, who issues, and
//! how that changes.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use innermesh_proto::name::Label;
use serde::{Deserialize, Serialize};

use super::{
    der::Der,
    finding::Finding,
    members::{RoleChanged, RootSigned},
    node::LedgerStatus,
    request::{Done, requests},
};
use innermesh_host::UnixTime;

requests! {
    /// What is asked about the certificate authority.
    CaRequest {
        looks GET "/v1/ca": Status(CaStatusRequest) -> CaStatus,
        looks GET "/v1/ca/root": Root(CaRootRequest) -> CaRoot,
        changes POST "/v1/ca/keys": Keys(CaKeysRequest) -> CaKeys,
        changes POST "/v1/ca/promote": Promote(PromoteRequest) -> Done,
        changes POST "/v1/ca/demote": Demote(DemoteRequest) -> RoleChanged,
        changes POST "/v1/ca/recovery": Recovery(RecoveryRequest) -> CaRecovery,
        changes POST "/v1/ca/recover": Recover(RecoverRequest) -> Done,
    }
}

/// Who decides and who issues, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatusRequest {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRootRequest {}

/// The public keys of a member's issuers, for who makes it a CA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaKeysRequest {
    pub node: Label,
}

/// Makes a member a CA node, or gives one that is more issuers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    pub node: Label,
    /// Its issuer certificates, which the root signed.
    pub issuers: Vec<Der>,
}

/// Makes a CA node an ordinary member; it leaves the roster a little later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoteRequest {
    pub node: Label,
    /// In place of a second admin: what the root signed.
    #[serde(default)]
    pub root: Option<RootSigned>,
}

/// What the root has to sign so that this node goes on alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRequest {}

/// Goes on alone, by what the root signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// The encoded [`innermesh_proto::ledger::SignedRecovery`], for this node
    /// and its newest batch.
    pub signed: Der,
}

/// The answer to `ca status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// Name of the node that issues; null when none is known.
    pub leader: Option<String>,
    pub term: u64,
    /// Names of the nodes that decide the ledger.
    pub roster: Vec<String>,
    /// CA nodes, and members that are to be, that don't decide yet.
    pub waiting: Vec<WaitingRow>,
    /// How far each CA node is, those that wait included.
    pub voters: Vec<VoterRow>,
    /// Who can issue, and how long still.
    pub issuers: Vec<IssuerRow>,
    /// The ledger, as far as it is held here.
    pub ledger: LedgerStatus,
    /// How often the roster changed.
    pub epoch: u32,
    /// How often the root replaced a lost roster.
    pub recovery: u32,
    /// What somebody should do something about.
    pub warnings: Vec<String>,
    /// The same, with a code, a severity and a remedy each.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// A member that waits for a place in the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRow {
    pub node: String,
    /// What it waits for.
    pub reason: String,
}

/// How far a CA node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterRow {
    pub node: String,
    /// Whether it is in the roster.
    pub decides: bool,
    /// How many entries it lacks; null when who leads can't be asked.
    pub behind: Option<u64>,
    /// Whether who leads heard of it lately; null as `behind`.
    pub active: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRow {
    /// Name of its node.
    pub node: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Whether certificates are signed with it.
    pub state: IssuerState,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    /// Days until then; negative when it is past.
    pub days_left: i64,
}

/// Whether certificates can be signed with an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssuerState {
    InForce,
    /// Later: it is a successor.
    Next,
    Ended,
    /// No more: it was revoked.
    Revoked,
}

impl fmt::Display for IssuerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InForce => "in force",
            Self::Next => "next",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
        })
    }
}

/// The answer to `ca root`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRoot {
    /// Id of the mesh, in hexadecimal.
    pub mesh: String,
    pub pem: String,
    /// SHA-256 of the certificate, in hexadecimal, as browsers show it.
    pub fingerprint_sha256: String,
    pub not_after: UnixTime,
}

/// What is needed to make issuers for a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaKeys {
    /// Id of the mesh, in hexadecimal.
    pub mesh: String,
    /// Whether it is a CA node already.
    pub is_ca: bool,
    /// The time now, in milliseconds since 1970, as the ledger has it.
    pub now_ms: u64,
    /// The issuers that it can sign with, now or later.
    pub held: Vec<Life>,
    /// Public keys for new ones: SubjectPublicKeyInfo.
    pub offered: Vec<Der>,
}

/// What is needed to go on without a roster that is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRecovery {
    /// Id of the mesh, in hexadecimal.
    pub mesh: String,
    /// Name of this node.
    pub node: String,
    /// Names of those that are given up.
    pub roster: Vec<String>,
    /// The newest batch that is held here: what came behind it is given up.
    pub index: u64,
    /// Names of the live members whose ledger reaches further.
    pub ahead: Vec<String>,
    /// The time now, in milliseconds since 1970, as the ledger has it.
    pub now_ms: u64,
    /// The issuers that this node can sign with, now or later.
    pub held: Vec<Life>,
    /// Public keys for new ones: SubjectPublicKeyInfo.
    pub offered: Vec<Der>,
    /// The encoded [`innermesh_proto::ledger::Recovery`], without issuers.
    pub recovery: Der,
}

/// From when to when something is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// In milliseconds since 1970.
    pub begin_ms: u64,
    /// As `begin_ms`.
    pub end_ms: u64,
}
