//! Requests about exits: nodes by which others reach the internet.

#![allow(missing_docs, reason = "the names say it")]

use innermesh_proto::{filter::LanAccess, name::Label};
use serde::{Deserialize, Serialize};

use super::request::requests;

requests! {
    /// What is asked about exits.
    ExitsRequest {
        looks GET "/v1/exit": Show(ExitShowRequest) -> ExitShown,
        changes POST "/v1/exit": Use(ExitUseRequest) -> ExitUsed,
        changes POST "/v1/exit/off": Off(ExitOffRequest) -> ExitEnded,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitShowRequest {}

/// The exits that there are, and the one that this node uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitShown {
    /// None where this node uses none.
    pub used: Option<ExitInUse>,
    pub exits: Vec<ExitRow>,
}

/// The exit that this node uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitInUse {
    /// Its name; "unknown" where what was kept of it can't be read.
    pub node: String,
    pub lan: LanAccess,
    /// Why nothing is reached by it; null as far as is known here.
    pub trouble: Option<String>,
}

/// A node that leads to the internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRow {
    pub node: String,
    pub live: bool,
    /// Whether this node uses it.
    pub used: bool,
    /// Whether it has a way to the internet of IPv4; null while it hasn't said so.
    pub ipv4: Option<bool>,
    /// As `ipv4`, of IPv6.
    pub ipv6: Option<bool>,
}

/// Has this node send to the internet by an exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitUseRequest {
    pub node: Label,
    /// Whether hosts in its LANs are reached as before.
    #[serde(default)]
    pub lan: LanAccess,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitUsed {
    pub node: String,
    pub lan: LanAccess,
    /// Whether the exit answered a ping since.
    pub answers: bool,
    /// What isn't reached all the same, and why.
    pub warnings: Vec<String>,
}

/// Has this node send to the internet by itself again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitOffRequest {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitEnded {
    /// The exit that was in use; null where none was.
    pub node: Option<String>,
}
