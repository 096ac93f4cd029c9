//! How long a cache of HTTP may keep an answer (RFC 8484 §5.1).

use super::super::wire::{HEADER, records};

const SOA: u16 = 6;
const NXDOMAIN: u8 = 3;

/// In seconds: the smallest TTL of the answers; without answers that of the negative
/// answer (RFC 2308 §5); nothing for a failure.
pub(super) fn fresh_s(reply: &[u8]) -> u32 {
    let Some(header) = reply.first_chunk::<HEADER>() else {
        return 0;
    };
    if !matches!(header[3] & 0xf, 0 | NXDOMAIN) {
        return 0;
    }
    let (mut answers, mut negative) = (None, None);
    for record in records(reply) {
        let Some(record) = record else { return 0 };
        let ttl_s = record.ttl_s(reply).unwrap_or(0);
        match (record.section, record.rtype) {
            (0, _) => answers = Some(answers.map_or(ttl_s, |least: u32| least.min(ttl_s))),
            (1, SOA) => {
                let data = reply.get(record.data).unwrap_or_default();
                let minimum = data.last_chunk::<4>();
                let minimum = minimum.map_or(0, |bytes| u32::from_be_bytes(*bytes));
                negative = Some(ttl_s.min(minimum));
            }
            _ => {}
        }
    }
    match (answers, negative) {
        // An alias to a name that isn't there.
        (Some(answers), Some(negative)) => answers.min(negative),
        (one, other) => one.or(other).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u8, counts: [u8; 2], records: &[&[u8]]) -> Vec<u8> {
        let [answers, authorities] = counts;
        let header = [
            0,
            0,
            0x81,
            0x80 | code,
            0,
            1,
            0,
            answers,
            0,
            authorities,
            0,
            0,
        ];
        let question: &[u8] = b"\x01a\x03org\0\0\x01\0\x01";
        [&header[..], question, &records.concat()].concat()
    }

    fn a(ttl: u8) -> Vec<u8> {
        [
            b"\xc0\x0c\0\x01\0\x01\0\0\0",
            &[ttl][..],
            b"\0\x04\xc0\0\x02\x01",
        ]
        .concat()
    }

    fn soa(ttl: u8, minimum: u8) -> Vec<u8> {
        let start: &[u8] = b"\0\0\x06\0\x01\0\0\0";
        let data = [b"\0\0", &[0; 16][..], &[0, 0, 0, minimum]].concat();
        [start, &[ttl, 0, 22], &data].concat()
    }

    #[test]
    fn an_answer_is_kept_no_longer_than_its_shortest_record() {
        assert_eq!(fresh_s(&reply(0, [2, 0], &[&a(60), &a(30)])), 30);
        assert_eq!(fresh_s(&reply(3, [0, 1], &[&soa(60, 20)])), 20);
        assert_eq!(fresh_s(&reply(0, [0, 1], &[&soa(10, 20)])), 10);
        assert_eq!(fresh_s(&reply(3, [1, 1], &[&a(60), &soa(60, 20)])), 20);
        for code in [1, 2, 5] {
            assert_eq!(fresh_s(&reply(code, [1, 0], &[&a(60)])), 0);
        }
        assert_eq!(fresh_s(&reply(0, [0, 0], &[])), 0);
        let whole = reply(0, [2, 0], &[&a(60), &a(30)]);
        for end in 0..whole.len() - 4 {
            assert_eq!(fresh_s(&whole[..end]), 0, "{end}");
        }
    }
}
