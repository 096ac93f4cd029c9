//! Batches, the chain that they form, and the genesis that it starts with.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use super::position::Position;
use super::{
    recovery::SignedRecovery,
    request::{POLICY_SINCE, Request},
    version,
};
use crate::{
    codec::{self, CodecError},
    crypto::{Hash, PublicKey, Purpose, Sealed, Sign, Signature, Verify},
    id::{MeshId, NodeId},
    limits,
    name::{Label, MeshDomain},
};

/// What the roster signs of a batch, under [`Purpose::Batch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub mesh: MeshId,
    /// Which roster decided; a roster change ends an epoch.
    pub epoch: u32,
    /// 1 for the first batch after the genesis.
    pub index: u64,
    /// Hash of the header before (of the genesis, for the first).
    pub previous: Hash,
    /// Hash of the encoded entries.
    pub entries: Hash,
    /// Ledger time, in milliseconds since 1970; never below the one before.
    pub stamp_ms: u64,
    /// Hash of the state after this batch, at every
    /// [`STATE_HASH_INTERVAL`]th index and where an epoch ends.
    pub state: Option<Hash>,
    /// Where an epoch ends: the keys of the roster that decides from the next
    /// batch on. A majority of it signs as well, so who knows a roster can
    /// follow to the next by headers alone.
    pub next: Option<BTreeSet<PublicKey>>,
    /// Where the root gave the ledger a new roster. Such a batch is empty, and
    /// the old roster, which is lost, doesn't sign it.
    pub recovery: Option<SignedRecovery>,
    /// The rules in force after this batch. Of the first rules, 0, nothing is
    /// encoded; a build that knows no others can't read the rest, and so stops
    /// rather than go on by rules that don't hold any more.
    #[serde(skip)]
    pub rules: u32,
}

impl Header {
    /// As it is signed.
    pub fn encode(&self) -> Vec<u8> {
        version::encode(self, self.rules)
    }
}

/// How often a header carries the hash of the state: a file that begins with
/// one is read in well under a second.
pub const STATE_HASH_INTERVAL: u64 = 1024;

/// A request that was written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The sealed [`super::Request`].
    pub request: Sealed,
    /// What the leader adds: the certificate in DER, for requests that ask for
    /// one; else empty.
    pub attachment: Vec<u8>,
}

impl Entry {
    /// Bytes of its encoding, at most: both contents, the signature, lengths.
    pub fn size(&self) -> usize {
        self.request.bytes.len() + self.attachment.len() + 80
    }

    /// The most that one may have, under these rules.
    pub fn most_bytes(rules: u32) -> usize {
        if rules < POLICY_SINCE {
            limits::ENTRY_BYTES
        } else {
            limits::POLICY_ENTRY_BYTES
        }
    }

    /// Whether it may have so many bytes: more than others only to set a policy.
    pub(super) fn is_bounded(&self, rules: u32) -> bool {
        let size = self.size();
        let sets_policy = || Request::peek(&self.request).is_ok_and(|it| it.sets_policy());
        size <= limits::ENTRY_BYTES || size <= Self::most_bytes(rules) && sets_policy()
    }
}

/// One batch with its proof: what travels and what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The encoded [`Header`], exactly as it was signed.
    pub header: Vec<u8>,
    pub entries: Vec<Entry>,
    /// Signatures over the header, by node.
    pub proof: BTreeMap<NodeId, Signature>,
}

impl Batch {
    /// A batch that nobody signed yet.
    pub fn unproved(header: &Header, entries: Vec<Entry>) -> Self {
        Self {
            header: header.encode(),
            entries,
            proof: BTreeMap::new(),
        }
    }

    /// A node's signature over the header, for its [`Batch::proof`]. A CA node
    /// gives one only after it applied the batch, and one for each index.
    pub fn endorse(&self, mesh: &MeshId, key: &dyn Sign) -> (NodeId, Signature) {
        let signature = key.sign(&Purpose::Batch.message(mesh, &self.header));
        (key.public().node_id(), signature)
    }

    /// Whether `signature` is that of `key` over the header.
    pub fn is_endorsed_by(
        &self,
        mesh: &MeshId,
        key: &PublicKey,
        signature: &Signature,
        verify: &dyn Verify,
    ) -> bool {
        verify.ed25519(key, &Purpose::Batch.message(mesh, &self.header), signature)
    }

    /// Reads the header, **without** checking the proof.
    ///
    /// # Errors
    /// [`CodecError`] when it isn't one.
    pub fn read_header(&self) -> Result<Header, CodecError> {
        let (mut header, rules): (Header, u32) =
            version::decode(&self.header, limits::HEADER_BYTES)?;
        header.rules = rules;
        Ok(header)
    }

    /// The position after this batch, if its header can be read.
    ///
    /// # Errors
    /// [`CodecError`] when it can't.
    pub fn position(&self) -> Result<Position, CodecError> {
        Ok(Position {
            index: self.read_header()?.index,
            hash: Hash::of(&self.header),
        })
    }

    /// Hash of entries, as a header holds it.
    pub fn entries_hash(entries: &[Entry]) -> Hash {
        Hash::of(&codec::encode(&entries))
    }
}

/// The first entry of a ledger, signed by the root: what a mesh is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The domain under which all names stand.
    pub domain: MeshDomain,
    /// The IPv4 overlay.
    pub ipv4: Ipv4Net,
    /// The root certificate, DER. The mesh id is the hash of its key.
    pub root: Vec<u8>,
    /// Key of the first node.
    pub founder: PublicKey,
    /// Name of the first node.
    pub name: Label,
    /// The first node's issuer certificate, DER.
    pub issuer: Vec<u8>,
    /// The first node's membership certificate, DER.
    pub membership: Vec<u8>,
    /// Ledger time at the start, in milliseconds since 1970.
    pub stamp_ms: u64,
    /// The rules that it starts with.
    #[serde(skip)]
    pub rules: u32,
}

impl Genesis {
    /// As it is signed.
    pub fn encode(&self) -> Vec<u8> {
        version::encode(self, self.rules)
    }
}

/// An encoded [`Genesis`] and the root's signature over it (P-256, ASN.1 DER)
/// under [`Purpose::Genesis`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGenesis {
    /// The encoded genesis.
    pub bytes: Vec<u8>,
    /// The root's signature.
    pub signature: Vec<u8>,
}

impl SignedGenesis {
    /// Reads it **without** checking the signature.
    ///
    /// # Errors
    /// [`CodecError`] when it isn't one.
    pub fn peek(&self) -> Result<Genesis, CodecError> {
        let (mut genesis, rules): (Genesis, u32) =
            version::decode(&self.bytes, limits::GENESIS_BYTES)?;
        genesis.rules = rules;
        Ok(genesis)
    }

    /// Where a ledger with this genesis starts.
    pub fn position(&self) -> Position {
        Position {
            index: 0,
            hash: Hash::of(&self.bytes),
        }
    }
}
