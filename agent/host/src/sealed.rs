//! A secret sealed to a WireGuard key, which only the holder of its private half
//! opens: HPKE (RFC 9180) in its base mode, by the library that also carries TLS.

use innermesh_proto::tunnel::TunnelKey;
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};

/// Tells these from whatever else is ever sealed to such a key.
const INFO: &[u8] = b"innermesh pre-shared key of a device";
/// The sender's one-time public key.
const ENCAPSULATED: usize = 32;
/// That, the secret, and its tag.
pub const SEALED_BYTES: usize = ENCAPSULATED + 32 + 16;

/// Why a secret can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No secret can be agreed with such a key, as with one of small order.
    #[error("nothing can be sealed to this WireGuard key")]
    Key,
    /// Sealed to another key, for something else, or changed since.
    #[error("it is not sealed to this node's WireGuard key")]
    Foreign,
}

/// Seals `secret` to the holder of `to`; it opens only with the same `about`.
///
/// # Errors
/// [`SealError::Key`].
pub fn seal(to: &TunnelKey, about: &[u8], secret: &[u8; 32]) -> Result<Vec<u8>, SealError> {
    let key = HpkePublicKey(to.0.to_vec());
    let sealed = SUITE.seal(INFO, about, secret, &key);
    let (EncapsulatedSecret(mut bytes), text) = sealed.map_err(|_| SealError::Key)?;
    bytes.extend(text);
    Ok(bytes)
}

/// Opens what was sealed to the public half of `private` with the same `about`.
///
/// # Errors
/// [`SealError::Foreign`].
pub fn open(private: &[u8; 32], about: &[u8], sealed: &[u8]) -> Result<[u8; 32], SealError> {
    if sealed.len() != SEALED_BYTES {
        return Err(SealError::Foreign);
    }
    let (encapsulated, text) = sealed
        .split_at_checked(ENCAPSULATED)
        .ok_or(SealError::Foreign)?;
    let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
    let key = HpkePrivateKey::from(private.to_vec());
    let opened = SUITE.open(&encapsulated, INFO, about, text, &key);
    let opened = opened.map_err(|_| SealError::Foreign)?;
    opened.try_into().map_err(|_| SealError::Foreign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::{generate_private_key, public_key};

    const DEVICE: &[u8] = b"of a phone";
    /// What the ledger has room for.
    const ROOM: usize = 96;

    fn pair(seed: u8) -> ([u8; 32], TunnelKey) {
        let private = generate_private_key([seed; 32]);
        (private, public_key(&private))
    }

    #[test]
    fn a_secret_is_opened_by_the_holder_of_the_key_and_fits_the_ledger() {
        let (private, public) = pair(7);
        let sealed = seal(&public, DEVICE, &[3; 32]).unwrap();
        assert_eq!(sealed.len(), SEALED_BYTES);
        assert!(sealed.len() <= ROOM);
        assert_eq!(open(&private, DEVICE, &sealed), Ok([3; 32]));
        // Sealed again it looks otherwise, and opens alike.
        let again = seal(&public, DEVICE, &[3; 32]).unwrap();
        assert_ne!(again, sealed);
        assert_eq!(open(&private, DEVICE, &again), Ok([3; 32]));
    }

    #[test]
    fn nobody_else_opens_it_nor_for_another_device() {
        let (private, public) = pair(7);
        let sealed = seal(&public, DEVICE, &[3; 32]).unwrap();
        let other = pair(8).0;
        assert_eq!(open(&other, DEVICE, &sealed), Err(SealError::Foreign));
        assert_eq!(open(&private, b"another", &sealed), Err(SealError::Foreign));
        for length in [0, 31, 32, SEALED_BYTES - 1] {
            let short = &sealed[..length];
            assert_eq!(open(&private, DEVICE, short), Err(SealError::Foreign));
        }
        let mut long = sealed.clone();
        long.push(0);
        assert_eq!(open(&private, DEVICE, &long), Err(SealError::Foreign));
    }

    #[test]
    fn nothing_is_sealed_to_a_key_of_small_order() {
        assert_eq!(
            seal(&TunnelKey([0; 32]), DEVICE, &[3; 32]),
            Err(SealError::Key)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_changed_byte_is_noticed(at in 0..SEALED_BYTES, change in 1u8..) {
            let (private, public) = pair(7);
            let mut sealed = seal(&public, DEVICE, &[3; 32]).unwrap();
            sealed[at] ^= change;
            prop_assert_eq!(open(&private, DEVICE, &sealed), Err(SealError::Foreign));
        }
    }
}
