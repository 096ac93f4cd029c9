//! A message of a stranger, read strictly and without allocating more than its name.

use innermesh_proto::zone::{DomainName, RecordType};

use super::{
    super::received::form_error,
    cookie::{CLIENT, WHOLE},
};

pub(super) const HEADER: usize = 12;
/// In the third byte of a header.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
pub(super) const RD: u8 = 0x01;
/// In the third byte of an OPT record's TTL (RFC 3225).
const DO: u8 = 0x80;
const OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const COOKIE: u16 = 10;
/// Records of a question that are looked at: OPT, a signature, and some more.
const RECORDS: usize = 8;
/// Longest cookie, and shortest with a server's part (RFC 7873 §4).
const COOKIES: std::ops::RangeInclusive<usize> = 16..=40;

/// What came.
#[derive(Debug)]
pub(super) enum Incoming<'m> {
    /// Nothing that is answered, such as a response.
    Nothing,
    /// With its whole answer.
    Malformed(Vec<u8>),
    Question(Question<'m>),
}

/// A question, or another request of which no more is known.
#[derive(Debug)]
pub(super) struct Question<'m> {
    pub id: [u8; 2],
    /// The third byte of the header, as far as a response repeats it.
    pub repeated: u8,
    /// Name, type and class as they came; empty for what is no query.
    pub question: &'m [u8],
    /// In lower case; none for what is no query.
    pub name: Option<DomainName>,
    pub rtype: RecordType,
    pub is_in: bool,
    pub edns: Option<Edns<'m>>,
}

/// What the OPT record says (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Edns<'m> {
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    /// Of 8, or 16 to 40 octets.
    pub cookie: Option<&'m [u8]>,
}

impl<'m> Question<'m> {
    pub fn read(message: &'m [u8]) -> Incoming<'m> {
        let Some((header, body)) = message.split_first_chunk::<HEADER>() else {
            return Incoming::Nothing;
        };
        let [id0, id1, high, ..] = *header;
        if high & QR != 0 {
            return Incoming::Nothing;
        }
        let read = if high & OPCODE == 0 {
            Self::query([id0, id1], high & RD, header, body)
        } else {
            Some(Self {
                id: [id0, id1],
                repeated: high & (OPCODE | RD),
                question: &[],
                name: None,
                rtype: RecordType(0),
                is_in: false,
                edns: None,
            })
        };
        read.map_or_else(
            || Incoming::Malformed(form_error(header, message)),
            Incoming::Question,
        )
    }

    fn query(id: [u8; 2], repeated: u8, header: &[u8; HEADER], body: &'m [u8]) -> Option<Self> {
        let (counts, _) = header.get(4..)?.as_chunks::<2>();
        let mut counts = counts.iter().map(|count| u16::from_be_bytes(*count));
        // RFC 9619: one question.
        if counts.next()? != 1 {
            return None;
        }
        let name_end = name_end(body)?;
        let (question, mut rest) = body.split_at_checked(name_end + 4)?;
        let (wire, fixed) = question.split_at_checked(name_end)?;
        let [t0, t1, c0, c1] = *fixed.first_chunk::<4>()?;
        let wire = wire.split_last()?.1.to_ascii_lowercase();
        let name = DomainName::try_from(wire).ok()?;
        let records: usize = counts.map(usize::from).sum();
        if records > RECORDS {
            return None;
        }
        let mut edns = None;
        for _ in 0..records {
            let record = Record::read(&mut rest)?;
            if record.rtype == OPT {
                // RFC 6891 §6.1.1: one, at the root.
                if edns.is_some() || !record.is_root {
                    return None;
                }
                edns = Some(Edns::read(&record)?);
            }
        }
        Some(Self {
            id,
            repeated,
            question,
            name: Some(name),
            rtype: RecordType(u16::from_be_bytes([t0, t1])),
            is_in: u16::from_be_bytes([c0, c1]) == CLASS_IN,
            edns,
        })
    }
}

struct Record<'m> {
    is_root: bool,
    rtype: u16,
    class: u16,
    ttl: [u8; 4],
    data: &'m [u8],
}

impl<'m> Record<'m> {
    /// Takes one record off; its name may be compressed.
    fn read(rest: &mut &'m [u8]) -> Option<Self> {
        let end = owner_end(rest)?;
        let is_root = rest.first() == Some(&0);
        let (fixed, behind) = rest.get(end..)?.split_first_chunk::<10>()?;
        let [t0, t1, c0, c1, ttl @ .., l0, l1] = *fixed;
        let (data, behind) = behind.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        *rest = behind;
        Some(Self {
            is_root,
            rtype: u16::from_be_bytes([t0, t1]),
            class: u16::from_be_bytes([c0, c1]),
            ttl,
            data,
        })
    }
}

impl<'m> Edns<'m> {
    fn read(record: &Record<'m>) -> Option<Self> {
        let [_, version, flags, _] = record.ttl;
        let mut cookie = None;
        let mut options = record.data;
        while !options.is_empty() {
            let (fixed, behind) = options.split_first_chunk::<4>()?;
            let [c0, c1, l0, l1] = *fixed;
            let (data, behind) = behind.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
            options = behind;
            if u16::from_be_bytes([c0, c1]) == COOKIE {
                // RFC 7873 §5.2.2: a malformed one is FORMERR; of several the first counts.
                if data.len() != CLIENT && !COOKIES.contains(&data.len()) {
                    return None;
                }
                cookie = cookie.or(Some(data));
            }
        }
        Some(Self {
            payload: record.class,
            version,
            dnssec_ok: flags & DO != 0,
            cookie,
        })
    }

    /// Writes the OPT record of a response.
    pub fn write(
        self,
        payload: u16,
        extended_rcode: u8,
        cookie: Option<[u8; WHOLE]>,
        out: &mut Vec<u8>,
    ) {
        let [p0, p1] = payload.to_be_bytes();
        let flags = if self.dnssec_ok { DO } else { 0 };
        let [o0, o1] = OPT.to_be_bytes();
        out.extend_from_slice(&[0, o0, o1, p0, p1, extended_rcode, 0, flags, 0]);
        match cookie {
            None => out.extend_from_slice(&[0, 0]),
            Some(cookie) => {
                let [c0, c1] = COOKIE.to_be_bytes();
                out.extend_from_slice(&[0, 4 + WHOLE as u8, c0, c1, 0, WHOLE as u8]);
                out.extend_from_slice(&cookie);
            }
        }
    }
}

/// Where a name ends that is written out, with the root's octet.
fn name_end(body: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        match *body.get(end)? {
            0 => return Some(end + 1),
            length @ 1..=63 => end += 1 + usize::from(length),
            _ => return None,
        }
        // With the root's octet a name has 255 (RFC 1035 §2.3.4).
        if end > 254 {
            return None;
        }
    }
}

/// Where the owner of a record ends, which may be compressed.
fn owner_end(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        match *bytes.get(end)? {
            0 => return Some(end + 1),
            0xc0.. => return Some(end + 2),
            length @ 1..=63 => end += 1 + usize::from(length),
            _ => return None,
        }
    }
}
