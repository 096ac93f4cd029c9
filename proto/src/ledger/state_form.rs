//! How a state is encoded. What newer rules keep stands behind what a mesh began with,
//! and under the rules before them it isn't there: builds of either kind agree on its hash.

use serde::{Serialize, Serializer, ser::SerializeTuple};

use super::{extension::Extension, position::Position, salts::SALTS_SINCE, state::State};
use crate::{
    codec::{self, CodecError},
    crypto::Hash,
};

/// A state as its hash and snapshots have it.
struct Form<'s>(&'s State);

impl Serialize for Form<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(state) = self;
        let (rules, extension) = (state.rules, &state.extension);
        // Nothing of a tuple's length is encoded.
        let mut parts = serializer.serialize_tuple(7)?;
        parts.serialize_element(state)?;
        if rules > 0 {
            parts.serialize_element(&rules)?;
            parts.serialize_element(extension)?;
        }
        if rules > 1 {
            parts.serialize_element(&extension.appointments)?;
        }
        if rules > 3 {
            parts.serialize_element(&extension.access)?;
        }
        if rules > 4 {
            parts.serialize_element(&extension.published)?;
        }
        if rules >= SALTS_SINCE {
            parts.serialize_element(&extension.salts)?;
        }
        parts.end()
    }
}

impl State {
    /// The hash of this state as of batch `index`.
    pub(super) fn hash_at(&self, index: u64) -> Hash {
        codec::hash(&Form(&self.without_hash(index)))
    }

    /// This state as a header's hash and snapshots have it: a header that
    /// holds the hash of the state can't be in that state with its own hash.
    pub(super) fn without_hash(&self, index: u64) -> Self {
        let mut state = self.clone();
        state.position = Position {
            index,
            hash: Hash::default(),
        };
        state
    }

    /// As snapshots hold it.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Form(self))
    }

    /// Reads what [`State::encode`] wrote, of a state under `rules`.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8], rules: u32) -> Result<Self, CodecError> {
        let (mut state, own, extension): (Self, u32, Extension) = match rules {
            0 => return codec::decode_large(bytes),
            1 => codec::decode_large(bytes)?,
            2 | 3 => {
                let (state, own, extension, appointments) = codec::decode_large(bytes)?;
                let extension = Extension {
                    appointments,
                    ..extension
                };
                (state, own, extension)
            }
            4 => {
                let (state, own, extension, appointments, access) = codec::decode_large(bytes)?;
                let extension = Extension {
                    appointments,
                    access,
                    ..extension
                };
                (state, own, extension)
            }
            5..SALTS_SINCE => {
                let (state, own, extension, appointments, access, published) =
                    codec::decode_large(bytes)?;
                let extension = Extension {
                    appointments,
                    access,
                    published,
                    ..extension
                };
                (state, own, extension)
            }
            _ => {
                let (state, own, extension, appointments, access, published, salts) =
                    codec::decode_large(bytes)?;
                let extension = Extension {
                    appointments,
                    access,
                    published,
                    salts,
                    ..extension
                };
                (state, own, extension)
            }
        };
        if own != rules {
            return Err(CodecError::Malformed(format!("rules {own}")));
        }
        (state.rules, state.extension) = (own, extension);
        Ok(state)
    }
}
