//! What the public world is told of the mesh's domain, where the registrar's DNS has
//! it: every name leads to the sinkhole, and what users published is beside that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Caa, DomainName, Rdata, Record, RecordType};

/// Seconds for which it may be kept: it changes when the sinkhole moves.
pub const PUBLIC_TTL_S: u32 = 300;

/// The records to be imported there, in canonical order but for the apex's, which come
/// first. No SOA and no name servers are among them, as those are the registrar's.
///
/// A name that has records of its own isn't covered by the wildcard any more (RFC 4592
/// §2.2.1): it is led to the sinkhole too, unless its records say where it leads. No
/// public CA may issue for these names where users published no CAA record (RFC 8659).
pub fn public_zone(
    apex: &DomainName,
    sinkhole: &BTreeSet<IpAddr>,
    published: Vec<Record>,
) -> Vec<Record> {
    let mut names: BTreeMap<DomainName, BTreeSet<RecordType>> = BTreeMap::new();
    names.insert(apex.clone(), BTreeSet::new());
    names.extend(apex.child(b"*").map(|name| (name, BTreeSet::new())));
    for record in &published {
        for above in record.name.ancestors_below(Some(apex)) {
            names.entry(above).or_default();
        }
        let types = names.entry(record.name.clone()).or_default();
        types.insert(record.data.record_type());
    }
    let mut records = Vec::new();
    for (name, types) in &names {
        let leads = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
        // Nobody looks for a host at `_dmarc` or `_acme-challenge`.
        let is_host = name.labels().all(|label| !label.starts_with(b"_"));
        if is_host && leads.iter().all(|rtype| !types.contains(rtype)) {
            records.extend(sinkhole.iter().map(|ip| of(name, Rdata::address(*ip))));
        }
    }
    let at_apex = names.get(apex);
    let has = |rtype| at_apex.is_some_and(|types| types.contains(&rtype));
    if !has(RecordType::CAA) && !has(RecordType::CNAME) {
        for tag in ["issue", "issuewild"] {
            let nobody = Caa {
                flags: 0,
                tag: tag.to_owned(),
                value: b";".to_vec(),
            };
            records.push(of(apex, Rdata::Caa(nobody)));
        }
    }
    records.extend(published);
    records.sort_by(|a, b| {
        let key = |record: &Record| (record.name != *apex, record.name.clone());
        (key(a), &a.data).cmp(&(key(b), &b.data))
    });
    records
}

fn of(name: &DomainName, data: Rdata) -> Record {
    Record {
        name: name.clone(),
        ttl_s: PUBLIC_TTL_S,
        data,
    }
}
