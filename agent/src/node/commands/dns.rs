//! What the mesh's DNS answers here.

use std::net::Ipv4Addr;

use innermesh_proto::{
    view::{Candidate, LanView, LeftOut, RecordOwner},
    zone::{DomainName, Record, RecordType},
};

use crate::{
    control::{
        ControlError,
        dns::{DnsQueryRequest, DnsView, LeftOutRow, QueryReport, RecordSource},
    },
    dns::{Asked, Dns},
    host::resolver::ResolverPlan,
    node::{
        follow::resolver::ResolverKeeper,
        shared::{
            handles::Handles,
            in_lan::InLan,
            refusals::{invalid, refused},
        },
    },
};

/// Asks as a client would, and explains the answer.
///
/// # Errors
/// When name or type make no sense.
pub async fn query(
    node: &Handles,
    dns: &Dns,
    in_lan: &InLan,
    request: DnsQueryRequest,
) -> Result<QueryReport, ControlError> {
    let name: DomainName = request.name.parse().map_err(invalid)?;
    let rtype = request.rtype.to_ascii_uppercase();
    let rtype: RecordType = rtype.parse().map_err(invalid)?;
    let source = request.source.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let Asked {
        mut report,
        records,
    } = dns.ask_from(source, &name, rtype).await;
    if report.view == DnsView::Stranger {
        return Ok(report);
    }
    let view = node.view.borrow().clone();
    let addresses = in_lan.addresses(&view);
    let lan = LanView {
        addresses: &addresses,
        nets: &node.config.dns_lan,
    };
    let lan = (report.view == DnsView::Lan).then_some(lan);
    let answers = report.answers.iter().zip(records);
    let (lines, records): (Vec<&String>, Vec<Record>) = answers
        .filter_map(|(line, record)| Some((line, record?)))
        .unzip();
    let explained = view.explain(&name, rtype, &records, lan);
    let owners = lines.into_iter().zip(explained.owners);
    report.sources = owners
        .filter_map(|(line, owner)| Some(source_row(line, &owner?)))
        .collect();
    report.left_out = explained.left_out.iter().map(left_out_row).collect();
    Ok(report)
}

fn source_row(record: &str, owner: &RecordOwner) -> RecordSource {
    let (nodes, service) = match owner {
        RecordOwner::Mesh => (Vec::new(), None),
        RecordOwner::Node(name) | RecordOwner::Device(name) => (vec![name.to_string()], None),
        RecordOwner::Service { service, nodes } => {
            let nodes = nodes.iter().map(|(node, _)| node.to_string());
            (nodes.collect(), Some(service.to_string()))
        }
        RecordOwner::User(node) => (vec![node.clone()], None),
    };
    RecordSource {
        record: record.to_owned(),
        kind: owner.code().to_owned(),
        nodes,
        service,
        text: owner.to_string(),
    }
}

fn left_out_row(left_out: &LeftOut) -> LeftOutRow {
    let LeftOut { what, why } = left_out;
    let (node, service) = match what {
        Candidate::Node(node) => (Some(node.to_string()), None),
        Candidate::Instance { service, node } => {
            (Some(node.to_string()), Some(service.to_string()))
        }
        Candidate::Record { by, .. } => (Some(by.clone()), None),
    };
    LeftOutRow {
        what: what.to_string(),
        node,
        service,
        reason: why.code().to_owned(),
        text: why.to_string(),
    }
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
