//! The log in memory, as the library reads it: all of what is on disk.

use innermesh_proto::ledger::Position;
use raft::{
    Error, GetEntriesContext, RaftState, StorageError,
    eraftpb::{self, ConfState, HardState, Snapshot},
    util::limit_size,
};

use super::{
    convert::{conf_in, entry_in, entry_out, hard_in, hard_out, snapshot_in},
    message::{Base, Conf, Entry, Hard},
};

/// What a voter's log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Where it starts.
    pub base: Base,
    /// What was promised.
    pub hard: Hard,
    /// From the base on, without a gap.
    pub entries: Vec<Entry>,
}

/// [`Saved`], as the library's storage.
pub struct Store {
    base: Base,
    /// As a base: where the newest applied entry is. A voter that is sent it
    /// is named in it, which it may not be in an older one.
    applied: Base,
    conf: ConfState,
    hard: HardState,
    entries: Vec<eraftpb::Entry>,
    bytes: usize,
}

impl Store {
    pub fn new(saved: Saved) -> Self {
        let mut hard = saved.hard;
        let last = saved.base.index + saved.entries.len() as u64;
        hard.commit = hard.commit.clamp(saved.base.index, last);
        hard.term = hard.term.max(saved.base.term);
        let mut store = Self {
            conf: conf_in(&saved.base.conf),
            applied: saved.base.clone(),
            base: saved.base,
            hard: hard_in(&hard),
            entries: Vec::new(),
            bytes: 0,
        };
        store.append(saved.entries.into_iter().map(entry_in).collect());
        store
    }

    pub fn base(&self) -> &Base {
        &self.base
    }

    /// What the file would hold if it were written anew.
    pub fn saved(&self) -> Saved {
        Saved {
            base: self.base.clone(),
            hard: hard_out(&self.hard),
            entries: self.entries.iter().map(entry_out).collect(),
        }
    }

    pub fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    /// Starts from `base`, with no entry.
    pub fn restore(&mut self, base: Base) {
        self.conf = conf_in(&base.conf);
        self.applied = base.clone();
        self.base = base;
        self.entries.clear();
        self.bytes = 0;
    }

    /// Appends entries in place of those from the first one's index on.
    pub fn append(&mut self, entries: Vec<eraftpb::Entry>) {
        let Some(first) = entries.first() else { return };
        let kept = first.index.saturating_sub(self.base.index + 1) as usize;
        for dropped in self.entries.drain(kept.min(self.entries.len())..) {
            self.bytes -= size(&dropped);
        }
        self.bytes += entries.iter().map(size).sum::<usize>();
        self.entries.extend(entries);
    }

    /// Where the newest applied entry is.
    pub fn applied(&self) -> &Base {
        &self.applied
    }

    pub fn set_applied(&mut self, index: u64, conf: Conf, position: Position) {
        let term = raft::Storage::term(self, index);
        self.applied = Base {
            index,
            term: term.unwrap_or(self.applied.term),
            conf,
            position,
        };
    }

    /// Drops the applied entries.
    pub fn compact(&mut self) {
        let base = self.applied.clone();
        let dropped = base.index.saturating_sub(self.base.index) as usize;
        for dropped in self.entries.drain(..dropped.min(self.entries.len())) {
            self.bytes -= size(&dropped);
        }
        self.conf = conf_in(&base.conf);
        self.base = base;
    }

    /// How many entries there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn last(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    /// Where the entry at `index` is in the list.
    fn at(&self, index: u64) -> raft::Result<usize> {
        if index <= self.base.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        Ok((index - self.base.index - 1) as usize)
    }
}

fn size(entry: &eraftpb::Entry) -> usize {
    entry.data.len() + entry.context.len() + 32
}

impl raft::Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low >= high {
            return Ok(Vec::new());
        }
        let (first, last) = (self.at(low)?, self.at(high - 1)?);
        let mut entries = self.entries[first..=last].to_vec();
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        Ok(self.entries[self.at(index)?].term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.index == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(snapshot_in(&self.applied))
    }
}
