//! What strangers are told, as a response. Every name goes the same way.

use innermesh_proto::zone::{Rdata, RecordType, StrangerAnswer, StrangerZone};

use super::{
    message::{
        BADVERS, Compression, Message, NOERROR, NOTIMP, REFUSED, SERVFAIL, Section, is_refused,
    },
    question::Question,
};

/// Longest chain of aliases that is followed.
const ALIASES: usize = 8;

/// Answers that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Answer,
    NoData,
    Refused,
    Error,
}

impl Kind {
    pub fn is_data(self) -> bool {
        matches!(self, Self::Answer | Self::NoData)
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct Reply {
    pub kind: Kind,
    pub message: Message,
}

/// What is said to a question on a day; `zone` is none where it isn't known yet.
pub(super) fn answer(zone: Option<&StrangerZone>, question: &Question<'_>, day: u64) -> Reply {
    let error = |kind, rcode| Reply {
        kind,
        message: Message::new(rcode),
    };
    let Some(name) = &question.name else {
        return error(Kind::Error, NOTIMP);
    };
    if question.edns.is_some_and(|edns| edns.version > 0) {
        return error(Kind::Error, BADVERS);
    }
    if !question.is_in || is_refused(question.rtype) {
        return error(Kind::Refused, REFUSED);
    }
    let Some(zone) = zone else {
        return error(Kind::Error, SERVFAIL);
    };
    if !name.is_within(zone.apex()) {
        return error(Kind::Refused, REFUSED);
    }
    let mut message = Message::new(NOERROR);
    message.is_authoritative = true;
    let names = Compression::new(name, zone.apex());
    let mut owner = name;
    let mut kind = Kind::Answer;
    for _ in 0..ALIASES {
        match zone.lookup(owner, question.rtype, day) {
            StrangerAnswer::Alias { ttl_s, target } => {
                let alias = Rdata::Cname(target.clone());
                message.add(Section::Answer, names, owner, (ttl_s, &alias));
                owner = target;
            }
            StrangerAnswer::Records { ttl_s, data } => {
                for data in &*data {
                    message.add(Section::Answer, names, owner, (ttl_s, data));
                }
                break;
            }
            StrangerAnswer::NoData => {
                let soa = zone.soa();
                message.add(Section::Authority, names, &soa.name, (soa.ttl_s, &soa.data));
                kind = Kind::NoData;
                break;
            }
            // The alias leads elsewhere.
            StrangerAnswer::NotOurs => break,
        }
    }
    if question.rtype == RecordType::NS && owner == zone.apex() {
        for (server, addresses) in zone.name_servers() {
            for address in addresses {
                let record = (zone.soa().ttl_s, address);
                message.add(Section::Additional, names, server, record);
            }
        }
    }
    Reply { kind, message }
}
