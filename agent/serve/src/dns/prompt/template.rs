//! An answer that was encoded once: what differs from question to question is
//! written into a copy of it. The encoding is the careful path's own, of a
//! question in lower case without EDNS.

use hickory_server::{
    net::xfer::Protocol,
    proto::{op::ResponseCode, rr::Record},
    server::Request,
};
use innermesh_proto::limits;
use std::net::SocketAddr;

use super::{
    super::{
        reply::Reply,
        wire::{HEADER, RecordSpan, records},
    },
    plain::{AD, CD, DO, Plain, RD},
};

const QR: u8 = 0x80;
const OPT: u8 = 41;
const COOKIE: u8 = 10;
/// Longest answer that is kept encoded, in bytes.
const LONGEST: usize = 4096;
/// Most orders of its records that an answer is kept in.
const ORDERS: usize = 8;
/// What the types and the allocator take for each, roughly, in bytes.
const OVERHEAD: usize = 160;

/// The answer to one name and type.
#[derive(Debug)]
pub(in crate::dns) struct Template {
    message: Box<[u8]>,
    turns: Turns,
    /// Where a TTL stands that goes down while the answer is kept.
    ttls: Box<[u16]>,
    /// Of an answer from upstream.
    upstream: Option<FromUpstream>,
}

#[derive(Clone, Copy, Debug)]
struct FromUpstream {
    /// Whether it was validated.
    authentic: bool,
}

/// How another record comes first each time.
#[derive(Debug)]
enum Turns {
    Never,
    /// So many records of the same length, from one place to the end.
    Records {
        start: usize,
        count: usize,
    },
    /// Where names are written as pointers into other records: all orders but the
    /// first.
    Orders(Box<[Box<[u8]>]>),
}

impl Template {
    /// Of an answer of the zone to `question`, whose records aren't turned yet.
    /// `None` for one that isn't kept encoded.
    pub fn of_zone(question: &Plain<'_>, mut reply: Reply) -> Option<Self> {
        let request = canonical(question)?;
        let records = turning(&mut reply.answers, question.rtype.0).len();
        let mut message = encode(&mut reply, &request)?;
        let turns = match records {
            0 | 1 => Turns::Never,
            _ => match same_length(&message, records) {
                Some(start) => Turns::Records {
                    start,
                    count: records,
                },
                None if records <= ORDERS => {
                    let mut orders = Vec::new();
                    for _ in 1..records {
                        turning(&mut reply.answers, question.rtype.0).rotate_left(1);
                        orders.push(encode(&mut reply, &request)?.into());
                    }
                    Turns::Orders(orders.into())
                }
                None => return None,
            },
        };
        message.shrink_to_fit();
        Some(Self {
            message: message.into(),
            turns,
            ttls: Box::default(),
            upstream: None,
        })
    }

    /// Of an answer from upstream, as fresh as it came.
    pub fn of_upstream(question: &Plain<'_>, mut reply: Reply) -> Option<Self> {
        let request = canonical(question)?;
        let authentic = std::mem::take(&mut reply.authentic);
        let message = encode(&mut reply, &request)?;
        let ttls: Option<Vec<u16>> = records(&message)
            .map(|record| u16::try_from(record?.ttl).ok())
            .collect();
        Some(Self {
            ttls: ttls?.into(),
            message: message.into(),
            turns: Turns::Never,
            upstream: Some(FromUpstream { authentic }),
        })
    }

    /// Writes the answer to `question`, with the record first whose turn it is,
    /// and so many seconds after it came; `false` where it is too long.
    pub fn write(
        &self,
        question: &Plain<'_>,
        turn: impl FnOnce() -> usize,
        age_s: u32,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.message.len() + question.opt() > question.limit(protocol) {
            return false;
        }
        let begin = out.len();
        self.write_turned(turn, out);
        let Some(message) = out.get_mut(begin..) else {
            return false;
        };
        self.write_ttls(age_s, message);
        let Some(header) = message.first_chunk_mut::<HEADER>() else {
            return false;
        };
        [header[0], header[1]] = question.id;
        header[2] |= if question.recursion_desired { RD } else { 0 };
        if let Some(upstream) = self.upstream {
            let checking_disabled = question.checking_disabled;
            // Who didn't ask for it isn't told (RFC 6840 §5.8).
            let asked = question.dnssec_ok() || question.authentic_data;
            header[3] |= if checking_disabled { CD } else { 0 };
            header[3] |= if upstream.authentic && asked { AD } else { 0 };
        }
        header[11] += u8::from(question.edns.is_some());
        let end = HEADER + question.question.len();
        if let Some(place) = message.get_mut(HEADER..end) {
            place.copy_from_slice(question.question);
        }
        write_opt(question, out);
        true
    }

    fn write_turned(&self, turn: impl FnOnce() -> usize, out: &mut Vec<u8>) {
        match &self.turns {
            Turns::Never => out.extend_from_slice(&self.message),
            Turns::Records { start, count } => {
                let (fixed, records) = self.message.split_at(*start.min(&self.message.len()));
                let (last, first) = records.split_at(turn() % count * (records.len() / count));
                for part in [fixed, first, last] {
                    out.extend_from_slice(part);
                }
            }
            Turns::Orders(orders) => {
                let order = (turn() % (orders.len() + 1)).checked_sub(1);
                let order = order.and_then(|order| orders.get(order));
                out.extend_from_slice(order.unwrap_or(&self.message));
            }
        }
    }

    fn write_ttls(&self, age_s: u32, message: &mut [u8]) {
        for at in &self.ttls {
            let place = message.get_mut(usize::from(*at)..);
            if let Some(ttl) = place.and_then(<[u8]>::first_chunk_mut::<4>) {
                *ttl = u32::from_be_bytes(*ttl).saturating_sub(age_s).to_be_bytes();
            }
        }
    }

    /// In bytes, roughly.
    pub fn size(&self) -> usize {
        let orders = match &self.turns {
            Turns::Orders(orders) => orders.iter().map(|order| order.len() + 16).sum(),
            _ => 0,
        };
        OVERHEAD + self.message.len() + orders + 2 * self.ttls.len()
    }
}

/// Refuses a question, as [`super::super::responder`] does.
pub(super) fn refuse(question: &Plain<'_>, out: &mut Vec<u8>) {
    let [id0, id1] = question.id;
    let high = QR | if question.recursion_desired { RD } else { 0 };
    let low = if question.checking_disabled { CD } else { 0 };
    let low = low | ResponseCode::Refused.low();
    let opts = u8::from(question.edns.is_some());
    out.extend_from_slice(&[id0, id1, high, low, 0, 1, 0, 0, 0, 0, 0, opts]);
    out.extend_from_slice(question.question);
    write_opt(question, out);
}

fn write_opt(question: &Plain<'_>, out: &mut Vec<u8>) {
    if let Some(edns) = question.edns {
        let [size0, size1] = limits::DNS_UDP_BYTES.to_be_bytes();
        let flags = if edns.dnssec_ok { DO } else { 0 };
        out.extend_from_slice(&[0, 0, OPT, size0, size1, 0, 0, flags, 0, 0]);
        match question.answered_cookie {
            None => out.push(0),
            Some(cookie) => {
                let length = cookie.len() as u8;
                out.extend_from_slice(&[4 + length, 0, COOKIE, 0, length]);
                out.extend_from_slice(&cookie);
            }
        }
    }
}

/// The records that take turns: see [`super::super::responder`].
pub(in crate::dns) fn turning(answers: &mut [Record], rtype: u16) -> &mut [Record] {
    let is_data = |record: &Record| u16::from(record.record_type()) == rtype;
    let first = answers.iter().position(is_data).unwrap_or(answers.len());
    answers.get_mut(first..).unwrap_or_default()
}

/// The same question in lower case, with no more than must be.
fn canonical(question: &Plain<'_>) -> Option<Request> {
    let header = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut bytes = header.to_vec();
    bytes.extend(question.question.iter().map(u8::to_ascii_lowercase));
    // Type and class aren't letters, whatever they are.
    let (_, type_and_class) = question.question.split_last_chunk::<4>()?;
    let end = bytes.len().checked_sub(4)?;
    bytes.get_mut(end..)?.copy_from_slice(type_and_class);
    let source = SocketAddr::from(([127, 0, 0, 1], 53));
    Request::from_bytes(bytes, source, Protocol::Tcp).ok()
}

/// A whole message that isn't too long to be kept.
fn encode(reply: &mut Reply, request: &Request) -> Option<Vec<u8>> {
    let is_plain = reply.error.is_none() && !reply.truncated && reply.rcode.high() == 0;
    let message = is_plain.then(|| reply.encode(request, Protocol::Tcp))??;
    (message.len() <= LONGEST && !reply.truncated).then_some(message)
}

/// Where the last `count` records begin, if they are addresses of one family, the
/// last of the message, and named by a pointer to what is before them.
fn same_length(message: &[u8], count: usize) -> Option<usize> {
    let all: Vec<RecordSpan> = records(message).collect::<Option<_>>()?;
    let last = all.get(all.len().checked_sub(count)?..)?;
    let length = |place: &RecordSpan| place.data.end - place.start;
    let (first, long) = (last.first()?.start, length(last.first()?));
    let is_address = last.iter().all(|place| {
        let record = message
            .get(place.start..)
            .and_then(<[u8]>::first_chunk::<4>);
        record.is_some_and(|[high, low, t0, t1]| {
            let to = usize::from(u16::from_be_bytes([high & 0x3f, *low]));
            *high >= 0xc0 && to < first && matches!([*t0, *t1], [0, 1 | 28])
        }) && length(place) == long
    });
    (is_address && first + long * count == message.len()).then_some(first)
}
