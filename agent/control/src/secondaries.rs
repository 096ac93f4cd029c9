//! Requests about secondary name servers, which copy the mesh's zones.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use innermesh_proto::{limits, name::Label};
use serde::{Deserialize, Serialize};

use super::{
    error::{ControlError, ErrorCode},
    request::{Done, requests},
};

requests! {
    /// What is asked about secondaries.
    SecondariesRequest {
        looks GET "/v1/dns/secondaries": List(SecondaryListRequest) -> Vec<SecondaryRow>,
        changes POST "/v1/dns/secondaries": Add(SecondaryAddRequest) -> SecondaryAdded where SecondaryAddRequest::check,
        changes POST "/v1/dns/secondaries/rm": Rm(SecondaryRmRequest) -> Done,
    }
}

/// Lets a name server copy zones from this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondaryAddRequest {
    pub name: Label,
    /// Where it is told of changes, and from where it may ask.
    pub addresses: Vec<SocketAddr>,
    /// What it may have; all zones, if empty.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Where it is to ask; the address of this host that leads to it, if none.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// A secret in base64, or a key as tsig-keygen prints it; a new one, if none.
    #[serde(default)]
    pub key: Option<KeyText>,
    /// Of a key that doesn't say its own: hmac-sha256, if none.
    #[serde(default)]
    pub algorithm: Option<String>,
}

/// A key's text, which isn't shown by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyText(pub String);

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText")
    }
}

impl SecondaryAddRequest {
    fn check(&self) -> Result<(), ControlError> {
        if self.zones.len() > limits::SECONDARY_ZONES {
            return Err(invalid(format!(
                "a secondary is limited to {} zones at most; leave them out for all",
                limits::SECONDARY_ZONES
            )));
        }
        check_addresses(&self.addresses)
    }
}

/// Whether a secondary can be at these.
///
/// # Errors
/// Why not.
pub fn check_addresses(addresses: &[SocketAddr]) -> Result<(), ControlError> {
    if addresses.is_empty() || addresses.len() > limits::SECONDARY_ADDRESSES {
        return Err(invalid(format!(
            "a secondary has 1 to {} addresses",
            limits::SECONDARY_ADDRESSES
        )));
    }
    for (number, address) in addresses.iter().enumerate() {
        let ip = address.ip().to_canonical();
        let is_many = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if ip.is_unspecified() || is_many || address.port() == 0 {
            return Err(invalid(format!("{address} is no address of a name server")));
        }
        if addresses
            .iter()
            .skip(number + 1)
            .any(|other| other == address)
        {
            return Err(invalid(format!("{address} is there twice")));
        }
        if addresses
            .iter()
            .any(|other| other.is_ipv4() != address.is_ipv4())
        {
            return Err(invalid(
                "a secondary's addresses are all of IPv4 or all of IPv6, as it asks at one address; \
                 add it twice for both",
            ));
        }
    }
    Ok(())
}

fn invalid(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Invalid, why)
}

/// The answer to `dns secondary add`: the key is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryAdded {
    pub name: String,
    pub key: SecondaryKey,
    /// Where it asks.
    pub listen: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub zones: Vec<String>,
}

/// A key for TSIG, as name servers' configurations have it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryKey {
    pub name: String,
    pub algorithm: String,
    /// In base64.
    pub secret: String,
}

impl std::fmt::Debug for SecondaryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecondaryKey({}, {})", self.name, self.algorithm)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryListRequest {}

/// A secondary, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryRow {
    pub name: String,
    pub key_name: String,
    pub algorithm: String,
    pub addresses: Vec<SocketAddr>,
    pub listen: SocketAddr,
    /// Whether this node listens there now.
    pub listening: bool,
    pub zones: Vec<SecondaryZone>,
}

/// How it stands with one zone at a secondary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryZone {
    pub zone: String,
    /// What there is here; null until the zone is whole.
    pub serial: Option<u32>,
    /// What it took last, since the agent's start.
    pub fetched_serial: Option<u32>,
    /// How long ago it took it or was found to have it.
    pub fetched_s: Option<u64>,
    /// How long ago it asked for the zone.
    pub asked_s: Option<u64>,
    /// What it said when it was last told of a change: `answered`, `silent`, or why it
    /// refused.
    pub notify: Option<String>,
}

/// Ends it: running transfers too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondaryRmRequest {
    pub name: Label,
}
