//! What goes into the query log of an answer, on either path.

use std::{net::IpAddr, time::Duration};

use hickory_server::{net::xfer::Protocol, proto::op::ResponseCode, server::Request};
use innermesh_control::dns::{DnsView, Origin};
use innermesh_proto::zone::RecordType;

use super::{
    convert, prompt::Plain, query_log::LogEntry, reply::Reply, service::Dns, source::Source,
    view::View,
};

/// In the fourth byte of a header.
const RCODE: u8 = 0x0f;

impl Dns {
    /// Notes an answer that was there already: `reply` is its message.
    #[cold]
    pub(super) fn log_prompt(
        &self,
        view: &View,
        message: &[u8],
        source: IpAddr,
        protocol: Protocol,
        reply: &[u8],
    ) {
        let Some(question) = Plain::read(message) else {
            return;
        };
        let (Some(name), Some(flags)) = (question.name(), reply.get(3)) else {
            return;
        };
        let origin = view.of(source).map(|view| {
            if view.zone.is_ours(&name) {
                Origin::Zone
            } else {
                Origin::Cache
            }
        });
        self.log().note(LogEntry {
            client: source.to_canonical(),
            is_udp: protocol == Protocol::Udp,
            name,
            rtype: question.rtype,
            rcode: u16::from(flags & RCODE),
            view: self.view_of(source),
            origin,
            elapsed: Duration::ZERO,
        });
    }

    /// Notes an answer that was made with care.
    #[cold]
    pub(super) fn log_reply(&self, request: &Request, reply: &Reply, elapsed: Duration) {
        let [question] = request.queries.queries() else {
            return;
        };
        let query = question.original();
        let Some(name) = convert::domain_name(query.name()) else {
            return;
        };
        let source = request.src().ip();
        let is_refused = reply.rcode == ResponseCode::Refused;
        self.log().note(LogEntry {
            client: source.to_canonical(),
            is_udp: request.protocol() == Protocol::Udp,
            name,
            rtype: RecordType(query.query_type().into()),
            rcode: reply.rcode.into(),
            view: self.view_of(source),
            origin: (!is_refused).then_some(reply.origin),
            elapsed,
        });
    }

    /// What somebody who asks may see.
    pub(super) fn view_of(&self, source: IpAddr) -> DnsView {
        match self.class(source.to_canonical()) {
            Source::Internal => DnsView::Internal,
            Source::Lan => DnsView::Lan,
            Source::Stranger => DnsView::Stranger,
        }
    }
}
