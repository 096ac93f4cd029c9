//! What a member keeps beside its ledger so that it can fetch that again where
//! its files are damaged: which mesh it is of, who it is in it, who decides, and
//! how far it had come. Everything in it is checked before it counts.

use std::{collections::BTreeSet, io, path::Path};

use innermesh_proto::{
    codec,
    crypto::{Hash, PublicKey},
    id::NodeId,
    ledger::{Position, SignedGenesis, State},
    limits,
};
use serde::{Deserialize, Serialize};

use crate::host::Disk;

/// The file, below the state folder.
pub const FILE: &str = "membership";

/// A member's own standing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The first entry of the ledger.
    pub genesis: SignedGenesis,
    /// The membership certificate (DER).
    pub leaf: Vec<u8>,
    /// Its issuer (DER).
    pub issuer: Vec<u8>,
    /// Who decided.
    pub roster: BTreeSet<NodeId>,
    /// The root's newest recovery of the ledger.
    pub recovery: u32,
    /// How far the ledger had come here.
    pub position: Position,
    /// What later versions add, by number. Unknown ones are ignored.
    later: Vec<(u16, Vec<u8>)>,
}

impl Kept {
    /// Of the member with this key; none where it is none, or its certificate
    /// isn't whole any more.
    pub fn of(genesis: &SignedGenesis, state: &State, key: &PublicKey) -> Option<Self> {
        let (_, member) = state.member_by_key(key)?;
        let issued = state.certificates.get(&member.certificate?)?;
        Some(Self {
            genesis: genesis.clone(),
            leaf: issued.der.to_vec(),
            issuer: state.issuer_of(issued)?.der().to_vec(),
            roster: state.roster.clone(),
            recovery: state.recovery,
            position: state.position,
            later: Vec::new(),
        })
    }

    /// Whether it says something else than `other` that is worth writing at
    /// once: all but how far the ledger has come.
    pub fn differs(&self, other: &Self) -> bool {
        let place = |kept: &Self| Self {
            position: self.position,
            ..kept.clone()
        };
        place(self) != place(other)
    }

    /// Writes it down.
    ///
    /// # Errors
    /// The disk's; what was there before stands.
    pub async fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        let bytes = codec::encode(self);
        let sum = Hash::of(&bytes).0;
        disk.replace(Path::new(FILE), &[&sum[..], &bytes].concat())
            .await
    }

    /// What was written down, if it can be read.
    pub async fn load(disk: &dyn Disk) -> Option<Self> {
        let bytes = disk.read(Path::new(FILE)).await.ok().flatten()?;
        let kept = Self::parse(&bytes);
        if kept.is_none() {
            tracing::warn!("{FILE} is damaged; it is made again");
        }
        kept
    }

    /// Reads the bytes of the file.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (sum, rest) = bytes.split_first_chunk::<32>()?;
        let is_whole = Hash::of(rest).0 == *sum;
        let kept = is_whole.then(|| codec::decode::<Self>(rest, limits::MEMBERSHIP_BYTES));
        kept?.ok()
    }
}
