//! What a server said, field by field, in a form that is equal where it means the same:
//! names in lower case and written out, records sorted, an SOA without its serial.

use std::{collections::BTreeMap, fmt::Write as _};

use data_encoding::HEXLOWER;

const CNAME: u16 = 5;
const NS: u16 = 2;
const SOA: u16 = 6;
const PTR: u16 = 12;
const MX: u16 = 15;
const SRV: u16 = 33;
const OPT: u16 = 41;

/// By the field's name.
pub type Reply = BTreeMap<&'static str, String>;

/// Reads a reply; what can't be read is a field of its own.
pub fn read(message: Option<&[u8]>) -> Reply {
    let told = |text: String| Reply::from([("reply", text)]);
    let Some(message) = message else {
        return told("none".to_owned());
    };
    fields(message).unwrap_or_else(|| told(format!("damaged: {}", HEXLOWER.encode(message))))
}

fn fields(message: &[u8]) -> Option<Reply> {
    let flags = word(message, 2)?;
    let mut reply = Reply::new();
    let bit = |at: u32| (flags >> at & 1).to_string();
    for (name, at) in [
        ("QR", 15),
        ("AA", 10),
        ("TC", 9),
        ("RD", 8),
        ("RA", 7),
        ("Z", 6),
        ("AD", 5),
        ("CD", 4),
    ] {
        reply.insert(name, bit(at));
    }
    reply.insert("opcode", (flags >> 11 & 15).to_string());
    let mut at = 12;
    let mut questions = String::new();
    for _ in 0..word(message, 4)? {
        let end = name(message, at)?.1 + 4;
        // Octet for octet: clients compare it.
        questions += &HEXLOWER.encode(message.get(at..end)?);
        at = end;
    }
    reply.insert("question", questions);
    let mut rcode = flags & 15;
    let mut opts = Vec::new();
    for (section, count) in [("answer", 6), ("authority", 8), ("additional", 10)] {
        let mut records = Vec::new();
        for _ in 0..word(message, count)? {
            let record = Record::read(message, at)?;
            at = record.end;
            if record.rtype == OPT {
                rcode |= (record.ttl_s >> 24 << 4) as u16;
                opts.push(edns(&record));
            } else {
                records.push(record.text(message)?);
            }
        }
        records.sort();
        reply.insert(section, records.join("; "));
    }
    reply.insert("rcode", rcode.to_string());
    let (edns, options): (Vec<_>, Vec<_>) = opts.into_iter().unzip();
    reply.insert("EDNS", edns.join("; "));
    reply.insert("options", options.join("; "));
    (at == message.len()).then_some(reply)
}

/// Version, size and flags; and the codes of its options.
fn edns(record: &Record<'_>) -> (String, String) {
    let (version, flags) = (record.ttl_s >> 16 & 255, record.ttl_s & 0xffff);
    let head = format!("version {version}, {} octets, {flags:04x}", record.class);
    let (mut codes, mut rest) = (Vec::new(), record.data);
    while let Some((head, more)) = rest.split_first_chunk::<4>() {
        let [c0, c1, l0, l1] = *head;
        codes.push(u16::from_be_bytes([c0, c1]));
        rest = more
            .get(u16::from_be_bytes([l0, l1]).into()..)
            .unwrap_or_default();
    }
    codes.sort_unstable();
    (head, format!("{codes:?}"))
}

struct Record<'m> {
    owner: String,
    rtype: u16,
    class: u16,
    ttl_s: u32,
    data: &'m [u8],
    start: usize,
    end: usize,
}

impl<'m> Record<'m> {
    fn read(message: &'m [u8], at: usize) -> Option<Self> {
        let (owner, at) = name(message, at)?;
        let ttl = u32::from(word(message, at + 4)?) << 16;
        let start = at + 10;
        let end = start + usize::from(word(message, at + 8)?);
        Some(Self {
            owner,
            rtype: word(message, at)?,
            class: word(message, at + 2)?,
            ttl_s: ttl | u32::from(word(message, at + 6)?),
            data: message.get(start..end)?,
            start,
            end,
        })
    }

    fn text(&self, message: &[u8]) -> Option<String> {
        let named = |at: usize| name(message, self.start + at).map(|(name, _)| name);
        let data = match self.rtype {
            CNAME | NS | PTR => named(0)?,
            MX => format!("{} {}", HEXLOWER.encode(self.data.get(..2)?), named(2)?),
            SRV => format!("{} {}", HEXLOWER.encode(self.data.get(..6)?), named(6)?),
            SOA => {
                let (primary, mailbox) = name(message, self.start)?;
                let (mailbox, serial) = name(message, mailbox)?;
                let rest = message.get(serial + 4..self.end)?;
                format!("{primary} {mailbox} {}", HEXLOWER.encode(rest))
            }
            _ => HEXLOWER.encode(self.data),
        };
        let Self {
            owner,
            class,
            rtype,
            ttl_s,
            ..
        } = self;
        Some(format!("{owner} {ttl_s} {class} {rtype} {data}"))
    }
}

/// A name in lower case, and where it ends.
fn name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut text, mut at, mut end) = (String::new(), start, None);
    // Pointers may not go round.
    for _ in 0..256 {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => {
                let text = if text.is_empty() {
                    ".".to_owned()
                } else {
                    text
                };
                return Some((text, end.unwrap_or(at + 1)));
            }
            1..64 => {
                for octet in message.get(at + 1..=at + length)? {
                    match octet.to_ascii_lowercase() {
                        b'.' => text += "\\.",
                        octet if octet.is_ascii_graphic() => text.push(char::from(octet)),
                        octet => {
                            let _ = write!(text, "\\{octet:03}");
                        }
                    }
                }
                text.push('.');
                at += length + 1;
            }
            192.. => {
                end = end.or(Some(at + 2));
                at = usize::from(word(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
    None
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    let octets = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(octets.try_into().ok()?))
}
