//! Every request and answer of the control socket. The answers are also what
//! `--json` prints: field names are a contract with scripts, and more may be
//! added, never taken away.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::host::UnixTime;
use async_trait::async_trait;
use innermesh_proto::{
    name::{Label, NamePattern},
    zone::Protocol,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::ca::{
    CaControl, CaKeys, CaRecovery, CaRoot, CaStatus, IssuerRow, IssuerState, Life, PromoteRequest,
    VoterRow, WaitingRow,
};
use super::{
    acme::AcmeControl,
    authority::Authority,
    finding::Finding,
    renewals::{RenewalRow, Renewals},
};
pub use crate::dns::QueryReport;
use crate::services::Spec;

/// What the running agent can be asked. Implemented by the agent; whether the
/// caller may ask is settled before.
#[async_trait]
pub trait Control: CaControl + Authority + Renewals + AcmeControl {
    /// All that this node concludes, for a person.
    async fn status(&self) -> Status;
    /// The other members, and how each is reached.
    async fn peers(&self) -> Vec<Peer>;
    /// Sends `count` probes to a member over QUIC, and asks for a tunnel
    /// handshake where there is a tunnel.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for a name that no member has. A member that
    /// doesn't answer is no error.
    async fn ping(&self, node: Label, count: u32) -> Result<PingReply, ControlError>;
    /// Makes a token.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`] when this node may not invite, or grant so much.
    async fn invite(&self, request: InviteRequest) -> Result<Invite, ControlError>;
    /// Adds a service of this node, or changes it; kept across restarts.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when it can't be stored. A name that isn't
    /// granted is no error: the service is then pending.
    async fn service_add(&self, service: Spec) -> Result<ServiceAdded, ControlError>;
    /// Takes a service of this node away. Its name stays granted unless
    /// `release` gives it back.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when this node has no such service.
    async fn service_rm(&self, name: Label, release: bool) -> Result<(), ControlError>;
    /// The services of all nodes.
    async fn service_list(&self) -> Vec<ServiceRow>;
    /// The services that stand in the configuration, all of them: they replace
    /// those that stood there before. Not offered over the socket.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`]; the services are then as they were.
    async fn configure_services(&self, services: Vec<Spec>) -> Result<(), ControlError>;
    /// Has a certificate issued.
    ///
    /// # Errors
    /// [`ErrorCode::Refused`] for a name that this node doesn't hold,
    /// [`ErrorCode::Unavailable`] when no CA node is reached.
    async fn cert_issue(&self, request: CertRequest) -> Result<Issued, ControlError>;
    /// Every certificate in the ledger.
    async fn cert_list(&self) -> Vec<CertRow>;
    /// Answers a DNS question as a process on this host would be answered.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`] for what is no DNS name or type.
    async fn dns_query(&self, name: String, rtype: String) -> Result<QueryReport, ControlError>;
    /// The zone as lines of a master file (RFC 1035 §5).
    async fn dns_zone(&self) -> String;
}

/// A refusal. Nothing was changed unless its code says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// Lower case, no trailing stop; says what to do next.
    pub message: String,
}

impl ControlError {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense.
    Invalid,
    /// The caller's user may not ask this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The mesh's rules are against it.
    Refused,
    /// Nobody who could do it is reached now.
    Unavailable,
    /// It took too long. It may still be done.
    Timeout,
    /// The agent failed, or says something that this build doesn't know. It
    /// may be done in part.
    #[serde(other)]
    Internal,
}

/// How a member is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Straight. This node itself too.
    Direct,
    /// Through a relay.
    Relay,
    /// Not at all.
    None,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::None => "none",
        })
    }
}

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Id of the mesh, in hexadecimal.
    pub mesh: String,
    /// Its domain.
    pub domain: String,
    /// Name of this node.
    pub node: String,
    /// Id of this node.
    pub id: String,
    /// Version of the agent.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The resolver.
    pub dns: DnsStatus,
    /// The ledger, as far as it is held here.
    pub ledger: LedgerStatus,
    /// What somebody should do something about.
    pub warnings: Vec<String>,
    /// Of these, those that scripts can tell apart.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Every member, this node too.
    pub nodes: Vec<NodeRow>,
    /// Services of all nodes, whose names are granted.
    pub services: Vec<ServiceStatus>,
    /// Services of this node whose names are not granted yet.
    pub pending: Vec<Pending>,
    /// Numbers that only rise, by name.
    pub counters: BTreeMap<String, u64>,
    /// How the overlay is closed to other networks; absent where this node has
    /// no tunnel.
    #[serde(default)]
    pub overlay: Option<OverlayStatus>,
}

/// How the overlay is closed to other networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayStatus {
    /// The tunnel's interface.
    pub interface: String,
    /// Whether the packet filter is in force.
    pub filter: bool,
    /// Whether the overlay's own routing table is in force.
    pub routes: bool,
    /// Container bridges and their subnets, which reach this node.
    pub containers: Vec<String>,
    /// Addresses within the overlay's range that are reached on a LAN.
    pub exceptions: Vec<String>,
    /// Packets that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Packets that other filters of this host dropped, by way and family,
    /// such as `in4`.
    #[serde(default)]
    pub dropped_by_others: BTreeMap<String, u64>,
}

/// Where DNS is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// `IP:port`; null where nothing listens.
    pub address: Option<SocketAddr>,
}

/// How far the ledger is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Number of the newest batch.
    pub index: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// One member in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whether it is live, as far as is known here.
    pub live: bool,
    /// How it is reached.
    pub path: Path,
    /// Whether an admin has cut it off until the ledger decides.
    pub held: bool,
}

/// One service in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Name of the node that runs it.
    pub node: String,
    /// Its port.
    pub port: u16,
    /// Whether its node is live and its check passes.
    pub healthy: bool,
}

/// A service whose name isn't granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its name.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// One row of `peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub path: Path,
    /// Where; null when it isn't reached.
    pub endpoint: Option<SocketAddr>,
    /// Round-trip time over QUIC, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Whether the tunnel to it has a pre-shared key.
    pub psk: bool,
}

/// The answer to `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// Name of the node that was asked.
    pub node: String,
    /// How it is reached.
    pub path: Path,
    /// Where; null when it isn't reached.
    pub endpoint: Option<SocketAddr>,
    /// Probes that were sent.
    pub sent: u32,
    /// Round-trip times of those that were answered, in milliseconds.
    pub rtt_ms: Vec<f64>,
    /// Null where there is no tunnel to it.
    pub tunnel: Option<TunnelPing>,
}

/// The tunnel to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPing {
    /// Whether a packet came back through it during this ping.
    #[serde(default)]
    pub works: bool,
    /// Whether a handshake was made lately enough for packets to pass.
    pub handshake: bool,
    /// How long ago the last one was made, in seconds; null for never.
    pub age_s: Option<u64>,
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

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The token.
    pub token: String,
    /// The whole command that spends it, for a shell: the token goes through a
    /// pipe, as other users see what stands on a command line.
    pub command: String,
    /// The command without the token, which it asks for.
    #[serde(default)]
    pub asking: String,
    /// When it ends.
    pub expires: UnixTime,
    /// The same, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// What became of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAdded {
    /// Its name.
    pub name: String,
    /// Whether the name is granted.
    pub state: ServiceState,
    /// Why it is pending.
    pub reason: Option<String>,
    /// Full names under which it is reached now.
    pub reachable: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Whether a service has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It has.
    Granted,
    /// Not yet, or somebody else has.
    Pending,
}

/// One row of `service list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// Name of the node that runs it.
    pub node: String,
    /// Its port.
    pub port: u16,
    /// Its transport.
    pub proto: Protocol,
    /// Whether its node is live and its check passes.
    pub healthy: bool,
    /// Its check; known of this node's own services only.
    pub check: Option<String>,
    /// Whether the name is granted to its node.
    pub granted: bool,
    /// Why the last check failed; known of this node's own services only.
    pub last_error: Option<String>,
}

/// What to certify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertRequest {
    /// Full names, as they stand in the request too.
    pub names: Vec<String>,
    /// A signing request (PKCS #10, RFC 2986): the key never leaves its maker.
    pub csr: Der,
    /// Life, in days.
    pub days: u32,
}

/// DER, written as base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Der(pub Vec<u8>);

impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of DER", self.0.len())
    }
}

/// Not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not base64")]
pub struct DerError;

impl TryFrom<String> for Der {
    type Error = DerError;
    fn try_from(s: String) -> Result<Self, DerError> {
        data_encoding::BASE64
            .decode(s.as_bytes())
            .map(Self)
            .map_err(|_| DerError)
    }
}

impl From<Der> for String {
    fn from(der: Der) -> Self {
        data_encoding::BASE64.encode(&der.0)
    }
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The leaf, PEM.
    pub certificate: String,
    /// The issuer above it, PEM.
    pub issuer: String,
    /// The root above that, PEM.
    pub root: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: UnixTime,
}

/// One row of `cert list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertRow {
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// Its names.
    pub names: Vec<String>,
    /// Name of the node that it was issued to.
    pub node: String,
    /// When it begins.
    pub not_before: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
    /// What it is for.
    pub kind: CertKind,
    /// Whether it was revoked: by itself, with its key, or with its issuer.
    pub revoked: bool,
    /// How this machine renews it; null where it doesn't.
    pub renewal: Option<RenewalRow>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertKind {
    /// A node's membership.
    Member,
    /// A service.
    Service,
}

impl fmt::Display for CertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Member => "member",
            Self::Service => "service",
        })
    }
}
