//! This node's ledger, read from its files: from its start on, or from a state,
//! or made anew from the files of the past where that state is damaged.

use std::path::Path;

use innermesh_proto::ledger::{Batch, SignedGenesis};

use super::{
    file::{FileError, LEDGER, Loaded, encode, parse},
    past,
    start::{self, Found, Start},
};
use crate::host::Disk;

/// Reads this node's ledger: its file, and what that goes on from.
///
/// # Errors
/// [`FileError`].
pub async fn load(disk: &dyn Disk) -> Result<Loaded, FileError> {
    load_usable(disk, |_, _| true).await
}

/// As [`load`]; a state to begin with that isn't `usable` in this ledger counts
/// as damaged.
pub(super) async fn load_usable(
    disk: &dyn Disk,
    mut usable: impl FnMut(&SignedGenesis, &Start) -> bool + Send,
) -> Result<Loaded, FileError> {
    let bytes = disk
        .read(Path::new(LEDGER))
        .await?
        .ok_or(FileError::Absent)?;
    let own = parse(bytes)?;
    let begin = start::load(disk, |start| usable(&own.genesis, start)).await?;
    let is_lost = matches!(begin, Found::Damaged);
    let start = match begin {
        Found::Start(start) => Some(*start),
        Found::Nothing | Found::Damaged => None,
    };
    if start.is_some() || own.first() == Some(1) {
        return Ok(own.from(start));
    }
    // The state that it goes on from is damaged or gone. A CA node has all that
    // led to it.
    match past::whole(past::load(disk).await?, own, None) {
        mut files if files.len() > 1 => {
            tracing::error!("the state that the ledger's file begins with is damaged; made anew");
            let last = files.last().and_then(|own| own.damage);
            let genesis = files[0].genesis.clone();
            let mut batches: Vec<Batch> = Vec::new();
            for batch in files.drain(..).flat_map(|file| file.batches) {
                let index = batch.read_header().map_or(0, |header| header.index);
                if index == batches.len() as u64 + 1 {
                    batches.push(batch);
                }
            }
            let bytes = encode(&genesis, &batches);
            disk.replace(Path::new(LEDGER), &bytes).await?;
            let mut loaded = parse(bytes)?;
            loaded.damage = last.map(|_| loaded.length());
            Ok(loaded)
        }
        mut alone => {
            let mut own = alone.remove(0);
            // It may have had no batch yet behind what is lost.
            if is_lost && own.damage.is_none() {
                own.damage = Some(own.length());
            }
            Ok(own)
        }
    }
}
