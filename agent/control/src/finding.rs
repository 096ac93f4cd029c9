//! What somebody should do something about, as scripts and monitoring read it.

use serde::{Deserialize, Serialize};

/// One thing that isn't as it should be on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// By which scripts know it again: one of [`code`]'s.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen, and what that means.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that the node is for doesn't work, or doesn't protect.
    Error,
    /// It works still, or in part.
    Warning,
}

/// The codes of findings. They stay as they are.
pub mod code {
    /// The tunnel's interface can't be made as planned.
    pub const TUNNEL_NOT_APPLIED: &str = "tunnel-not-applied";
    /// The tunnel's interface takes long to be made as planned.
    pub const TUNNEL_SLOW: &str = "tunnel-slow";
    /// Nothing keeps other networks out of the overlay.
    pub const OVERLAY_OPEN: &str = "overlay-open";
    /// The overlay's routes aren't set.
    pub const OVERLAY_ROUTES: &str = "overlay-routes";
    /// One admin alone: without its node nobody could let machines in.
    pub const ONE_ADMIN: &str = "one-admin";
    /// One CA node alone: while its node is off nothing is granted.
    pub const ONE_CA: &str = "one-ca";
    /// Another server has a port that the mesh's names are to be answered on.
    pub const DNS_PORT_TAKEN: &str = "dns-port-taken";
    /// The mesh's names aren't answered where they should be.
    pub const DNS_NOT_ANSWERED: &str = "dns-not-answered";
    /// Packets go into the tunnel to live nodes, and nothing comes back.
    pub const TUNNEL_SILENT: &str = "tunnel-silent";
    /// Live nodes aren't connected with this one.
    pub const PEER_UNREACHED: &str = "peer-unreached";
    /// Nodes fell silent without a goodbye.
    pub const PEER_SILENT: &str = "peer-silent";
    /// No other node answers.
    pub const ALONE: &str = "alone";
    /// A LAN has the overlay's address range.
    pub const LAN_OVERLAP: &str = "lan-overlap";
    /// Programs on this host don't find the mesh's names.
    pub const HOST_RESOLVER: &str = "host-resolver";
}

impl Finding {
    /// With one of [`code`]'s.
    pub fn new(code: &str, severity: Severity, text: String, remedy: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            severity,
            text,
            remedy: remedy.into(),
        }
    }

    /// As one line for a person.
    pub fn sentence(&self) -> String {
        format!("{}. {}", self.text, self.remedy)
    }
}
