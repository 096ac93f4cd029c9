//! Going on after the roster was lost for good: the surviving node writes what
//! the root signed, and every other node follows, also one that holds batches
//! which the lost roster decided beyond that place. Those are kept beside the
//! ledger, and whom they revoked stays cut off here.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use innermesh_proto::{
    certificate::Serial,
    codec,
    id::NodeId,
    ledger::{Batch, BatchError, Position, SignedRecovery, State},
    limits,
};
use serde::{Deserialize, Serialize};

use super::{
    file::LEDGER,
    gone,
    start::{self, Found},
    writer::Writer,
};
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
        format!("{LEDGER}.lost.{}-{}", self.from, self.to)
    }
}

/// What a batch says of the recovery that it is, unchecked.
struct Led {
    number: u32,
    place: Position,
    signed: SignedRecovery,
}

impl Led {
    fn of(batch: &Batch) -> Option<(Position, Self)> {
        let signed = batch.read_header().ok()?.recovery?;
        let (number, place) = signed.claims()?;
        let led = Self {
            number,
            place,
            signed,
        };
        Some((batch.position().ok()?, led))
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
        let stamp_ms = self.next_stamp(&state);
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
        let after = Arc::new(after);
        self.starts.note(&batch, &after);
        self.store(vec![batch], Some(after)).await?;
        gone::forget(&*self.host.disk).await?;
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

    /// If these batches are another history, which the root led on from an
    /// earlier place than this node's: goes back there. The history with the
    /// highest recovery counts.
    pub async fn follow_recovery(
        &mut self,
        batches: &[Batch],
    ) -> io::Result<Result<(), BatchError>> {
        let state = self.current();
        let led: Vec<(&Batch, Position, Led)> = batches
            .iter()
            .filter_map(|batch| Led::of(batch).map(|(at, led)| (batch, at, led)))
            .filter(|(_, at, _)| self.archive.hash_at(at.index) != Some(at.hash))
            // Each may cost the check of a signature.
            .take(limits::RECOVERIES)
            .collect();
        let parts = |(_, at, led): &&(&Batch, Position, Led)| {
            let here = led.place.index >= self.archive.base()
                && self.archive.hash_at(led.place.index) == Some(led.place.hash);
            here && self.archive.hash_at(at.index).is_some()
        };
        let Some((batch, at, first)) = led.iter().find(parts) else {
            return Ok(
                if led
                    .iter()
                    .any(|(_, at, _)| self.archive.hash_at(at.index).is_some())
                {
                    // It parts from this one at a place that isn't told.
                    Err(BatchError::Recovery)
                } else {
                    Ok(())
                },
            );
        };
        let keys = &*self.host.keys;
        let by_root = |led: &Led| led.signed.open(&state.root.spki, keys).is_some();
        let newest = led
            .iter()
            .filter(|(_, _, led)| led.place.index >= first.place.index && by_root(led))
            .map(|(_, _, led)| led.number)
            .max();
        match newest {
            Some(newest) if newest == state.recovery => {
                tracing::error!(
                    number = newest,
                    "the root signed two recoveries with one number; run `agent ca recover` again \
                     on the node that is to go on"
                );
                return Ok(Err(BatchError::Fork(at.index)));
            }
            // One that is over, said again.
            Some(newest) if newest < state.recovery => return Ok(Ok(())),
            Some(_) if by_root(first) => {}
            _ => return Ok(Err(BatchError::Recovery)),
        }
        let (number, index) = (first.number, first.place.index);
        let batch = (*batch).clone();
        let before = self.state_at(index).await?;
        match before.next(&batch, &*self.host.keys) {
            Ok(_) => self.rewind(number, before).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The state after the batch at `index`, which this node holds.
    async fn state_at(&mut self, index: u64) -> io::Result<State> {
        let keys = &*self.host.keys;
        let start = match self.archive.base() {
            0 => Found::Nothing,
            _ => start::load(&*self.host.disk, |_| true).await?,
        };
        let mut state = match start {
            Found::Start(start) => start
                .open_own(&self.genesis, keys)
                .map_err(io::Error::other)?,
            _ => State::genesis(&self.genesis, keys).map_err(io::Error::other)?,
        };
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
        self.starts.forget();
        self.state.send_replace(Arc::new(state));
        self.durable.send_replace(self.archive.position());
        Ok(())
    }
}
