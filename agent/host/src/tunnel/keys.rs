//! WireGuard keys.

use innermesh_proto::tunnel::TunnelKey;

/// A private key from 32 random bytes, clamped as Curve25519 asks (RFC 7748
/// section 5).
pub fn generate_private_key(random: [u8; 32]) -> [u8; 32] {
    let mut key = random;
    key[0] &= 248;
    key[31] &= 127;
    key[31] |= 64;
    key
}

/// The public key of a private one.
pub fn public_key(private: &[u8; 32]) -> TunnelKey {
    TunnelKey(wireguard_control::Key(*private).get_public().0)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn a_public_key_is_the_one_of_rfc_7748_section_6_1() {
        let private = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let private: [u8; 32] = HEXLOWER
            .decode(private.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(
            HEXLOWER.encode(&public_key(&private).0),
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        );
    }

    #[test]
    fn a_private_key_is_clamped_and_stays_the_same_when_clamped_again() {
        let key = generate_private_key([0xff; 32]);
        assert_eq!((key[0], key[31]), (0xf8, 0x7f));
        assert_eq!(generate_private_key(key), key);
        assert_eq!(public_key(&[0xff; 32]), public_key(&key));
    }
}
