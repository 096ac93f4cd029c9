//! What a recovery by the root leaves behind: every node follows what the root
//! signed where the roster was lost for good, also one that holds batches which
//! the lost roster decided beyond that place. Those are kept beside the ledger,
//! and whom they revoked stays cut off here.

use std::{collections::BTreeSet, io, path::Path};

use innermesh_proto::{certificate::Serial, codec, id::NodeId, ledger::State};
use serde::{Deserialize, Serialize};

use super::{file::LEDGER, files::Files};
use crate::host::Disk;

/// What this node held that is no part of the ledger any more, in short.
const LOST: &str = "ledger.lost";
/// Largest such file, in bytes.
const LOST_BYTES: usize = 4 * 1024 * 1024;

/// Batches that were proved, and that the root's recovery left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The recovery's number.
    pub number: u32,
    /// Index of the first of them.
    pub from: u64,
    /// Index of the last.
    pub to: u64,
    /// Entries in them.
    pub entries: u64,
    /// Whom they evicted: cut off here still.
    pub nodes: BTreeSet<NodeId>,
    /// Certificates that they revoked.
    pub serials: BTreeSet<Serial>,
}

impl Lost {
    /// The copy of the ledger's file as it was, below the state folder.
    pub fn copy(&self) -> String {
        format!("{LEDGER}.lost.{}-{}", self.from, self.to)
    }
}

/// What was lost up to now.
pub(super) async fn load(disk: &dyn Disk) -> io::Result<Vec<Lost>> {
    let bytes = disk.read(Path::new(LOST)).await?;
    let Some(bytes) = bytes else {
        return Ok(Vec::new());
    };
    codec::decode(&bytes, LOST_BYTES).or_else(|error| {
        tracing::error!(%error, "{LOST} is damaged; whom a lost roster revoked isn't known here any more");
        Ok(Vec::new())
    })
}

impl Lost {
    /// Puts aside what `now` has beyond `back`, as recovery `number` goes back
    /// there: the ledger's file as it is, and beside what was `lost` before, in
    /// short, what this leaves behind. Gives all of that.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn put_aside(
        files: &mut Files,
        lost: &[Self],
        number: u32,
        now: &State,
        back: &State,
    ) -> io::Result<Vec<Self>> {
        let (nodes, serials) = now.revoked_beyond(back);
        let from = back.position.index + 1;
        let new = Self {
            number,
            from,
            to: files.position().index,
            entries: files.count_entries(from).await?,
            nodes,
            serials,
        };
        files.copy_to(Path::new(&new.copy())).await?;
        tracing::error!(
            from = new.from,
            to = new.to,
            entries = new.entries,
            evicted = ?new.nodes,
            revoked = ?new.serials,
            copy = new.copy(),
            "the root gave the ledger a new roster that goes on from an earlier place: these \
             batches are no part of it"
        );
        let mut all = lost.to_vec();
        all.push(new);
        let bytes = codec::encode(&all);
        files.disk.replace(Path::new(LOST), &bytes).await?;
        Ok(all)
    }
}
