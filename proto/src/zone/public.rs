//! What the public world is told of the mesh's domain, where the registrar's DNS has
//! it: every name leads to the sinkhole, and what users published is beside that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Caa, DomainName, Rdata, Record, RecordType, stranger::Sets};

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
    let (names, others) = public_sets(apex, sinkhole, published);
    let wildcard = apex.child(b"*").map(|name| (name, others));
    // A wildcard that users published says more.
    let wildcard = wildcard.filter(|(name, _)| !names.contains_key(name));
    let mut records = Vec::new();
    for (name, sets) in names.into_iter().chain(wildcard) {
        for (ttl_s, data) in sets.into_values() {
            let name = &name;
            records.extend(data.into_iter().map(|data| Record {
                name: name.clone(),
                ttl_s,
                data,
            }));
        }
    }
    records.sort_by(|a, b| {
        let key = |record: &Record| (record.name != *apex, record.name.clone());
        (key(a), &a.data).cmp(&(key(b), &b.data))
    });
    records
}

/// What names say that have something of their own, and what all others do.
pub(super) fn public_sets(
    apex: &DomainName,
    sinkhole: &BTreeSet<IpAddr>,
    published: Vec<Record>,
) -> (BTreeMap<DomainName, Sets>, Sets) {
    let mut names: BTreeMap<DomainName, Sets> = BTreeMap::new();
    names.insert(apex.clone(), Sets::new());
    for record in published {
        for above in record.name.ancestors_below(Some(apex)) {
            names.entry(above).or_default();
        }
        let sets = names.entry(record.name).or_default();
        add(sets, record.ttl_s, record.data);
    }
    let mut others = Sets::new();
    for ip in sinkhole {
        add(&mut others, PUBLIC_TTL_S, Rdata::address(*ip));
    }
    let leads = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
    for (name, sets) in &mut names {
        // Nobody looks for a host at `_dmarc` or `_acme-challenge`.
        let is_host = name.labels().all(|label| !label.starts_with(b"_"));
        if is_host && leads.iter().all(|rtype| !sets.contains_key(rtype)) {
            sets.extend(others.clone());
        }
    }
    let at_apex = names.entry(apex.clone()).or_default();
    if ![RecordType::CAA, RecordType::CNAME]
        .iter()
        .any(|rtype| at_apex.contains_key(rtype))
    {
        for tag in ["issue", "issuewild"] {
            let nobody = Caa {
                flags: 0,
                tag: tag.to_owned(),
                value: b";".to_vec(),
            };
            add(at_apex, PUBLIC_TTL_S, Rdata::Caa(nobody));
        }
    }
    (names, others)
}

/// Records of one name and type may all be kept alike (RFC 2181 §5.2).
fn add(sets: &mut Sets, ttl_s: u32, data: Rdata) {
    let set = sets
        .entry(data.record_type())
        .or_insert((ttl_s, Vec::new()));
    set.0 = set.0.min(ttl_s);
    if let Err(place) = set.1.binary_search(&data) {
        set.1.insert(place, data);
    }
}
