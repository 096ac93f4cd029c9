//! Where aliases lead (RFC 1034 §3.6.2), and what is there.

use super::{Answer, DomainName, Rdata, Record, RecordType, RrSet, Zone};

/// Aliases that are followed one after the other.
pub(super) const ALIASES: usize = 8;

/// What is where the last alias of an answer leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AliasEnd<'z> {
    /// Records of the type that was asked for.
    Records,
    /// A name outside of the mesh: to be resolved elsewhere.
    Outside(DomainName),
    /// A name without that type. The SOA goes with it (RFC 2308 §2.2).
    NoData(&'z Record),
    /// No name. The SOA goes with it (RFC 6604 §3, RFC 2308 §2.1).
    NxDomain(&'z Record),
    /// It can't be told yet.
    ServFail,
    /// A name before it, or another alias after too many.
    Circle,
}

/// What is at a name.
pub(super) enum Found<'z> {
    Alias(&'z RrSet),
    Answer(Answer<'z>),
}

impl Zone {
    /// Goes on where an alias leads, for as long as that is in the mesh.
    pub(super) fn follow(&self, name: &DomainName, alias: &RrSet, rtype: RecordType) -> Answer<'_> {
        let mut records: Vec<Record> = Vec::new();
        let mut by_member = false;
        let (mut name, mut alias) = (name.clone(), alias);
        let end = loop {
            let Some(Rdata::Cname(target)) = alias.data.first() else {
                break AliasEnd::ServFail;
            };
            by_member |= alias.by_member;
            records.push(Record {
                name,
                ttl_s: alias.ttl_s,
                data: Rdata::Cname(target.clone()),
            });
            let is_circle = records.iter().any(|record| record.name == *target);
            if is_circle || records.len() > ALIASES {
                break AliasEnd::Circle;
            }
            name = target.clone();
            alias = match self.find_at(&name, rtype) {
                Found::Alias(next) => next,
                Found::Answer(answer) => break end(answer, name, &mut records),
            };
        };
        Answer::Alias {
            records,
            end,
            by_member,
        }
    }
}

/// Takes in what is at the name that the last alias leads to.
fn end<'z>(answer: Answer<'z>, name: DomainName, records: &mut Vec<Record>) -> AliasEnd<'z> {
    match answer {
        Answer::Records { ttl_s, data, .. } => {
            records.extend(data.iter().map(|data| Record {
                name: name.clone(),
                ttl_s,
                data: data.clone(),
            }));
            AliasEnd::Records
        }
        Answer::NoData(soa) => AliasEnd::NoData(soa),
        Answer::NxDomain(soa) => AliasEnd::NxDomain(soa),
        Answer::NotOurs => AliasEnd::Outside(name),
        Answer::ServFail | Answer::Alias { .. } => AliasEnd::ServFail,
    }
}
