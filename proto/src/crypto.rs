//! Keys, signatures and hashes as values. The arithmetic of signing and
//! verifying is done by the host (the simulation seeds and remembers it); only
//! SHA-256 is computed here.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    codec::{self, CodecError},
    id::{MeshId, NodeId},
};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// SHA-256 of `bytes` (FIPS 180-4).
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

/// An Ed25519 public key (RFC 8032), raw.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// DER of an Ed25519 SubjectPublicKeyInfo up to the key itself (RFC 8410 §4).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl PublicKey {
    /// The key's SubjectPublicKeyInfo in DER (RFC 8410 §4).
    pub fn spki(&self) -> [u8; 44] {
        let mut out = [0; 44];
        out[..12].copy_from_slice(&ED25519_SPKI);
        out[12..].copy_from_slice(&self.0);
        out
    }

    /// The key inside a SubjectPublicKeyInfo, where that is an Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let key = spki.strip_prefix(&ED25519_SPKI)?;
        Some(Self(key.try_into().ok()?))
    }

    /// The identity that this key is.
    pub fn node_id(&self) -> NodeId {
        let hash = Hash::of(&self.spki());
        NodeId(hash.0[..16].try_into().expect("16 of 32 bytes"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ed25519:{}",
            data_encoding::HEXLOWER.encode(&self.0[..6])
        )
    }
}

/// An Ed25519 signature (RFC 8032): R and S, 32 bytes each.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([[u8; 32]; 2]);

impl Signature {
    /// From its 64 bytes.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (r, s) = bytes.split_at(32);
        Self([r.try_into().expect("32"), s.try_into().expect("32")])
    }

    pub fn to_bytes(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out[..32].copy_from_slice(&self.0[0]);
        out[32..].copy_from_slice(&self.0[1]);
        out
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sig:{}", data_encoding::HEXLOWER.encode(&self.0[0][..6]))
    }
}

/// Verifies signatures. The host implements it.
pub trait Verify: Send + Sync {
    /// Whether `signature` is `key`'s over `message` (Ed25519, RFC 8032).
    fn ed25519(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
    /// Whether `signature` (ASN.1 DER) is that of the P-256 key in `spki`
    /// (DER) over `message` (ECDSA with SHA-256, FIPS 186-5).
    fn p256(&self, spki: &[u8], message: &[u8], signature: &[u8]) -> bool;
}

/// Signs with one Ed25519 key. The host implements it.
pub trait Sign: Send + Sync {
    /// The public half.
    fn public(&self) -> PublicKey;
    /// Signs `message` (Ed25519, RFC 8032).
    fn sign(&self, message: &[u8]) -> Signature;
}

/// What a signature is for. A signature made for one purpose is never valid
/// for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A node's gossip head.
    Head,
    /// A request to the ledger.
    Request,
    /// What an inviter grants to the holder of a token.
    Grant,
    /// The header of a ledger batch.
    Batch,
    /// Shows that a joining machine holds its key.
    Possession,
    /// The first entry of a ledger, by the root.
    Genesis,
    /// Shows that a machine which an admin lets in holds its key.
    Admission,
    /// Takes a member out, by the root.
    Eviction,
    /// A new roster where the old one is lost, by the root.
    Recovery,
    /// Shows that a machine which asks to be let in holds its key.
    Asking,
    /// Gives or takes a member's role, by the root.
    Role,
    /// What a CA node answers to a request that another node brought.
    Answer,
    /// What two nodes say to agree on a pre-shared key.
    PairKey,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Head => b"innermesh head v1\0",
            Self::Request => b"innermesh request v1\0",
            Self::Grant => b"innermesh grant v1\0",
            Self::Batch => b"innermesh batch v1\0",
            Self::Possession => b"innermesh possession v1\0",
            Self::Genesis => b"innermesh genesis v1\0",
            Self::Admission => b"innermesh admission v1\0",
            Self::Eviction => b"innermesh eviction v1\0",
            Self::Recovery => b"innermesh recovery v1\0",
            Self::Asking => b"innermesh asking v1\0",
            Self::Role => b"innermesh role v1\0",
            Self::Answer => b"innermesh answer v1\0",
            Self::PairKey => b"innermesh pair key v1\0",
        }
    }

    /// The bytes that are signed: purpose, mesh, content.
    pub fn message(self, mesh: &MeshId, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + content.len());
        out.extend_from_slice(self.label());
        out.extend_from_slice(&mesh.0);
        out.extend_from_slice(content);
        out
    }
}

/// An encoded value and a signature over exactly those bytes: what travels and
/// what is stored. It is never encoded anew, so a field that this build does
/// not know stays under the signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Sealed {
    /// The encoded value.
    pub bytes: Vec<u8>,
    /// The signature over purpose, mesh and `bytes`.
    pub signature: Signature,
}

/// Why a sealed value was not accepted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not an encoding of the expected value.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The signature is not the stated author's over these bytes.
    #[error("the signature is not its author's")]
    Signature,
}

impl Sealed {
    /// Encodes and signs `value`.
    pub fn new<T: Serialize>(key: &dyn Sign, purpose: Purpose, mesh: &MeshId, value: &T) -> Self {
        let bytes = codec::encode(value);
        let signature = key.sign(&purpose.message(mesh, &bytes));
        Self { bytes, signature }
    }

    /// Reads the value **without** checking the signature.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are not such a value.
    pub fn peek<T: DeserializeOwned>(&self, limit: usize) -> Result<T, CodecError> {
        codec::decode(&self.bytes, limit)
    }

    /// Whether the signature is `key`'s.
    pub fn is_by(
        &self,
        verify: &dyn Verify,
        key: &PublicKey,
        purpose: Purpose,
        mesh: &MeshId,
    ) -> bool {
        verify.ed25519(key, &purpose.message(mesh, &self.bytes), &self.signature)
    }

    /// Reads the value and checks that `key` signed it.
    ///
    /// # Errors
    /// [`SealError`] when it isn't such a value, or not signed by `key`.
    pub fn open<T: DeserializeOwned>(
        &self,
        verify: &dyn Verify,
        key: &PublicKey,
        purpose: Purpose,
        mesh: &MeshId,
        limit: usize,
    ) -> Result<T, SealError> {
        let value = self.peek(limit)?;
        if self.is_by(verify, key, purpose, mesh) {
            Ok(value)
        } else {
            Err(SealError::Signature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_spki_and_its_identity_is_the_hash_of_it() {
        let key = PublicKey([7; 32]);
        assert_eq!(PublicKey::from_spki(&key.spki()), Some(key));
        assert_eq!(key.node_id().0, Hash::of(&key.spki()).0[..16]);
        assert_eq!(PublicKey::from_spki(&key.spki()[..43]), None);
    }
}
