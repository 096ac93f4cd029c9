//! A key exchange in two messages that may be brought by anybody: X25519MLKEM768, as TLS
//! has it (draft-ietf-tls-ecdhe-mlkem), so that a recording stays closed to the computers
//! of tomorrow.

use rustls::{
    NamedGroup,
    crypto::{ActiveKeyExchange, SupportedKxGroup},
};
use zeroize::Zeroizing;

use crate::keys::Keys;

/// The half of whoever began.
pub struct PairExchange(Box<dyn ActiveKeyExchange>);

impl PairExchange {
    /// Begins one; `None` where `keys` has no such group.
    pub fn begin(keys: &dyn Keys) -> Option<Self> {
        group(keys)?.start().ok().map(Self)
    }

    /// What the other end needs: 1,216 bytes.
    pub fn share(&self) -> Vec<u8> {
        self.0.pub_key().to_vec()
    }

    /// The secret of 64 bytes, by the other's share; `None` where that is none.
    pub fn finish(self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let secret = self.0.complete(share).ok()?;
        Some(Zeroizing::new(secret.secret_bytes().to_vec()))
    }
}

/// The share of 1,120 bytes and the secret of whoever answers; `None` where `share` is none, or
/// `keys` has no such group.
pub fn answer(keys: &dyn Keys, share: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let done = group(keys)?.start_and_complete(share).ok()?;
    let secret = Zeroizing::new(done.secret.secret_bytes().to_vec());
    Some((done.pub_key, secret))
}

fn group(keys: &dyn Keys) -> Option<&'static dyn SupportedKxGroup> {
    let groups = keys.tls().kx_groups;
    let mut groups = groups.into_iter();
    groups.find(|group| group.name() == NamedGroup::X25519MLKEM768)
}

#[cfg(test)]
mod tests {
    use innermesh_proto::pair_key::SHARE_BYTES;

    use super::*;
    use crate::keys::SystemKeys;

    #[test]
    fn both_ends_have_one_secret_and_a_share_that_is_none_is_refused() {
        let begun = PairExchange::begin(&SystemKeys).unwrap();
        let share = begun.share();
        let (answer, secret) = super::answer(&SystemKeys, &share).unwrap();
        assert!(share.len() <= SHARE_BYTES && answer.len() <= SHARE_BYTES);
        assert_eq!((share.len(), answer.len(), secret.len()), (1216, 1120, 64));
        assert_eq!(begun.finish(&answer), Some(secret));
        for share in [&[][..], &share[1..], &[0; 1216]] {
            assert!(super::answer(&SystemKeys, share).is_none());
        }
        let begun = PairExchange::begin(&SystemKeys).unwrap();
        assert_eq!(begun.finish(&answer[1..]), None);
    }
}
