//! Requests about ports of public nodes that lead to services inside.

#![allow(missing_docs, reason = "the names say it")]

use innermesh_proto::name::Label;
use serde::{Deserialize, Serialize};

use super::request::requests;

requests! {
    /// What is asked about what is published.
    PublishRequests {
        looks GET "/v1/published": List(PublishListRequest) -> Vec<PublishRow>,
        changes POST "/v1/published": Add(PublishRequest) -> Published,
        changes POST "/v1/unpublished": Rm(UnpublishRequest) -> Unpublished,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishListRequest {}

/// Has a TCP port of a public node lead to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// A service or a node.
    pub name: Label,
    /// The port of the public node.
    pub port: u16,
    /// The port inside; the service's own where none is said.
    #[serde(default)]
    pub to_port: Option<u16>,
    /// The public node.
    pub on: Label,
    /// Whether the public node's agent connects to the service, and tells it the
    /// client's address by the PROXY protocol.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// What is published now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub name: String,
    pub port: u16,
    pub on: String,
    pub to_port: u16,
    pub proxy_protocol: bool,
    /// Nodes that it may lead to.
    pub inside: Vec<String>,
    /// What must be so on each side, as sentences.
    pub needs: Vec<String>,
}

/// Ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpublishRequest {
    pub name: Label,
    /// That port alone; all of the name's where none is said.
    #[serde(default)]
    pub port: Option<u16>,
    /// On that node alone; on all where none is said.
    #[serde(default)]
    pub on: Option<Label>,
}

/// What was ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpublished {
    pub name: String,
    pub ended: Vec<EndedPort>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedPort {
    pub port: u16,
    pub on: String,
}

/// A port that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRow {
    pub name: String,
    pub port: u16,
    /// Name of the public node.
    pub on: String,
    /// Whether that node is live.
    pub live: bool,
    pub to_port: u16,
    pub proxy_protocol: bool,
    /// Name of the node that it leads to now; null where none is ready.
    pub to: Option<String>,
    /// Why it doesn't work, as far as this node is part of it.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Name of the admin that asked for it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}
