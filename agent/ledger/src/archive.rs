//! Batches read from the ledger's file, for those who ask for some.

use std::{io, ops::Range, sync::Arc};

use innermesh_host::ReadFile;
use innermesh_proto::{
    codec::{self, CodecError},
    ledger::{Batch, SignedGenesis},
    limits,
};

use super::{
    index::{BatchIndex, Held, recovery_of},
    start::Start,
};

/// The file, open for reading.
pub struct Archive {
    index: Arc<BatchIndex>,
    reader: Box<dyn ReadFile>,
}

impl Archive {
    /// Of a file with the genesis alone.
    pub fn new(genesis: &SignedGenesis, reader: Box<dyn ReadFile>) -> Self {
        Self {
            index: Arc::new(BatchIndex::new(genesis.position())),
            reader,
        }
    }

    /// What is in the file, and where.
    pub fn index(&self) -> &Arc<BatchIndex> {
        &self.index
    }

    /// Nothing is listed any more but what the file goes on from.
    ///
    /// # Errors
    /// [`CodecError`] for what is no batch; nothing was changed.
    pub fn restart(&self, start: &Start) -> Result<(), CodecError> {
        let base = start.at.position()?;
        self.index.restart(base, start.ends.clone());
        Ok(())
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
                |held| counts(held.recovery()),
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
        let mut all = self.some(Held::ends_epoch, |_| true).await?;
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
        let (mut out, payloads) = self.index.some(of_held, of_ends);
        for payload in payloads {
            out.push(self.batch(payload).await?);
        }
        Ok(out)
    }

    /// As `Ledger::encoded_range`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn encoded_range(&self, from: u64, bytes: usize) -> io::Result<Vec<Vec<u8>>> {
        loop {
            let payloads = self.index.payloads(from, bytes);
            let mut out = Vec::new();
            let mut failed = None;
            for payload in &payloads {
                match self.reader.read(payload.clone()).await {
                    Ok(raw) => out.push(raw),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            // The file may have been written anew meanwhile.
            if self.index.payloads(from, bytes) == payloads {
                return failed.map_or(Ok(out), Err);
            }
        }
    }

    /// As `Ledger::range`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn range(&self, from: u64, bytes: usize) -> io::Result<Vec<Batch>> {
        loop {
            let payloads = self.index.payloads(from, bytes);
            match self.batches(&payloads).await {
                // The file was written anew meanwhile.
                Err(_) if self.index.payloads(from, bytes) != payloads => {}
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
    ///
    /// # Errors
    /// The disk's.
    pub async fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.reader.read(range).await
    }

    /// The encoded batches, which follow each other in the file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn encoded(&self, held: &[Held]) -> io::Result<Vec<Vec<u8>>> {
        let (Some(first), Some(last)) = (held.first(), held.last()) else {
            return Ok(Vec::new());
        };
        let from = first.payload().start;
        let bytes = self.read(from..last.payload().end).await?;
        let slice = |held: &Held| {
            let range = held.payload().start - from..held.payload().end - from;
            bytes[range.start as usize..range.end as usize].to_vec()
        };
        Ok(held.iter().map(slice).collect())
    }
}
