//! Between the zone's own types and hickory's.

#![allow(missing_docs, reason = "the names say it")]

use hickory_server::proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, HINFO, MX, NS, NULL, PTR, SOA, SRV, TXT},
};
use innermesh_proto::zone::{self, Caa, DomainName, Rdata};

/// A name from the wire; `None` for one that DNS doesn't allow.
pub(super) fn domain_name(name: &Name) -> Option<DomainName> {
    DomainName::from_labels(name.iter())
}

pub(super) fn record(record: &zone::Record) -> Record {
    Record::from_rdata(
        hickory_name(&record.name),
        record.ttl_s,
        rdata(&record.data),
    )
}

/// The data of a record.
pub(super) fn rdata(data: &Rdata) -> RData {
    match data {
        Rdata::A(address) => RData::A(A(*address)),
        Rdata::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Rdata::Ns(name) => RData::NS(NS(hickory_name(name))),
        Rdata::Ptr(name) => RData::PTR(PTR(hickory_name(name))),
        Rdata::Cname(name) => RData::CNAME(CNAME(hickory_name(name))),
        Rdata::Txt(strings) => {
            RData::TXT(TXT::from_bytes(strings.iter().map(Vec::as_slice).collect()))
        }
        Rdata::Mx(mx) => RData::MX(MX::new(mx.preference, hickory_name(&mx.exchange))),
        Rdata::Caa(caa) => wire_caa(caa),
        Rdata::Srv(srv) => RData::SRV(SRV::new(
            srv.priority,
            srv.weight,
            srv.port,
            hickory_name(&srv.target),
        )),
        Rdata::Svcb(svcb) => wire(RecordType::SVCB, svcb.to_wire()),
        Rdata::Https(svcb) => wire(RecordType::HTTPS, svcb.to_wire()),
        Rdata::Sshfp(sshfp) => wire(RecordType::SSHFP, sshfp.to_wire()),
        Rdata::Tlsa(tlsa) => wire(RecordType::TLSA, tlsa.to_wire()),
        Rdata::Soa(soa) => RData::SOA(SOA::new(
            hickory_name(&soa.primary),
            hickory_name(&soa.mailbox),
            soa.serial,
            seconds(soa.refresh_s),
            seconds(soa.retry_s),
            seconds(soa.expire_s),
            soa.minimum_s,
        )),
        Rdata::Hinfo => RData::HINFO(HINFO::new("RFC8482".into(), String::new())),
    }
}

/// As its wire form (RFC 8659 §4.1): whatever tag the ledger took is served.
fn wire_caa(caa: &Caa) -> RData {
    let Caa { flags, tag, value } = caa;
    // A tag has at most 15 octets.
    let length = u8::try_from(tag.len()).unwrap_or(u8::MAX);
    wire(
        RecordType::CAA,
        [&[*flags, length], tag.as_bytes(), value].concat(),
    )
}

/// Data as its bytes: what the ledger took is served.
fn wire(code: RecordType, bytes: Vec<u8>) -> RData {
    RData::Unknown {
        code,
        rdata: NULL::with(bytes),
    }
}

/// A name for the wire.
pub(super) fn hickory_name(name: &DomainName) -> Name {
    // Both types hold to RFC 1035's lengths, so this conversion doesn't fail.
    Name::from_labels(name.labels()).unwrap_or_else(|_| Name::root())
}

fn seconds(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
