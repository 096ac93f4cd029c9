//! Frames of the append-only files: each has its length, a checksum that
//! covers the checksum before it (so frames can't be dropped or swapped
//! unseen), and a payload. Only a torn tail is ever cut off.

use std::ops::Range;

use innermesh_proto::crypto::Hash;

/// Length (u32, little-endian), then 8 bytes of checksum.
pub const HEAD: usize = 12;

/// A frame's checksum: what the next one's covers.
pub type Check = [u8; 8];

/// A whole frame in a file.
#[derive(Clone)]
pub struct Frame {
    /// Where its payload is, in bytes.
    pub payload: Range<usize>,
    /// Its checksum.
    pub check: Check,
}

/// Finds the whole frames after `first`, which the first one's checksum covers
/// in place of a predecessor's, and where the file is damaged if what follows
/// them is more than a torn tail. No frame is longer than `limit`.
pub fn scan(bytes: &[u8], first: Check, limit: usize) -> (Vec<Frame>, Option<u64>) {
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some((head, tail)) = rest.split_at_checked(HEAD) else {
            return (frames, None);
        };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(payload) = tail.get(..length) else {
            // It reaches beyond the end: a torn write, unless more was there.
            let damage = (length > limit && !is_blank(rest)).then_some(at as u64);
            return (frames, damage);
        };
        let previous = frames.last().map_or(first, |frame| frame.check);
        let check = checksum(&previous, payload);
        if check != head[4..] {
            let last = tail.len() == length;
            let damage = (!last && !is_blank(rest)).then_some(at as u64);
            return (frames, damage);
        }
        let start = at + HEAD;
        at = start + length;
        frames.push(Frame {
            payload: start..at,
            check,
        });
    }
}

/// The bytes of a frame after one with the checksum `previous`, and its own.
pub fn frame(previous: &Check, payload: &[u8]) -> (Vec<u8>, Check) {
    let check = checksum(previous, payload);
    let mut out = Vec::with_capacity(HEAD + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&check);
    out.extend_from_slice(payload);
    (out, check)
}

/// Zeros to the end: space that was reserved and never written.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn checksum(previous: &Check, payload: &[u8]) -> Check {
    let mut covered = Vec::with_capacity(payload.len() + 12);
    covered.extend_from_slice(previous);
    covered.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    covered.extend_from_slice(payload);
    let hash = Hash::of(&covered).0;
    [
        hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
    ]
}
