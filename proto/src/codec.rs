//! The one place where values become bytes and bytes become values.
//!
//! bincode 2.0.1, little-endian with variable-length integers, a format
//! version in the first byte, a byte limit on every read, trailing bytes
//! refused. Replacing bincode touches this module only.

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{crypto::Hash, limits};

/// First byte of every encoding.
const FORMAT: u8 = 1;

/// Why bytes were not accepted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than the caller allows.
    #[error("{got} bytes where at most {limit} are allowed")]
    TooLong {
        /// Bytes offered.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Nothing, or a format version that this build doesn't read.
    #[error("unknown format version {0:?}")]
    Format(Option<u8>),
    /// The bytes are not an encoding of the expected type.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A complete value, then more bytes.
    #[error("{0} bytes after the value")]
    Trailing(usize),
}

/// Largest value that any caller but a snapshot's may decode; the per-call
/// limit is below it.
const CEILING: usize = 8 * 1024 * 1024;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<CEILING>()
}

/// Encodes `value` with the format version in front.
///
/// # Panics
/// Only for a type that serde cannot describe to bincode: our own mistake,
/// never a matter of the value's content.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![FORMAT];
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .expect("wire types are plain data");
    out
}

/// The hash of what [`encode`] gives, without holding it.
///
/// # Panics
/// As [`encode`].
pub fn hash<T: Serialize>(value: &T) -> Hash {
    let mut hasher = Hasher(Sha256::new_with_prefix([FORMAT]));
    bincode::serde::encode_into_writer(value, &mut hasher, bincode::config::standard())
        .expect("wire types are plain data");
    Hash(hasher.0.finalize().into())
}

struct Hasher(Sha256);

impl bincode::enc::write::Writer for Hasher {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.update(bytes);
        Ok(())
    }
}

/// The encoding of a list whose items are encoded already, or of a struct with
/// nothing but such a list. What is no encoding is left out.
pub fn encode_list(items: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let bare = |item: &'_ [u8]| item.first() == Some(&FORMAT);
    let items = items.iter().map(AsRef::as_ref).filter(|item| bare(item));
    let count = items.clone().count() as u64;
    let mut out = encode(&count);
    out.reserve(items.clone().map(<[u8]>::len).sum());
    items.for_each(|item| out.extend_from_slice(&item[1..]));
    out
}

/// Decodes exactly one value from `bytes`, of which at most `limit` are allowed.
///
/// # Errors
/// [`CodecError`] says what is wrong with the bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit.min(CEILING) {
        return Err(CodecError::TooLong {
            got: bytes.len(),
            limit,
        });
    }
    decode_with(bytes, config())
}

/// As [`decode`], for a value of up to [`limits::OWN_SNAPSHOT_BYTES`]: only for
/// bytes whose hash was checked.
///
/// # Errors
/// As [`decode`].
pub fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > limits::OWN_SNAPSHOT_BYTES {
        return Err(CodecError::TooLong {
            got: bytes.len(),
            limit: limits::OWN_SNAPSHOT_BYTES,
        });
    }
    let large = bincode::config::standard().with_limit::<{ limits::OWN_SNAPSHOT_BYTES }>();
    decode_with(bytes, large)
}

/// Decodes one value from the beginning of `bytes`, of which at most `limit`
/// are allowed, and gives what stands behind it.
///
/// # Errors
/// As [`decode`], but for [`CodecError::Trailing`].
pub fn decode_front<T: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
) -> Result<(T, &[u8]), CodecError> {
    if bytes.len() > limit.min(CEILING) {
        return Err(CodecError::TooLong {
            got: bytes.len(),
            limit,
        });
    }
    let (&format, rest) = bytes.split_first().ok_or(CodecError::Format(None))?;
    if format != FORMAT {
        return Err(CodecError::Format(Some(format)));
    }
    front(rest, config())
}

/// As [`decode_front`], of what that left over.
///
/// # Errors
/// [`CodecError::Malformed`].
pub fn decode_next<T: DeserializeOwned>(rest: &[u8]) -> Result<(T, &[u8]), CodecError> {
    front(rest, config())
}

fn front<T: DeserializeOwned>(
    rest: &[u8],
    config: impl bincode::config::Config,
) -> Result<(T, &[u8]), CodecError> {
    let (value, read) = bincode::serde::decode_from_slice(rest, config)
        .map_err(|e| CodecError::Malformed(e.to_string()))?;
    Ok((value, &rest[read..]))
}

fn decode_with<T: DeserializeOwned>(
    bytes: &[u8],
    config: impl bincode::config::Config,
) -> Result<T, CodecError> {
    let (&format, rest) = bytes.split_first().ok_or(CodecError::Format(None))?;
    if format != FORMAT {
        return Err(CodecError::Format(Some(format)));
    }
    let (value, rest) = front(rest, config)?;
    match rest.len() {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

/// Bytes copied whole, for `#[serde(with = "raw")]`. serde takes a `Vec<u8>`
/// element by element, which for a frame of 2 MiB costs a hundred times the
/// copy; the encoding is the same.
pub mod raw {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    /// Writes the length and the bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads what [`serialize`] wrote.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_round_trip() {
        let value = (7u64, "x".to_string(), vec![1u8, 2]);
        assert_eq!(
            decode::<(u64, String, Vec<u8>)>(&encode(&value), 100).unwrap(),
            value
        );
        assert_eq!(hash(&value), Hash::of(&encode(&value)));
    }

    #[test]
    fn trailing_bytes_short_input_and_other_versions_are_refused() {
        let mut bytes = encode(&5u32);
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes, 100), Err(CodecError::Trailing(1)));
        assert_eq!(decode::<u32>(&[], 100), Err(CodecError::Format(None)));
        assert_eq!(
            decode::<u32>(&[9, 5], 100),
            Err(CodecError::Format(Some(9)))
        );
        assert!(matches!(
            decode::<u32>(&bytes, 1),
            Err(CodecError::TooLong { .. })
        ));
    }

    #[test]
    fn a_length_that_promises_more_than_there_is_allocates_nothing() {
        // A vector that claims 2^62 elements.
        let hostile = [FORMAT, 253, 0, 0, 0, 0, 0, 0, 0, 64];
        assert!(matches!(
            decode::<Vec<u8>>(&hostile, 100),
            Err(CodecError::Malformed(_))
        ));
    }
}
