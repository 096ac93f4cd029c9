//! Questions without a socket: what somebody would be answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_server::{
    net::xfer::Protocol,
    proto::{
        op::{DnsRequest, DnsRequestOptions, Query, ResponseCode},
        rr::Name,
    },
    server::Request,
};
use innermesh_control::dns::{Origin, QueryReport, QueryRoute, RouteKind};
use innermesh_proto::zone::{self, Answer, DomainName, RecordType, Zone};

use super::{
    convert,
    reply::Reply,
    report::{line, report},
    scope::AnswerScope,
    service::Dns,
    special::special,
};

/// An answer, and which of its records the mesh's zone has.
#[derive(Debug)]
pub struct Asked {
    /// The answer, for a person.
    pub report: QueryReport,
    /// Of each of its answers.
    pub records: Vec<Option<zone::Record>>,
}

impl Dns {
    /// Answers a question as a process of this host would be answered over a
    /// socket.
    pub async fn query(&self, name: &DomainName, rtype: RecordType) -> QueryReport {
        let here = Ipv4Addr::LOCALHOST.into();
        self.query_from(here, name, rtype).await
    }

    /// As [`Dns::query`], as `source` would be answered.
    pub async fn query_from(
        &self,
        source: IpAddr,
        name: &DomainName,
        rtype: RecordType,
    ) -> QueryReport {
        self.ask_from(source, name, rtype).await.report
    }

    /// As [`Dns::query_from`], with what is to be known of the answer.
    pub async fn ask_from(&self, source: IpAddr, name: &DomainName, rtype: RecordType) -> Asked {
        let began = self.clock().now();
        let view = self.view_of(source);
        let reply = self.query_reply(source, name, rtype).await;
        let elapsed = self.clock().now().saturating_sub(began);
        let origin = reply.origin;
        let mut report = report((name, rtype), view, reply, elapsed);
        let seen = self.view();
        let Some(zone) = seen.of(source).map(|view| &view.zone) else {
            let records = vec![None; report.answers.len()];
            return Asked { report, records };
        };
        report.route = self.route(zone, name, rtype, origin);
        let mut known = zone_records(zone, name, rtype);
        let records = report.answers.iter().map(|answer| {
            let place = known.iter().position(|(line, _)| line == answer)?;
            Some(known.swap_remove(place).1)
        });
        let records = records.collect();
        Asked { report, records }
    }

    /// Who is to know a name, where the answer to it came from `origin`.
    fn route(
        &self,
        zone: &Zone,
        name: &DomainName,
        rtype: RecordType,
        origin: Origin,
    ) -> QueryRoute {
        let (rule, servers) = self.forwarder().route(name);
        let servers = servers.iter().map(ToString::to_string).collect();
        let is_alias = || matches!(zone.lookup(name, rtype), Answer::Alias { .. });
        let of_mesh = zone.origins().find(|origin| name.is_within(origin));
        if let Some(of_mesh) = of_mesh {
            let is_left = origin != Origin::Zone && self.lists(name, rtype) && !is_alias();
            return QueryRoute {
                kind: if is_left {
                    RouteKind::FallThrough
                } else {
                    RouteKind::Zone
                },
                zone: Some(of_mesh.to_string()),
                servers: if is_left { servers } else { Vec::new() },
            };
        }
        let (kind, servers) = match rule {
            _ if self.scope() == AnswerScope::Mesh => (RouteKind::None, Vec::new()),
            Some(_) => (RouteKind::Forward, servers),
            None if special(name, rtype).is_some() => (RouteKind::Special, Vec::new()),
            None => (RouteKind::Upstream, servers),
        };
        let zone = rule.map(|zone| zone.to_string());
        QueryRoute {
            kind,
            zone,
            servers,
        }
    }

    async fn query_reply(&self, source: IpAddr, name: &DomainName, rtype: RecordType) -> Reply {
        let form_error = || Reply::empty(ResponseCode::FormErr);
        let Ok(name) = Name::from_labels(name.labels()) else {
            return form_error();
        };
        let query = Query::query(name, rtype.0.into());
        let request = DnsRequest::from_query(query, DnsRequestOptions::default());
        let source = SocketAddr::new(source, 53);
        let request = request
            .to_vec()
            .and_then(|bytes| Request::from_bytes(bytes, source, Protocol::Tcp));
        match request {
            Ok(request) => self.respond(&request).await,
            Err(_) => form_error(),
        }
    }
}

/// What a zone has for a question, as lines and as it is.
fn zone_records(zone: &Zone, name: &DomainName, rtype: RecordType) -> Vec<(String, zone::Record)> {
    let records = match zone.lookup(name, rtype) {
        Answer::Records { ttl_s, data, .. } => {
            let of = |data: &zone::Rdata| zone::Record {
                name: name.clone(),
                ttl_s,
                data: data.clone(),
            };
            data.iter().map(of).collect()
        }
        Answer::Alias { records, .. } => records,
        _ => Vec::new(),
    };
    let records = records.into_iter();
    records
        .map(|record| (line(&convert::record(&record)), record))
        .collect()
}
