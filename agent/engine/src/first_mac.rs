//! Whom a handshake's first message is for.

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{KeyInit, Mac, consts::U16},
};

const LABEL: &[u8] = b"mac1----";
/// A handshake's first message, and what of it its first MAC covers (whitepaper §5.4.2).
const INITIATION: [u8; 4] = [1, 0, 0, 0];
const LENGTH: usize = 148;
const COVERED: usize = 116;
const MAC: usize = 16;

/// Tells the peer that a first message was made for, by the MAC whose key follows from
/// that peer's public key (whitepaper §5.4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMac([u8; 32]);

impl FirstMac {
    /// Of the peer with this public key.
    #[must_use]
    pub fn new(public_key: &[u8; 32]) -> Self {
        let hash = Blake2s256::new_with_prefix(LABEL).chain_update(public_key);
        Self(hash.finalize().into())
    }

    /// Whether a datagram is a first message for this peer.
    #[must_use]
    pub fn is_of(&self, datagram: &[u8]) -> bool {
        if datagram.len() != LENGTH || !datagram.starts_with(&INITIATION) {
            return false;
        }
        let Some((covered, macs)) = datagram.split_at_checked(COVERED) else {
            return false;
        };
        let Ok(mac) = Blake2sMac::<U16>::new_from_slice(&self.0) else {
            return false;
        };
        let mac = mac.chain_update(covered);
        macs.get(..MAC)
            .is_some_and(|given| mac.verify_slice(given).is_ok())
    }
}
