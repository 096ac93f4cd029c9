//! Requests about networks that gateways bring.

#![allow(missing_docs, reason = "the names say it")]

use innermesh_proto::name::Label;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::request::requests;

requests! {
    /// What is asked about networks that gateways bring.
    RoutesRequest {
        looks GET "/v1/routes": List(RouteListRequest) -> Vec<RouteRow>,
        changes POST "/v1/routes": Change(RouteChangeRequest) -> RouteChanged,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteListRequest {}

/// Has a gateway bring a network, or bring it no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteChangeRequest {
    pub net: IpNet,
    /// The gateway; this node where none is named.
    #[serde(default)]
    pub gateway: Option<Label>,
    /// Whether it is to bring it.
    pub give: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChanged {
    pub net: IpNet,
    /// Name of the gateway.
    pub gateway: String,
    /// Whether it was to bring it.
    pub give: bool,
    /// What the routers of that network need, so that its hosts can answer; known
    /// where this node is the gateway.
    pub returns: Vec<String>,
    /// Whether an interface of this host leads there; null where another node is
    /// the gateway.
    pub led: Option<bool>,
}

/// A network that a gateway brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    pub net: IpNet,
    /// Name of the gateway.
    pub gateway: String,
    /// Whether the gateway is live.
    pub live: bool,
    /// Whether this node reaches the network by this gateway.
    pub used: bool,
    pub way: RouteWay,
    /// Whether answers of the network's hosts come back: "seen", "missing" or
    /// "unknown"; known on the gateway.
    #[serde(default)]
    pub back: Option<String>,
    /// What the network's router needs for that, until it was seen to have it.
    #[serde(default)]
    pub returns: Option<String>,
}

/// How this node reaches a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteWay {
    /// It is a gateway of it.
    Own,
    /// Through the tunnel.
    Tunnel,
    /// It stands in that network, and has found the gateway there.
    Direct,
    /// Not at all: a network of this host's own has addresses of it.
    Overlap,
    /// Not at all: no gateway of it is known to be a member still.
    None,
}
