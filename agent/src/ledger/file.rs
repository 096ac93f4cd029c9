//! The ledger's file: frames, append-only. The genesis first, then one batch a
//! frame. Only a torn tail is ever cut off.

use std::{io, ops::Range, path::Path, sync::Mutex};

use innermesh_proto::{
    codec,
    crypto::Hash,
    ledger::{Batch, Position, SignedGenesis},
    limits,
};

use super::frames::{self, Check, Frame, frame, scan};
use crate::host::{AppendFile, Disk};

/// The file, below the state folder.
pub const LEDGER: &str = "ledger";
/// Where a file that was damaged in the middle is put.
const DAMAGED: &str = "ledger.damaged";
/// What the first frame's checksum covers in place of a predecessor's.
const FIRST: Check = *b"innermes";

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk's own error.
    #[error("the ledger file can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// There is none.
    #[error("there is no ledger here; run `agent init` or `agent join` first")]
    Absent,
    /// There is one already.
    #[error("there is a ledger here already: this machine is in a mesh")]
    Exists,
    /// Not even its first frame is whole.
    #[error("the ledger file is damaged from its start on")]
    Unreadable,
}

/// Writes a new file with the genesis alone.
///
/// # Errors
/// [`FileError`].
pub async fn create(disk: &dyn Disk, genesis: &SignedGenesis) -> Result<(), FileError> {
    if disk.read(Path::new(LEDGER)).await?.is_some() {
        return Err(FileError::Exists);
    }
    Ok(disk
        .replace(Path::new(LEDGER), &encode(genesis, &[]))
        .await?)
}

/// The bytes of a file that holds these.
pub fn encode(genesis: &SignedGenesis, batches: &[Batch]) -> Vec<u8> {
    let (mut out, mut check) = frame(&FIRST, &codec::encode(genesis));
    for batch in batches {
        let (bytes, next) = frame(&check, &codec::encode(batch));
        out.extend(bytes);
        check = next;
    }
    out
}

/// What a file holds.
pub struct Loaded {
    /// The first frame.
    pub genesis: SignedGenesis,
    /// The others.
    pub batches: Vec<Batch>,
    /// Where it is damaged in the middle, in bytes.
    pub damage: Option<u64>,
    frames: Vec<Frame>,
    bytes: Vec<u8>,
}

/// Reads the file.
///
/// # Errors
/// [`FileError`].
pub async fn load(disk: &dyn Disk) -> Result<Loaded, FileError> {
    let bytes = disk
        .read(Path::new(LEDGER))
        .await?
        .ok_or(FileError::Absent)?;
    parse(bytes)
}

/// Reads the bytes of a file.
///
/// # Errors
/// [`FileError::Unreadable`].
pub fn parse(bytes: Vec<u8>) -> Result<Loaded, FileError> {
    let (mut frames, mut damage) = scan(&bytes, FIRST, limits::BATCH_BYTES);
    let first = frames.first().ok_or(FileError::Unreadable)?;
    let genesis = codec::decode(&bytes[first.payload.clone()], limits::GENESIS_BYTES)
        .map_err(|_| FileError::Unreadable)?;
    let mut batches = Vec::new();
    for frame in &frames[1..] {
        match codec::decode(&bytes[frame.payload.clone()], limits::BATCH_BYTES) {
            Ok(batch) => batches.push(batch),
            Err(_) => {
                damage = Some(frame.payload.start as u64);
                break;
            }
        }
    }
    frames.truncate(1 + batches.len());
    Ok(Loaded {
        genesis,
        batches,
        damage,
        frames,
        bytes,
    })
}

impl Loaded {
    /// Where batch number `n` of [`Loaded::batches`] starts, in bytes.
    pub fn offset(&self, n: usize) -> u64 {
        self.frames
            .get(n + 1)
            .map_or(0, |frame| frame.payload.start as u64)
    }

    /// Opens the file for appending after the first `kept` batches: a torn
    /// tail is cut; of a file that is damaged in the middle a copy is kept.
    pub async fn reopen(
        &self,
        disk: &dyn Disk,
        kept: usize,
    ) -> Result<(Archive, Appender), FileError> {
        let path = Path::new(LEDGER);
        let frames = &self.frames[..=kept];
        let last = frames.last().ok_or(FileError::Unreadable)?;
        let end = last.payload.end;
        if self.damage.is_some() {
            disk.replace(Path::new(DAMAGED), &self.bytes).await?;
        }
        let mut file = disk.append(path).await?;
        if end < self.bytes.len() {
            file.truncate(end as u64).await?;
        }
        let held = self.batches[..kept]
            .iter()
            .zip(&frames[1..])
            .map(|(batch, frame)| {
                Held::new(batch, frame.payload.start as u64..frame.payload.end as u64)
            })
            .collect();
        let archive = Archive {
            genesis: self.genesis.position().hash,
            held: Mutex::new(held),
            reader: disk.reader(path),
        };
        let appender = Appender {
            file,
            check: last.check,
            end: end as u64,
        };
        Ok((archive, appender))
    }
}

/// Where each batch is, for those who ask for a range.
pub struct Archive {
    genesis: Hash,
    held: Mutex<Vec<Held>>,
    reader: Box<dyn crate::host::ReadFile>,
}

struct Held {
    hash: Hash,
    payload: Range<u64>,
    /// The number of the root's recovery that this batch is; 0 for any other.
    recovery: u32,
}

impl Held {
    fn new(batch: &Batch, payload: Range<u64>) -> Self {
        let header = batch.read_header().ok();
        let recovery = header.and_then(|header| header.recovery?.claims());
        Self {
            hash: Hash::of(&batch.header),
            payload,
            recovery: recovery.map_or(0, |(number, _)| number),
        }
    }
}

impl Archive {
    /// The hash of the header at `index`; of the genesis at 0.
    pub fn hash_at(&self, index: u64) -> Option<Hash> {
        if index == 0 {
            return Some(self.genesis);
        }
        let at = usize::try_from(index - 1).ok()?;
        let held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        held.get(at).map(|held| held.hash)
    }

    /// The newest batch that is listed: it is on disk.
    pub fn position(&self) -> Position {
        let held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        Position {
            index: held.len() as u64,
            hash: held.last().map_or(self.genesis, |held| held.hash),
        }
    }

    /// The indices of recoveries by the root with this number or a higher one.
    pub fn recoveries_from(&self, number: u32) -> Vec<u64> {
        let held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        let found = (1u64..).zip(held.iter());
        let found = found.filter(|(_, held)| held.recovery >= number.max(1));
        found.map(|(index, _)| index).collect()
    }

    /// As [`super::Ledger::range`].
    pub async fn range(&self, from: u64, bytes: usize) -> io::Result<Vec<Batch>> {
        let mut out = Vec::new();
        for payload in self.payloads(from, bytes) {
            let raw = self.reader.read(payload).await?;
            let batch = codec::decode(&raw, limits::BATCH_BYTES).map_err(io::Error::other)?;
            out.push(batch);
        }
        Ok(out)
    }

    fn payload_at(&self, index: u64) -> Option<Range<u64>> {
        let at = usize::try_from(index.checked_sub(1)?).ok()?;
        let held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        held.get(at).map(|held| held.payload.clone())
    }

    fn truncate(&self, index: u64) {
        let length = usize::try_from(index).unwrap_or(usize::MAX);
        let mut held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        held.truncate(length);
    }

    fn payloads(&self, from: u64, bytes: usize) -> Vec<Range<u64>> {
        let first = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        let held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        let mut left = bytes as u64;
        let mut out = Vec::new();
        for held in held.get(first..).unwrap_or_default() {
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

/// Writes batches at the end of the file.
pub struct Appender {
    file: Box<dyn AppendFile>,
    check: Check,
    end: u64,
}

impl Appender {
    /// Cuts the file to the first `index` batches, durably; `archive` lists no
    /// more from then on.
    ///
    /// # Errors
    /// The file's end is then unknown: the caller stops writing for good.
    pub async fn rewind(
        &mut self,
        genesis: &SignedGenesis,
        index: u64,
        archive: &Archive,
    ) -> io::Result<()> {
        let (first, check) = frame(&FIRST, &codec::encode(genesis));
        let (end, check) = match archive.payload_at(index) {
            None => (first.len() as u64, check),
            Some(payload) => {
                // A frame's head ends with its checksum.
                let bytes = archive
                    .reader
                    .read(payload.start - 8..payload.start)
                    .await?;
                let check = bytes.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
                (payload.end, check)
            }
        };
        archive.truncate(index);
        self.file.truncate(end).await?;
        (self.end, self.check) = (end, check);
        Ok(())
    }

    /// Appends batches and makes them durable, all or none acknowledged; only
    /// then does `archive` list them.
    ///
    /// # Errors
    /// The file's tail is then unknown: the caller stops writing for good.
    pub async fn append(&mut self, batches: &[&Batch], archive: &Archive) -> io::Result<()> {
        let mut out = Vec::new();
        let mut listed = Vec::new();
        for batch in batches {
            let (bytes, check) = frame(&self.check, &codec::encode(batch));
            self.check = check;
            let start = self.end + frames::HEAD as u64;
            self.end += bytes.len() as u64;
            out.extend_from_slice(&bytes);
            listed.push(Held::new(batch, start..self.end));
        }
        self.file.append(&out).await?;
        self.file.sync().await?;
        archive
            .held
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .extend(listed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn batch(n: u8) -> Batch {
        Batch {
            header: vec![n; 20],
            entries: Vec::new(),
            proof: BTreeMap::new(),
        }
    }

    fn file(batches: u8) -> Vec<u8> {
        let genesis = SignedGenesis {
            bytes: vec![7; 30],
            signature: vec![8; 70],
        };
        let batches: Vec<Batch> = (0..batches).map(batch).collect();
        encode(&genesis, &batches)
    }

    #[test]
    fn a_file_cut_anywhere_gives_a_prefix_and_no_damage() {
        let whole = file(3);
        let first = parse(whole.clone()).unwrap().frames[0].payload.end;
        for length in first..whole.len() {
            let loaded = parse(whole[..length].to_vec()).unwrap();
            assert_eq!(loaded.damage, None, "cut at {length}");
            assert!(loaded.batches.len() < 3);
            for (n, read) in loaded.batches.iter().enumerate() {
                assert_eq!(*read, batch(n as u8));
            }
        }
        assert_eq!(parse(whole).unwrap().batches.len(), 3);
    }

    #[test]
    fn a_flipped_bit_in_the_middle_is_damage_and_never_read() {
        let whole = file(3);
        let loaded = parse(whole.clone()).unwrap();
        let (second, third) = (
            loaded.frames[2].payload.clone(),
            loaded.frames[3].payload.start,
        );
        for at in second.start..third - frames::HEAD {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let loaded = parse(bytes).unwrap();
            assert_eq!(loaded.batches.len(), 1);
            assert_eq!(loaded.damage, Some((second.start - frames::HEAD) as u64));
        }
    }

    #[test]
    fn frames_that_changed_places_are_damage() {
        let whole = file(3);
        let frames = parse(whole.clone()).unwrap().frames;
        let cut = |n: usize| {
            whole[frames[n].payload.start - frames::HEAD..frames[n].payload.end].to_vec()
        };
        let swapped = [cut(0), cut(2), cut(1), cut(3)].concat();
        let loaded = parse(swapped).unwrap();
        assert!(loaded.batches.is_empty());
        assert!(loaded.damage.is_some());
    }

    #[test]
    fn zeros_at_the_end_are_space_that_was_never_written() {
        let mut bytes = file(1);
        bytes.extend([0; 500]);
        let loaded = parse(bytes).unwrap();
        assert_eq!((loaded.batches.len(), loaded.damage), (1, None));
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        assert!(matches!(parse(Vec::new()), Err(FileError::Unreadable)));
        assert!(matches!(parse(vec![0xff; 100]), Err(FileError::Unreadable)));
    }
}
