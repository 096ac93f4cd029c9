//! What the zone says to a question, as a reply.

use hickory_server::proto::{
    op::{Query, ResponseCode},
    rr::Record,
};
use innermesh_control::dns::Origin;
use innermesh_proto::zone::{self, AliasEnd, Answer, DomainName, RecordType, Zone};

use super::{
    convert,
    reply::{ExtendedError, Reply},
};

/// What the zone says to a question.
pub(super) struct ZoneAnswer {
    pub reply: Reply,
    /// Where an alias at its end leads out of the mesh.
    pub outside: Option<Outside>,
}

/// A name elsewhere that an alias leads to.
pub(super) struct Outside {
    pub target: DomainName,
    /// Whether a member that is no admin added one of the aliases.
    pub by_member: bool,
}

/// What the zone says; `None` for a name that isn't the mesh's. While `is_behind`
/// says so, a name that it lacks may be there.
pub(super) fn zone_answer(
    zone: &Zone,
    name: &DomainName,
    query: &Query,
    rtype: RecordType,
    is_behind: impl Fn() -> bool,
) -> Option<ZoneAnswer> {
    let missing = |soa| {
        if is_behind() {
            failed(ExtendedError::behind())
        } else {
            negative(ResponseCode::NXDomain, soa)
        }
    };
    let mut outside = None;
    let reply = match zone.lookup(name, rtype) {
        Answer::NotOurs => return None,
        Answer::Records {
            ttl_s,
            data,
            additional,
        } => {
            let mut reply = empty(ResponseCode::NoError);
            reply.answers = data
                .iter()
                .map(|data| Record::from_rdata(query.name().clone(), ttl_s, convert::rdata(data)))
                .collect();
            reply.additionals = additional.iter().map(convert::record).collect();
            reply
        }
        Answer::Alias {
            records,
            end,
            by_member,
        } => {
            let last = match end {
                AliasEnd::Records => empty(ResponseCode::NoError),
                AliasEnd::Outside(target) => {
                    outside = Some(Outside { target, by_member });
                    empty(ResponseCode::NoError)
                }
                AliasEnd::NoData(soa) => negative(ResponseCode::NoError, soa),
                AliasEnd::NxDomain(soa) => missing(soa),
                AliasEnd::ServFail => failed(ExtendedError::loading()),
                AliasEnd::Circle => failed(ExtendedError::circle()),
            };
            with_aliases(last, query, &records)
        }
        Answer::NoData(soa) => negative(ResponseCode::NoError, soa),
        Answer::NxDomain(soa) => missing(soa),
        Answer::ServFail => failed(ExtendedError::loading()),
    };
    Some(ZoneAnswer { reply, outside })
}

/// A failure says nothing of the way there; the first alias is at the name as it
/// was asked for.
fn with_aliases(mut reply: Reply, query: &Query, records: &[zone::Record]) -> Reply {
    if reply.rcode == ResponseCode::ServFail {
        return reply;
    }
    reply.answers = records.iter().map(convert::record).collect();
    if let Some(first) = reply.answers.first_mut() {
        first.name = query.name().clone();
    }
    reply
}

fn empty(rcode: ResponseCode) -> Reply {
    let mut reply = Reply::empty(rcode);
    reply.origin = Origin::Zone;
    reply.authoritative = rcode != ResponseCode::ServFail;
    reply
}

fn negative(rcode: ResponseCode, soa: &zone::Record) -> Reply {
    let mut reply = empty(rcode);
    reply.authorities = vec![convert::record(soa)];
    reply
}

fn failed(error: ExtendedError) -> Reply {
    let mut reply = empty(ResponseCode::ServFail);
    reply.error = Some(error);
    reply
}
