//! A ledger that begins with a state instead of all batches that led to it: the
//! batches that ended epochs, one whose header holds the state's hash, and the
//! state. It travels from any peer, and is checked from the genesis on.

use std::{io, path::Path};

use async_trait::async_trait;
use innermesh_proto::{
    codec,
    crypto::Verify,
    ledger::{
        Batch, EpochError, Epochs, GenesisError, SignedGenesis, Snapshot, SnapshotError, State,
    },
    limits,
    message::{SnapshotHead, SnapshotPartQuery, SnapshotQuery},
    rpc::method,
};

use super::frames::{frame, scan};
use crate::host::Disk;

/// The file, below the state folder.
pub const FILE: &str = "ledger.snapshot";
/// What the first frame's checksum covers in place of a predecessor's.
const FIRST: [u8; 8] = *b"snapshot";

/// Where a ledger begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The batches that ended epochs, up to the one that the state is of.
    pub ends: Vec<Batch>,
    /// That one.
    pub at: Batch,
    /// The encoded state.
    pub bytes: Vec<u8>,
}

/// Why a start isn't one. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The genesis isn't right.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The rosters don't follow from each other, or don't vouch for it.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The state is another.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Start {
    /// The state, after checking all that leads to it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(&self, genesis: &SignedGenesis, verify: &dyn Verify) -> Result<State, StartError> {
        let mut epochs = Epochs::genesis(genesis, verify)?;
        for end in &self.ends {
            epochs.follow(end, verify)?;
        }
        epochs.check(&self.at, verify)?;
        Ok(Snapshot::open(&self.bytes, &self.at)?)
    }

    /// The bytes of a file that holds it.
    pub fn encode(&self) -> Vec<u8> {
        let head = codec::encode(&(&self.ends, &self.at));
        let (mut out, check) = frame(&FIRST, &head);
        out.extend(frame(&check, &self.bytes).0);
        out
    }

    /// Reads the bytes of a file; none when they aren't whole.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (frames, _) = scan(bytes, FIRST, limits::SNAPSHOT_BYTES);
        let [head, state] = &frames[..] else {
            return None;
        };
        let head = bytes.get(head.payload.clone())?;
        let (ends, at) = codec::decode(head, limits::RPC_BYTES).ok()?;
        Some(Self {
            ends,
            at,
            bytes: bytes.get(state.payload.clone())?.to_vec(),
        })
    }
}

/// Where this node's ledger begins, if that isn't its genesis.
pub(super) async fn load(disk: &dyn Disk) -> io::Result<Option<Start>> {
    let bytes = disk.read(Path::new(FILE)).await?;
    Ok(bytes.and_then(|bytes| Start::decode(&bytes)))
}

/// Writes it down.
///
/// # Errors
/// The disk's; what was there before stands.
pub async fn store(disk: &dyn Disk, start: &Start) -> io::Result<()> {
    disk.replace(Path::new(FILE), &start.encode()).await
}

/// A peer that can be asked.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Its answer.
    ///
    /// # Errors
    /// Why there is none.
    async fn ask(&self, method: u16, body: Vec<u8>) -> Result<Vec<u8>, String>;
}

/// Fetches a peer's newest state that isn't of a later batch than `most`; none
/// when it has none that spares `spared` batches. Nothing of it is checked.
///
/// # Errors
/// Why it can't be had.
pub async fn fetch(peer: &dyn Ask, most: u64, spared: u64) -> Result<Option<Start>, String> {
    let query = codec::encode(&SnapshotQuery { most });
    let answer = peer.ask(method::SNAPSHOT, query).await?;
    let head: SnapshotHead =
        codec::decode(&answer, limits::RPC_BYTES).map_err(|error| error.to_string())?;
    let Some(at) = head.at else {
        return Ok(None);
    };
    let index = at.read_header().map_err(|error| error.to_string())?.index;
    if index > most || index < spared {
        return Ok(None);
    }
    let length = usize::try_from(head.length).unwrap_or(usize::MAX);
    if length > limits::SNAPSHOT_BYTES {
        return Err(SnapshotError::TooLarge.to_string());
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let from = bytes.len() as u64;
        let query = codec::encode(&SnapshotPartQuery { index, from });
        let part = peer.ask(method::SNAPSHOT_PART, query).await?;
        if part.is_empty() || bytes.len() + part.len() > length {
            return Err("a part of the snapshot has another length than it should".into());
        }
        bytes.extend(part);
    }
    Ok(Some(Start {
        ends: head.ends,
        at,
        bytes,
    }))
}
