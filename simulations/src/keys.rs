//! Keys and randomness of one host, all from a seed: Ed25519 is deterministic
//! as it is (RFC 8032), P-256 signs by RFC 6979. A world remembers what was
//! verified in it: the same head is checked by every node, and once is enough.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use innermesh_agent::{
    host::{
        keys::{CaKey, Ed25519, KeyError, Keys, NodeKey, SystemKeys},
        sealed::{SEALED_BYTES, SealError},
    },
    tunnel::public_key,
};
use innermesh_proto::{
    crypto::{Hash, PublicKey, Signature, Verify},
    tunnel::TunnelKey,
};
use p256::{
    SecretKey,
    ecdsa::{DerSignature, SigningKey, signature::Signer},
    elliptic_curve::sec1::ToEncodedPoint,
    pkcs8::{DecodePrivateKey, EncodePrivateKey},
};
use pkcs8::SecretDocument;
use rustls::crypto::CryptoProvider;

use crate::handshakes::{Drawn, Exchange};

/// Verifications that are remembered, so that a long run stays small.
const REMEMBERED: usize = 1 << 20;

/// What was verified in a world, true or not. Clones are the same memory.
#[derive(Clone, Default)]
pub struct Verified(Arc<Mutex<HashMap<Hash, bool>>>);

impl Verified {
    fn or_verify(&self, parts: [&[u8]; 3], verify: impl FnOnce() -> bool) -> bool {
        let lengths = parts.map(|part| part.len().to_le_bytes()).concat();
        let claim = Hash::of(&[&lengths[..], parts[0], parts[1], parts[2]].concat());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        *known.entry(claim).or_insert_with(verify)
    }
}

/// The keys of one host.
pub struct SimKeys {
    seed: Hash,
    verified: Verified,
    drawn: AtomicU64,
}

impl SimKeys {
    /// Everything from `seed`, and another sequence for each `host`.
    pub fn new(seed: u64, host: &str, verified: Verified) -> Self {
        Self {
            verified,
            seed: Hash::of(&[&seed.to_le_bytes(), host.as_bytes()].concat()),
            drawn: AtomicU64::new(0),
        }
    }

    fn draw(&self) -> [u8; 32] {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        Hash::of(&[&self.seed.0[..], &count.to_le_bytes()].concat()).0
    }
}

impl Keys for SimKeys {
    fn random(&self, out: &mut [u8]) {
        for part in out.chunks_mut(32) {
            part.copy_from_slice(&self.draw()[..part.len()]);
        }
    }

    fn generate_ed25519(&self) -> Arc<dyn NodeKey> {
        Arc::new(Ed25519::from_seed(&self.draw()))
    }

    fn load_ed25519(&self, pkcs8: &[u8]) -> Result<Arc<dyn NodeKey>, KeyError> {
        Ok(Arc::new(Ed25519::load(pkcs8)?))
    }

    fn generate_p256(&self) -> Arc<dyn CaKey> {
        // Zero and what is beyond the curve's order are no keys: one draw in 2^32.
        let secret = std::iter::repeat_with(|| SecretKey::from_slice(&self.draw()))
            .find_map(Result::ok)
            .expect("an endless sequence");
        Arc::new(P256::new(secret))
    }

    fn load_p256(&self, pkcs8: &[u8]) -> Result<Arc<dyn CaKey>, KeyError> {
        let secret =
            SecretKey::from_pkcs8_der(pkcs8).map_err(|e| KeyError::Malformed(e.to_string()))?;
        Ok(Arc::new(P256::new(secret)))
    }

    /// Hides nothing from this process, but has the size of what does, and opens
    /// for the same holder and purpose only.
    fn seal(&self, to: &TunnelKey, about: &[u8], secret: &[u8; 32]) -> Result<Vec<u8>, SealError> {
        let once = self.draw();
        let mask = mask(to, about, &once);
        let hidden: Vec<u8> = secret.iter().zip(mask).map(|(a, b)| a ^ b).collect();
        let tag = Hash::of(&[&mask[..], secret].concat()).0;
        Ok([&once[..], &hidden, &tag[..16]].concat())
    }

    fn open(&self, private: &[u8; 32], about: &[u8], sealed: &[u8]) -> Result<[u8; 32], SealError> {
        if sealed.len() != SEALED_BYTES {
            return Err(SealError::Foreign);
        }
        let (once, rest) = sealed.split_at(32);
        let (hidden, tag) = rest.split_at(32);
        let mask = mask(&public_key(private), about, once);
        let secret: Vec<u8> = hidden.iter().zip(mask).map(|(a, b)| a ^ b).collect();
        if Hash::of(&[&mask[..], &secret].concat()).0[..16] != *tag {
            return Err(SealError::Foreign);
        }
        secret.try_into().map_err(|_| SealError::Foreign)
    }

    fn tls(&self) -> CryptoProvider {
        CryptoProvider {
            kx_groups: vec![&Exchange],
            secure_random: &Drawn,
            ..SystemKeys.tls()
        }
    }
}

fn mask(to: &TunnelKey, about: &[u8], once: &[u8]) -> [u8; 32] {
    Hash::of(&[&to.0[..], once, about].concat()).0
}

impl Verify for SimKeys {
    fn ed25519(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        self.verified
            .or_verify([&key.0, message, &signature.to_bytes()], || {
                SystemKeys.ed25519(key, message, signature)
            })
    }

    fn p256(&self, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        self.verified.or_verify([spki, message, signature], || {
            SystemKeys.p256(spki, message, signature)
        })
    }
}

struct P256 {
    secret: SecretKey,
    signer: SigningKey,
    point: [u8; 65],
}

impl P256 {
    fn new(secret: SecretKey) -> Self {
        let point = secret.public_key().to_encoded_point(false);
        Self {
            signer: SigningKey::from(&secret),
            point: point
                .as_bytes()
                .try_into()
                .expect("an uncompressed point is 65 bytes"),
            secret,
        }
    }
}

impl CaKey for P256 {
    fn point(&self) -> &[u8; 65] {
        &self.point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature: DerSignature = self
            .signer
            .try_sign(message)
            .map_err(|_| KeyError::Signing)?;
        Ok(signature.as_bytes().to_vec())
    }

    fn pkcs8(&self) -> SecretDocument {
        self.secret
            .to_pkcs8_der()
            .expect("a key held in memory has an encoding")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_keys_and_signatures_and_another_host_others() {
        let [one, same, other] = [(1, "a"), (1, "a"), (1, "b")].map(|(seed, host)| {
            let keys = SimKeys::new(seed, host, Verified::default());
            let (node, ca) = (keys.generate_ed25519(), keys.generate_p256());
            let mut random = [0; 40];
            keys.random(&mut random);
            (node.public(), *ca.point(), ca.sign(b"x").unwrap(), random)
        });
        assert_eq!(one, same);
        assert!(one.0 != other.0 && one.1 != other.1 && one.3 != other.3);
    }

    #[test]
    fn what_a_seeded_key_signs_verifies_and_a_stored_one_is_the_same() {
        let keys = SimKeys::new(7, "a", Verified::default());
        let key = keys.generate_p256();
        let stored = key.pkcs8();
        let signature = keys
            .load_p256(stored.as_bytes())
            .unwrap()
            .sign(b"x")
            .unwrap();
        assert!(keys.p256(&key.spki(), b"x", &signature));
        assert!(!keys.p256(&key.spki(), b"y", &signature));
        // The production host reads the same file.
        let read = SystemKeys.load_p256(stored.as_bytes()).unwrap();
        assert_eq!(read.point(), key.point());
    }
    #[test]
    fn a_secret_sealed_here_is_alike_for_one_seed_and_opens_for_its_holder_only() {
        let sealed = || SimKeys::new(7, "a", Verified::default());
        let private = [9; 32];
        let to = public_key(&private);
        let one = sealed().seal(&to, b"x", &[3; 32]).unwrap();
        assert_eq!(one, sealed().seal(&to, b"x", &[3; 32]).unwrap());
        let keys = sealed();
        assert_eq!(keys.open(&private, b"x", &one), Ok([3; 32]));
        assert_eq!(keys.open(&private, b"y", &one), Err(SealError::Foreign));
        assert_eq!(keys.open(&[8; 32], b"x", &one), Err(SealError::Foreign));
        assert_eq!(
            keys.open(&private, b"x", &one[1..]),
            Err(SealError::Foreign)
        );
    }
}
