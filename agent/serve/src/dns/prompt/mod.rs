//! Answers without waiting and without encoding: what nearly every question gets.
//! A question of the usual form is answered from what was encoded before, whatever
//! transport it came by; for each other one the careful path says what is right
//! ([`super::responder`]), and what this one says is what that says, byte for
//! byte.

mod answers;
mod plain;
mod template;

use std::net::IpAddr;

use hickory_server::{
    net::xfer::Protocol,
    proto::{op::Query, rr::Name},
};
use innermesh_proto::zone::DomainName;

use self::answers::ZoneTemplate;
pub(super) use self::{
    answers::Answers,
    plain::{Plain, upstream_flags},
    template::{Template, turning},
};
use super::{
    cache::EncodedAnswer,
    responder::is_refused_type,
    scope::AnswerScope,
    service::Dns,
    view::{View, ZoneView},
    zone_answer::{ZoneAnswer, zone_answer},
};

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// Its answer was written.
    Answered,
    /// The careful path answers it.
    Careful,
}

impl Dns {
    /// Appends the answer to a message of `source` to `out`, if it is there
    /// already.
    pub(super) fn answer_promptly(
        &self,
        view: &View,
        message: &[u8],
        source: IpAddr,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Prompt {
        let begin = out.len();
        let prompt = self.answer_at_once(view, message, source, protocol, out);
        if self.log().is_on() && prompt == Prompt::Answered {
            let reply = out.get(begin..).unwrap_or_default();
            self.log_prompt(view, message, source, protocol, reply);
        }
        prompt
    }

    fn answer_at_once(
        &self,
        view: &View,
        message: &[u8],
        source: IpAddr,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Prompt {
        let Some(mut question) = Plain::read(message) else {
            return Prompt::Careful;
        };
        if is_refused_type(question.rtype) {
            return Prompt::Careful;
        }
        let Some(view) = view.of(source) else {
            template::refuse(&question, out);
            return Prompt::Answered;
        };
        if let Some(cookie) = question.cookie {
            question.answered_cookie = self.cookie_for(cookie, source);
        }
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Some(name) = question.name()
        {
            let rtype = question.rtype;
            tracing::debug!(client = %source, %name, %rtype, "a question");
        }
        if view.may_have(question.lower_name())
            && let Some(prompt) = self.kept(view, &question, protocol, out)
        {
            return prompt;
        }
        match self.cached(view, &question, protocol, out) {
            Some(prompt) => prompt,
            None => self.encoded_now(view, &question, protocol, out),
        }
    }

    /// From the answers of the zone that are encoded; `None` where there is none.
    fn kept(
        &self,
        view: &ZoneView,
        question: &Plain<'_>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Option<Prompt> {
        let answer = |answer: &ZoneTemplate| self.write(answer, question, protocol, out);
        view.answers.read(question.key(), answer)
    }

    fn write(
        &self,
        answer: &ZoneTemplate,
        question: &Plain<'_>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Prompt {
        let isnt_whole = (answer.leads_outside && question.recursion_desired)
            || (answer.unless_behind && self.is_behind());
        let turn = || self.next_turn();
        if !isnt_whole && answer.template.write(question, turn, 0, protocol, out) {
            Prompt::Answered
        } else {
            Prompt::Careful
        }
    }

    /// From the answers of upstream that are encoded.
    fn cached(
        &self,
        view: &ZoneView,
        question: &Plain<'_>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Option<Prompt> {
        if !question.recursion_desired || self.scope() == AnswerScope::Mesh {
            return None;
        }
        let key = question.upstream_key();
        self.forwarder()
            .encoded(key, &view.origins, |template, age_s| {
                let turn = || 0;
                if template.write(question, turn, age_s, protocol, out) {
                    Prompt::Answered
                } else {
                    Prompt::Careful
                }
            })
    }

    /// Encodes the answer, where one is known, and keeps it.
    fn encoded_now(
        &self,
        view: &ZoneView,
        question: &Plain<'_>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Prompt {
        let Some(name) = question.name() else {
            return Prompt::Careful;
        };
        if !view.zone.is_ours(&name) {
            return self.encoded_from_upstream(view, &name, question, protocol, out);
        }
        if self.lists(&name, question.rtype) {
            return Prompt::Careful;
        }
        let Some(answer) = from_zone(view, &name, question) else {
            return Prompt::Careful;
        };
        let prompt = self.write(&answer, question, protocol, out);
        let is_known = view.zone.has(&name) && question.rtype.has_name();
        view.answers.keep(question.key(), answer, is_known);
        prompt
    }

    fn encoded_from_upstream(
        &self,
        view: &ZoneView,
        name: &DomainName,
        question: &Plain<'_>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Prompt {
        if !question.recursion_desired || self.scope() == AnswerScope::Mesh {
            return Prompt::Careful;
        }
        let key = question.upstream_key();
        let Some((heard, age_s)) = self.forwarder().fresh(key) else {
            return Prompt::Careful;
        };
        let (zone, rtype) = (&view.zone, question.rtype);
        let Some(reply) = Self::whole_from_upstream(zone, name, rtype, (*heard).clone()) else {
            return Prompt::Careful;
        };
        let Some(template) = Template::of_upstream(question, reply) else {
            return Prompt::Careful;
        };
        let turn = || 0;
        let is_written = template.write(question, turn, age_s, protocol, out);
        let encoded = EncodedAnswer {
            template,
            origins: view.origins,
        };
        self.forwarder().keep_encoded(key, &heard, encoded);
        if is_written {
            Prompt::Answered
        } else {
            Prompt::Careful
        }
    }
}

/// What the zone says, encoded; `None` for what isn't kept: a failure passes.
fn from_zone(view: &ZoneView, name: &DomainName, question: &Plain<'_>) -> Option<ZoneTemplate> {
    let query = Query::query(
        Name::from_labels(name.labels()).ok()?,
        question.rtype.0.into(),
    );
    let unless_behind = std::cell::Cell::new(false);
    let is_behind = || {
        unless_behind.set(true);
        false
    };
    let ZoneAnswer { reply, outside } =
        zone_answer(&view.zone, name, &query, question.rtype, is_behind)?;
    Some(ZoneTemplate {
        template: Template::of_zone(question, reply)?,
        unless_behind: unless_behind.get(),
        leads_outside: outside.is_some(),
    })
}

#[cfg(test)]
pub(super) mod tests;
