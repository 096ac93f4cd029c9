//! What the mesh's DNS answers here.

use innermesh_proto::zone::{DomainName, RecordType};

use crate::{
    control::{
        ControlError,
        dns::{DnsQueryRequest, QueryReport},
    },
    dns::Dns,
    host::resolver::ResolverPlan,
    node::{
        follow::resolver::ResolverKeeper,
        shared::refusals::{invalid, refused},
    },
};

/// Asks as a client would, and says where the answer came from.
///
/// # Errors
/// When name or type make no sense.
pub async fn query(dns: &Dns, request: DnsQueryRequest) -> Result<QueryReport, ControlError> {
    let name: DomainName = request.name.parse().map_err(invalid)?;
    let rtype = request.rtype.to_ascii_uppercase();
    let rtype: RecordType = rtype.parse().map_err(invalid)?;
    Ok(match request.source {
        Some(source) => dns.query_from(source, &name, rtype).await,
        None => dns.query(&name, rtype).await,
    })
}

/// The zone, a record a line.
pub fn zone(dns: &Dns) -> String {
    let zone = dns.zone();
    let mut text = String::new();
    for line in zone.records() {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// What the host's own resolver has to know of this node's.
///
/// # Errors
/// When DNS isn't answered on the port that resolvers ask.
pub fn resolver(keeper: &ResolverKeeper) -> Result<ResolverPlan, ControlError> {
    keeper.plan().ok_or_else(|| {
        refused(
            "names are not answered on port 53 here, the one that this host's resolver can ask; \
             see `agent status`, and `listen` below `[dns]` in the configuration",
        )
    })
}
