//! A ledger that begins with a state instead of all batches that led to it: the
//! batches that ended epochs, one whose header holds the state's hash, and the
//! state. It travels from any peer, and is checked from the genesis on.

#![allow(missing_docs, reason = "the names say it")]

use std::{io, path::Path, time::Duration};

use async_trait::async_trait;
use innermesh_proto::{
    codec::{self, CodecError},
    crypto::Verify,
    ledger::{
        Batch, EpochError, Epochs, GenesisError, SignedGenesis, Snapshot, SnapshotError, State,
    },
    limits,
    message::{SnapshotHead, SnapshotPartQuery, SnapshotQuery},
    rpc::method,
};

use super::frames::{frame, scan};
use crate::host::{Clock, Disk, within};

/// The file, below the state folder.
pub const FILE: &str = "ledger.snapshot";
/// The same once more: a node that follows has nothing else to begin with.
const COPY: &str = "ledger.snapshot.copy";
/// Where one that can't be used is put.
const DAMAGED: &str = "ledger.snapshot.damaged";
/// What the first frame's checksum covers in place of a predecessor's.
const FIRST: [u8; 8] = *b"snapshot";

/// Where a ledger begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The batches that ended epochs, up to the one that the state is of.
    pub ends: Vec<Batch>,
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

impl StartError {
    /// Whether it can't be read here, as where it is of a later version.
    pub fn is_unreadable(&self) -> bool {
        matches!(
            self,
            Self::Genesis(_)
                | Self::Epoch(EpochError::Codec(_))
                | Self::Snapshot(SnapshotError::Codec(_) | SnapshotError::TooLarge)
        )
    }
}

impl Start {
    /// The state, after checking all that leads to it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(&self, genesis: &SignedGenesis, verify: &dyn Verify) -> Result<State, StartError> {
        if self.bytes.len() > limits::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge.into());
        }
        self.open_own(genesis, verify)
    }

    /// As [`Start::open`], of one from this node's own disk, which may be larger.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open_own(
        &self,
        genesis: &SignedGenesis,
        verify: &dyn Verify,
    ) -> Result<State, StartError> {
        epochs(genesis, &self.ends, &self.at, verify)?;
        Ok(Snapshot::open_own(&self.bytes, &self.at)?)
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
        let (frames, _) = scan(bytes, FIRST, limits::OWN_SNAPSHOT_BYTES);
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

/// What is there of the state that a ledger's file goes on from.
#[derive(Debug)]
pub(super) enum Found {
    /// No file: the ledger begins with its genesis.
    Nothing,
    /// The state.
    Start(Box<Start>),
    /// There is one, and neither it nor its copy can be used.
    Damaged,
}

/// Reads where this node's ledger begins. A state that isn't `usable` counts as
/// damaged: its copy is taken then, and it is put aside.
pub(super) async fn load(
    disk: &dyn Disk,
    mut usable: impl FnMut(&Start) -> bool + Send,
) -> io::Result<Found> {
    let mut damaged = None;
    let mut first = true;
    for path in [FILE, COPY] {
        let is_copy = !std::mem::take(&mut first);
        let Some(bytes) = disk.read(Path::new(path)).await? else {
            continue;
        };
        let Some(start) = Start::decode(&bytes).filter(&mut usable) else {
            damaged = damaged.or(Some(bytes));
            continue;
        };
        if is_copy {
            tracing::error!(
                "the state that the ledger's file begins with is damaged or missing; its copy \
                 counts"
            );
            put_aside(disk, damaged).await;
            disk.replace(Path::new(FILE), &bytes).await?;
        } else {
            keep_copy(disk, &bytes).await;
        }
        return Ok(Found::Start(Box::new(start)));
    }
    if damaged.is_none() {
        return Ok(Found::Nothing);
    }
    tracing::error!("the state that the ledger's file begins with is damaged, and so is its copy");
    put_aside(disk, damaged).await;
    Ok(Found::Damaged)
}

/// Makes the copy anew where it isn't one: it may be damaged, or a stop came
/// before it was written.
async fn keep_copy(disk: &dyn Disk, bytes: &[u8]) {
    let copy = Path::new(COPY);
    let there = disk.read(copy).await;
    if there.is_ok_and(|there| there.as_deref() == Some(bytes)) {
        return;
    }
    if let Err(error) = disk.replace(copy, bytes).await {
        tracing::warn!(%error, "the state's copy can't be made");
    }
}

/// Keeps one damaged state for people to look at, in place of the one before.
/// Nothing depends on it, so a disk that is full keeps nobody from starting.
async fn put_aside(disk: &dyn Disk, damaged: Option<Vec<u8>>) {
    let Some(bytes) = damaged else { return };
    if bytes.len() > 2 * limits::OWN_SNAPSHOT_BYTES {
        tracing::warn!(
            bytes = bytes.len(),
            "the damaged state is too large to be kept"
        );
        return;
    }
    if let Err(error) = disk.replace(Path::new(DAMAGED), &bytes).await {
        tracing::warn!(%error, "the damaged state can't be put aside");
    }
}

/// Writes it down.
///
/// # Errors
/// The disk's; what was there before stands.
pub async fn store(disk: &dyn Disk, start: &Start) -> io::Result<()> {
    let bytes = start.encode();
    disk.replace(Path::new(FILE), &bytes).await?;
    disk.replace(Path::new(COPY), &bytes).await
}

/// A peer that can be asked.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Its answer.
    ///
    /// # Errors
    /// Why there is none.
    async fn ask(&self, method: u16, body: Vec<u8>) -> Result<Vec<u8>, AskError>;
}

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It took too long.
    #[error("no answer in time")]
    Slow,
    /// It isn't connected, or answered that it doesn't.
    #[error("{0}")]
    Failed(String),
}

/// Which state is wanted.
pub struct Wanted<'a> {
    /// What mesh it must be of.
    pub genesis: &'a SignedGenesis,
    /// The first batch that it may be of.
    pub least: u64,
    /// The last batch that it may be of.
    pub most: u64,
}

/// A state that a peer says it has. The rosters since the genesis vouch for its
/// header; how long it is, is the peer's word.
pub struct Offer {
    /// As in [`Start`].
    pub ends: Vec<Batch>,
    /// As in [`Start`].
    pub at: Batch,
    index: u64,
    recovery: u32,
    length: usize,
}

/// Why a state can't be had from a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It wasn't answered.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The answer can't be read.
    #[error("the answer can't be read: {0}")]
    Codec(#[from] CodecError),
    /// The header isn't proved.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It is longer than a state may be.
    #[error("the snapshot is larger than one may be")]
    TooLarge,
    /// A part is shorter or longer than the peer gives at a time.
    #[error("a part of the snapshot has {got} bytes and not {expected}")]
    Part {
        /// Bytes that it has.
        got: usize,
        /// Bytes that it should have.
        expected: usize,
    },
    /// The whole takes longer than one of its length may.
    #[error("the snapshot doesn't come in time")]
    Slow,
}

impl Offer {
    /// The batch that the state is of.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The number of the newest recovery by the root that led to it.
    pub fn recovery(&self) -> u32 {
        self.recovery
    }

    /// How long all of it may take.
    fn time(&self) -> Duration {
        let length = self.length as u64;
        Duration::from_millis(limits::STATE_MS)
            + Duration::from_secs(length / limits::STATE_BYTES_PER_S)
    }

    fn prove(
        head: SnapshotHead,
        wanted: &Wanted<'_>,
        verify: &dyn Verify,
    ) -> Result<Option<Self>, FetchError> {
        let Some(at) = head.at else {
            return Ok(None);
        };
        let header = at.read_header()?;
        if header.index > wanted.most || header.index < wanted.least {
            return Ok(None);
        }
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        if length > limits::SNAPSHOT_BYTES {
            return Err(FetchError::TooLarge);
        }
        let epochs = epochs(wanted.genesis, &head.ends, &at, verify)?;
        if header.state.is_none() {
            return Err(StartError::from(SnapshotError::NoHash).into());
        }
        Ok(Some(Self {
            ends: head.ends,
            at,
            index: header.index,
            recovery: epochs.recovery(),
            length,
        }))
    }
}

/// Asks a peer for its newest state of a batch up to `wanted.most`; none when it
/// has none of `wanted.least` or later. Its header is proved.
///
/// # Errors
/// [`FetchError`].
pub async fn ask(
    peer: &dyn Ask,
    wanted: &Wanted<'_>,
    verify: &dyn Verify,
) -> Result<Option<Offer>, FetchError> {
    let query = codec::encode(&SnapshotQuery { most: wanted.most });
    let answer = peer.ask(method::SNAPSHOT, query).await?;
    let head: SnapshotHead = codec::decode(&answer, limits::RPC_BYTES)?;
    Offer::prove(head, wanted, verify)
}

/// Fetches the state that was offered, within one deadline for all of it.
/// Whether it is the one that its header names is for [`Start::open`].
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(peer: &dyn Ask, clock: &dyn Clock, offer: Offer) -> Result<Start, FetchError> {
    let all = parts(peer, offer.index, offer.length);
    let bytes = within(clock, offer.time(), all).await;
    Ok(Start {
        bytes: bytes.ok_or(FetchError::Slow)??,
        ends: offer.ends,
        at: offer.at,
    })
}

async fn parts(peer: &dyn Ask, index: u64, length: usize) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let from = bytes.len() as u64;
        let query = codec::encode(&SnapshotPartQuery { index, from });
        let part = peer.ask(method::SNAPSHOT_PART, query).await?;
        let expected = limits::SNAPSHOT_PART_BYTES.min(length - bytes.len());
        if part.len() != expected {
            let got = part.len();
            return Err(FetchError::Part { got, expected });
        }
        bytes.extend(part);
    }
    Ok(bytes)
}

/// The rosters from the genesis to the one that vouches for `at`.
fn epochs(
    genesis: &SignedGenesis,
    ends: &[Batch],
    at: &Batch,
    verify: &dyn Verify,
) -> Result<Epochs, StartError> {
    let mut epochs = Epochs::genesis(genesis, verify)?;
    for end in ends {
        epochs.follow(end, verify)?;
    }
    epochs.check(at, verify)?;
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gives(usize);

    #[async_trait]
    impl Ask for Gives {
        async fn ask(&self, _: u16, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
            let query: SnapshotPartQuery = codec::decode(&body, 100).unwrap();
            let left = limits::SNAPSHOT_BYTES - usize::try_from(query.from).unwrap();
            Ok(vec![7; self.0.min(left)])
        }
    }

    #[tokio::test]
    async fn a_part_is_whole_or_the_last_one() {
        let length = 2 * limits::SNAPSHOT_PART_BYTES + 5;
        let gives = async |bytes| parts(&Gives(bytes), 1, length).await.map(|all| all.len());
        for bytes in [0, 1, limits::SNAPSHOT_PART_BYTES - 1] {
            let expected = limits::SNAPSHOT_PART_BYTES;
            let got = bytes;
            assert_eq!(gives(bytes).await, Err(FetchError::Part { got, expected }));
        }
        let too_long = gives(limits::SNAPSHOT_PART_BYTES).await;
        let (got, expected) = (limits::SNAPSHOT_PART_BYTES, 5);
        assert_eq!(too_long, Err(FetchError::Part { got, expected }));
        let short = parts(&Gives(5), 1, 5).await;
        assert_eq!(short.map(|all| all.len()), Ok(5));
    }
}
