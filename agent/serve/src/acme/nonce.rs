//! Nonces against replay (RFC 8555 §6.5): a counter and its authentication
//! code, and of those that were issued last, which were used. Nothing is kept
//! of those that were only asked for.

#![allow(missing_docs, reason = "the names say it")]

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

/// How many nonces back one may still be used.
const WINDOW: u64 = 1 << 16;
/// Bytes of the counter, and of the code behind it.
const COUNTER: usize = 8;

/// Issues nonces, and takes each back once.
pub struct Nonces {
    key: hmac::Key,
    next: u64,
    used: Box<[u64]>,
}

impl Nonces {
    /// With a key that no other run of the agent has: its nonces end with it.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            next: 0,
            used: vec![0; (WINDOW / 64) as usize].into(),
        }
    }

    pub fn issue(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        let (word, bit) = place(number);
        self.used[word] &= !bit;
        let counter = number.to_be_bytes();
        let code = hmac::sign(&self.key, &counter);
        BASE64URL_NOPAD.encode(&[&counter, &code.as_ref()[..16]].concat())
    }

    /// Whether it is one of these that wasn't used; it is, from now on.
    pub fn take(&mut self, nonce: &str) -> bool {
        let Ok(bytes) = BASE64URL_NOPAD.decode(nonce.as_bytes()) else {
            return false;
        };
        let Some((counter, code)) = bytes.split_first_chunk::<COUNTER>() else {
            return false;
        };
        let expected = hmac::sign(&self.key, counter);
        let is_ours =
            aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..16], code);
        let number = u64::from_be_bytes(*counter);
        if is_ours.is_err() || number >= self.next || self.next - number > WINDOW {
            return false;
        }
        let (word, bit) = place(number);
        let is_new = self.used[word] & bit == 0;
        self.used[word] |= bit;
        is_new
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % WINDOW;
    ((slot / 64) as usize, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_good_once_and_only_here() {
        let mut nonces = Nonces::new(&[7; 32]);
        let (one, two) = (nonces.issue(), nonces.issue());
        assert!(nonces.take(&two));
        assert!(nonces.take(&one));
        assert!(!nonces.take(&one) && !nonces.take(&two));
        let other = Nonces::new(&[8; 32]).issue();
        for bad in ["", "AAAA", "§", other.as_str(), &one[1..]] {
            assert!(!nonces.take(bad), "{bad}");
        }
    }

    #[test]
    fn old_ones_end_and_their_places_are_used_again() {
        let mut nonces = Nonces::new(&[7; 32]);
        let first = nonces.issue();
        let second = nonces.issue();
        assert!(nonces.take(&second));
        for _ in 0..WINDOW - 1 {
            nonces.issue();
        }
        assert!(!nonces.take(&first));
        let last = nonces.issue();
        assert!(nonces.take(&last) && !nonces.take(&last));
    }
}
