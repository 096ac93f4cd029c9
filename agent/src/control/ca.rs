//! Requests and answers about the mesh's certificate authority: who decides,
//! who issues, and how that changes.

use crate::host::UnixTime;
use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    routing::{get, post},
};
use innermesh_proto::name::Label;
use serde::{Deserialize, Serialize};

use super::{
    api::{ControlError, Der, LedgerStatus},
    client::{Answer, Client},
    server::{self, Done, Shared},
};

/// What the running agent can be asked about the certificate authority.
#[async_trait]
pub trait CaControl: Send + Sync {
    /// Who decides and who issues, and for how long.
    async fn ca_status(&self) -> CaStatus;
    /// The root certificate.
    async fn ca_root(&self) -> CaRoot;
    /// The public keys of a member's issuers, for who makes it a CA node.
    ///
    /// # Errors
    /// [`super::ErrorCode::Refused`] when this node may not promote it,
    /// [`super::ErrorCode::Unavailable`] when it doesn't answer.
    async fn ca_keys(&self, node: Label) -> Result<CaKeys, ControlError>;
    /// Makes a member a CA node, or gives one that is more issuers.
    ///
    /// # Errors
    /// [`super::ErrorCode::Refused`] when the ledger's rules are against it.
    async fn ca_promote(&self, request: PromoteRequest) -> Result<(), ControlError>;
    /// Makes a CA node an ordinary member; it leaves the roster a little later.
    ///
    /// # Errors
    /// As [`CaControl::ca_promote`]; of the last CA node always.
    async fn ca_demote(&self, node: Label) -> Result<(), ControlError>;
    /// What the root has to sign so that this node goes on alone.
    ///
    /// # Errors
    /// [`super::ErrorCode::Refused`] while a leader answers: nothing is lost.
    async fn ca_recovery(&self) -> Result<CaRecovery, ControlError>;
    /// Goes on alone, by what the root signed.
    ///
    /// # Errors
    /// [`super::ErrorCode::Refused`] when it isn't signed for this node and its
    /// newest batch.
    async fn ca_recover(&self, signed: Der) -> Result<(), ControlError>;
}

/// The answer to `ca status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// Name of the node that issues; null when none is known.
    pub leader: Option<String>,
    /// Its term.
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
}

/// A member that waits for a place in the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRow {
    /// Its name.
    pub node: String,
    /// What it waits for.
    pub reason: String,
}

/// How far a CA node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterRow {
    /// Its name.
    pub node: String,
    /// Whether it is in the roster.
    pub decides: bool,
    /// How many entries it lacks; null when who leads can't be asked.
    pub behind: Option<u64>,
    /// Whether who leads heard of it lately; null as `behind`.
    pub active: Option<bool>,
}

/// One issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRow {
    /// Name of its node.
    pub node: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Whether certificates are signed with it.
    pub state: IssuerState,
    /// When it begins.
    pub not_before: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
    /// Days until then; negative when it is past.
    pub days_left: i64,
}

/// Whether certificates can be signed with an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssuerState {
    /// Yes.
    InForce,
    /// Later: it is a successor.
    Next,
    /// No more.
    Ended,
    /// No more: it was revoked.
    Revoked,
}

impl std::fmt::Display for IssuerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    /// The root certificate.
    pub pem: String,
    /// SHA-256 of the certificate, in hexadecimal, as browsers show it.
    pub fingerprint_sha256: String,
    /// When it ends.
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

/// The encoded [`innermesh_proto::ledger::SignedRecovery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoverRequest {
    signed: Der,
}

/// From when to when something is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// In milliseconds since 1970.
    pub begin_ms: u64,
    /// As `begin_ms`.
    pub end_ms: u64,
}

/// Whom to make a CA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// The member.
    pub node: Label,
    /// Its issuer certificates, which the root signed.
    pub issuers: Vec<Der>,
}

/// A request about one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfNode {
    pub node: Label,
}

/// What everybody on this host may ask.
pub(super) fn reading() -> Router<Shared> {
    Router::new()
        .route("/v1/ca", get(status))
        .route("/v1/ca/root", get(root))
}

/// What only root and the agent's user may ask.
pub(super) fn changing() -> Router<Shared> {
    Router::new()
        .route("/v1/ca/keys", post(keys))
        .route("/v1/ca/promote", post(promote))
        .route("/v1/ca/demote", post(demote))
        .route("/v1/ca/recovery", post(recovery))
        .route("/v1/ca/recover", post(recover))
}

type Served<T> = Result<Json<T>, ControlError>;
type Body<T> = Result<Json<T>, JsonRejection>;

async fn status(State(shared): State<Shared>) -> Json<CaStatus> {
    Json(shared.control.ca_status().await)
}

async fn root(State(shared): State<Shared>) -> Json<CaRoot> {
    Json(shared.control.ca_root().await)
}

async fn keys(State(shared): State<Shared>, request: Body<OfNode>) -> Served<CaKeys> {
    let OfNode { node } = server::body(request)?;
    shared.control.ca_keys(node).await.map(Json)
}

async fn promote(State(shared): State<Shared>, request: Body<PromoteRequest>) -> Served<Done> {
    shared.control.ca_promote(server::body(request)?).await?;
    Ok(Json(Done {}))
}

async fn demote(State(shared): State<Shared>, request: Body<OfNode>) -> Served<Done> {
    let OfNode { node } = server::body(request)?;
    shared.control.ca_demote(node).await?;
    Ok(Json(Done {}))
}

async fn recovery(State(shared): State<Shared>) -> Served<CaRecovery> {
    shared.control.ca_recovery().await.map(Json)
}

async fn recover(State(shared): State<Shared>, request: Body<RecoverRequest>) -> Served<Done> {
    let RecoverRequest { signed } = server::body(request)?;
    shared.control.ca_recover(signed).await?;
    Ok(Json(Done {}))
}

impl Client {
    /// See [`CaControl::ca_status`]; so with all below.
    ///
    /// # Errors
    /// [`super::ClientError`], here and below.
    pub async fn ca_status(&self) -> Answer<CaStatus> {
        self.get("/v1/ca").await
    }

    /// The root.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn ca_root(&self) -> Answer<CaRoot> {
        self.get("/v1/ca/root").await
    }

    /// The public keys of a member's issuers.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn ca_keys(&self, node: &Label) -> Answer<CaKeys> {
        let node = node.clone();
        self.post("/v1/ca/keys", &OfNode { node }).await
    }

    /// Makes a member a CA node.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn ca_promote(&self, request: &PromoteRequest) -> Answer<()> {
        let Done {} = self.post("/v1/ca/promote", request).await?;
        Ok(())
    }

    /// Makes a CA node an ordinary member.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn ca_demote(&self, node: &Label) -> Answer<()> {
        let node = node.clone();
        let Done {} = self.post("/v1/ca/demote", &OfNode { node }).await?;
        Ok(())
    }

    /// What the root has to sign so that the agent's node goes on alone.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn ca_recovery(&self) -> Answer<CaRecovery> {
        self.post("/v1/ca/recovery", &Done {}).await
    }

    /// Has the agent's node go on alone.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn ca_recover(&self, signed: Der) -> Answer<()> {
        let Done {} = self
            .post("/v1/ca/recover", &RecoverRequest { signed })
            .await?;
        Ok(())
    }
}
