//! Going on after the roster was lost for good: the surviving node writes what
//! the root signed, and every other node follows, also one that holds batches
//! which the lost roster decided beyond that place. Those are kept beside the
//! ledger, and whom they revoked stays cut off here.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use innermesh_proto::{
    certificate::Serial,
    codec,
    id::NodeId,
    ledger::{Batch, BatchError, Position, SignedRecovery, State, stamp},
    limits,
};
use serde::{Deserialize, Serialize};

use super::{file::LEDGER, writer::Writer};
use crate::host::Disk;

/// What this node held that is no part of the ledger any more, in short.
const LOST: &str = "ledger.lost";
/// Largest such file, in bytes.
const LOST_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of batches that are read at a time.
const PAGE: usize = limits::RPC_BYTES;

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
        format!("{LEDGER}.lost.{}", self.number)
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

impl Writer {
    /// Goes on alone, by what the root signed for this node.
    pub async fn recover(
        &mut self,
        signed: &SignedRecovery,
    ) -> io::Result<Result<Position, BatchError>> {
        let state = self.current();
        let wall_ms = self.host.clock.wall_ms();
        let stamp_ms = stamp::propose(state.stamp_ms, wall_ms, &self.clocks);
        let recovered = state.recovered(signed, stamp_ms, &*self.host.keys);
        let (after, mut batch) = match recovered {
            Ok((after, _)) if after.roster != BTreeSet::from([self.me()]) => {
                return Ok(Err(BatchError::Proof));
            }
            Ok(recovered) => recovered,
            Err(error) => return Ok(Err(error)),
        };
        let (node, signature) = batch.endorse(&state.mesh, &*self.key);
        batch.proof.insert(node, signature);
        self.leave_log();
        let position = after.position;
        tracing::warn!(
            ?position,
            "the root gave the ledger a new roster: this node"
        );
        self.store(vec![batch], Some(Arc::new(after))).await?;
        self.follow_roster().await?;
        Ok(Ok(position))
    }

    /// Nothing of the lost roster's log counts any more.
    fn leave_log(&mut self) {
        self.give_up();
        self.unproved.clear();
        self.early.clear();
        self.numbers.clear();
        self.voter = None;
        self.barred = None;
    }

    /// If one of the batches is a recovery by the root that leads on from an
    /// earlier place than this node's: goes back there.
    pub async fn follow_recovery(
        &mut self,
        batches: &[Batch],
    ) -> io::Result<Result<(), BatchError>> {
        let state = self.current();
        for batch in batches {
            let Ok(header) = batch.read_header() else {
                continue;
            };
            let Some((number, place)) = header.recovery.as_ref().and_then(SignedRecovery::claims)
            else {
                continue;
            };
            let held = self.archive.hash_at(header.index);
            let other = held.is_some() && held != batch.position().ok().map(|p| p.hash);
            if number == state.recovery && other {
                tracing::error!(
                    number,
                    "the root signed two recoveries with one number; run `agent ca recover` again \
                     on the node that is to go on"
                );
                return Ok(Err(BatchError::Fork(header.index)));
            }
            if number <= state.recovery || !other {
                continue;
            }
            let signed = header.recovery.as_ref();
            let by_root = signed.and_then(|signed| signed.open(&state.root.spki, &*self.host.keys));
            if by_root.is_none() || self.archive.hash_at(place.index) != Some(place.hash) {
                return Ok(Err(BatchError::Recovery));
            }
            let before = self.state_at(place.index).await?;
            if let Err(error) = before.next(batch, &*self.host.keys) {
                return Ok(Err(error));
            }
            return self.rewind(number, before).await.map(Ok);
        }
        Ok(Ok(()))
    }

    /// The state after the batch at `index`, which this node holds.
    async fn state_at(&mut self, index: u64) -> io::Result<State> {
        let keys = &*self.host.keys;
        let mut state = State::genesis(&self.genesis, keys).map_err(io::Error::other)?;
        while state.position.index < index {
            let page = self.archive.range(state.position.index + 1, PAGE).await?;
            if page.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for batch in page {
                if state.position.index < index {
                    // It was proved when it was taken.
                    state = state.apply(&batch, keys).map_err(io::Error::other)?.0;
                }
            }
        }
        Ok(state)
    }

    /// Goes back to `state`, after putting aside what comes behind it.
    async fn rewind(&mut self, number: u32, state: State) -> io::Result<()> {
        let now = self.current();
        let index = state.position.index;
        let (nodes, serials) = now.revoked_beyond(&state);
        let mut lost = Lost {
            number,
            from: index + 1,
            to: self.archive.position().index,
            entries: 0,
            nodes,
            serials,
        };
        let mut from = lost.from;
        loop {
            let page = self.archive.range(from, PAGE).await?;
            if page.is_empty() {
                break;
            }
            from += page.len() as u64;
            lost.entries += page
                .iter()
                .map(|batch| batch.entries.len() as u64)
                .sum::<u64>();
        }
        let disk = self.host.disk.clone();
        let whole = disk.read(Path::new(LEDGER)).await?.unwrap_or_default();
        disk.replace(Path::new(&lost.copy()), &whole).await?;
        tracing::error!(
            from = lost.from,
            to = lost.to,
            entries = lost.entries,
            evicted = ?lost.nodes,
            revoked = ?lost.serials,
            copy = lost.copy(),
            "the root gave the ledger a new roster that goes on from an earlier place: these \
             batches are no part of it"
        );
        let mut all = (**self.lost.borrow()).clone();
        all.push(lost);
        disk.replace(Path::new(LOST), &codec::encode(&all)).await?;
        self.lost.send_replace(Arc::new(all));

        self.leave_log();
        self.file
            .rewind(&self.genesis, index, &self.archive)
            .await?;
        self.state.send_replace(Arc::new(state));
        self.durable.send_replace(self.archive.position());
        Ok(())
    }
}
