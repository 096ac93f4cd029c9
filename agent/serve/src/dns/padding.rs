//! Padding of messages on encrypted transports (RFC 7830), to the lengths of
//! RFC 8467: so their lengths tell less of the names in them.

use super::wire::{self, OPT};

/// The option's code.
pub(super) const PADDING: u16 = 12;
/// Responses have a multiple of so many bytes, and queries.
pub(super) const RESPONSE_BLOCK: usize = 468;
pub(super) const QUERY_BLOCK: usize = 128;
/// Code and length of an option.
const OPTION: usize = 4;
const LONGEST: usize = u16::MAX as usize;

/// Whether a query asks for padding, by being padded (RFC 7830 §4).
pub(super) fn is_wanted(query: &[u8]) -> bool {
    let options = wire::opt(query).and_then(|opt| query.get(opt.data));
    options.is_some_and(|options| wire::options(options).any(|(code, _)| code == PADDING))
}

/// Pads the message that begins at `begin` of `out` to a multiple of `block`
/// bytes, if its last record is an OPT record and there is room.
pub(super) fn pad(out: &mut Vec<u8>, begin: usize, block: usize) {
    let Some(message) = out.get(begin..) else {
        return;
    };
    let Some(opt) = wire::records(message).last().flatten() else {
        return;
    };
    let length = message.len();
    let padded = (length + OPTION).next_multiple_of(block).min(LONGEST);
    let (Some(more), true) = (
        padded.checked_sub(length + OPTION),
        opt.rtype == OPT && opt.data.end == length,
    ) else {
        return;
    };
    let of_options = opt.data.len() + OPTION + more;
    let (Ok(of_options), Ok(more)) = (u16::try_from(of_options), u16::try_from(more)) else {
        return;
    };
    let at = begin + opt.data.start - 2;
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&of_options.to_be_bytes());
    }
    out.extend_from_slice(&PADDING.to_be_bytes());
    out.extend_from_slice(&more.to_be_bytes());
    out.resize(begin + padded, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x07\x09\x01\0\0\x01\0\0\0\0\0\x01\x01a\x03org\0\0\x01\0\x01";
    const BARE: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";

    fn padded(message: &[u8], block: usize) -> Vec<u8> {
        // Behind another one, as in a stream.
        let mut out = [b"before", message].concat();
        pad(&mut out, 6, block);
        out.split_off(6)
    }

    #[test]
    fn a_message_with_opt_has_a_multiple_of_the_block() {
        let query = [QUERY, BARE].concat();
        assert!(!is_wanted(&query));
        for block in [QUERY_BLOCK, RESPONSE_BLOCK] {
            let with = padded(&query, block);
            assert_eq!(with.len(), block);
            assert!(is_wanted(&with));
            assert_eq!(with[..query.len() - 2], query[..query.len() - 2]);
        }
        // Another option is there already, and the block is just full.
        let long = QUERY_BLOCK - OPTION - query.len() - OPTION;
        let length = u8::try_from(long).unwrap();
        let with_cookie = [
            QUERY,
            &BARE[..10],
            &[length + 4, 0, 10, 0, length],
            &vec![7; long],
        ];
        let with = padded(&with_cookie.concat(), QUERY_BLOCK);
        assert_eq!(with.len(), QUERY_BLOCK);
        let data = wire::opt(&with).unwrap().data;
        let codes: Vec<_> = wire::options(&with[data]).map(|(code, _)| code).collect();
        assert_eq!(codes, [10, 12]);
    }

    #[test]
    fn what_has_no_opt_or_no_room_stays_as_it_is() {
        let mut without = QUERY.to_vec();
        without[11] = 0;
        assert_eq!(padded(&without, RESPONSE_BLOCK), without);
        let fill = vec![0; LONGEST - QUERY.len() - BARE.len() - 3 - 12];
        let length = u16::try_from(fill.len()).unwrap().to_be_bytes();
        let record = [b"\0\0\x10\0\x01\0\0\0\0", &length[..], &fill].concat();
        let mut full = [QUERY, &record, BARE].concat();
        full[9] = 1;
        let with = padded(&full, RESPONSE_BLOCK);
        assert!(with.len() <= LONGEST && with.len() >= full.len());
        for end in 0..QUERY.len() + BARE.len() {
            let cut = &[QUERY, BARE].concat()[..end];
            assert_eq!(padded(cut, QUERY_BLOCK), cut);
            assert!(!is_wanted(cut));
        }
    }
}
