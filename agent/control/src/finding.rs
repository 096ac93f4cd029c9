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
    /// What another node publishes doesn't come to this one.
    pub const PUBLISH_LINK: &str = "publish-link";
    /// A port that this node is to publish isn't served.
    pub const PUBLISH_PORT: &str = "publish-port";
    /// A program listens at a port that this node publishes.
    pub const PUBLISH_SHADOWS: &str = "publish-shadows";
    /// A port that this node publishes leads nowhere.
    pub const PUBLISH_NOWHERE: &str = "publish-nowhere";
    /// The router maps no port, although it is to.
    pub const PORT_NOT_MAPPED: &str = "port-not-mapped";
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
    /// Lanes aren't taken in where they should be.
    pub const LANE_NOT_SERVED: &str = "lane-not-served";
    /// UDP goes nowhere: this node is connected by TCP.
    pub const UDP_BLOCKED: &str = "udp-blocked";
    /// A sinkhole doesn't answer strangers everywhere.
    pub const SINKHOLE_NOT_SERVED: &str = "sinkhole-not-served";
    /// A sinkhole doesn't answer strangers' DNS everywhere.
    pub const SINKHOLE_DNS_NOT_SERVED: &str = "sinkhole-dns-not-served";
    /// Hosts of a LAN may ask for names, and this host has no address in it.
    pub const DNS_NO_LAN: &str = "dns-no-lan";
    /// A secondary doesn't ask for a zone.
    pub const SECONDARY_SILENT: &str = "secondary-silent";
    /// A file that should describe a secondary doesn't.
    pub const SECONDARY_FILE: &str = "secondary-file";
    /// DNS over TLS or HTTPS isn't answered where it should be.
    pub const DNS_NOT_ENCRYPTED: &str = "dns-not-encrypted";
    /// The mesh's names aren't answered where they should be.
    pub const DNS_NOT_ANSWERED: &str = "dns-not-answered";
    /// Packets go into the tunnel to live nodes, and nothing comes back.
    pub const TUNNEL_SILENT: &str = "tunnel-silent";
    /// UDP to or from a WireGuard port is lost, and which way.
    pub const WIREGUARD_BLOCKED: &str = "wireguard-blocked";
    /// UDP to or from an agent's port is lost, and which way.
    pub const QUIC_BLOCKED: &str = "quic-blocked";
    /// Live nodes aren't connected with this one.
    pub const PEER_UNREACHED: &str = "peer-unreached";
    /// Nodes fell silent without a goodbye.
    pub const PEER_SILENT: &str = "peer-silent";
    /// No other node answers.
    pub const ALONE: &str = "alone";
    /// A LAN has the overlay's address range.
    pub const LAN_OVERLAP: &str = "lan-overlap";
    /// The state folder was removed or replaced while the agent runs.
    pub const STATE_FOLDER_GONE: &str = "state-folder-gone";
    /// Programs on this host don't find the mesh's names.
    pub const HOST_RESOLVER: &str = "host-resolver";
    /// The root certificate ends within a year, or has ended.
    pub const ROOT_EXPIRES: &str = "root-expires";
    /// An intermediate of a CA node ends without a successor, or has ended.
    pub const ISSUER_EXPIRES: &str = "issuer-expires";
    /// Two machines use one node's key.
    pub const CLONED: &str = "cloned";
    /// The ledger follows rules that this build doesn't know.
    pub const RULES_UNKNOWN: &str = "rules-unknown";
    /// The ledger's files here were damaged when the agent started.
    pub const LEDGER_DAMAGED: &str = "ledger-damaged";
    /// This node's state was older than what it had announced.
    pub const STATE_ROLLED_BACK: &str = "state-rolled-back";
    /// The root recovered the ledger from before what this node held.
    pub const LEDGER_RECOVERED: &str = "ledger-recovered";
    /// An admin has cut this node off.
    pub const CUT_OFF: &str = "cut-off";
    /// An admin has cut another node off, and the ledger hasn't decided yet.
    pub const NODE_HELD: &str = "node-held";
    /// An eviction waits for a second admin.
    pub const EVICTION_WAITS: &str = "eviction-waits";
    /// Taking a role waits for a second admin.
    pub const ROLE_CHANGE_WAITS: &str = "role-change-waits";
    /// Other nodes say that this one is no member.
    pub const TURNED_AWAY: &str = "turned-away";
    /// The membership certificate could not be renewed.
    pub const MEMBERSHIP_NOT_RENEWED: &str = "membership-not-renewed";
    /// The labels of a container make no service.
    pub const CONTAINER_LABEL: &str = "container-label";
    /// Docker doesn't tell which containers there are.
    pub const DOCKER_UNREACHED: &str = "docker-unreached";
    /// A file that should describe a service doesn't.
    pub const SERVICE_FILE: &str = "service-file";
    /// A file that should describe a renewal doesn't.
    pub const RENEWAL_FILE: &str = "renewal-file";
    /// A certificate of this node's programs isn't renewed, or has ended.
    pub const CERTIFICATE_NOT_RENEWED: &str = "certificate-not-renewed";
    /// The command after a renewal failed.
    pub const CERTIFICATE_COMMAND: &str = "certificate-command";
    /// ACME isn't served.
    pub const ACME_NOT_SERVED: &str = "acme-not-served";
    /// The install page isn't served where it should be.
    pub const PAGE_NOT_SERVED: &str = "page-not-served";
    /// A revocation list has ended.
    pub const REVOCATION_LIST_ENDED: &str = "revocation-list-ended";
    /// Another program changed the overlay's packet filter.
    pub const FILTER_CHANGED: &str = "filter-changed";
    /// Another program's packet filter drops packets of the overlay.
    pub const FILTER_DROPS: &str = "filter-drops";
    /// Nothing on the internet is reached by the exit that this node uses.
    pub const EXIT_UNUSABLE: &str = "exit-unusable";
    /// This node is an exit, and has no way to the internet.
    pub const EXIT_NO_ROUTE: &str = "exit-no-route";
    /// A gateway's or an exit's host doesn't forward.
    pub const FORWARDING_OFF: &str = "forwarding-off";
    /// Another program's packet filter drops what a gateway forwards.
    pub const FORWARD_POLICY: &str = "forward-policy";
    /// Another program's rules would put other sources in place of the true ones.
    pub const MASQUERADE: &str = "masquerade";
    /// The kernel drops packets by their sources on a gateway's ways.
    pub const REVERSE_PATH_FILTER: &str = "reverse-path-filter";
    /// A gateway is to bring a network that no interface leads to.
    pub const ROUTE_NO_INTERFACE: &str = "route-no-interface";
    /// A LAN's router doesn't send what is for the overlay to its gateway.
    pub const ROUTE_NO_RETURN: &str = "route-no-return";
    /// A network behind a gateway has addresses of this host's own network.
    pub const ROUTE_OVERLAP: &str = "route-overlap";
    /// The policy names what isn't there any more, or its tests fail by now.
    pub const POLICY_STALE: &str = "policy-stale";
    /// An even number of CA nodes decides the ledger.
    pub const ROSTER_EVEN: &str = "roster-even";
    /// A member's requests are turned away.
    pub const NODE_ASKS_TOO_MUCH: &str = "node-asks-too-much";
    /// The disk of the state folder is nearly full.
    pub const DISK_FULL: &str = "disk-full";
    /// This CA node doesn't vote.
    pub const VOTING_DISABLED: &str = "voting-disabled";
    /// The root's recovery file is still on this node.
    pub const ROOT_KEY_HERE: &str = "root-key-here";
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

    /// Something works still, or in part.
    pub fn warning(code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, text.into(), remedy)
    }

    /// Something doesn't work, or doesn't protect.
    pub fn error(code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, text.into(), remedy)
    }

    /// As one line for a person.
    pub fn sentence(&self) -> String {
        format!("{}. {}", self.text, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn each_code_stands_in_the_table_that_operators_read() {
        let source = include_str!("finding.rs");
        let source = source.split("impl Finding").next().unwrap_or_default();
        let lines = source.lines().filter(|line| line.contains("pub const "));
        let codes: BTreeSet<&str> = lines.filter_map(|line| line.split('"').nth(1)).collect();
        let table = include_str!("../../../ops/docs/findings.md");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let told: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert!(codes.len() > 30, "{codes:?}");
        assert_eq!(codes, told);
    }
}
