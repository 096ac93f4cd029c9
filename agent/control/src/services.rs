//! Requests about services.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use innermesh_proto::{
    name::Label,
    zone::{Protocol, ServiceType},
};
use serde::{Deserialize, Serialize};

use super::{
    error::{ControlError, ErrorCode},
    request::{Done, requests},
    spec::Spec,
};

requests! {
    /// What is asked about services.
    ServicesRequest {
        looks GET "/v1/services": List(ServiceListRequest) -> Vec<ServiceRow>,
        changes POST "/v1/services": Add(ServiceAddRequest) -> ServiceAdded
            where ServiceAddRequest::validate,
        changes DELETE "/v1/services/{name}": Rm(ServiceRmRequest) -> Done,
    }
}

/// The services of all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceListRequest {}

/// Adds a service of this node, or changes it; kept across restarts. A name that
/// isn't granted yet is no error: the service is pending then. One that never can be,
/// such as a node's, is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceAddRequest(pub Spec);

impl ServiceAddRequest {
    fn validate(&self) -> Result<(), ControlError> {
        let valid = self.0.validate();
        valid.map_err(|error| ControlError::new(ErrorCode::Invalid, error))
    }
}

/// Takes a service of this node away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRmRequest {
    pub name: Label,
    /// Whether to give its name back, which stays granted otherwise.
    #[serde(default)]
    pub release: bool,
}

/// What became of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAdded {
    pub name: String,
    /// Whether the name is granted.
    pub state: ServiceState,
    /// Why it is pending.
    pub reason: Option<String>,
    /// Full names under which it is reached now.
    pub reachable: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// Whether a service has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    Granted,
    /// Not yet, or somebody else has.
    Pending,
}

/// One row of `service list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    pub name: String,
    /// Name of the node that runs it.
    pub node: String,
    pub port: u16,
    pub proto: Protocol,
    /// What it speaks, such as https; null where nothing says it.
    #[serde(default, rename = "type")]
    pub service_type: Option<ServiceType>,
    /// Whether its node is live and its check passes, where it has one.
    pub healthy: bool,
    /// Whether anything checks it.
    #[serde(default = "checked")]
    pub checked: bool,
    /// Its check; known of this node's own services only.
    pub check: Option<String>,
    /// Whether the name is granted to its node.
    pub granted: bool,
    /// Why the last check failed; known of this node's own services only.
    pub last_error: Option<String>,
}

/// What an agent means that says nothing of it.
pub(crate) fn checked() -> bool {
    true
}
