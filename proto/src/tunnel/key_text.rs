//! A WireGuard public key as `wg` prints it.

use std::str::FromStr;

use data_encoding::BASE64;

use super::TunnelKey;

/// Not a WireGuard public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a WireGuard public key: 44 characters, as `wg pubkey` prints it")]
pub struct TunnelKeyError(String);

impl FromStr for TunnelKey {
    type Err = TunnelKeyError;

    /// Zero is no key: WireGuard's programs take it for none.
    fn from_str(text: &str) -> Result<Self, TunnelKeyError> {
        let bytes = BASE64.decode(text.as_bytes()).ok();
        let key: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        let key = key.filter(|key| *key != [0; 32]);
        key.map(Self).ok_or_else(|| {
            TunnelKeyError(text.chars().filter(|c| !c.is_control()).take(50).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_nothing_else_is_one() {
        let key = TunnelKey([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        let zero = TunnelKey([0; 32]).to_string();
        let long = format!("{key}AA==");
        for text in [
            "",
            "phone",
            &zero,
            &key.to_string()[1..],
            &long,
            &format!("{key}\n"),
        ] {
            assert!(text.parse::<TunnelKey>().is_err(), "{text:?}");
        }
    }
}
