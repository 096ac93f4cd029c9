//! A response as bytes, written once. Names are compressed against the question alone,
//! whose case stays as it came.

use hickory_server::{
    net::xfer::Protocol,
    proto::{
        rr::{Name, Record as HickoryRecord},
        serialize::binary::BinEncodable,
    },
};
use innermesh_proto::{
    limits,
    zone::{DomainName, Rdata, RecordType, Soa},
};

use super::{
    super::convert,
    cookie::WHOLE,
    question::{HEADER, Question},
};

pub(super) const NOERROR: u16 = 0;
pub(super) const SERVFAIL: u16 = 2;
pub(super) const NOTIMP: u16 = 4;
pub(super) const REFUSED: u16 = 5;
/// Extended: its upper bits are in the OPT record.
pub(super) const BADVERS: u16 = 16;
pub(super) const BADCOOKIE: u16 = 23;

const QR: u8 = 0x80;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
/// A pointer to the question's name (RFC 1035 §4.1.4).
const POINTER: u16 = 0xc000;
const CLASS_IN: [u8; 2] = [0, 1];

/// A response, but for what only the question says.
#[derive(Debug)]
pub(super) struct Message {
    rcode: u16,
    pub is_authoritative: bool,
    /// Nothing but the question is sent, and the client asks again over TCP.
    pub is_cut: bool,
    records: Vec<u8>,
    /// Answers, authorities, additional records.
    counts: [u16; 3],
}

/// Where a record goes.
#[derive(Clone, Copy)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// What names are compressed against.
#[derive(Clone, Copy)]
pub(super) struct Compression<'q> {
    question: &'q DomainName,
    apex: &'q DomainName,
    /// Where the apex stands in the message, at the end of the question's name.
    apex_at: u16,
}

impl<'q> Compression<'q> {
    /// Of a question within `apex`.
    pub fn new(question: &'q DomainName, apex: &'q DomainName) -> Self {
        let length = |name: &DomainName| name.wire().len();
        let apex_at = HEADER + length(question).saturating_sub(length(apex));
        Self {
            question,
            apex,
            // A name has at most 255 octets.
            apex_at: u16::try_from(apex_at).unwrap_or(0),
        }
    }

    fn write(self, name: &DomainName, out: &mut Vec<u8>) {
        let wire = name.wire();
        let pointer = |at: u16| (POINTER | at).to_be_bytes();
        if name == self.question {
            out.extend(pointer(HEADER as u16));
        } else if name.is_within(self.apex) {
            let own = wire.len().saturating_sub(self.apex.wire().len());
            out.extend_from_slice(wire.get(..own).unwrap_or_default());
            out.extend(pointer(self.apex_at));
        } else {
            out.extend_from_slice(wire);
            out.push(0);
        }
    }
}

impl Message {
    pub fn new(rcode: u16) -> Self {
        Self {
            rcode,
            is_authoritative: false,
            is_cut: false,
            records: Vec::new(),
            counts: [0; 3],
        }
    }

    /// Adds a record. Sections come in their order.
    pub fn add(
        &mut self,
        section: Section,
        names: Compression<'_>,
        owner: &DomainName,
        (ttl_s, data): (u32, &Rdata),
    ) {
        let out = &mut self.records;
        names.write(owner, out);
        out.extend(data.record_type().0.to_be_bytes());
        out.extend(CLASS_IN);
        out.extend(ttl_s.to_be_bytes());
        let length_at = out.len();
        out.extend([0, 0]);
        write_data(data, names, out);
        let length = u16::try_from(out.len() - length_at - 2).unwrap_or(u16::MAX);
        if let Some(place) = out.get_mut(length_at..length_at + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        if let Some(count) = self.counts.get_mut(section as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Appends it to `out` as the response to `question`, cut where it is too long.
    pub fn finish(
        self,
        question: &Question<'_>,
        cookie: Option<[u8; WHOLE]>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) {
        let cookie = cookie.filter(|_| question.edns.is_some());
        let opt = match question.edns {
            None => 0,
            Some(_) => 11 + cookie.map_or(0, |cookie| 4 + cookie.len()),
        };
        let length = HEADER + question.question.len() + self.records.len() + opt;
        let is_cut = self.is_cut || length > longest(question, protocol);
        let (records, counts): (&[u8], _) = if is_cut {
            (&[], [0; 3])
        } else {
            (&self.records, self.counts)
        };
        let [id0, id1] = question.id;
        let high = QR
            | question.repeated
            | if self.is_authoritative { AA } else { 0 }
            | if is_cut { TC } else { 0 };
        let [extended, low] = [(self.rcode >> 4) as u8, (self.rcode & 15) as u8];
        let questions = u8::from(!question.question.is_empty());
        out.extend_from_slice(&[id0, id1, high, low, 0, questions]);
        let [answers, authorities, additionals] = counts;
        let additionals = additionals.saturating_add(question.edns.is_some().into());
        for count in [answers, authorities, additionals] {
            out.extend(count.to_be_bytes());
        }
        out.extend_from_slice(question.question);
        out.extend_from_slice(records);
        if let Some(edns) = question.edns {
            edns.write(limits::DNS_UDP_BYTES, extended, cookie, out);
        }
    }
}

/// Longest response, in bytes.
fn longest(question: &Question<'_>, protocol: Protocol) -> usize {
    if protocol == Protocol::Udp {
        let theirs = question.edns.map_or(512, |edns| edns.payload);
        theirs.clamp(512, limits::DNS_UDP_BYTES).into()
    } else {
        u16::MAX.into()
    }
}

fn write_data(data: &Rdata, names: Compression<'_>, out: &mut Vec<u8>) {
    match data {
        Rdata::A(ip) => out.extend(ip.octets()),
        Rdata::Aaaa(ip) => out.extend(ip.octets()),
        // These may be compressed (RFC 3597 §4).
        Rdata::Ns(name) | Rdata::Cname(name) => names.write(name, out),
        Rdata::Soa(soa) => write_soa(soa, names, out),
        Rdata::Txt(strings) => {
            for string in strings {
                // A string has at most 255 octets.
                out.push(u8::try_from(string.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(string);
            }
        }
        other => {
            // Behind the root's octet, type, class, TTL and length.
            let record = HickoryRecord::from_rdata(Name::root(), 0, convert::rdata(other));
            let bytes = record.to_bytes().unwrap_or_default();
            out.extend_from_slice(bytes.get(11..).unwrap_or_default());
        }
    }
}

fn write_soa(soa: &Soa, names: Compression<'_>, out: &mut Vec<u8>) {
    names.write(&soa.primary, out);
    names.write(&soa.mailbox, out);
    for number in [
        soa.serial,
        soa.refresh_s,
        soa.retry_s,
        soa.expire_s,
        soa.minimum_s,
    ] {
        out.extend(number.to_be_bytes());
    }
}

/// Whether a type is one that this module's answers are never of: transfers and other
/// transactions (RFC 6895 §3.1), but ANY.
pub(super) fn is_refused(rtype: RecordType) -> bool {
    const OPT: u16 = 41;
    (rtype.0 == OPT || (128..=254).contains(&rtype.0)) && rtype != RecordType::ANY
}
