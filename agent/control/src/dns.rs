//! Requests about the mesh's names.

#![allow(missing_docs, reason = "the names say it")]

use innermesh_host::resolver::ResolverPlan;
use serde::{Deserialize, Serialize};

use super::request::requests;

requests! {
    /// What is asked about names.
    DnsRequest {
        looks GET "/v1/dns/query": Query(DnsQueryRequest) -> QueryReport,
        looks GET "/v1/dns/resolver": Resolver(DnsResolverRequest) -> ResolverPlan,
        looks GET "/v1/dns/zone": Zone(DnsZoneRequest) -> ZoneText,
    }
}

/// Asks this node's resolver as a process on this host would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsQueryRequest {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
}

/// A question answered in process, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReport {
    /// The name that was asked for.
    pub name: String,
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub rtype: String,
    /// The response code, such as NOERROR or NXDOMAIN.
    pub rcode: String,
    /// Where the answer came from.
    pub origin: Origin,
    /// Records that answer the question, as lines of a master file.
    pub answers: Vec<String>,
    pub authorities: Vec<String>,
    pub additionals: Vec<String>,
    /// Why the answer isn't what was hoped for.
    pub error: Option<String>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Zone,
    /// A rule of this server, without asking anybody.
    Rule,
    Cache,
    /// The cache, beyond the TTL.
    Stale,
    /// An upstream name server, just now.
    Upstream,
}

/// What the host's own resolver has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsResolverRequest {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsZoneRequest {}

/// The zone as one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneText {
    /// Lines of a master file (RFC 1035 §5).
    pub zone: String,
}
