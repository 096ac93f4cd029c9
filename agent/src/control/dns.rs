//! Requests about the mesh's names.

use serde::{Deserialize, Serialize};

use super::request::requests;
pub use crate::dns::{Origin, QueryReport};

requests! {
    /// What is asked about names.
    DnsRequest {
        looks GET "/v1/dns/query": Query(DnsQueryRequest) -> QueryReport,
        looks GET "/v1/dns/zone": Zone(DnsZoneRequest) -> ZoneText,
    }
}

/// Asks this node's resolver as a process on this host would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsQueryRequest {
    /// A DNS name.
    pub name: String,
    /// A record type.
    #[serde(rename = "type")]
    pub rtype: String,
}

/// The zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsZoneRequest {}

/// The zone as one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneText {
    /// Lines of a master file (RFC 1035 §5).
    pub zone: String,
}
