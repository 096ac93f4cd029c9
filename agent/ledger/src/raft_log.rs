//! This node's `raft.log`, looked at when it becomes a voter, and made where
//! nothing can have been promised.

use std::{io, path::Path};

use innermesh_host::Disk;

use super::{
    decide::{FoundLog, Part, Place, part},
    gone,
    raft::{DiskLog, LOG, LogError},
};

/// Where a damaged log is put.
const DAMAGED: &str = "raft.log.damaged";

/// Opens this node's log, or starts a new one, and says what follows from it.
///
/// # Errors
/// The disk's.
pub async fn open(disk: &dyn Disk, mut place: Place) -> io::Result<(Part, Option<DiskLog>)> {
    let (found, log) = match DiskLog::open(disk).await {
        // Of another time as a CA node: it is a new voter since.
        Ok(Some((_, owner, _))) if owner != place.id => (FoundLog::Nothing, None),
        Ok(Some((log, _, saved))) => (FoundLog::Saved(saved), Some(log)),
        Ok(None) => (FoundLog::Nothing, None),
        Err(LogError::Io(error)) => return Err(error),
        Err(error @ LogError::Damaged(_)) => (FoundLog::Damaged(error.to_string()), None),
    };
    if place.may_be_gone(&found) {
        place.is_noted_gone = gone::is_noted(disk, place.id).await?;
    }
    let is_damaged = matches!(found, FoundLog::Damaged(_));
    let part = part(found, &place);
    let Part::VotesAnew(saved) = &part else {
        return Ok((part, log));
    };
    if is_damaged {
        let bytes = disk.read(Path::new(LOG)).await?.unwrap_or_default();
        disk.replace(Path::new(DAMAGED), &bytes).await?;
    }
    if !place.is_alone {
        gone::forget(disk).await?;
    }
    let log = DiskLog::create(disk, place.id, saved).await?;
    Ok((part, Some(log)))
}
