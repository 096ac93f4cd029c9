//! The internet checksum (RFC 1071), summed in the order of this machine's bytes: the
//! sum doesn't depend on it, and a compiler makes vector instructions of it.

/// Adds `bytes` to a sum. Parts that are added one after the other begin at even
/// places; an odd last byte stands before a zero.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum + words + u64::from(u32::from_ne_bytes(last))
}

/// The sum with what TCP and UDP add to it (RFC 9293 §3.1, RFC 8200 §8.1): both
/// addresses, the protocol and the length of the segment.
pub(crate) fn add_pseudo(sum: u64, addresses: &[u8], protocol: u8, length: usize) -> u64 {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let sum = add(sum, addresses);
    add(add(sum, &[0, protocol]), &length.to_be_bytes())
}

/// What stands in the field of a checksum, as its bytes.
pub(crate) fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// The sum itself, as its bytes: what a field holds whose checksum is still to be made.
pub(crate) fn partial(sum: u64) -> [u8; 2] {
    fold(sum).to_ne_bytes()
}

/// Whether a sum over everything, the field with it, says that nothing changed.
pub(crate) fn is_whole(sum: u64) -> bool {
    fold(sum) == u16::MAX
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_an_ipv4_packet_has_its_checksum() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        let made = finish(add(0, &header));
        assert_eq!(made, [0xb8, 0x61]);
        header[10..12].copy_from_slice(&made);
        assert!(is_whole(add(0, &header)));
        header[3] ^= 1;
        assert!(!is_whole(add(0, &header)));
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_first_of_a_pair() {
        assert_eq!(finish(add(0, &[0x12])), finish(add(0, &[0x12, 0])));
        assert_eq!(finish(add(0, &[1, 2, 3])), finish(add(0, &[1, 2, 3, 0])));
    }
}
