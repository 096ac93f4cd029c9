//! That this node's ledger was damaged, with its number as a voter. One that
//! decides alone and lost its log as well could sign another batch for an index
//! that it has signed before: it doesn't decide until the root has it go on.

use std::{io, path::Path};

use innermesh_proto::{codec, id::NodeId, ledger::State};

use super::raft::VoterId;
use crate::host::Disk;

const FILE: &str = "ledger.gone";
/// Its number stands in what was lost, if it had one.
const UNKNOWN: VoterId = VoterId::MAX;

/// Notes it, before what is damaged is cut off.
///
/// # Errors
/// The disk's.
pub async fn note(disk: &dyn Disk, state: &State, me: NodeId) -> io::Result<()> {
    let id = state.voters.get(&me).copied().unwrap_or(UNKNOWN);
    disk.replace(Path::new(FILE), &codec::encode(&id)).await
}

/// It is over: the node was promoted since, or the root has it go on.
pub(super) async fn forget(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(Path::new(FILE)).await
}

/// Whether that happened to the voter with this number. A file that can't be
/// read says so of any.
pub(super) async fn is_noted(disk: &dyn Disk, id: VoterId) -> io::Result<bool> {
    let Some(bytes) = disk.read(Path::new(FILE)).await? else {
        return Ok(false);
    };
    let of: VoterId = codec::decode(&bytes, 64).unwrap_or(UNKNOWN);
    Ok(of == id || of == UNKNOWN)
}
