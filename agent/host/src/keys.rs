//! Keys and randomness: what the host makes, signs and verifies with. A
//! private key leaves this module only as PKCS #8, to be stored; what is
//! signed and why, others know.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, UnparsedPublicKey,
    },
};
use innermesh_proto::{
    certificate::{p256_point, p256_spki},
    crypto::{PublicKey, Sign, Signature, Verify},
    tunnel::TunnelKey,
};
use pkcs8::SecretDocument;
use rustls::crypto::{
    CryptoProvider,
    aws_lc_rs::{
        default_provider,
        kx_group::{X25519, X25519MLKEM768},
    },
};

use crate::sealed::{self, SealError};

/// Key generation, loading, verifying and randomness. The simulation seeds
/// its own.
pub trait Keys: Verify + Send + Sync {
    /// Fills `out` with cryptographic randomness.
    fn random(&self, out: &mut [u8]);
    /// A new node identity.
    fn generate_ed25519(&self) -> Arc<dyn NodeKey>;
    /// A stored node identity, from PKCS #8 in DER (RFC 8410).
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    fn load_ed25519(&self, pkcs8: &[u8]) -> Result<Arc<dyn NodeKey>, KeyError>;
    /// A new P-256 key, for a root, an issuer or a service.
    fn generate_p256(&self) -> Arc<dyn CaKey>;
    /// A stored P-256 key, from PKCS #8 in DER (RFC 5915).
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    fn load_p256(&self, pkcs8: &[u8]) -> Result<Arc<dyn CaKey>, KeyError>;
    /// Seals a secret to a WireGuard key, as [`sealed::seal`].
    ///
    /// # Errors
    /// [`SealError::Key`].
    fn seal(&self, to: &TunnelKey, about: &[u8], secret: &[u8; 32]) -> Result<Vec<u8>, SealError> {
        sealed::seal(to, about, secret)
    }
    /// Opens what was sealed to a WireGuard key, as [`sealed::open`].
    ///
    /// # Errors
    /// [`SealError::Foreign`].
    fn open(&self, private: &[u8; 32], about: &[u8], sealed: &[u8]) -> Result<[u8; 32], SealError> {
        sealed::open(private, about, sealed)
    }
    /// What TLS between agents is made of. The post-quantum group is offered first: who
    /// records traffic today can't decrypt it with the computers of tomorrow.
    fn tls(&self) -> CryptoProvider {
        CryptoProvider {
            kx_groups: vec![X25519MLKEM768, X25519],
            ..default_provider()
        }
    }
}

/// A node's Ed25519 key.
pub trait NodeKey: Sign {
    /// PKCS #8 in DER, wiped from memory when dropped.
    fn pkcs8(&self) -> SecretDocument;
}

/// A P-256 key.
pub trait CaKey: Send + Sync {
    /// The public half as an uncompressed point.
    fn point(&self) -> &[u8; 65];
    /// Signs `message`: ECDSA with SHA-256, in ASN.1 DER (RFC 3279 §2.2.3).
    ///
    /// # Errors
    /// [`KeyError::Signing`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// PKCS #8 in DER, wiped from memory when dropped.
    fn pkcs8(&self) -> SecretDocument;

    /// The public half as SubjectPublicKeyInfo in DER.
    fn spki(&self) -> Vec<u8> {
        p256_spki(self.point())
    }
}

/// Why a key can't be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PKCS #8 of a private key of the kind that was expected.
    #[error("the stored key is not a private key of the expected kind: {0}")]
    Malformed(String),
    /// The cryptographic library refused to sign.
    #[error("the cryptographic library could not sign")]
    Signing,
}

/// Keys by aws-lc, which draws entropy from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemKeys;

impl Keys for SystemKeys {
    fn random(&self, out: &mut [u8]) {
        rand::fill(out).expect("the operating system has randomness");
    }

    fn generate_ed25519(&self) -> Arc<dyn NodeKey> {
        Arc::new(Ed25519(Ed25519KeyPair::generate().expect(GENERATES)))
    }

    fn load_ed25519(&self, pkcs8: &[u8]) -> Result<Arc<dyn NodeKey>, KeyError> {
        Ok(Arc::new(Ed25519::load(pkcs8)?))
    }

    fn generate_p256(&self) -> Arc<dyn CaKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect(GENERATES);
        Arc::new(P256::new(pair).expect("a P-256 point is 65 bytes"))
    }

    fn load_p256(&self, pkcs8: &[u8]) -> Result<Arc<dyn CaKey>, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|e| KeyError::Malformed(e.to_string()))?;
        Ok(Arc::new(P256::new(pair)?))
    }
}

const GENERATES: &str = "the operating system has randomness";

impl Verify for SystemKeys {
    fn ed25519(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(message, &signature.to_bytes())
            .is_ok()
    }

    fn p256(&self, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        p256_point(spki).is_some_and(|point| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(message, signature)
                .is_ok()
        })
    }
}

/// An Ed25519 key held by aws-lc. The simulation makes its own from a seed.
pub struct Ed25519(Ed25519KeyPair);

impl Ed25519 {
    /// From PKCS #8 in DER.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn load(pkcs8: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8(pkcs8)
            .map(Self)
            .map_err(|e| KeyError::Malformed(e.to_string()))
    }

    /// The key of an RFC 8032 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed"))
    }
}

impl Sign for Ed25519 {
    fn public(&self) -> PublicKey {
        let raw = self.0.public_key().as_ref();
        PublicKey(raw.try_into().expect("an Ed25519 key is 32 bytes"))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.0.sign(message);
        Signature::from_bytes(
            signature
                .as_ref()
                .try_into()
                .expect("an Ed25519 signature is 64 bytes"),
        )
    }
}

impl NodeKey for Ed25519 {
    fn pkcs8(&self) -> SecretDocument {
        // Version 1, which openssl reads as well.
        let document = self
            .0
            .to_pkcs8v1()
            .expect("a key held in memory has an encoding");
        SecretDocument::try_from(document.as_ref()).expect("what aws-lc wrote is DER")
    }
}

impl fmt::Debug for Ed25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.public())
    }
}

struct P256 {
    pair: EcdsaKeyPair,
    point: [u8; 65],
}

impl P256 {
    fn new(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let point = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Malformed("not a P-256 key".into()))?;
        Ok(Self { pair, point })
    }
}

impl CaKey for P256 {
    fn point(&self) -> &[u8; 65] {
        &self.point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair
            .sign(&rand::SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError::Signing)
    }

    fn pkcs8(&self) -> SecretDocument {
        let document = self
            .pair
            .to_pkcs8v1()
            .expect("a key held in memory has an encoding");
        SecretDocument::try_from(document.as_ref()).expect("what aws-lc wrote is DER")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_key_survives_storage_and_signs_what_verifies() {
        let keys = SystemKeys;
        let key = keys.generate_ed25519();
        let again = keys.load_ed25519(key.pkcs8().as_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
        let signature = again.sign(b"hello");
        assert!(keys.ed25519(&key.public(), b"hello", &signature));
        assert!(!keys.ed25519(&key.public(), b"hullo", &signature));
    }

    #[test]
    fn a_p256_key_survives_storage_and_signs_what_verifies() {
        let keys = SystemKeys;
        let key = keys.generate_p256();
        let again = keys.load_p256(key.pkcs8().as_bytes()).unwrap();
        assert_eq!(again.point(), key.point());
        let signature = again.sign(b"hello").unwrap();
        assert!(keys.p256(&key.spki(), b"hello", &signature));
        assert!(!keys.p256(&key.spki(), b"hullo", &signature));
        assert!(!keys.p256(&key.spki()[1..], b"hello", &signature));
        assert!(!keys.p256(&keys.generate_p256().spki(), b"hello", &signature));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let keys = SystemKeys;
        assert!(
            keys.load_p256(keys.generate_ed25519().pkcs8().as_bytes())
                .is_err()
        );
        assert!(
            keys.load_ed25519(keys.generate_p256().pkcs8().as_bytes())
                .is_err()
        );
        assert!(keys.load_ed25519(b"").is_err());
    }

    #[test]
    fn a_seed_gives_the_key_of_rfc_8032_section_7_1() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let decode = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        let key = Ed25519::from_seed(&decode(seed).try_into().unwrap());
        assert_eq!(key.public().0.to_vec(), decode(public));
    }
}
