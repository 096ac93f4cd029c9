//! What the mesh's DNS answers here.

use innermesh_proto::zone::{DomainName, RecordType};

use crate::{
    control::{ControlError, dns::QueryReport},
    dns::Dns,
    node::shared::refusals::invalid,
};

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
