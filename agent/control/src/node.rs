//! Requests about this node: what it concludes, how it reaches the others, its
//! tunnel's key, and how it leaves.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use innermesh_proto::{limits, name::Label};
use serde::{Deserialize, Serialize};

use super::{
    dns::ResolverStatus,
    error::{ControlError, ErrorCode},
    finding::Finding,
    request::requests,
};

requests! {
    /// What is asked about this node.
    NodeRequest {
        looks GET "/v1/status": Status(StatusRequest) -> Status,
        looks GET "/v1/peers": Peers(PeersRequest) -> Vec<Peer>,
        looks GET "/v1/netcheck": Netcheck(NetcheckRequest) -> Netcheck,
        looks GET "/v1/ping": Ping(PingRequest) -> PingReply where PingRequest::in_bounds,
        changes POST "/v1/tunnel/rekey": Rekey(RekeyRequest) -> Rekeyed,
        changes POST "/v1/seeds": SeedAdd(SeedAddRequest) -> SeedAdded,
        changes POST "/v1/leave": Leave(LeaveRequest) -> Left,
    }
}

/// All that this node concludes, for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {}

/// The other members, and how each is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersRequest {}

/// What stands between this node's tunnel and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetcheckRequest {}

/// Probes a member over QUIC, and asks for a tunnel handshake where there is a
/// tunnel. A member that doesn't answer is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingRequest {
    pub node: Label,
    /// How many probes, 1 to [`limits::PINGS`].
    pub count: u32,
}

impl PingRequest {
    fn in_bounds(&self) -> Result<(), ControlError> {
        if (1..=limits::PINGS).contains(&self.count) {
            return Ok(());
        }
        let message = format!("count must be 1 to {}", limits::PINGS);
        Err(ControlError::new(ErrorCode::Invalid, message))
    }
}

/// Gives this node a new WireGuard key. With [`ErrorCode::Unavailable`] the old
/// one is in use still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RekeyRequest {}

/// Asks a member at an address, and keeps that for when nobody is found. With
/// [`ErrorCode::Unavailable`] no member answered there, and nothing was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedAddRequest {
    /// `host`, `host:port`, `[v6]:port`, or the URL of a lane.
    pub address: String,
}

/// Takes this node out of the mesh, or takes the next step towards it: to be
/// asked again until it has left. The agent ends then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveRequest {}

/// How a member is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Straight. This node itself too.
    Direct,
    Relay,
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
    pub domain: String,
    /// Name of this node.
    pub node: String,
    /// Id of this node.
    pub id: String,
    /// Version of the agent.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
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
    /// This node's tunnel; absent where it has none.
    #[serde(default)]
    pub tunnel: Option<TunnelStatus>,
}

/// This node's end of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    pub interface: String,
    /// WireGuard's UDP port, as other nodes are told.
    pub port: u16,
    /// Name of the relay by which this node is reached where it can't be straight.
    #[serde(default)]
    pub relay: Option<String>,
    /// Where others are told to look for its end.
    #[serde(default)]
    pub places: Vec<SocketAddr>,
}

/// How the overlay is closed to other networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayStatus {
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
    /// All of them, that one first.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
    /// How this host's own programs come there.
    #[serde(default)]
    pub resolver: Option<ResolverStatus>,
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
    pub name: String,
    pub id: String,
    pub addresses: Vec<IpAddr>,
    pub roles: Vec<String>,
    /// Whether it is live, as far as is known here.
    pub live: bool,
    /// How it is reached.
    pub path: Path,
    /// Whether it is this node's neighbour: the two look after each other.
    #[serde(default)]
    pub linked: bool,
    /// Names of its neighbours by which it is reached; empty where it is reached straight,
    /// or isn't live.
    #[serde(default)]
    pub through: Vec<String>,
    /// Name of the relay by which its tunnel goes, where it does.
    #[serde(default)]
    pub relay: Option<String>,
    /// Whether it, or that relay, is reached over TCP, as UDP is blocked at either end.
    #[serde(default)]
    pub tcp: bool,
    /// Whether an admin has cut it off until the ledger decides.
    pub held: bool,
}

/// One service in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// Name of the node that runs it.
    pub node: String,
    pub port: u16,
    /// Whether its node is live and its check passes, where it has one.
    pub healthy: bool,
    /// Whether anything checks it.
    #[serde(default = "crate::services::checked")]
    pub checked: bool,
}

/// A service whose name isn't granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub name: String,
    pub reason: String,
}

/// One row of `peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    /// How it is reached.
    pub path: Path,
    /// Whether it is this node's neighbour: the two look after each other.
    #[serde(default)]
    pub linked: bool,
    /// Names of its neighbours by which it is reached; empty where it is reached straight,
    /// or isn't live.
    #[serde(default)]
    pub through: Vec<String>,
    /// Where; null when it isn't reached.
    pub endpoint: Option<SocketAddr>,
    /// Whether it, or the relay by which its tunnel goes, is reached over TCP.
    #[serde(default)]
    pub tcp: bool,
    /// Round-trip time over QUIC, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Whether the tunnel to it has a pre-shared key.
    pub psk: bool,
    /// What keeps a recording of the tunnel closed to quantum computers; null for devices,
    /// and where there is no tunnel.
    #[serde(default)]
    pub pair_key: Option<PairKey>,
    /// Seconds since its agent was heard; null where it wasn't since this one
    /// started.
    #[serde(default)]
    pub seen_s: Option<u64>,
    /// Why it is taken for live; null where it isn't.
    #[serde(default)]
    pub live_by: Option<LiveBy>,
    /// Null where there is no tunnel to it.
    #[serde(default)]
    pub tunnel: Option<PeerTunnel>,
    /// Whether it is a device without an agent, which comes in by this node.
    #[serde(default)]
    pub device: bool,
    /// Its addresses in the mesh.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// How far the pre-shared key of two nodes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairKey {
    /// None is agreed yet.
    None,
    /// The next handshake is by one.
    Agreed,
    /// The last handshake was by one, drawn from a post-quantum key exchange.
    PostQuantum,
}

impl fmt::Display for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none yet",
            Self::Agreed => "from the next handshake",
            Self::PostQuantum => "post-quantum",
        })
    }
}

/// Why a node is taken for live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveBy {
    /// It answers on a link that this node has with it.
    Link,
    /// Neighbours that are live have links with it.
    Neighbours,
    /// It said lately that it is there.
    Lease,
}

impl fmt::Display for LiveBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Link => "link",
            Self::Neighbours => "neighbours",
            Self::Lease => "lease",
        })
    }
}

/// What the tunnel's device says of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTunnel {
    /// Where its packets go.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; null for never.
    pub handshake_s: Option<u64>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Which way its packets go; null where the tunnel's device doesn't choose among
    /// several.
    #[serde(default)]
    pub way: Option<TunnelWay>,
}

/// Which way a tunnel goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelWay {
    pub path: Path,
    /// The address where it goes straight to.
    pub at: Option<SocketAddr>,
    /// Name of the relay by which it goes, or would.
    pub relay: Option<String>,
    /// Whether the peer announces the address; else its packets showed it.
    pub announced: bool,
    /// Round-trip time as it was measured last, in microseconds.
    pub rtt_us: Option<u64>,
    /// Why it doesn't go straight.
    pub why: Option<String>,
}

/// The answer to `netcheck`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netcheck {
    /// The tunnel's UDP port.
    pub port: u16,
    /// Where others are told to look for it.
    pub places: Vec<SocketAddr>,
    /// Where others see it.
    pub seen: Vec<SeenBy>,
    pub nat: NatKind,
    /// Name of the relay that this node is reached by.
    pub relay: Option<String>,
    /// All relays.
    pub relays: Vec<RelaySeen>,
    /// Names of those that this node is connected with over TCP, as UDP is blocked.
    #[serde(default)]
    pub lanes: Vec<String>,
    /// What the router before this host maps, or could.
    pub port_mapping: PortMapping,
}

/// What the router before a host maps, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Whether it is asked to map anything.
    pub on: bool,
    /// Its address; null where the host has no default route by IPv4.
    pub router: Option<Ipv4Addr>,
    /// Protocols that it answers.
    pub answered: Vec<RouterProtocol>,
    pub ports: Vec<MappedPort>,
    /// Why not all is mapped, in words.
    pub problems: Vec<String>,
    /// When it is asked again; null where it maps something, or isn't asked.
    pub next_ms: Option<u64>,
}

/// How routers are asked to map ports (RFC 6887, RFC 6886, UPnP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterProtocol {
    Pcp,
    NatPmp,
    Upnp,
}

impl fmt::Display for RouterProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A UDP port that a router maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedPort {
    /// What it carries.
    pub of: MappedUse,
    pub port: u16,
    /// Where others find it.
    pub external: SocketAddr,
    /// Whether the internet reaches that address.
    pub public: bool,
    /// When the mapping ends unless it is renewed; null for never.
    pub until_ms: Option<u64>,
}

/// What a UDP port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MappedUse {
    Tunnel,
    Quic,
}

impl fmt::Display for MappedUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tunnel => "the tunnel",
            Self::Quic => "QUIC",
        })
    }
}

/// Where one node sees another's tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBy {
    /// Name of the node that sees it.
    pub node: String,
    /// Null where it hears nothing straight.
    pub place: Option<SocketAddr>,
}

/// A relay, as it was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySeen {
    pub name: String,
    /// Whether it is this node.
    pub is_own: bool,
    /// Round-trip time in microseconds; null where it doesn't answer.
    pub rtt_us: Option<u64>,
}

/// How a NAT maps, by what others see of it (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// No node sees one.
    None,
    /// One mapping for all destinations.
    OneMapping,
    ForEachDestination,
    /// There is one, and one node alone saw it.
    SeenByOne,
    /// No node hears this one straight.
    Unseen,
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
    /// Whether it, or the relay by which its tunnel goes, is reached over TCP.
    #[serde(default)]
    pub tcp: bool,
    /// Probes that were sent.
    pub sent: u32,
    /// Round-trip times of those that were answered, in milliseconds.
    pub rtt_ms: Vec<f64>,
    /// Null where there is no tunnel to it.
    pub tunnel: Option<TunnelPing>,
    /// Which way that goes.
    #[serde(default)]
    pub way: Option<TunnelWay>,
}

/// The tunnel to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunnelPing {
    /// Whether a packet came back through it during this ping.
    #[serde(default)]
    pub works: bool,
    /// Pings through it, a small one and one that fills its packets; none where
    /// this host lets the agent send none.
    #[serde(default)]
    pub packets: Vec<TunnelPacket>,
    /// Whether the policy keeps this node from reaching anything of the other, so
    /// that nothing could come back.
    #[serde(default)]
    pub forbidden: bool,
    /// Whether a handshake was made lately enough for packets to pass.
    pub handshake: bool,
    /// How long ago the last one was made, in seconds; null for never.
    pub age_s: Option<u64>,
}

/// One ping through a tunnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunnelPacket {
    /// Its size with its IP header.
    pub bytes: u32,
    /// Until its reply, in milliseconds; null where none came.
    pub rtt_ms: Option<f64>,
}

/// This node's WireGuard keys, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeyed {
    /// The one in use now.
    pub key: String,
    pub previous: String,
}

/// Who answered at an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedAdded {
    /// Its name, as far as it is known here.
    pub node: String,
    pub address: SocketAddr,
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
    pub name: String,
    /// Who has it now; null when it is free.
    pub to: Option<String>,
}
