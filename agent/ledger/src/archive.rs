//! Where each batch is in the ledger's file, for those who ask for some.

use std::{
    io,
    ops::Range,
    sync::{Mutex, MutexGuard},
};

use innermesh_proto::{
    codec::{self, CodecError},
    crypto::Hash,
    ledger::{Batch, Position, SignedGenesis},
    limits,
};

use super::start::Start;
use crate::host::ReadFile;

/// What is on disk.
pub struct Archive {
    genesis: Position,
    listed: Mutex<Listed>,
    reader: Box<dyn ReadFile>,
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
}

impl Held {
    /// The same batch elsewhere.
    pub fn at(self, payload: Range<u64>) -> Self {
        Self { payload, ..self }
    }
}

fn recovery_of(batch: &Batch) -> u32 {
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

impl Archive {
    /// Of a file with the genesis alone.
    pub fn new(genesis: &SignedGenesis, reader: Box<dyn ReadFile>) -> Self {
        let genesis = genesis.position();
        let listed = Mutex::new(Listed {
            base: genesis,
            ends: Vec::new(),
            held: Vec::new(),
        });
        Self {
            genesis,
            listed,
            reader,
        }
    }

    /// Nothing is listed any more but what the file goes on from.
    ///
    /// # Errors
    /// [`CodecError`] for what is no batch; nothing was changed.
    pub fn restart(&self, start: &Start) -> Result<(), CodecError> {
        let base = start.at.position()?;
        *self.listed() = Listed {
            base,
            ends: start.ends.clone(),
            held: Vec::new(),
        };
        Ok(())
    }

    /// Lists batches that are on disk.
    pub fn list(&self, held: Vec<Held>) {
        self.listed().held.extend(held);
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

    /// Recoveries by the root with this number or a higher one, the newest
    /// `most` of them.
    ///
    /// # Errors
    /// The disk's.
    pub async fn recoveries_from(&self, number: u32, most: usize) -> io::Result<Vec<Batch>> {
        let counts = |recovery: u32| recovery >= number.max(1);
        let mut all = self
            .some(
                |held| counts(held.recovery),
                |batch| counts(recovery_of(batch)),
            )
            .await?;
        all.drain(..all.len().saturating_sub(most));
        Ok(all)
    }

    /// The batches up to `index` that ended epochs.
    ///
    /// # Errors
    /// The disk's.
    pub async fn ends(&self, index: u64) -> io::Result<Vec<Batch>> {
        let mut all = self.some(|held| held.ends, |_| true).await?;
        all.retain(|batch| {
            batch
                .read_header()
                .is_ok_and(|header| header.index <= index)
        });
        Ok(all)
    }

    async fn some(
        &self,
        of_held: impl Fn(&Held) -> bool,
        of_ends: impl Fn(&Batch) -> bool,
    ) -> io::Result<Vec<Batch>> {
        let (mut out, payloads) = {
            let listed = self.listed();
            let ends = listed.ends.iter().filter(|batch| of_ends(batch));
            let held = listed.held.iter().filter(|held| of_held(held));
            let payloads: Vec<_> = held.map(|held| held.payload.clone()).collect();
            (ends.cloned().collect::<Vec<_>>(), payloads)
        };
        for payload in payloads {
            out.push(self.batch(payload).await?);
        }
        Ok(out)
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

    /// As [`super::Ledger::encoded_range`].
    pub async fn encoded_range(&self, from: u64, bytes: usize) -> io::Result<Vec<Vec<u8>>> {
        loop {
            let payloads = self.payloads(from, bytes);
            let mut out = Vec::new();
            let mut failed = None;
            for payload in &payloads {
                match self.reader.read(payload.clone()).await {
                    Ok(raw) => out.push(raw),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            // The file may have been written anew meanwhile.
            if self.payloads(from, bytes) == payloads {
                return failed.map_or(Ok(out), Err);
            }
        }
    }

    /// As [`super::Ledger::range`].
    pub async fn range(&self, from: u64, bytes: usize) -> io::Result<Vec<Batch>> {
        loop {
            let payloads = self.payloads(from, bytes);
            match self.batches(&payloads).await {
                // The file was written anew meanwhile.
                Err(_) if self.payloads(from, bytes) != payloads => {}
                done => return done,
            }
        }
    }

    async fn batches(&self, payloads: &[Range<u64>]) -> io::Result<Vec<Batch>> {
        let mut out = Vec::new();
        for payload in payloads {
            out.push(self.batch(payload.clone()).await?);
        }
        Ok(out)
    }

    async fn batch(&self, payload: Range<u64>) -> io::Result<Batch> {
        let raw = self.reader.read(payload).await?;
        codec::decode(&raw, limits::BATCH_BYTES).map_err(io::Error::other)
    }

    /// Bytes of the file.
    pub async fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.reader.read(range).await
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

    /// The encoded batches, which follow each other in the file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn encoded(&self, held: &[Held]) -> io::Result<Vec<Vec<u8>>> {
        let (Some(first), Some(last)) = (held.first(), held.last()) else {
            return Ok(Vec::new());
        };
        let from = first.payload.start;
        let bytes = self.read(from..last.payload.end).await?;
        let slice = |held: &Held| {
            let range = held.payload.start - from..held.payload.end - from;
            bytes[range.start as usize..range.end as usize].to_vec()
        };
        Ok(held.iter().map(slice).collect())
    }

    /// Lists no batch behind this one any more.
    pub fn truncate(&self, index: u64) {
        let mut listed = self.listed();
        let length = listed.at(index + 1).unwrap_or(0);
        listed.held.truncate(length);
    }

    fn payloads(&self, from: u64, bytes: usize) -> Vec<Range<u64>> {
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
