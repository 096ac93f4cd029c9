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
use innermesh_control::dns::{DnsView, QueryReport};
use innermesh_proto::zone::{DomainName, RecordType};

use super::{reply::Reply, report::report, responder::Dns, source::Source};

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
        let began = self.clock().now();
        let view = match self.class(source.to_canonical()) {
            Source::Internal => DnsView::Internal,
            Source::Lan => DnsView::Lan,
            Source::Stranger => DnsView::Stranger,
        };
        let reply = self.query_reply(source, name, rtype).await;
        let elapsed = self.clock().now().saturating_sub(began);
        report((name, rtype), view, reply, elapsed)
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
