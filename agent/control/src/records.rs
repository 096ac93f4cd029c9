//! Requests about users' DNS records.

#![allow(missing_docs, reason = "the names say it")]

use serde::{Deserialize, Serialize};

use super::request::{Done, requests};

requests! {
    /// What is asked about users' DNS records.
    RecordsRequest {
        looks GET "/v1/records": List(RecordListRequest) -> Vec<RecordRow>,
        changes POST "/v1/records": Add(RecordAddRequest) -> RecordRow,
        changes DELETE "/v1/records": Rm(RecordRmRequest) -> Done,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordListRequest {}

/// A DNS record to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordAddRequest {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as in a master file; names in it are full.
    pub value: String,
    /// Seconds for which it may be kept, where not as usual.
    #[serde(default, rename = "ttl", skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u32>,
    /// Whether strangers may see it too.
    pub public: bool,
}

/// Takes records of one name and type away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRmRequest {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// What the one says that is to go; none for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// One row of `record list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as in a master file.
    pub value: String,
    /// Seconds for which it may be kept.
    #[serde(default = "usual_ttl", rename = "ttl")]
    pub ttl_s: u32,
    /// Whether strangers may see it too.
    pub public: bool,
    /// Name of the node that added it.
    pub owner: String,
    /// Whether this node answers it: a node or a service of that name comes first.
    #[serde(default = "answered")]
    pub answered: bool,
    /// What each sinkhole was seen to answer, where it was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinkholes: Vec<SinkholeRow>,
}

/// One sinkhole that answers strangers' DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkholeRow {
    pub node: String,
    pub addresses: Vec<std::net::IpAddr>,
    pub live: bool,
    /// Whether it answered strangers with the record.
    pub serves: bool,
    /// What was heard instead.
    pub error: Option<String>,
}

/// What an agent has that says nothing of it.
fn usual_ttl() -> u32 {
    innermesh_proto::zone::TTL_S
}

/// What an agent means that says nothing of it.
fn answered() -> bool {
    true
}
