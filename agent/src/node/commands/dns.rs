//! What the mesh's DNS answers here.

use std::net::IpAddr;

use innermesh_proto::{
    id::resolver_v4,
    zone::{DomainName, RecordType, reverse_zones},
};

use crate::{
    control::{ControlError, dns::QueryReport},
    dns::Dns,
    host::resolver::ResolverPlan,
    node::shared::{
        handles::Handles,
        refusals::{invalid, refused},
    },
};

/// The port that resolvers ask.
const PORT: u16 = 53;

/// Asks as a client would, and says where the answer came from.
///
/// # Errors
/// When name or type make no sense.
pub async fn query(dns: &Dns, name: String, rtype: String) -> Result<QueryReport, ControlError> {
    let name: DomainName = name.parse().map_err(invalid)?;
    let rtype: RecordType = rtype.to_ascii_uppercase().parse().map_err(invalid)?;
    Ok(dns.query(&name, rtype).await)
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
pub fn resolver(node: &Handles) -> Result<ResolverPlan, ControlError> {
    let state = node.ledger.state();
    let listen = &node.config.dns_listen;
    let servers: Vec<IpAddr> = if listen.is_empty() {
        vec![
            resolver_v4(state.ipv4).into(),
            state.mesh.resolver_v6().into(),
        ]
    } else {
        let asked = listen.iter().filter(|address| address.port() == PORT);
        asked.map(|address| address.ip()).collect()
    };
    if servers.is_empty() {
        return Err(refused(format!(
            "names are answered on another port than {PORT}, which this host's resolver can't ask; \
             change `listen` below `[dns]` in the configuration"
        )));
    }
    let zones = reverse_zones(state.ipv4, state.mesh.ula());
    Ok(ResolverPlan {
        interface: node.config.interface.clone(),
        servers,
        domain: state.domain.to_string(),
        reverse: zones
            .iter()
            .map(|zone| zone.to_string().trim_end_matches('.').to_string())
            .collect(),
    })
}
