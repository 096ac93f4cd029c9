//! How a node that is far behind, or new, comes to the state without every
//! batch: the genesis, the batch that ended each epoch, then a snapshot that
//! the newest roster vouches for, then the batches after it.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::BTreeMap;

use super::{
    batch::{Batch, Header, Position, SignedGenesis},
    chain::{Quorums, check_rules},
    genesis::GenesisError,
    state::State,
};
use crate::{
    certificate::KeptCertificate,
    codec::CodecError,
    crypto::{Hash, PublicKey, Verify},
    id::{MeshId, NodeId},
    limits,
};

/// The encoding of a state, as the header of its batch vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub bytes: Vec<u8>,
}

/// Why bytes are not the state that they should be. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The batch has no hash of the state.
    #[error("the batch says nothing of the state after it")]
    NoHash,
    /// More bytes than a state may have.
    #[error("the snapshot is larger than one may be")]
    TooLarge,
    /// Other bytes than those that the roster signed.
    #[error("the snapshot is not the state that the roster signed")]
    Hash,
    /// By rules that this build doesn't know.
    #[error("the state follows rules {0}, which this version doesn't know: update the agent")]
    Rules(u32),
    /// Not an encoding of a state.
    #[error("the snapshot is malformed: {0}")]
    Codec(#[from] CodecError),
}

impl Snapshot {
    /// Of a state at a place where its header has a hash: [`Header::state`].
    pub fn of(state: &State) -> Self {
        Self {
            bytes: state.without_hash(state.position.index).encode(),
        }
    }

    /// The state, if it is the one after `batch`. That the batch is proved is
    /// for [`Epochs::check`], or was checked when it was taken. Bytes are read
    /// only once their hash is right, so what a liar sends costs no more than
    /// its length.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(bytes: &[u8], batch: &Batch) -> Result<State, SnapshotError> {
        if bytes.len() > limits::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge);
        }
        Self::open_own(bytes, batch)
    }

    /// As [`Snapshot::open`], of bytes from this node's own disk, which may be
    /// more: what others wrote into the state keeps no node from starting.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open_own(bytes: &[u8], batch: &Batch) -> Result<State, SnapshotError> {
        let header = batch.read_header()?;
        let hash = header.state.ok_or(SnapshotError::NoHash)?;
        if Hash::of(bytes) != hash {
            return Err(SnapshotError::Hash);
        }
        check_rules(&header).map_err(|_| SnapshotError::Rules(header.rules))?;
        let mut state = State::decode(bytes, header.rules)?;
        state.position = batch.position()?;
        Ok(state)
    }
}

/// Whether a node that holds a proved snapshot of batch `snapshot` may drop
/// the batch with this header. What ends an epoch is kept for those that come
/// late, and the snapshot's own batch vouches for it.
pub fn may_drop(header: &Header, snapshot: u64) -> bool {
    header.index < snapshot && header.next.is_none()
}

/// Which rosters decided, one after the other: followed from the genesis by
/// nothing but the batches that end epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epochs {
    mesh: MeshId,
    root: KeptCertificate,
    roster: BTreeMap<NodeId, PublicKey>,
    epoch: u32,
    recovery: u32,
    last: Position,
    stamp_ms: u64,
}

/// Why a batch doesn't follow. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// Not an encoding of a batch.
    #[error("the batch is malformed: {0}")]
    Codec(#[from] CodecError),
    /// Of another mesh, another epoch, or not later than what is known.
    #[error("the batch doesn't belong to this epoch of this mesh")]
    Foreign,
    /// It ends no epoch.
    #[error("the batch ends no epoch")]
    NoEnd,
    /// More nodes than a roster may have, or none.
    #[error("the next roster has no node or too many")]
    Roster,
    /// Not signed by all who must.
    #[error("the batch is not proved by its roster")]
    Proof,
    /// The root didn't sign its recovery.
    #[error("the recovery is not signed by the mesh's root")]
    Recovery,
}

impl Epochs {
    /// Starts at the genesis, after checking all of it.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn genesis(signed: &SignedGenesis, verify: &dyn Verify) -> Result<Self, GenesisError> {
        let state = State::genesis(signed, verify)?;
        Ok(Self {
            mesh: state.mesh,
            root: state.root,
            roster: state.roster_keys,
            epoch: state.epoch,
            recovery: state.recovery,
            last: state.position,
            stamp_ms: state.stamp_ms,
        })
    }

    /// Goes on to the next epoch by the batch that ended this one.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn follow(&mut self, batch: &Batch, verify: &dyn Verify) -> Result<(), EpochError> {
        let header = self.read(batch, verify)?;
        let next = header.next.ok_or(EpochError::NoEnd)?;
        if !(1..=limits::ROSTER).contains(&next.len()) {
            return Err(EpochError::Roster);
        }
        if let Some(signed) = &header.recovery {
            let recovery = signed
                .open(&self.root.spki, verify)
                .filter(|recovery| {
                    recovery.roster == next
                        && recovery.number > self.recovery
                        && recovery.position.index + 1 == header.index
                        && recovery.position.hash == header.previous
                })
                .ok_or(EpochError::Recovery)?;
            self.recovery = recovery.number;
        }
        self.roster = next.into_iter().map(|key| (key.node_id(), key)).collect();
        self.epoch += 1;
        self.last = batch.position()?;
        self.stamp_ms = header.stamp_ms;
        Ok(())
    }

    /// Whether the newest roster known here vouches for `batch`: it ended the
    /// epoch before, or is one of this epoch.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn check(&self, batch: &Batch, verify: &dyn Verify) -> Result<(), EpochError> {
        if batch.position()? == self.last {
            Ok(())
        } else {
            // What the root put in the roster's place must be followed.
            match self.read(batch, verify)?.recovery {
                None => Ok(()),
                Some(_) => Err(EpochError::Recovery),
            }
        }
    }

    /// The number of the newest epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of the root's newest recovery; 0 before the first.
    pub fn recovery(&self) -> u32 {
        self.recovery
    }

    /// A later batch of the newest epoch, proved.
    fn read(&self, batch: &Batch, verify: &dyn Verify) -> Result<Header, EpochError> {
        let header = batch.read_header()?;
        if header.mesh != self.mesh
            || header.epoch != self.epoch
            || header.index <= self.last.index
            || header.stamp_ms < self.stamp_ms
        {
            return Err(EpochError::Foreign);
        }
        if Quorums::of(&self.roster, &header).are_met(&self.mesh, batch, verify) {
            Ok(header)
        } else {
            Err(EpochError::Proof)
        }
    }
}
