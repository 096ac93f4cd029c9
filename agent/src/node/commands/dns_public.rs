//! The mesh's domain in the public DNS: what is to be imported there, and whether the
//! public world says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use innermesh_proto::{
    endpoint,
    view::MeshView,
    zone::{DomainName, Rdata, Record, RecordType, public_zone},
};

use crate::{
    control::{
        ControlError,
        dns::{DnsVerifyRequest, PublicCheck, PublicChecks, PublicZone},
    },
    dns::{Dns, NameServer},
    host::Host,
    node::shared::refusals::{invalid, refused},
};

/// Bytes of a name that nobody has.
const RANDOM_BYTES: usize = 6;

/// What is to be imported at the registrar's DNS.
///
/// # Errors
/// When nobody knows where the sinkhole is.
pub fn zone(view: &MeshView, addresses: &[IpAddr]) -> Result<PublicZone, ControlError> {
    let (sinkhole, records) = records(view, addresses)?;
    let mut zone = String::new();
    for record in &records {
        zone.push_str(&record.to_string());
        zone.push('\n');
    }
    Ok(PublicZone {
        zone,
        addresses: sinkhole.into_iter().collect(),
    })
}

fn records(
    view: &MeshView,
    addresses: &[IpAddr],
) -> Result<(BTreeSet<IpAddr>, Vec<Record>), ControlError> {
    if let Some(inner) = addresses.iter().find(|ip| !endpoint::is_public(**ip)) {
        return Err(invalid(format!(
            "{inner} is no public address: nobody outside reaches the sinkhole there"
        )));
    }
    let sinkhole: BTreeSet<IpAddr> = if addresses.is_empty() {
        view.sinkhole_addresses()
    } else {
        addresses.iter().copied().collect()
    };
    if sinkhole.is_empty() {
        return Err(refused(
            "no node with the role sinkhole announces a public address: run `agent role add NODE \
             sinkhole` for one that has such an address, or give it with --address",
        ));
    }
    let apex = apex(view)?;
    let records = public_zone(&apex, &sinkhole, view.published());
    Ok((sinkhole, records))
}

fn apex(view: &MeshView) -> Result<DomainName, ControlError> {
    view.ledger.domain.as_str().parse().map_err(invalid)
}

/// Asks other name servers for all of it, and for a name that nobody has.
///
/// # Errors
/// When there is nobody to ask, or nobody knows where the sinkhole is.
pub async fn verify(
    host: &Host,
    dns: &Dns,
    view: &MeshView,
    request: DnsVerifyRequest,
) -> Result<PublicChecks, ControlError> {
    let (_, records) = records(view, &request.addresses)?;
    let servers = who_to_ask(dns, request.at)?;
    let apex = apex(view)?;
    let wildcard = apex.child(b"*");
    let mut random = [0; RANDOM_BYTES];
    host.keys.random(&mut random);
    let nobody = apex.child(data_encoding::HEXLOWER.encode(&random).as_bytes());
    let mut sets: BTreeMap<(DomainName, RecordType), Vec<Rdata>> = BTreeMap::new();
    for record in records {
        let key = (record.name, record.data.record_type());
        sets.entry(key).or_default().push(record.data);
    }
    let outside = dns.outside(&servers);
    let mut checks = Vec::new();
    for ((name, rtype), expected) in sets {
        let is_wildcard = Some(&name) == wildcard.as_ref();
        // The wildcard itself may be answered as a name of its own.
        let asked = nobody.as_ref().filter(|_| is_wildcard).unwrap_or(&name);
        let heard = outside.compare(asked, rtype, &expected).await;
        let (got, is_expected, error) = match heard {
            Ok(heard) => (heard.data, heard.is_expected, None),
            Err(error) => (Vec::new(), false, Some(error.to_string())),
        };
        checks.push(PublicCheck {
            name: name.to_string(),
            rtype: rtype.to_string(),
            expected: expected.iter().map(ToString::to_string).collect(),
            hint: hint(&expected, &got, is_expected),
            got,
            is_expected,
            error,
            at: None,
        });
    }
    Ok(PublicChecks {
        servers: servers.iter().map(ToString::to_string).collect(),
        checks,
    })
}

/// The server that a person named, or those that other names are forwarded to.
pub(super) fn who_to_ask(
    dns: &Dns,
    at: Option<SocketAddr>,
) -> Result<Vec<NameServer>, ControlError> {
    let servers = match at {
        Some(server) => vec![server.into()],
        None => dns.upstreams(),
    };
    if servers.is_empty() {
        return Err(refused(
            "this host knows no name server outside the mesh; name one with --at, such as --at 9.9.9.9",
        ));
    }
    Ok(servers)
}

/// What has likely happened where another address answers.
fn hint(expected: &[Rdata], got: &[String], is_expected: bool) -> Option<String> {
    let is_address = matches!(expected.first(), Some(Rdata::A(_) | Rdata::Aaaa(_)));
    let text = "another address answers: the registrar's DNS may put a proxy of its own in front, \
                which sees all that is sent there. Set the record to DNS only";
    (is_address && !is_expected && !got.is_empty()).then(|| text.to_owned())
}
