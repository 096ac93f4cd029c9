//! Between the zone's own types and hickory's.

use hickory_server::proto::rr::{
    Name, RData, Record,
    rdata::{A, AAAA, HINFO, NS, PTR, SOA, SRV},
};
use innermesh_proto::zone::{self, DomainName, Rdata};

/// A name from the wire; `None` for one that DNS doesn't allow.
pub(super) fn domain_name(name: &Name) -> Option<DomainName> {
    DomainName::from_labels(name.iter())
}

/// One record.
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
        Rdata::Srv { port, target } => RData::SRV(SRV::new(0, 0, *port, hickory_name(target))),
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

fn hickory_name(name: &DomainName) -> Name {
    // Both types hold to RFC 1035's lengths, so this conversion doesn't fail.
    Name::from_labels(name.labels()).unwrap_or_else(|_| Name::root())
}

fn seconds(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
