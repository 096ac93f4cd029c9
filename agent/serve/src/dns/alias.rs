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
    service::Dns,
    zone_answer::{Outside, ZoneAnswer},
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
        mut outside: Outside,
        rtype: RecordType,
    ) -> Reply {
        for _ in 0..ROUNDS {
            let query = Query::query(convert::hickory_name(&outside.target), rtype.0.into());
            let mut heard = self
                .other_reply(request, outside.target.clone(), &query, rtype)
                .await;
            if outside.by_member {
                drop_private(&mut heard);
            }
            // The code is that of the last name (RFC 6604 §3).
            reply.rcode = heard.rcode;
            reply.authoritative &= heard.rcode != ResponseCode::ServFail;
            reply.origin = heard.origin;
            reply.error = heard.error;
            let (answers, inside) = until_inside(heard.answers, outside.target, zone);
            reply.answers.extend(answers);
            let Some(inside) = inside else {
                reply.authorities = heard.authorities;
                return reply;
            };
            match self.inside(zone, &mut reply, &inside, rtype) {
                Some(next) => {
                    let by_member = outside.by_member | next.by_member;
                    outside = Outside { by_member, ..next };
                }
                None => return reply,
            }
        }
        failed(ExtendedError::circle())
    }

    /// Goes on where what upstream said of `name` leads to a name of the mesh: of
    /// those upstream knows nothing.
    pub(super) async fn continue_inside(
        &self,
        request: &Request,
        zone: &Zone,
        mut reply: Reply,
        name: DomainName,
        rtype: RecordType,
    ) -> Reply {
        if rtype == RecordType::CNAME {
            return reply;
        }
        let (answers, inside) = until_inside(std::mem::take(&mut reply.answers), name, zone);
        reply.answers = answers;
        let Some(inside) = inside else {
            return reply;
        };
        // Upstream vouched for its own part, and not for what it lacked.
        reply.authentic = false;
        match self.inside(zone, &mut reply, &inside, rtype) {
            Some(outside) => self.follow(request, zone, reply, outside, rtype).await,
            None => reply,
        }
    }

    /// Adds what the zone says of a name to a reply that leads to it, and tells
    /// where that leads out again.
    fn inside(
        &self,
        zone: &Zone,
        reply: &mut Reply,
        name: &DomainName,
        rtype: RecordType,
    ) -> Option<Outside> {
        let query = Query::query(convert::hickory_name(name), rtype.0.into());
        let ZoneAnswer {
            reply: last,
            outside,
        } = self.zone_reply(zone, name, &query, rtype)?;
        if last.rcode == ResponseCode::ServFail {
            *reply = last;
            reply.authoritative = false;
            return None;
        }
        reply.rcode = last.rcode;
        reply.error = last.error;
        reply.authorities = last.authorities;
        reply.answers.extend(last.answers);
        outside
    }
}

/// Takes addresses of local networks out.
fn drop_private(heard: &mut Reply) {
    let received = heard.answers.len();
    let answers = &mut heard.answers;
    answers.retain(|record| !private::leads(record, &private::is_private));
    if heard.answers.len() < received {
        heard.authentic = false;
        heard.error = Some(ExtendedError::private());
    }
}

fn failed(error: ExtendedError) -> Reply {
    let mut failed = Reply::empty(ResponseCode::ServFail);
    failed.error = Some(error);
    failed
}

/// Whether an upstream answer for `name` leads to a name of the mesh.
pub(super) fn leads_inside(answers: &[Record], name: &DomainName, zone: &Zone) -> bool {
    aliases(answers, name.clone(), zone).1.is_some()
}

/// An upstream answer for `name` as far as it isn't about the mesh's names,
/// and the first of those that it leads to.
fn until_inside(
    answers: Vec<Record>,
    name: DomainName,
    zone: &Zone,
) -> (Vec<Record>, Option<DomainName>) {
    match aliases(&answers, name, zone) {
        (aliases, Some(inside)) => (aliases, Some(inside)),
        (_, None) => (answers, None),
    }
}

/// The aliases of an answer that follow each other from `name` on, as far as one
/// that leads to a name of the mesh, and that name.
fn aliases(
    answers: &[Record],
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
    (aliases, None)
}
