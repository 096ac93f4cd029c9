//! Aliases that lead out of the mesh: the rest of the answer is had from
//! upstream, and from the zone again where it leads back in.

use hickory_server::{
    proto::{
        op::{Query, ResponseCode},
        rr::{RData, Record},
    },
    server::Request,
};
use innermesh_proto::zone::{DomainName, RecordType, Zone};

use super::{
    convert, private,
    reply::{ExtendedError, Reply},
    responder::{Dns, Outside, ZoneAnswer},
};

/// How often an answer may be looked for outside: aliases of the mesh and of
/// the world together can lead in a circle.
const ROUNDS: usize = 4;
/// Aliases of one upstream answer that are followed.
const ALIASES: usize = 16;

impl Dns {
    /// Goes on from `reply`, whose last alias leads to `target`. Where a
    /// member's alias leads out, addresses of local networks are dropped: it
    /// could have a page read what is beside each who opens it.
    pub(super) async fn follow(
        &self,
        request: &Request,
        zone: &Zone,
        mut reply: Reply,
        Outside {
            mut target,
            mut by_member,
        }: Outside,
        rtype: RecordType,
    ) -> Reply {
        for _ in 0..ROUNDS {
            let query = Query::query(convert::hickory_name(&target), rtype.0.into());
            let mut heard = self
                .other_reply(request, target.clone(), &query, rtype)
                .await;
            let received = heard.answers.len();
            if by_member {
                let answers = &mut heard.answers;
                answers.retain(|record| !private::leads(record, &private::is_private));
            }
            if heard.answers.len() < received {
                heard.authentic = false;
                heard.error = Some(ExtendedError::private());
            }
            // The code is that of the last name (RFC 6604 §3).
            reply.rcode = heard.rcode;
            reply.authoritative &= heard.rcode != ResponseCode::ServFail;
            reply.origin = heard.origin;
            reply.error = heard.error;
            let (answers, inside) = until_inside(heard.answers, target, zone);
            reply.answers.extend(answers);
            let Some(inside) = inside else {
                reply.authorities = heard.authorities;
                return reply;
            };
            // Of the mesh's own names upstream knows nothing.
            let query = Query::query(convert::hickory_name(&inside), rtype.0.into());
            let Some(ZoneAnswer {
                reply: last,
                outside,
            }) = self.zone_reply(zone, &inside, &query, rtype)
            else {
                return reply;
            };
            reply.rcode = last.rcode;
            reply.error = last.error;
            reply.answers.extend(last.answers);
            match outside {
                Some(outside) => {
                    target = outside.target;
                    by_member |= outside.by_member;
                }
                None => {
                    reply.authorities = last.authorities;
                    return reply;
                }
            }
        }
        let mut failed = Reply::empty(ResponseCode::ServFail);
        failed.error = Some(ExtendedError::circle());
        failed
    }
}

/// An upstream answer for `name` as far as it isn't about the mesh's names,
/// and the first of those that it leads to.
fn until_inside(
    answers: Vec<Record>,
    mut name: DomainName,
    zone: &Zone,
) -> (Vec<Record>, Option<DomainName>) {
    let mut aliases = Vec::new();
    while aliases.len() < ALIASES {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if convert::domain_name(&record.name).as_ref() == Some(&name) => {
                Some((record, convert::domain_name(&to.0)?))
            }
            _ => None,
        });
        let Some((record, to)) = alias else { break };
        aliases.push(record.clone());
        if zone.is_ours(&to) {
            return (aliases, Some(to));
        }
        name = to;
    }
    (answers, None)
}
