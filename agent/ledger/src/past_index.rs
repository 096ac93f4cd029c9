//! Where batches are in the files of the past, so that who asks for some of them
//! costs no more than those. An index is made from the heads of frames when a
//! file is first asked for, and has every so manyth batch.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use innermesh_proto::{codec, ledger::Batch, limits};

use super::{frames::HEAD, past};
use crate::host::{Disk, ReadFile};

/// Batches from one mark to the next.
const STEP: u64 = 16;
/// Bytes that are read at a time to find heads of frames.
const WINDOW: u64 = 8 * 1024;

/// The indexes that are in memory, by the last batch of their file.
#[derive(Default)]
pub(super) struct Past(Mutex<BTreeMap<u64, Arc<Index>>>);

/// Where the batches of one file are.
struct Index {
    /// The first batch.
    first: u64,
    /// How many there are, one after the other.
    count: u64,
    /// Where the frames of the first and of each [`STEP`]th after it begin.
    marks: Vec<u64>,
    /// Where the last ends.
    end: u64,
}

impl Past {
    /// Stored batches from index `from` on, each as it is encoded, about `bytes`
    /// of them at most.
    ///
    /// # Errors
    /// The disk's.
    pub async fn range(
        &self,
        disk: &dyn Disk,
        from: u64,
        bytes: usize,
    ) -> io::Result<Vec<Vec<u8>>> {
        let files = disk.list(past::FOLDER.as_ref()).await?;
        let mut files = files
            .into_iter()
            .filter_map(|path: PathBuf| Some((past::last_of(&path)?, path)));
        let Some((last, path)) = files.find(|(last, _)| *last >= from) else {
            return Ok(Vec::new());
        };
        let reader = disk.reader(&path);
        let index = self.index(last, &*reader).await?;
        let Some(skipped) = from.checked_sub(index.first) else {
            return Ok(Vec::new());
        };
        let mark = usize::try_from(skipped / STEP).unwrap_or(usize::MAX);
        let Some(&begin) = index.marks.get(mark).filter(|_| skipped < index.count) else {
            return Ok(Vec::new());
        };
        let mut heads = Heads::new(&*reader, begin, index.end);
        for _ in 0..skipped % STEP {
            heads.next().await?;
        }
        let mut payloads: Vec<Range<u64>> = Vec::new();
        let mut left = bytes as u64;
        while let Some(payload) = heads.next().await? {
            let length = payload.end - payload.start;
            if length > left && !payloads.is_empty() {
                break;
            }
            left = left.saturating_sub(length);
            payloads.push(payload);
        }
        let mut out = Vec::new();
        for payload in payloads {
            out.push(reader.read(payload).await?);
        }
        Ok(out)
    }

    async fn index(&self, last: u64, reader: &dyn ReadFile) -> io::Result<Arc<Index>> {
        if let Some(index) = self.lock().get(&last) {
            return Ok(index.clone());
        }
        let index = Arc::new(Index::read(reader).await?);
        let mut kept = self.lock();
        while kept.len() >= limits::PAST_INDEXES {
            kept.pop_first();
        }
        kept.insert(last, index.clone());
        Ok(index)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Index>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    async fn read(reader: &dyn ReadFile) -> io::Result<Self> {
        let mut heads = Heads::new(reader, 0, reader.length().await?);
        let mut index = Self {
            first: 0,
            count: 0,
            marks: Vec::new(),
            end: 0,
        };
        // The genesis.
        heads.next().await?;
        while let Some(payload) = heads.next().await? {
            if index.count == 0 {
                let raw = reader.read(payload.clone()).await?;
                let batch = codec::decode::<Batch>(&raw, limits::BATCH_BYTES);
                let header = batch.and_then(|batch| batch.read_header());
                index.first = header.map_err(io::Error::other)?.index;
            }
            if index.count.is_multiple_of(STEP) {
                index.marks.push(payload.start - HEAD as u64);
            }
            index.count += 1;
            index.end = payload.end;
        }
        Ok(index)
    }
}

/// Goes from frame to frame, and reads little but their heads.
struct Heads<'r> {
    reader: &'r dyn ReadFile,
    /// Where the next frame begins.
    at: u64,
    /// Where there are no more.
    end: u64,
    /// What was read last, and where it is.
    window: (u64, Vec<u8>),
}

impl<'r> Heads<'r> {
    fn new(reader: &'r dyn ReadFile, at: u64, end: u64) -> Self {
        Self {
            reader,
            at,
            end,
            window: (0, Vec::new()),
        }
    }

    /// Where the next frame's payload is; none where no whole one follows.
    async fn next(&mut self) -> io::Result<Option<Range<u64>>> {
        let start = self.at + HEAD as u64;
        if start > self.end {
            return Ok(None);
        }
        let (from, bytes) = &self.window;
        if self.at < *from || start > from + bytes.len() as u64 {
            let to = (self.at + WINDOW).min(self.end);
            self.window = (self.at, self.reader.read(self.at..to).await?);
        }
        let (from, bytes) = &self.window;
        let offset = usize::try_from(self.at - from).unwrap_or(usize::MAX);
        let Some(length) = bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        let length = u64::from(u32::from_le_bytes(*length));
        let payload = start..start + length;
        // Damage, or zeros that were never written.
        if length == 0 || length > limits::BATCH_BYTES as u64 || payload.end > self.end {
            return Ok(None);
        }
        self.at = payload.end;
        Ok(Some(payload))
    }
}
