//! The ledger's files on this node, as the pump writes them: batches at the end,
//! a new start where it begins anew, a cut where the root had it go back.

use std::{io, path::Path, sync::Arc};

use innermesh_host::Disk;
use innermesh_proto::{
    codec,
    crypto::Verify,
    ledger::{Batch, Position, SignedGenesis, State},
    limits,
};

use super::{
    archive::Archive,
    decide::{LEAST, Proved},
    file::{Appender, LEDGER},
    sizes::Sizes,
    start::{self, Found, Start},
    starts::Starts,
};

/// Bytes of batches that are read at a time.
const PAGE: usize = limits::RPC_BYTES;

pub struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) genesis: SignedGenesis,
    pub(super) file: Appender,
    pub(super) archive: Arc<Archive>,
    /// The newest states that others may start from.
    pub(super) starts: Arc<Starts>,
    pub(super) sizes: Sizes,
}

impl Files {
    pub fn genesis(&self) -> &SignedGenesis {
        &self.genesis
    }

    /// The newest batch on disk.
    pub fn position(&self) -> Position {
        self.archive.index().position()
    }

    /// The batch at `index`, if it is in the file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn batch(&mut self, index: u64) -> io::Result<Vec<Batch>> {
        self.archive.range(index, 1).await
    }

    /// Appends proved batches, durably.
    ///
    /// # Errors
    /// The file's tail is then unknown: the caller stops writing for good.
    pub async fn store(&mut self, proved: &[Proved]) -> io::Result<()> {
        for Proved { batch, after } in proved {
            self.starts.note(batch, after);
        }
        let batches: Vec<&Batch> = proved.iter().map(|proved| &proved.batch).collect();
        self.file.append(&batches, &self.archive).await
    }

    /// Whether batches fit. A write that fails would end this node's part in the
    /// ledger until it is started anew; what isn't taken is there to be taken
    /// once there is room.
    pub async fn has_room_for(&mut self, batches: &[Batch]) -> bool {
        let bytes: usize = batches.iter().map(|batch| codec::encode(batch).len()).sum();
        let free = self.disk.free().await.unwrap_or(u64::MAX);
        free >= LEAST.saturating_add(bytes as u64)
    }

    /// Begins anew with `state`, which a peer's ledger begins with.
    ///
    /// # Errors
    /// The disk's: the caller stops writing for good.
    pub async fn begin_anew(&mut self, start: &Start, state: &Arc<State>) -> io::Result<()> {
        start::store(&*self.disk, start).await?;
        self.file = Appender::anew(&*self.disk, &self.genesis).await?;
        self.archive.restart(start).map_err(io::Error::other)?;
        self.starts.forget();
        self.starts.begin(state.position.index);
        self.starts.note(&start.at, state);
        Ok(())
    }

    /// The state after the batch at `index`, which the file has.
    ///
    /// # Errors
    /// The disk's.
    pub async fn state_at(&mut self, index: u64, verify: &dyn Verify) -> io::Result<State> {
        let start = match self.archive.index().base() {
            0 => Found::Nothing,
            _ => start::load(&*self.disk, |_| true).await?,
        };
        let mut state = match start {
            Found::Start(start) => start
                .open_own(&self.genesis, verify)
                .map_err(io::Error::other)?,
            _ => State::genesis(&self.genesis, verify).map_err(io::Error::other)?,
        };
        while state.position.index < index {
            let page = self.archive.range(state.position.index + 1, PAGE).await?;
            if page.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for batch in page {
                if state.position.index < index {
                    // It was proved when it was taken.
                    state = state.apply(&batch, verify).map_err(io::Error::other)?.0;
                }
            }
        }
        Ok(state)
    }

    /// How many entries the batches from `from` on have.
    ///
    /// # Errors
    /// The disk's.
    pub async fn count_entries(&mut self, mut from: u64) -> io::Result<u64> {
        let mut entries = 0;
        loop {
            let page = self.archive.range(from, PAGE).await?;
            if page.is_empty() {
                return Ok(entries);
            }
            from += page.len() as u64;
            entries += page
                .iter()
                .map(|batch| batch.entries.len() as u64)
                .sum::<u64>();
        }
    }

    /// Copies the ledger's file as it is to `copy`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn copy_to(&mut self, copy: &Path) -> io::Result<()> {
        let whole = self.disk.read(Path::new(LEDGER)).await?.unwrap_or_default();
        self.disk.replace(copy, &whole).await
    }

    /// Cuts the file behind the batch at `index`.
    ///
    /// # Errors
    /// The file's end is then unknown: the caller stops writing for good.
    pub async fn rewind(&mut self, index: u64) -> io::Result<()> {
        self.file
            .rewind(&self.genesis, index, &self.archive)
            .await?;
        self.starts.forget();
        Ok(())
    }
}
