//! A reply in words, for a person.

use hickory_server::proto::{
    op::ResponseCode,
    rr::{RData, Record},
    serialize::binary::{BinDecodable, BinEncodable},
};
use innermesh_control::dns::{DnsView, QueryReport, QueryRoute};
use innermesh_host::Mono;
use innermesh_proto::zone::{DomainName, RecordType};

use super::reply::Reply;

/// What a reply says.
pub(super) fn report(
    (name, rtype): (&DomainName, RecordType),
    view: DnsView,
    reply: Reply,
    elapsed: Mono,
) -> QueryReport {
    let lines = |records: &[Record]| records.iter().map(line).collect();
    QueryReport {
        name: name.to_string(),
        rtype: rtype.to_string(),
        view,
        rcode: mnemonic(reply.rcode),
        origin: reply.origin,
        answers: lines(&reply.answers),
        authorities: lines(&reply.authorities),
        additionals: lines(&reply.additionals),
        error: reply.error.map(|error| error.text().to_string()),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        route: QueryRoute::default(),
        sources: Vec::new(),
        left_out: Vec::new(),
    }
}

/// What is served as the bytes that the zone has is read first.
pub(super) fn line(record: &Record) -> String {
    let read = match &record.data {
        RData::Unknown { .. } => record.to_bytes().ok(),
        _ => None,
    };
    match read.and_then(|bytes| Record::from_bytes(&bytes).ok()) {
        Some(read) => read.to_string(),
        None => record.to_string(),
    }
}

/// A response code as dig and everybody else write it.
pub(super) fn mnemonic(rcode: ResponseCode) -> String {
    match rcode {
        ResponseCode::NoError => "NOERROR".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        other => format!("RCODE{}", u16::from(other)),
    }
}
