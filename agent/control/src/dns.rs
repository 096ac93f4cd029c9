//! Requests about the mesh's names.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{IpAddr, SocketAddr};

use innermesh_host::resolver::{Method, ResolverPlan};
use serde::{Deserialize, Serialize};

use super::request::{Done, requests};

requests! {
    /// What is asked about names.
    DnsRequest {
        looks GET "/v1/dns/query": Query(DnsQueryRequest) -> QueryReport,
        looks GET "/v1/dns/resolver": Resolver(DnsResolverRequest) -> ResolverPlan,
        changes POST "/v1/dns/resolver/setup": Setup(DnsSetupRequest) -> ResolverStatus,
        changes POST "/v1/dns/resolver/release": Release(DnsReleaseRequest) -> Done,
        changes GET "/v1/dns/log": Log(DnsLogRequest) -> QueryLog,
        changes POST "/v1/dns/log": FollowLog(DnsLogFollowRequest) -> QueryLog,
        looks GET "/v1/dns/zone": Zone(DnsZoneRequest) -> ZoneText,
        looks POST "/v1/dns/public": Public(DnsPublicRequest) -> PublicZone,
        changes POST "/v1/dns/public/verify": Verify(DnsVerifyRequest) -> PublicChecks,
        looks GET "/v1/dns/delegation": Delegation(DnsDelegationRequest) -> Delegation,
        changes POST "/v1/dns/delegation/verify":
            VerifyDelegation(DnsVerifyDelegationRequest) -> PublicChecks,
    }
}

/// Asks this node's resolver as a process on this host would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsQueryRequest {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// As who has this address would ask; none as this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

/// A question answered in process, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReport {
    /// The name that was asked for.
    pub name: String,
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub rtype: String,
    /// What the one who asks may see.
    pub view: DnsView,
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
    /// Who is to know the name.
    #[serde(default)]
    pub route: QueryRoute,
    /// Whose the answers are, as far as they are the mesh's.
    #[serde(default)]
    pub sources: Vec<RecordSource>,
    /// What could be among the answers, and isn't.
    #[serde(default)]
    pub left_out: Vec<LeftOutRow>,
}

/// Who is to know a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRoute {
    pub kind: RouteKind,
    /// The mesh's zone, or that of the rule; null where it is about all names.
    pub zone: Option<String>,
    /// Name servers that are asked for it.
    pub servers: Vec<String>,
}

/// By what it is decided who is to know a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// Nobody: it isn't answered to who asks.
    #[default]
    None,
    /// It is in a zone of the mesh.
    Zone,
    /// It has a meaning of its own, such as localhost.
    Special,
    /// A rule below `[dns.forward]`.
    Forward,
    /// A rule of `fall_through`.
    FallThrough,
    /// All other names.
    Upstream,
}

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSource {
    /// As it stands in the answers.
    pub record: String,
    /// mesh, node, device, service or user.
    pub kind: String,
    /// The node, the nodes of the service's instances, or who added it.
    pub nodes: Vec<String>,
    /// The service.
    pub service: Option<String>,
    /// That in words.
    pub text: String,
}

/// What could be among the answers, and isn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutRow {
    /// A node, an instance of a service, or a record.
    pub what: String,
    pub node: Option<String>,
    pub service: Option<String>,
    /// Why, for scripts, such as not-live or unhealthy.
    pub reason: String,
    /// That in words.
    pub text: String,
}

/// What somebody who asks may see, by the address that the question came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsView {
    /// The mesh's names and all others: this host, members and devices.
    Internal,
    /// As that, with addresses in the LAN.
    Lan,
    /// Nothing.
    Stranger,
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

/// The questions that are kept now. For root, as they say who looks at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLogRequest {}

/// Waits some seconds for questions and their answers, which are kept for as long as
/// somebody asks this again and again, and not at other times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLogFollowRequest {
    /// Number of the first one that isn't known yet; none for those from now on.
    #[serde(default)]
    pub from: Option<u64>,
}

/// Questions and their answers, and who asks most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryLog {
    /// Whether questions are kept now.
    pub is_on: bool,
    /// Since when, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Number of the next one.
    pub next: u64,
    /// How many were answered since then.
    pub total: u64,
    /// Oldest first. What doesn't fit is left out: numbers are missing then.
    pub entries: Vec<LoggedQuery>,
    /// Names and types that are asked for most.
    pub names: Vec<QueryTop>,
    /// Who asks most.
    pub clients: Vec<QueryTop>,
    /// By how much counts of names and clients may be too low.
    pub too_low_by: u64,
    /// Answers by response code.
    pub rcodes: Vec<QueryTop>,
    /// Answers by where they came from.
    pub origins: Vec<QueryTop>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedQuery {
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub client: IpAddr,
    pub transport: LogTransport,
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    pub rcode: String,
    pub view: DnsView,
    /// Null for what was refused.
    pub origin: Option<Origin>,
    /// Microseconds until the answer; 0 where it was there already.
    pub elapsed_us: u64,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTransport {
    Udp,
    /// TCP, TLS or HTTPS.
    Connection,
}

/// How often something was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryTop {
    pub what: String,
    pub count: u64,
}

/// What the host's own resolver has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsResolverRequest {}

/// Sets the host's own resolver now, and keeps it from then on. Where it isn't
/// the agent's to set, nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSetupRequest {}

/// Takes back what the agent set of the host's own resolver, and leaves it alone
/// until [`DnsSetupRequest`] or the agent's next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsReleaseRequest {}

/// How this host's own programs find the mesh's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverStatus {
    /// Whether the agent keeps the host's resolver set.
    pub managed: bool,
    /// What the agent has set to ask it; null for nothing.
    pub method: Option<Method>,
    /// Why that method, or why the agent leaves it alone.
    pub why: String,
    /// Why it couldn't be set as it should be.
    pub error: Option<String>,
    /// Whether libc finds this node's name as the mesh has it; null while nobody
    /// has looked.
    pub works: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsZoneRequest {}

/// Tells what the mesh's domain must say in the public DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPublicRequest {
    /// Where the public finds the sinkhole; where it announces to be, if empty.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// What is to be imported at the registrar's DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicZone {
    /// Lines of a master file (RFC 1035 §5), without SOA and name servers.
    pub zone: String,
    /// The sinkhole's.
    pub addresses: Vec<IpAddr>,
}

/// Asks other name servers whether they say that. For root, as it sends packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsVerifyRequest {
    /// As in [`DnsPublicRequest`].
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Whom to ask; the servers that other names are forwarded to, if none.
    #[serde(default)]
    pub at: Option<SocketAddr>,
}

/// Tells what the registrar must be given so that the sinkholes are the name servers of
/// the mesh's domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsDelegationRequest {}

/// Name servers and their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Lines of a master file: NS records, and glue.
    pub zone: String,
    pub name_servers: Vec<NameServerRow>,
    /// The serial that all of them must have.
    pub serial: u32,
}

/// One sinkhole that answers strangers' DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameServerRow {
    pub name: String,
    pub node: String,
    pub addresses: Vec<IpAddr>,
    pub live: bool,
}

/// Asks whether the domain is delegated so, and each of them whether it answers. For
/// root, as it sends packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsVerifyDelegationRequest {
    /// Who is asked for the zone above; the servers that other names are forwarded to,
    /// if none.
    #[serde(default)]
    pub at: Option<SocketAddr>,
}

/// What they said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicChecks {
    /// Whom it was asked of.
    pub servers: Vec<String>,
    pub checks: Vec<PublicCheck>,
}

/// What they said of one name and type; of the wildcard by a name that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicCheck {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    pub expected: Vec<String>,
    pub got: Vec<String>,
    /// Whether that is the same.
    pub is_expected: bool,
    /// Why nothing was heard.
    pub error: Option<String>,
    /// What may be the cause where something else was heard.
    pub hint: Option<String>,
    /// Who said it, where it is one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// The zone as one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneText {
    /// Lines of a master file (RFC 1035 §5).
    pub zone: String,
}
