//! Which batches this node has on disk, and where: what can be known of them
//! without reading the file.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard},
};

use innermesh_proto::{
    crypto::Hash,
    ledger::{Batch, Position},
};

/// Those of the ledger's file, and what that goes on from.
pub struct BatchIndex {
    genesis: Position,
    listed: Mutex<Listed>,
}

struct Listed {
    /// After which batch the file begins.
    base: Position,
    /// Those up to it that ended epochs.
    ends: Vec<Batch>,
    held: Vec<Held>,
}

/// One batch in the file.
#[derive(Clone)]
pub struct Held {
    hash: Hash,
    payload: Range<u64>,
    /// The number of the root's recovery that this batch is; 0 for any other.
    recovery: u32,
    /// Whether it ends an epoch.
    ends: bool,
    /// Whether its header has the hash of the state.
    hashed: bool,
}

impl Held {
    /// A batch whose encoding is at `payload`.
    pub fn new(batch: &Batch, payload: Range<u64>) -> Self {
        let header = batch.read_header().ok();
        Self {
            hash: Hash::of(&batch.header),
            payload,
            recovery: recovery_of(batch),
            ends: header.as_ref().is_some_and(|header| header.next.is_some()),
            hashed: header.is_some_and(|header| header.state.is_some()),
        }
    }

    /// The same batch elsewhere.
    pub fn at(self, payload: Range<u64>) -> Self {
        Self { payload, ..self }
    }

    pub fn payload(&self) -> &Range<u64> {
        &self.payload
    }

    pub fn recovery(&self) -> u32 {
        self.recovery
    }

    pub fn ends_epoch(&self) -> bool {
        self.ends
    }
}

/// The number of the root's recovery that a batch is; 0 for any other.
pub fn recovery_of(batch: &Batch) -> u32 {
    let header = batch.read_header().ok();
    let claims = header.and_then(|header| header.recovery?.claims());
    claims.map_or(0, |(number, _)| number)
}

impl Listed {
    /// The place of batch `index` in `held`.
    fn at(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok()
    }
}

impl BatchIndex {
    /// Of a file with the genesis alone.
    pub fn new(genesis: Position) -> Self {
        let listed = Mutex::new(Listed {
            base: genesis,
            ends: Vec::new(),
            held: Vec::new(),
        });
        Self { genesis, listed }
    }

    /// Nothing is listed any more but what the file goes on from: the batch at
    /// `base`, up to which `ends` ended epochs.
    pub fn restart(&self, base: Position, ends: Vec<Batch>) {
        *self.listed() = Listed {
            base,
            ends,
            held: Vec::new(),
        };
    }

    /// Lists batches that are on disk.
    pub fn list(&self, held: Vec<Held>) {
        self.listed().held.extend(held);
    }

    /// Lists no batch behind this one any more.
    pub fn truncate(&self, index: u64) {
        let mut listed = self.listed();
        let length = listed.at(index + 1).unwrap_or(0);
        listed.held.truncate(length);
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The hash of the header at `index`; of the genesis at 0.
    pub fn hash_at(&self, index: u64) -> Option<Hash> {
        let listed = self.listed();
        if index == 0 {
            return Some(self.genesis.hash);
        }
        if index == listed.base.index {
            return Some(listed.base.hash);
        }
        listed.held.get(listed.at(index)?).map(|held| held.hash)
    }

    /// The newest batch that is listed: it is on disk.
    pub fn position(&self) -> Position {
        let listed = self.listed();
        Position {
            index: listed.base.index + listed.held.len() as u64,
            hash: listed
                .held
                .last()
                .map_or(listed.base.hash, |held| held.hash),
        }
    }

    /// After which batch the file begins.
    pub fn base(&self) -> u64 {
        self.listed().base.index
    }

    /// Bytes of the batches behind the last one whose header has the hash of the
    /// state, as far as the file goes back.
    pub fn unhashed(&self) -> u64 {
        let listed = self.listed();
        let Some(last) = listed.held.last() else {
            return 0;
        };
        let behind = listed.held.iter().rev().take_while(|held| !held.hashed);
        let first = behind.last();
        first.map_or(0, |first| last.payload.end - first.payload.start)
    }

    /// Batches that ended epochs before the file begins, as far as `of_ends`
    /// wants them, and where those in the file are that `of_held` wants.
    pub fn some(
        &self,
        of_held: impl Fn(&Held) -> bool,
        of_ends: impl Fn(&Batch) -> bool,
    ) -> (Vec<Batch>, Vec<Range<u64>>) {
        let listed = self.listed();
        let ends = listed.ends.iter().filter(|batch| of_ends(batch));
        let held = listed.held.iter().filter(|held| of_held(held));
        let payloads = held.map(|held| held.payload.clone()).collect();
        (ends.cloned().collect(), payloads)
    }

    /// Where batch `index` is.
    pub fn payload_at(&self, index: u64) -> Option<Range<u64>> {
        let listed = self.listed();
        let held = listed.held.get(listed.at(index)?);
        held.map(|held| held.payload.clone())
    }

    /// Those up to `index`, and those behind it.
    pub fn parted(&self, index: u64) -> (Vec<Held>, Vec<Held>) {
        let listed = self.listed();
        let middle = listed.at(index + 1).unwrap_or(0).min(listed.held.len());
        let (before, after) = listed.held.split_at(middle);
        (before.to_vec(), after.to_vec())
    }

    /// Where those from `from` on are, about `bytes` of them at most, but at
    /// least one if there is one.
    pub fn payloads(&self, from: u64, bytes: usize) -> Vec<Range<u64>> {
        let listed = self.listed();
        let Some(first) = listed.at(from) else {
            return Vec::new();
        };
        let mut left = bytes as u64;
        let mut out = Vec::new();
        for held in listed.held.get(first..).unwrap_or_default() {
            let length = held.payload.end - held.payload.start;
            if length > left && !out.is_empty() {
                break;
            }
            left = left.saturating_sub(length);
            out.push(held.payload.clone());
        }
        out
    }
}
