//! What an agent is told besides what its state folder holds.

#![allow(missing_docs, reason = "the names say it")]

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::{services::Spec, tunnel::BackendChoice};

/// What an agent is told besides what its state folder holds.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The QUIC endpoint's address: the first of these that can be had.
    pub listen: Vec<SocketAddr>,
    /// Endpoints to announce before those of the host's own interfaces.
    pub advertise: Vec<SocketAddr>,
    /// The tunnel interface's name.
    pub interface: String,
    /// WireGuard's UDP port.
    pub tunnel_port: u16,
    /// Largest packet through the tunnel, in bytes.
    pub mtu: u32,
    /// What carries the tunnel's packets.
    pub backend: BackendChoice,
    /// Where DNS is answered; the resolver addresses when empty.
    pub dns_listen: Vec<SocketAddr>,
    /// Name servers for other names; the host's own when empty.
    pub dns_upstream: Vec<SocketAddr>,
    /// Whether the host's own resolver is set and kept.
    pub manage_resolver: bool,
    /// Where the install page is served; this node's overlay addresses and
    /// loopback when empty.
    pub page_listen: Vec<SocketAddr>,
    pub page_port: u16,
    /// How long one CA node leads, of ledger time.
    pub ca_term: Duration,
    /// The newest rules of the ledger that it goes along with.
    pub known_rules: u32,
    /// The port that ACME is served on.
    pub acme_port: u16,
    /// Where ACME is served; the resolver's addresses when empty.
    pub acme_listen: Vec<SocketAddr>,
    /// Networks of this host that count as the host itself.
    pub local_sources: Vec<IpNet>,
    /// Whether this host's containers reach other nodes, as this node.
    pub containers_reach_mesh: bool,
    /// Services from the configuration.
    pub services: Vec<Spec>,
}

/// The version that this agent announces.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The lock that two agents on one folder can't both hold.
pub(crate) const LOCK: &str = "lock";
