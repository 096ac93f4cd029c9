//! From a request to its reply: who asks, whose name it is, and what is said.

use hickory_server::{
    proto::{
        op::{OpCode, Query, ResponseCode},
        rr::{DNSClass, Record},
    },
    server::Request,
};
use innermesh_control::dns::Origin;
use innermesh_proto::zone::{self, DomainName, RecordType, Zone};

use super::{
    alias::leads_inside,
    cache::{Key, UpstreamAnswer},
    convert, cookies,
    prompt::turning,
    reply::Reply,
    scope::AnswerScope,
    service::Dns,
    special::{Special, special},
    upstream::Question,
    view::ZoneView,
    zone_answer::{ZoneAnswer, zone_answer},
};

/// Types that are transactions or metadata and no data (RFC 6895 §3.1).
const META_TYPES: std::ops::RangeInclusive<u16> = 128..=254;
const OPT: u16 = 41;

impl Dns {
    /// The reply to a request.
    pub(super) async fn respond(&self, request: &Request) -> Reply {
        let began = self.log().is_on().then(|| self.clock().now());
        let mut reply = self.reply(request).await;
        if self.view().of(request.src().ip()).is_some() {
            reply.cookie = self.cookie_of(request);
        }
        if let Some(began) = began {
            let elapsed = self.clock().now().saturating_sub(began);
            self.log_reply(request, &reply, elapsed);
        }
        reply
    }

    async fn reply(&self, request: &Request) -> Reply {
        let view = self.view();
        let source = request.src().ip().to_canonical();
        let Some(ZoneView { zone, .. }) = view.of(source) else {
            return refusal();
        };
        if request.metadata.op_code != OpCode::Query {
            return Reply::empty(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Reply::empty(ResponseCode::BADVERS);
        }
        if cookies::is_malformed(request) {
            return Reply::empty(ResponseCode::FormErr);
        }
        let [question] = request.queries.queries() else {
            return Reply::empty(ResponseCode::FormErr);
        };
        let query = question.original();
        let rtype = RecordType(query.query_type().into());
        let Some(name) = convert::domain_name(query.name()) else {
            return Reply::empty(ResponseCode::FormErr);
        };
        if query.query_class() != DNSClass::IN || is_refused_type(rtype) {
            return Reply::empty(ResponseCode::Refused);
        }
        tracing::debug!(client = %source, %name, %rtype, "a question");
        match self.zone_reply(zone, &name, query, rtype) {
            None if self.scope() == AnswerScope::Mesh => refusal(),
            None => {
                let reply = self.other_reply(request, name.clone(), query, rtype).await;
                self.continue_inside(request, zone, reply, name, rtype)
                    .await
            }
            Some(ZoneAnswer { reply, .. }) if self.leaves(request, (&name, rtype), &reply) => {
                let reply = self.forwarded(request, name.clone(), query, rtype).await;
                self.continue_inside(request, zone, reply, name, rtype)
                    .await
            }
            Some(ZoneAnswer {
                reply,
                outside: Some(target),
            }) if request.metadata.recursion_desired => {
                self.follow(request, zone, reply, target, rtype).await
            }
            Some(ZoneAnswer { reply, .. }) => reply,
        }
    }

    /// Whether a name of the mesh's domain is left to the public DNS.
    fn leaves(
        &self,
        request: &Request,
        (name, rtype): (&DomainName, RecordType),
        reply: &Reply,
    ) -> bool {
        request.metadata.recursion_desired
            && self.lists(name, rtype)
            && self
                .fall_through()
                .is_some_and(|rules| rules.leaves(name, reply))
    }

    /// What the zone says; `None` for a name that isn't the mesh's.
    pub(super) fn zone_reply(
        &self,
        zone: &Zone,
        name: &DomainName,
        query: &Query,
        rtype: RecordType,
    ) -> Option<ZoneAnswer> {
        let mut answer = zone_answer(zone, name, query, rtype, || self.is_behind())?;
        self.rotate(&mut answer.reply.answers, rtype);
        Some(answer)
    }

    /// What is said to a name that isn't the mesh's.
    pub(super) async fn other_reply(
        &self,
        request: &Request,
        name: DomainName,
        query: &Query,
        rtype: RecordType,
    ) -> Reply {
        let special = special(&name, rtype).filter(|rule| {
            // The names of a Windows domain may end in .local.
            !matches!(rule, Special::NxDomain(_)) || !self.forwarder().has_rule(&name)
        });
        match special {
            Some(Special::Record(data)) => {
                let mut reply = Reply::empty(ResponseCode::NoError);
                let record = Record::from_rdata(query.name().clone(), 3600, convert::rdata(&data));
                reply.answers = vec![record];
                return reply;
            }
            Some(Special::NoData(soa)) => return negative(ResponseCode::NoError, &soa),
            Some(Special::NxDomain(soa)) => return negative(ResponseCode::NXDomain, &soa),
            None => {}
        }
        // Nobody here is an authority for it, and recursion isn't wanted.
        if !request.metadata.recursion_desired {
            return Reply::empty(ResponseCode::Refused);
        }
        if rtype == RecordType::ANY {
            let mut reply = Reply::empty(ResponseCode::NoError);
            let minimal = convert::rdata(&innermesh_proto::zone::Rdata::Hinfo);
            reply.answers = vec![Record::from_rdata(query.name().clone(), 3600, minimal)];
            return reply;
        }
        self.forwarded(request, name, query, rtype).await
    }

    /// What upstream says of a name.
    async fn forwarded(
        &self,
        request: &Request,
        name: DomainName,
        query: &Query,
        rtype: RecordType,
    ) -> Reply {
        let dnssec_ok = request
            .edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok);
        let checking_disabled = request.metadata.checking_disabled;
        let key = Key {
            name,
            rtype,
            dnssec_ok,
            checking_disabled,
        };
        let question = Question {
            query: query.clone(),
            dnssec_ok,
            checking_disabled,
        };
        let source = request.src().ip().to_canonical();
        let (heard, origin) = self.forwarder().forward(source, key, question).await;
        let is_authentic_asked = dnssec_ok || request.metadata.authentic_data;
        let mut reply = from_upstream(heard, origin);
        // Who didn't ask for it isn't told (RFC 6840 §5.8).
        reply.authentic &= is_authentic_asked;
        reply
    }

    /// What is said to a name that isn't the mesh's where all of it came from
    /// upstream; `None` where that failed, or leads to a name of the mesh.
    pub(super) fn whole_from_upstream(
        zone: &Zone,
        name: &DomainName,
        rtype: RecordType,
        heard: UpstreamAnswer,
    ) -> Option<Reply> {
        let reply = from_upstream(heard, Origin::Cache);
        let is_whole = reply.error.is_none()
            && (rtype == RecordType::CNAME || !leads_inside(&reply.answers, name, zone));
        is_whole.then_some(reply)
    }

    /// Puts another record first each time: clients that take the first one
    /// then share the instances of a service. Aliases stay in front.
    fn rotate(&self, answers: &mut [Record], rtype: RecordType) {
        let records = turning(answers, rtype.0);
        if let turns @ 2.. = records.len() {
            records.rotate_left(self.next_turn() % turns);
        }
    }
}

/// Whether a type is one that nobody has data of.
pub(super) fn is_refused_type(rtype: RecordType) -> bool {
    META_TYPES.contains(&rtype.0) || rtype.0 == OPT
}

fn from_upstream(heard: UpstreamAnswer, origin: Origin) -> Reply {
    let mut reply = Reply::empty(heard.rcode);
    reply.authentic = heard.authentic;
    reply.answers = heard.answers;
    reply.authorities = heard.authorities;
    reply.error = heard.error;
    reply.origin = origin;
    reply
}

/// What is said to whom nothing is answered.
pub(super) fn refusal() -> Reply {
    let mut refused = Reply::empty(ResponseCode::Refused);
    refused.recursion_available = false;
    refused
}

fn negative(rcode: ResponseCode, soa: &zone::Record) -> Reply {
    let mut reply = Reply::empty(rcode);
    reply.authorities = vec![convert::record(soa)];
    reply
}
