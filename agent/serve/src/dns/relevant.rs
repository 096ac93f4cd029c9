//! What of an upstream answer is about the question (RFC 2181 §5.4.1): the
//! aliases from the name that was asked for, the records they lead to, and for
//! what doesn't exist the SOA of the zone that says so. All else is dropped: a
//! client could take it for the answer to another question.

use hickory_server::proto::{
    op::Message,
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::upstream::Question;

/// Aliases of one answer that are followed.
const ALIASES: usize = 16;
/// The type of an alias for all names below one (RFC 6672).
const DNAME: u16 = 39;
/// Types by which a validating client knows that something doesn't exist
/// (RFC 4034, RFC 5155).
const DENIAL: [u16; 2] = [47, 50];
/// Where the signer's name begins in the data of an RRSIG (RFC 4034 §3.1).
const SIGNER: usize = 18;

/// As bytes, what is kept of an upstream's message, as the answer to a client
/// that checks signatures and asked the first of the message's own questions.
/// `None` for what is no message or asks nothing.
pub fn relevant(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(bytes).ok()?;
    let question = Question {
        query: message.queries.first()?.clone(),
        dnssec_ok: true,
        checking_disabled: false,
    };
    keep(&mut message, &question);
    message.to_vec().ok()
}

/// Drops what isn't about the question. False when the answer section had
/// records, and all of them were about something else.
pub(super) fn keep(message: &mut Message, question: &Question) -> bool {
    let received = message.answers.len();
    let rtype = question.query.query_type();
    let names = chain(&message.answers, question.query.name(), rtype);
    message
        .answers
        .retain(|record| is_in(record) && answers(record, &names, rtype));
    message.additionals.clear();
    let last = names.last().cloned().unwrap_or_else(Name::root);
    let found = message
        .answers
        .iter()
        .any(|record| record.record_type() == rtype && record.name == last);
    let zone = denied_by(&message.authorities, &last).filter(|_| !found);
    // A wildcard's answer comes with proof that nothing stands nearer.
    let signed_by = || message.answers.iter().find_map(signer);
    let proofs = zone.clone().or_else(signed_by);
    let mut has_soa = false;
    message.authorities.retain(|record| {
        if record.dns_class != DNSClass::IN {
            return false;
        }
        if record.record_type() == RecordType::SOA {
            let kept = !has_soa && Some(&record.name) == zone.as_ref();
            has_soa |= kept;
            return kept;
        }
        let proves = DENIAL.contains(&covered(record).unwrap_or(record.record_type().into()))
            || covered(record) == Some(RecordType::SOA.into()) && zone.is_some();
        question.dnssec_ok
            && proves
            && proofs
                .as_ref()
                .is_some_and(|zone| zone.zone_of(&record.name))
    });
    let asked = question.query.name();
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        unmix(&mut record.name, asked);
        match &mut record.data {
            RData::CNAME(to) => unmix(&mut to.0, asked),
            RData::NS(to) => unmix_end(&mut to.0, asked),
            RData::PTR(to) => unmix_end(&mut to.0, asked),
            RData::MX(mx) => unmix_end(&mut mx.exchange, asked),
            RData::SRV(srv) => unmix_end(&mut srv.target, asked),
            RData::SOA(soa) => {
                unmix_end(&mut soa.mname, asked);
                unmix_end(&mut soa.rname, asked);
            }
            _ => {}
        }
    }
    received == 0 || !message.answers.is_empty()
}

/// Takes back the case that the question was asked in: a server's compressed
/// names have it as well.
fn unmix(name: &mut Name, asked: &Name) {
    *name = if name == asked {
        asked.clone()
    } else {
        name.to_lowercase()
    };
}

/// As [`unmix`], of a name in the data, as far as its end is that of the question:
/// what is before that is as the server has it.
fn unmix_end(name: &mut Name, asked: &Name) {
    let mut labels: Vec<Vec<u8>> = name.iter().map(<[u8]>::to_vec).collect();
    let ends = labels.iter_mut().rev().zip(asked.iter().rev());
    for (label, of_asked) in ends.take_while(|(label, end)| label.eq_ignore_ascii_case(end)) {
        label.copy_from_slice(&of_asked.to_ascii_lowercase());
    }
    if let Ok(unmixed) = Name::from_labels(labels.iter().map(Vec::as_slice)) {
        *name = unmixed;
    }
}

/// The name that was asked for and those that its aliases lead to, in order.
fn chain(answers: &[Record], name: &Name, rtype: RecordType) -> Vec<Name> {
    let mut names = vec![name.clone()];
    if rtype == RecordType::CNAME {
        return names;
    }
    let mut name = name;
    while names.len() <= ALIASES {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if record.name == *name && is_in(record) => Some(&to.0),
            _ => None,
        });
        match next {
            Some(next) if !names.contains(next) => {
                names.push(next.clone());
                name = next;
            }
            _ => break,
        }
    }
    names
}

/// Whether the aliases of a name lead to one of themselves.
pub(super) fn is_circle(answers: &[Record], name: &Name) -> bool {
    let mut names = vec![name.clone()];
    while names.len() <= ALIASES {
        let last = names.last().unwrap_or(name);
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if record.name == *last && is_in(record) => Some(to.0.clone()),
            _ => None,
        });
        match next {
            Some(next) if names.contains(&next) => return true,
            Some(next) => names.push(next),
            None => return false,
        }
    }
    false
}

fn is_in(record: &Record) -> bool {
    record.dns_class == DNSClass::IN
}

/// Whether a record is an alias of the chain, of the type asked for at its
/// end, or the signature of such a one.
fn answers(record: &Record, names: &[Name], rtype: RecordType) -> bool {
    let is = covered(record).unwrap_or(record.record_type().into());
    let Some((last, aliases)) = names.split_last() else {
        return false;
    };
    let is_alias = is == u16::from(RecordType::CNAME) && aliases.contains(&record.name);
    // RRSIG itself may be what is asked for.
    let at_end = record.name == *last && (is == u16::from(rtype) || record.record_type() == rtype);
    // The alias that it makes follows it and has a name of the chain.
    let above = is == DNAME && aliases.iter().any(|name| record.name.zone_of(name));
    is_alias || at_end || above
}

/// The zone that says that `name` doesn't exist, or not with that type: the
/// nearest one above it (RFC 2308 §2).
fn denied_by(authorities: &[Record], name: &Name) -> Option<Name> {
    let soas = authorities.iter().filter(|record| {
        record.record_type() == RecordType::SOA
            && record.dns_class == DNSClass::IN
            && record.name.zone_of(name)
    });
    let nearest = soas.max_by_key(|record| record.name.num_labels());
    nearest.map(|record| record.name.clone())
}

/// The data of an RRSIG.
fn signature(record: &Record) -> Option<&[u8]> {
    match &record.data {
        RData::Unknown { code, rdata } if *code == RecordType::RRSIG => Some(&rdata.anything),
        _ => None,
    }
}

/// The type that an RRSIG signs.
fn covered(record: &Record) -> Option<u16> {
    let bytes = signature(record)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// The zone whose key made an RRSIG; its name is never compressed
/// (RFC 4034 §3.1.7).
fn signer(record: &Record) -> Option<Name> {
    let mut rest = signature(record)?.get(SIGNER..)?;
    let mut labels: Vec<&[u8]> = Vec::new();
    loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            break;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(label);
        rest = after;
    }
    let name = Name::from_labels(labels).ok()?;
    name.zone_of(&record.name).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_server::proto::{
        op::{MessageType, OpCode, Query},
        rr::rdata::{A, CNAME, NS, NULL, SOA},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn a(owner: &str, last: u8) -> Record {
        Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, last)))
    }

    fn cname(owner: &str, to: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(to))))
    }

    fn soa(owner: &str) -> Record {
        let soa = SOA::new(name(owner), name(owner), 1, 1, 1, 1, 20);
        Record::from_rdata(name(owner), 60, RData::SOA(soa))
    }

    #[test]
    fn names_in_the_data_have_no_case_of_the_question() {
        // Read as it stands: other ways fold it.
        let mixed = |text| Name::from_ascii(text).unwrap();
        let asked = mixed("X.eXaMple.oRg.");
        for (text, unmixed) in [
            ("Ns.eXaMple.oRg.", "Ns.example.org."),
            ("X.eXaMple.oRg.", "x.example.org."),
            ("Mail.Other.oRg.", "Mail.Other.org."),
            ("Mail.Other.NET.", "Mail.Other.NET."),
            (".", "."),
        ] {
            let mut name = mixed(text);
            unmix_end(&mut name, &asked);
            assert_eq!(name.to_string(), unmixed);
        }
    }

    fn other(owner: &str, code: u16, data: &[u8]) -> Record {
        let rdata = NULL::with(data.to_vec());
        let code = code.into();
        Record::from_rdata(name(owner), 60, RData::Unknown { code, rdata })
    }

    fn rrsig(owner: &str, covers: u16, signer: &[u8]) -> Record {
        let data = [&covers.to_be_bytes()[..], &[0; 16], signer, b"signature"].concat();
        other(owner, RecordType::RRSIG.into(), &data)
    }

    fn question(text: &str, dnssec_ok: bool) -> Question {
        Question {
            query: Query::query(name(text), RecordType::A),
            dnssec_ok,
            checking_disabled: false,
        }
    }

    /// The names and types of what is kept, and whether it is an answer.
    fn kept(
        question: &Question,
        answers: &[Record],
        authorities: &[Record],
    ) -> (bool, Vec<String>, Vec<String>) {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.answers = answers.to_vec();
        message.authorities = authorities.to_vec();
        message.additionals = vec![a("www.bank.test.", 66)];
        let usable = keep(&mut message, question);
        assert!(message.additionals.is_empty());
        let words = |records: &[Record]| {
            let words = records.iter();
            words
                .map(|record| format!("{} {}", record.name, record.record_type()))
                .collect()
        };
        (usable, words(&message.answers), words(&message.authorities))
    }

    #[test]
    fn of_an_answer_only_the_aliases_and_what_they_lead_to_are_kept() {
        let answers = [
            a("www.bank.test.", 66),
            a("host.example.net.", 1),
            cname("WWW.example.org.", "host.example.net."),
            a("host.example.net.", 2),
            cname("www.bank.test.", "evil.test."),
            other("host.example.net.", 16, b"\x04text"),
        ];
        let ns = Record::from_rdata(name("bank.test."), 60, RData::NS(NS(name("evil.test."))));
        let (usable, answers, authorities) = kept(
            &question("www.example.org.", false),
            &answers,
            &[ns, soa("bank.test."), soa("net.")],
        );
        assert!(usable);
        assert_eq!(
            answers,
            [
                "host.example.net. A",
                "www.example.org. CNAME",
                "host.example.net. A"
            ]
        );
        assert!(authorities.is_empty(), "{authorities:?}");
    }

    #[test]
    fn an_alias_of_another_class_leads_nowhere() {
        let mut alias = cname("www.example.org.", "www.bank.test.");
        alias.dns_class = DNSClass::CH;
        let answers = [alias, a("www.bank.test.", 66)];
        let (usable, answers, _) = kept(&question("www.example.org.", false), &answers, &[]);
        assert!(!usable && answers.is_empty(), "{answers:?}");
    }

    #[test]
    fn an_answer_about_nothing_but_other_names_is_none() {
        let (usable, answers, _) = kept(
            &question("www.example.org.", false),
            &[a("www.bank.test.", 66)],
            &[],
        );
        assert!(!usable && answers.is_empty());
    }

    #[test]
    fn that_nothing_is_there_is_said_by_a_zone_above_the_name_alone() {
        let (usable, _, authorities) = kept(
            &question("a.b.example.org.", false),
            &[],
            &[
                soa("bank.test."),
                soa("org."),
                soa("example.org."),
                soa("b.example.org.evil."),
            ],
        );
        assert!(usable);
        assert_eq!(authorities, ["example.org. SOA"]);
        let alias = [cname("a.example.org.", "gone.example.net.")];
        let (_, _, authorities) = kept(
            &question("a.example.org.", false),
            &alias,
            &[soa("example.org."), soa("example.net.")],
        );
        assert_eq!(authorities, ["example.net. SOA"]);
    }

    #[test]
    fn signatures_and_proofs_go_to_those_who_asked_for_them() {
        let zone = b"\x07example\x03org\x00";
        let answers = [
            a("x.example.org.", 1),
            rrsig("x.example.org.", 1, zone),
            rrsig("x.example.org.", 16, zone),
        ];
        let authorities = [
            other("w.example.org.", 47, b"next"),
            rrsig("w.example.org.", 47, zone),
            other("w.bank.test.", 47, b"next"),
        ];
        let (_, all, proofs) = kept(&question("x.example.org.", true), &answers, &authorities);
        assert_eq!(all, ["x.example.org. A", "x.example.org. RRSIG"]);
        assert_eq!(proofs, ["w.example.org. NSEC", "w.example.org. RRSIG"]);
        let (_, _, none) = kept(&question("x.example.org.", false), &answers, &authorities);
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn aliases_in_a_circle_and_damaged_signatures_are_no_trouble() {
        let circle = [cname("a.test.", "b.test."), cname("b.test.", "a.test.")];
        assert!(is_circle(&circle, &name("a.test.")) && is_circle(&circle, &name("b.test.")));
        assert!(!is_circle(&circle[..1], &name("a.test.")));
        let (usable, answers, _) = kept(&question("a.test.", true), &circle, &[]);
        assert!(usable);
        assert_eq!(answers.len(), 1, "{answers:?}");
        for length in 1..24 {
            let data = vec![7; length];
            let record = other("a.test.", RecordType::RRSIG.into(), &data);
            let _ = kept(&question("a.test.", true), &[record], &[]);
        }
    }
}
