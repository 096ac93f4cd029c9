//! What carries a gossip message between two agents: one byte, 0 for raw and
//! 1 for zstd, then the message.
//!
//! chitchat compresses the deltas that it sends and never its digests, which
//! are most of the traffic of a mesh at rest.

use super::{GateError, compression};
use crate::limits::GOSSIP_MESSAGE_BYTES;

const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// The third: [`super::compact`].
pub(super) const COMPACT: u8 = 2;

/// Puts a message of our own into its envelope, compressed where that makes
/// it shorter.
pub fn wrap(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1 + message.len()];
    // A buffer no longer than the message: zstd gives up where it gains
    // nothing.
    if let Some((tag, body)) = out.split_first_mut()
        && let Ok(len) = compression::compress(message, body)
        && len < message.len()
    {
        *tag = ZSTD;
        out.truncate(1 + len);
        return out;
    }
    out.clear();
    out.push(RAW);
    out.extend_from_slice(message);
    out
}

/// Takes a peer's message out of its envelope.
///
/// The plaintext is written into a buffer of the largest size allowed, so that
/// neither a frame's stated size nor its window can ask for more.
///
/// # Errors
/// [`GateError::Envelope`], [`GateError::Oversized`], [`GateError::Zstd`] or
/// [`GateError::Short`]. Nothing was changed.
pub fn unwrap(bytes: &[u8]) -> Result<Vec<u8>, GateError> {
    let (&tag, body) = bytes.split_first().ok_or(GateError::Short)?;
    if body.len() > GOSSIP_MESSAGE_BYTES {
        return Err(GateError::Oversized(body.len()));
    }
    match tag {
        RAW => Ok(body.to_vec()),
        ZSTD => {
            let mut plain = vec![0; GOSSIP_MESSAGE_BYTES];
            let len = compression::decompress(body, &mut plain[..]).map_err(|_| GateError::Zstd)?;
            plain.truncate(len);
            Ok(plain)
        }
        other => Err(GateError::Envelope(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_envelope_and_repetition_is_saved() {
        for len in [0, 1, 100, 1000, GOSSIP_MESSAGE_BYTES] {
            let message = vec![7; len];
            let wrapped = wrap(&message);
            assert!(
                wrapped.len() <= 1 + len.min(40),
                "{} of {len}",
                wrapped.len()
            );
            assert_eq!(unwrap(&wrapped), Ok(message));
        }
    }

    #[test]
    fn what_does_not_compress_travels_raw_and_one_byte_longer() {
        let noise: Vec<u8> = (0..64u8)
            .flat_map(|seed| crate::crypto::Hash::of(&[seed]).0)
            .collect();
        let wrapped = wrap(&noise);
        assert_eq!(wrapped.len(), 1 + noise.len());
        assert_eq!(unwrap(&wrapped), Ok(noise));
    }

    #[test]
    fn an_envelope_never_unfolds_beyond_a_message_whatever_its_frame_states() {
        let bomb = vec![0; 64 * 1024 * 1024];
        let mut frame = vec![ZSTD];
        frame.extend(zstd::bulk::compress(&bomb, 1).unwrap());
        assert!(frame.len() < 10_000);
        assert_eq!(unwrap(&frame), Err(GateError::Zstd));

        // The same without a stated size.
        let mut encoder = zstd::stream::Encoder::new(vec![ZSTD], 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::copy(&mut &bomb[..], &mut encoder).unwrap();
        assert_eq!(unwrap(&encoder.finish().unwrap()), Err(GateError::Zstd));

        let just_too_long = wrap(&vec![0; GOSSIP_MESSAGE_BYTES + 1]);
        assert_eq!(unwrap(&just_too_long), Err(GateError::Zstd));
    }

    #[test]
    fn unknown_envelopes_and_oversized_or_broken_bodies_are_refused() {
        assert_eq!(unwrap(&[]), Err(GateError::Short));
        assert_eq!(unwrap(&[2, 1, 2]), Err(GateError::Envelope(2)));
        assert_eq!(unwrap(&[ZSTD, 1, 2, 3]), Err(GateError::Zstd));
        assert_eq!(
            unwrap(&vec![RAW; 2 + GOSSIP_MESSAGE_BYTES]),
            Err(GateError::Oversized(GOSSIP_MESSAGE_BYTES + 1))
        );
    }
}
