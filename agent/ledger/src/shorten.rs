//! A ledger's file that has grown begins anew with a state.

use std::{io, path::Path};

use innermesh_proto::{
    ledger::{Batch, Snapshot, SnapshotError, State},
    limits,
};

use super::{
    decide::ROOM,
    file::{self, Appender},
    files::Files,
    index::Held,
    past,
    start::{self, Start},
};

/// Has the file begin with a state once enough batches lie before and behind
/// that, and the voters' log, which is applied from `log_base` on after a
/// restart, doesn't need what lies before. A disk that is too full for it is
/// asked again later. A CA node `keeps_past`.
///
/// # Errors
/// The file can't be appended to any more: the caller stops writing.
pub async fn shorten(files: &mut Files, log_base: Option<u64>, keeps_past: bool) -> io::Result<()> {
    let newest = files.position().index;
    let is_long = files.file.length() > files.sizes.file;
    let Some((at, state)) = files.starts.to_begin_with(newest, is_long) else {
        return Ok(());
    };
    let index = state.position.index;
    if log_base.is_some_and(|base| base < index) {
        return Ok(());
    }
    let (start, held) = match begin_with(files, &at, &state, keeps_past).await {
        Ok(begun) => begun,
        Err(error) => {
            tracing::warn!(%error, "the ledger's file has grown and can't be made shorter now");
            files.starts.begin(newest);
            return Ok(());
        }
    };
    files.archive.restart(&start).map_err(io::Error::other)?;
    files.archive.index().list(held);
    files.file = Appender::go_on(&*files.disk, &files.genesis, &files.archive).await?;
    files.starts.begin(index);
    tracing::info!(
        behind = index,
        kept = newest - index,
        "the ledger's file begins with a state now"
    );
    Ok(())
}

/// Writes it all, the file itself last: until then the one that is there
/// stands.
async fn begin_with(
    files: &mut Files,
    at: &Batch,
    state: &State,
    keeps_past: bool,
) -> io::Result<(Start, Vec<Held>)> {
    let (disk, archive, genesis) = (&*files.disk, &files.archive, &files.genesis);
    let index = state.position.index;
    let (before, after) = archive.index().parted(index);
    let start = Start {
        ends: archive.ends(index).await?,
        at: at.clone(),
        bytes: Snapshot::of(state).bytes,
    };
    if start.bytes.len() > limits::SNAPSHOT_BYTES {
        return Err(io::Error::other(SnapshotError::TooLarge));
    }
    let kept = archive.encoded(&after).await?;
    let (bytes, places) = file::encode_all(genesis, kept.iter());
    let past = if keeps_past {
        archive.encoded(&before).await?
    } else {
        Vec::new()
    };
    let past = file::encode_all(genesis, past.iter()).0;
    let encoded = start.encode();
    let needed = (bytes.len() + past.len() + 2 * encoded.len()) as u64;
    if disk.free().await? < needed + ROOM {
        return Err(io::ErrorKind::StorageFull.into());
    }
    if keeps_past {
        disk.replace(&past::path(index), &past).await?;
        past::trim(disk, files.sizes.past).await?;
    }
    start::store(disk, &start).await?;
    disk.replace(Path::new(file::LEDGER), &bytes).await?;
    let held = after.into_iter().zip(places);
    let held = held.map(|(held, place)| held.at(place)).collect();
    Ok((start, held))
}
