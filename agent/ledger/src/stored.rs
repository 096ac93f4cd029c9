//! What a node's own disk says of the ledger, proved from the genesis on as far
//! as it can be read. Nothing is written but a damaged state put aside.

use std::sync::Arc;

use innermesh_proto::ledger::{GenesisError, Position, SignedGenesis, SnapshotError, State};

use super::{
    file::{FileError, Loaded},
    loading,
    start::{Start, StartError},
    starts::Starts,
};
use crate::host::Host;

/// Why the ledger can't be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file can't be read or isn't whole.
    #[error(transparent)]
    File(#[from] FileError),
    /// It doesn't start with the genesis of a mesh.
    #[error("the ledger file doesn't start with a mesh: {0}")]
    Genesis(#[from] GenesisError),
    /// The state that it begins with can't be used by this build.
    #[error("the ledger file can't be used: {0}")]
    Start(#[from] StartError),
}

/// A ledger's files, read and proved.
pub struct Stored {
    pub(super) loaded: Loaded,
    pub(super) state: State,
    pub(super) starts: Arc<Starts>,
    /// How many of the batches apply.
    pub(super) kept: usize,
    pub(super) damage: Option<u64>,
    /// Whether it was fetched again just now, in place of a damaged one.
    pub(super) is_refetched: bool,
}

impl Stored {
    /// Reads the files. What can't be read or proved is damage: the state is
    /// the one before it.
    ///
    /// # Errors
    /// [`LedgerError`]: there is no genesis, or a later build wrote the state.
    pub async fn read(host: &Host) -> Result<Self, LedgerError> {
        let mut opened = None;
        let usable = |genesis: &SignedGenesis, start: &Start| {
            let state = start.open_own(genesis, &*host.keys);
            let is_later = matches!(state, Err(StartError::Snapshot(SnapshotError::Rules(_))));
            if let Err(error) = &state {
                tracing::error!(%error, "the state that the ledger's file begins with can't be used");
            }
            let is_usable = state.is_ok();
            opened = Some(state);
            // It is as it should be, and fetched again it would be no other.
            is_usable || is_later
        };
        let loaded = loading::load_usable(&*host.disk, usable).await?;
        let starts = Arc::new(Starts::default());
        let mut state = match (&loaded.start, opened) {
            (Some(_), Some(state)) => state?,
            _ => State::genesis(&loaded.genesis, &*host.keys)?,
        };
        if let Some(start) = &loaded.start {
            starts.begin(state.position.index);
            starts.note(&start.at, &Arc::new(state.clone()));
        }
        let mut damage = loaded.damage;
        let mut kept = 0;
        for batch in &loaded.batches {
            match state.next(batch, &*host.keys) {
                Ok((next, _)) => {
                    state = next;
                    if batch
                        .read_header()
                        .is_ok_and(|header| header.state.is_some())
                    {
                        starts.note(batch, &Arc::new(state.clone()));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a stored batch doesn't apply");
                    damage = Some(loaded.offset(kept));
                    break;
                }
            }
            kept += 1;
        }
        Ok(Self {
            loaded,
            state,
            starts,
            kept,
            damage,
            is_refetched: false,
        })
    }

    /// The state after all that applies.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The first entry.
    pub fn genesis(&self) -> &SignedGenesis {
        &self.loaded.genesis
    }

    /// Whether something was there that can't be used.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// It was fetched again just now, in place of a damaged one.
    pub fn note_refetched(&mut self) {
        self.is_refetched = true;
    }

    /// The newest place that the files had come to, as far as they can be read.
    pub fn reached(&self) -> Position {
        let reached = self.loaded.reached.unwrap_or(self.state.position);
        if reached.index > self.state.position.index {
            reached
        } else {
            self.state.position
        }
    }
}
