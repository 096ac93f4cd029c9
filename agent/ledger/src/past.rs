//! A ledger's file that has grown begins anew with a state. What lay before it
//! is dropped; a CA node keeps it in files of its own, which nobody reads but
//! for those who were away for very long, and for `agent ca log`.

use std::{
    io,
    path::{Path, PathBuf},
};

use innermesh_proto::{
    ledger::{Batch, Snapshot, SnapshotError, State},
    limits,
};

use super::{
    archive::Held,
    file::{self, Appender, Loaded},
    room::ROOM,
    start::{self, Start},
    writer::Writer,
};
use crate::host::Disk;

/// The folder, below the state folder. Each file has the genesis and batches,
/// as the ledger's own, and is named after the last of them.
pub const FOLDER: &str = "ledger.past";

fn path(last: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("{last:020}"))
}

/// The last batch in a file of that name; none for what is no such file, as what
/// a write that was cut short left behind.
pub fn last_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// All that is kept, as far as it can be read.
///
/// # Errors
/// The disk's.
pub async fn load(disk: &dyn Disk) -> io::Result<Vec<Loaded>> {
    let mut files = Vec::new();
    let all = disk.list(Path::new(FOLDER)).await?;
    for path in all.iter().filter(|path| last_of(path).is_some()) {
        let bytes = disk.read(path).await?.unwrap_or_default();
        files.extend(file::parse(bytes).ok());
    }
    Ok(files)
}

/// Removes the oldest files until what is kept has `most` bytes.
async fn trim(disk: &dyn Disk, most: u64) -> io::Result<()> {
    let files = disk.list(Path::new(FOLDER)).await?;
    let mut left = most;
    for path in files.iter().rev().filter(|path| last_of(path).is_some()) {
        let length = disk.reader(path).length().await?;
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => {
                left = 0;
                tracing::info!(file = %path.display(), "the oldest of the ledger's past is dropped");
                disk.remove(path).await?;
            }
        }
    }
    Ok(())
}

/// The files whose batches lead from the first one to the newest, in order:
/// those of the past, if they go back so far without a gap, and the ledger's
/// own, which else goes on from `start`.
pub fn whole(past: Vec<Loaded>, own: Loaded, start: Option<Start>) -> Vec<Loaded> {
    let mut next = Some(1);
    for file in past.iter().chain([&own]) {
        let joins = file
            .first()
            .zip(next)
            .is_some_and(|(first, next)| first <= next);
        let end = file.first().map(|first| first + file.batches.len() as u64);
        next = end.max(next).filter(|_| joins);
    }
    if next.is_some() && !past.is_empty() {
        past.into_iter().chain([own]).collect()
    } else {
        vec![own.from(start)]
    }
}

impl Writer {
    /// Has the file begin with a state once enough batches lie before and
    /// behind that. A disk that is too full for it is asked again later.
    ///
    /// # Errors
    /// The file can't be appended to any more: the caller stops writing.
    pub async fn shorten(&mut self) -> io::Result<()> {
        let newest = self.archive.position().index;
        let length = self.file.length();
        let Some((at, state)) = self.starts.to_begin_with(newest, length > self.sizes.file) else {
            return Ok(());
        };
        // After a restart the roster's log is applied from its own start on.
        let voter = self.voter.as_ref();
        if voter.is_some_and(|voter| voter.engine.base().position.index < state.position.index) {
            return Ok(());
        }
        let (start, held) = match self.begin_with(&at, &state).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::warn!(%error, "the ledger's file has grown and can't be made shorter now");
                self.starts.begin(newest);
                return Ok(());
            }
        };
        self.archive.restart(&start).map_err(io::Error::other)?;
        self.archive.list(held);
        self.file = Appender::go_on(&*self.host.disk, &self.genesis, &self.archive).await?;
        self.starts.begin(state.position.index);
        tracing::info!(
            behind = state.position.index,
            kept = newest - state.position.index,
            "the ledger's file begins with a state now"
        );
        Ok(())
    }

    /// Writes it all, the file itself last: until then the one that is there
    /// stands.
    async fn begin_with(&mut self, at: &Batch, state: &State) -> io::Result<(Start, Vec<Held>)> {
        let disk = &*self.host.disk;
        let index = state.position.index;
        let (before, after) = self.archive.parted(index);
        let start = Start {
            ends: self.archive.ends(index).await?,
            at: at.clone(),
            bytes: Snapshot::of(state).bytes,
        };
        if start.bytes.len() > limits::SNAPSHOT_BYTES {
            return Err(io::Error::other(SnapshotError::TooLarge));
        }
        let kept = self.archive.encoded(&after).await?;
        let (bytes, places) = file::encode_all(&self.genesis, kept.iter());
        let past = if self.current().voters.contains_key(&self.me()) {
            self.archive.encoded(&before).await?
        } else {
            Vec::new()
        };
        let past = file::encode_all(&self.genesis, past.iter()).0;
        let encoded = start.encode();
        let needed = (bytes.len() + past.len() + 2 * encoded.len()) as u64;
        if disk.free().await? < needed + ROOM {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.current().voters.contains_key(&self.me()) {
            disk.replace(&path(index), &past).await?;
            trim(disk, self.sizes.past).await?;
        }
        start::store(disk, &start).await?;
        disk.replace(Path::new(file::LEDGER), &bytes).await?;
        let held = after.into_iter().zip(places);
        let held = held.map(|(held, place)| held.at(place)).collect();
        Ok((start, held))
    }
}
