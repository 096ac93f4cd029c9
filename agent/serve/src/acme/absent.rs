//! `null` for a member that is not there: clients that fill in an object of
//! their language send it so.

use serde::{Deserialize, Deserializer};

/// Reads `null` as what is read where the member is left out.
pub(super) fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
