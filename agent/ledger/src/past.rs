//! A ledger's file that has grown begins anew with a state. What lay before it
//! is dropped; a CA node keeps it in files of its own, which nobody reads but
//! for those who were away for very long, and for `agent ca log`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    file::{self, Loaded},
    start::Start,
};
use crate::host::Disk;

/// The folder, below the state folder. Each file has the genesis and batches,
/// as the ledger's own, and is named after the last of them.
pub const FOLDER: &str = "ledger.past";

/// The file whose last batch is `last`.
pub(super) fn path(last: u64) -> PathBuf {
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
///
/// # Errors
/// The disk's.
pub(super) async fn trim(disk: &dyn Disk, most: u64) -> io::Result<()> {
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
