//! Requests about the policy: who may reach what.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use innermesh_host::UnixTime;
use innermesh_proto::limits;
use serde::{Deserialize, Serialize};

use super::request::requests;

requests! {
    /// What is asked about the policy.
    PolicyRequest {
        looks GET "/v1/policy": Show(PolicyShowRequest) -> PolicyShown,
        changes POST "/v1/policy": Set(PolicySetRequest) -> PolicySet = limits::CONTROL_POLICY_BYTES,
        looks POST "/v1/policy/check": Check(PolicyCheckRequest) -> PolicyChecked = limits::CONTROL_POLICY_BYTES,
        looks GET "/v1/policy/explain": Explain(PolicyExplainRequest) -> PolicyExplained,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyShowRequest {}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyShown {
    /// None where there is none, and the defaults count.
    pub text: Option<String>,
    /// How many there were, with this one; 0 where there is none.
    pub number: u64,
    /// Name of the node on which it was set.
    pub by: Option<String>,
    pub at: Option<UnixTime>,
    /// The number of the policy that the filter of the node asked was made by; none
    /// where it filters nothing, or not yet.
    #[serde(default)]
    pub enforced: Option<u64>,
    /// Tests in it that fail by what the mesh has now, and names that nothing has.
    pub troubles: Vec<String>,
}

/// Sets the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySetRequest {
    pub text: String,
    /// Whether names are taken that nothing has yet.
    #[serde(default)]
    pub allow_unknown: bool,
    /// The number of the policy that it was made from: another one stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySet {
    pub number: u64,
    /// What perhaps isn't meant.
    pub notes: Vec<String>,
}

/// Has a policy checked as if it were set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyCheckRequest {
    pub text: String,
    #[serde(default)]
    pub allow_unknown: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChecked {
    pub rules: usize,
    pub groups: usize,
    pub tests: usize,
    /// What keeps it from being set.
    pub errors: Vec<String>,
    /// What perhaps isn't meant.
    pub notes: Vec<String>,
}

/// Asks whether one reaches another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExplainRequest {
    /// A name, an address or a group.
    pub from: String,
    /// As `from`, with or without ports.
    pub to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExplained {
    pub pairs: Vec<PolicyPair>,
    /// Whether there are more pairs than are told.
    pub more: bool,
}

/// One pair of ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPair {
    /// Names; an address where it has none.
    pub from: String,
    pub to: String,
    /// IPv4's and IPv6's, where the same is true of both.
    pub addresses: Vec<PolicyAddresses>,
    pub ports: String,
    pub allowed: bool,
    /// What allows it.
    pub by: Option<String>,
    /// Names of the nodes that enforce it.
    pub enforced_on: Vec<String>,
    /// Packets that this node let pass by that rule, where it enforces it.
    pub packets: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAddresses {
    pub from: IpAddr,
    pub to: IpAddr,
}
