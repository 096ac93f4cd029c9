//! Where the agent answers otherwise than Knot and NSD, and why that is right.

use crate::{
    question::{IN, Question},
    reply::Reply,
};

const ANY: u16 = 255;
const NS: u16 = 2;
const OPT: u16 = 41;
const HTTPS: u16 = 65;
const NSID: u16 = 3;
const SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const BADVERS: &str = "16";
const FORMERR: &str = "1";
const SERVFAIL: &str = "2";
const NOTIMP: &str = "4";
const REFUSED: &str = "5";
/// What a whole answer is made of.
const ALL: &[&str] = &[
    "rcode",
    "AA",
    "TC",
    "CD",
    "AD",
    "RD",
    "answer",
    "authority",
    "additional",
    "options",
    "EDNS",
    "question",
];

/// A difference.
pub struct Row {
    pub why: &'static str,
    /// Whether it is this one; with what the agent says.
    is: fn(&Question, &Reply) -> bool,
    /// What may differ then.
    fields: &'static [&'static str],
}

pub const ROWS: &[Row] = &[
    Row {
        why: "members may ask it for other names too: recursion is available",
        is: |_, ours| ours["RA"] == "1",
        fields: &["RA"],
    },
    Row {
        why: "of ANY one record is answer enough (RFC 8482 §4.2)",
        is: |question, ours| question.rtype == ANY && ours["answer"].contains(" 13 "),
        fields: &["answer", "authority", "additional", "TC"],
    },
    Row {
        why: "nothing has data of a meta type or OPT (RFC 6895 §3.1): refused, not denied",
        is: |question, ours| is_meta(question.rtype) && ours["rcode"] == REFUSED,
        fields: ALL,
    },
    Row {
        why: "no class but IN is known here, and ANY is none (RFC 6895 §3.2)",
        is: |question, ours| question.class != IN && ours["rcode"] == REFUSED,
        fields: ALL,
    },
    Row {
        why: "aliases in a circle are a failure that says so (RFC 8914), no answer",
        is: |question, ours| {
            let round = ["round.lab.internal", "about.lab.internal"];
            round.iter().any(|name| question.is_within(name)) && ours["rcode"] == SERVFAIL
        },
        fields: ALL,
    },
    Row {
        why: "where recursion is desired an alias that leads out is followed; here is no upstream",
        is: |question, ours| {
            let leads_out = question.is_within("www.lab.internal");
            leads_out && question.flags & 0x100 != 0 && ours["rcode"] == SERVFAIL
        },
        fields: ALL,
    },
    Row {
        why: "name servers' addresses come along from the mesh's other zone, which is its own",
        is: |question, ours| {
            question.rtype == NS && ours["additional"].contains("ns.lab.internal.")
        },
        fields: &["additional"],
    },
    Row {
        why: "where HTTPS names its own owner by a dot, its addresses come along (RFC 9460 §4.1)",
        is: |question, ours| question.rtype == HTTPS && ours["additional"].contains(" 1 1 "),
        fields: &["additional"],
    },
    Row {
        why: "only questions are known: NOTIFY is for secondaries, UPDATE for nobody",
        is: |question, ours| question.opcode() != 0 && is_one_of(ours, &[NOTIMP, FORMERR]),
        fields: ALL,
    },
    Row {
        why: "CD is repeated where the answer isn't the zone's (RFC 4035 §3.1.6)",
        is: |_, ours| ours["CD"] == "1" && ours["AA"] == "0",
        fields: &["CD"],
    },
    Row {
        why: "a refusal needs no words: whoever asks here has the agent for all names",
        is: |_, ours| ours["rcode"] == REFUSED,
        fields: &["options"],
    },
    Row {
        why: "a malformed cookie is FORMERR (RFC 7873 §5.2.2)",
        is: |question, ours| question.has_option(COOKIE) && ours["rcode"] == FORMERR,
        fields: ALL,
    },
    Row {
        why: "a cookie is answered with a cookie, whatever else is said (RFC 7873 §5.2)",
        is: |question, ours| question.has_option(COOKIE) && ours["options"] == "[10]",
        fields: &["options"],
    },
    Row {
        why: "a client's subnet that can't be read is FORMERR (RFC 7871 §7.1.2)",
        is: |question, ours| question.has_option(SUBNET) && ours["rcode"] == FORMERR,
        fields: ALL,
    },
    Row {
        why: "the agent has no name of its own to tell (RFC 5001)",
        is: |question, ours| question.has_option(NSID) && !ours["options"].contains('3'),
        fields: &["options"],
    },
    Row {
        why: "DO is repeated wherever there is an OPT record (RFC 3225 §3)",
        is: |_, ours| ours["rcode"] == BADVERS && ours["EDNS"].ends_with("8000"),
        fields: &["EDNS"],
    },
    Row {
        why: "FORMERR has an OPT record wherever one was found (RFC 6891 §7)",
        is: |_, ours| ours["rcode"] == FORMERR && !ours["EDNS"].is_empty(),
        fields: &["EDNS", "options"],
    },
    Row {
        why: "FORMERR doesn't repeat the question, which may be what is malformed",
        is: |_, ours| ours["rcode"] == FORMERR && ours["question"].is_empty(),
        fields: &["question"],
    },
    Row {
        why: "FORMERR repeats RD as every response does (RFC 1035 §4.1.1)",
        is: |_, ours| ours["rcode"] == FORMERR && ours["RD"] == "1",
        fields: &["RD"],
    },
    Row {
        why: "octets behind a message, and an RCODE in a question, say nothing",
        is: |question, _| question.has_trailing() || question.flags & 15 != 0,
        fields: ALL,
    },
    Row {
        why: "type 0 is a type that nothing has",
        is: |question, _| question.rtype == 0,
        fields: ALL,
    },
    Row {
        why: "who sends what is damaged over TCP is told so before the connection ends",
        is: |question, ours| {
            question.is_tcp && ours.get("rcode").is_some_and(|code| code == FORMERR)
        },
        fields: &["reply"],
    },
];

/// Which rows explain how the agent's reply differs from that of one of the others; of
/// the two the one that takes fewer.
///
/// # Errors
/// What no row explains.
pub fn explain(
    question: &Question,
    ours: &Reply,
    others: [&Reply; 2],
) -> Result<Vec<usize>, Vec<&'static str>> {
    let each = others.map(|other| explain_one(question, ours, other));
    match each {
        [Ok(one), Ok(other)] => Ok(if one.len() <= other.len() { one } else { other }),
        [Ok(rows), Err(_)] | [Err(_), Ok(rows)] => Ok(rows),
        // What two replies say tells more than that there is none.
        [Err(one), Err(other)] if one == ["reply"] => Err(other),
        [Err(one), Err(other)] if other == ["reply"] || one.len() <= other.len() => Err(one),
        [Err(_), Err(other)] => Err(other),
    }
}

fn explain_one(
    question: &Question,
    ours: &Reply,
    other: &Reply,
) -> Result<Vec<usize>, Vec<&'static str>> {
    let (mut rows, mut unexplained) = (Vec::new(), Vec::new());
    for field in differing(ours, other) {
        let explains = |row: &Row| row.fields.contains(&field) && is(row, question, ours);
        match ROWS.iter().position(explains) {
            Some(number) if rows.contains(&number) => {}
            Some(number) => rows.push(number),
            None => unexplained.push(field),
        }
    }
    if unexplained.is_empty() {
        Ok(rows)
    } else {
        Err(unexplained)
    }
}

/// Of what is no reply, or can't be read, nothing else can be said.
fn is(row: &Row, question: &Question, ours: &Reply) -> bool {
    (!ours.contains_key("reply") || row.fields == ["reply"]) && (row.is)(question, ours)
}

fn differing(ours: &Reply, other: &Reply) -> Vec<&'static str> {
    if ours.contains_key("reply") || other.contains_key("reply") {
        let same = ours == other;
        return if same { Vec::new() } else { vec!["reply"] };
    }
    let fields = ours.keys();
    fields
        .filter(|field| ours.get(*field) != other.get(*field))
        .copied()
        .collect()
}

fn is_one_of(ours: &Reply, rcodes: &[&str]) -> bool {
    rcodes.contains(&ours["rcode"].as_str())
}

fn is_meta(rtype: u16) -> bool {
    (128..=254).contains(&rtype) || rtype == OPT
}
