//! Where records stand in a message (RFC 1035 §4.1), as far as it can be read.

use std::ops::Range;

pub(super) const HEADER: usize = 12;
pub(super) const OPT: u16 = 41;

/// Where a record stands. Its data may be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordSpan {
    /// Which of the three sections it is in, from 0.
    pub section: usize,
    pub start: usize,
    pub rtype: u16,
    /// Where its TTL begins.
    pub ttl: usize,
    pub data: Range<usize>,
}

impl RecordSpan {
    /// In seconds.
    pub fn ttl_s(&self, message: &[u8]) -> Option<u32> {
        let ttl = message.get(self.ttl..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*ttl))
    }
}

/// The records behind the questions of a message, in order; `None` as the last
/// where it isn't whole.
pub(super) fn records(message: &[u8]) -> impl Iterator<Item = Option<RecordSpan>> {
    let counts = [4, 6, 8, 10].map(|at| word(message, at).unwrap_or(0));
    let [questions, sections @ ..] = counts;
    let mut at = Some(HEADER);
    for _ in 0..questions {
        at = at.and_then(|at| after_name(message, at)).map(|end| end + 4);
        if at.is_none() {
            break;
        }
    }
    let sections = sections.into_iter().enumerate();
    let mut each = sections.flat_map(|(section, count)| (0..count).map(move |_| section));
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let section = each.next()?;
        let record = at.and_then(|start| record(message, section, start));
        is_over = record.is_none();
        at = record.as_ref().map(|record| record.data.end);
        Some(record)
    })
}

/// The message's OPT record, however much of it is there.
pub(super) fn opt(message: &[u8]) -> Option<RecordSpan> {
    records(message)
        .map_while(|record| record)
        .find(|record| record.rtype == OPT)
}

/// The options of an OPT record, by code, as far as they are whole.
pub(super) fn options(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (fixed, rest) = data.split_first_chunk::<4>()?;
        let [c0, c1, l0, l1] = *fixed;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        data = rest;
        Some((u16::from_be_bytes([c0, c1]), value))
    })
}

fn record(message: &[u8], section: usize, start: usize) -> Option<RecordSpan> {
    let fixed = after_name(message, start)?;
    let rtype = word(message, fixed)?;
    let data = fixed + 10;
    let length = usize::from(word(message, fixed + 8)?);
    Some(RecordSpan {
        section,
        start,
        rtype,
        ttl: fixed + 4,
        data: data..data + length,
    })
}

pub(super) fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Where a name that begins at `at` ends.
pub(super) fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // A pointer ends a name (RFC 1035 §4.1.4).
            0xc0.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01a\x03org\0\0\x01\0\x01";

    fn message(counts: [u8; 4], rest: &[&[u8]]) -> Vec<u8> {
        let [q, a, n, x] = counts;
        let header = [7, 9, 0x81, 0, 0, q, 0, a, 0, n, 0, x];
        [&header[..], &rest.concat()].concat()
    }

    #[test]
    fn records_are_found_in_their_sections() {
        let a = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
        let opt_record = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x05\0\x0c\0\x01\0";
        let whole = message([1, 2, 0, 1], &[QUESTION, a, a, opt_record]);
        let all: Vec<_> = records(&whole).map(Option::unwrap).collect();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].section, all[2].section), (0, 2));
        assert_eq!(all[1].ttl_s(&whole), Some(60));
        assert_eq!(all[2].data.end, whole.len());
        let found = opt(&whole).unwrap();
        let options: Vec<_> = options(&whole[found.data]).collect();
        assert_eq!(options, [(12, &[0][..])]);
        for end in 0..whole.len() {
            let _ = records(&whole[..end]).count();
            let _ = opt(&whole[..end]);
        }
        assert_eq!(records(&whole[..whole.len() - 17]).last(), Some(None));
    }
}
