//! A picture of black and white squares as PNG (W3C, third edition). It isn't
//! compressed: a library that does would bring seven packages for 50 KB once.

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Bytes of a stored block at most (RFC 1951 §3.2.4).
const BLOCK: usize = 0xffff;

/// A square picture of `side` by `side` squares, each `scale` by `scale` pixels;
/// `is_dark` tells by column and row.
pub fn encode(side: u32, scale: u32, is_dark: impl Fn(u32, u32) -> bool) -> Vec<u8> {
    let pixels = side * scale;
    let mut lines = Vec::new();
    for row in 0..side {
        let line = line(side, scale, |column| is_dark(column, row));
        for _ in 0..scale {
            lines.extend_from_slice(&line);
        }
    }
    let mut header = [pixels.to_be_bytes(), pixels.to_be_bytes()].concat();
    // One bit of grey; no compression but the one way, no filter, no interlacing.
    header.extend([1, 0, 0, 0, 0]);
    let mut out = SIGNATURE.to_vec();
    chunk(&mut out, b"IHDR", &header);
    chunk(&mut out, b"IDAT", &stored(&lines));
    chunk(&mut out, b"IEND", &[]);
    out
}

/// One line of pixels behind its filter's number, white being 1.
fn line(side: u32, scale: u32, is_dark: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut line = vec![0];
    let mut bits = (0..side).flat_map(|column| {
        let white = u8::from(!is_dark(column));
        std::iter::repeat_n(white, scale as usize)
    });
    loop {
        let eight: Vec<u8> = bits.by_ref().take(8).collect();
        if eight.is_empty() {
            return line;
        }
        let byte = eight.iter().fold(0, |byte, bit| byte << 1 | bit);
        line.push(byte << (8 - eight.len()));
    }
}

/// A zlib stream (RFC 1950) of blocks that are stored as they are.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let last = data.chunks(BLOCK).count().saturating_sub(1);
    for (number, block) in data.chunks(BLOCK).enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(number == last));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend(adler32(data).to_be_bytes());
    out
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    let body = [&kind[..], data].concat();
    out.extend_from_slice(&body);
    out.extend(crc32(&body).to_be_bytes());
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn adler32(data: &[u8]) -> u32 {
    let sums = data.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    sums.1 << 16 | sums.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_standards() {
        // The check value of CRC-32, and RFC 1950's sum over a known word.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn a_line_is_packed_from_the_left_and_filled_up() {
        assert_eq!(
            line(3, 3, |column| column == 1),
            [0, 0b1110_0011, 0b1000_0000]
        );
    }

    #[test]
    fn a_picture_has_its_parts_in_order_and_a_large_one_several_blocks() {
        let picture = encode(77, 8, |_, _| false);
        assert!(picture.starts_with(&SIGNATURE));
        let kinds = [b"IHDR", b"IDAT", b"IEND"].map(|kind| {
            let mut at = picture.windows(4);
            at.position(|window| window == kind).expect("it is there")
        });
        assert!(kinds.is_sorted());
        let data = vec![5; BLOCK + 1];
        let stored = stored(&data);
        assert_eq!(stored.len(), 2 + 2 * 5 + data.len() + 4);
        assert_eq!((stored[2], stored[2 + 5 + BLOCK]), (0, 1));
    }
}
