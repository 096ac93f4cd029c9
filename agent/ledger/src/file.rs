//! The ledger's file: frames, append-only. The genesis first, then one batch a
//! frame. Only a torn tail is ever cut off.

use std::{io, ops::Range, path::Path};

use innermesh_proto::{
    codec,
    ledger::{Batch, Position, SignedGenesis},
    limits,
};

use super::{
    archive::Archive,
    frames::{self, Check, Frame, frame, scan},
    index::Held,
    start::Start,
};
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
    #[error(
        "the ledger file is damaged from its start on, and nothing else says which mesh this \
         machine is in: restore it from a backup, or move the state folder away and `agent join` \
         with a new invite"
    )]
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
    encode_all(genesis, batches.iter().map(codec::encode)).0
}

/// The bytes of a file that holds batches, each encoded, and where each is.
pub(super) fn encode_all(
    genesis: &SignedGenesis,
    batches: impl Iterator<Item = impl AsRef<[u8]>>,
) -> (Vec<u8>, Vec<Range<u64>>) {
    let (mut out, mut check) = begin(genesis);
    let mut places = Vec::new();
    for batch in batches {
        let (bytes, next) = frame(&check, batch.as_ref());
        out.extend(bytes);
        check = next;
        places.push((out.len() - batch.as_ref().len()) as u64..out.len() as u64);
    }
    (out, places)
}

/// The first frame, and its checksum.
fn begin(genesis: &SignedGenesis) -> (Vec<u8>, Check) {
    frame(&FIRST, &codec::encode(genesis))
}

/// Keeps a copy of the file as it is, in place of the one before, for people to
/// look at. Nothing depends on it.
pub async fn put_aside(disk: &dyn Disk) {
    let kept = match disk.read(Path::new(LEDGER)).await {
        Ok(Some(bytes)) => disk.replace(Path::new(DAMAGED), &bytes).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        tracing::warn!(%error, "the damaged ledger can't be put aside");
    }
}

/// What a file holds.
pub struct Loaded {
    /// The first frame.
    pub genesis: SignedGenesis,
    /// The state that the batches go on from, if that isn't the genesis'.
    pub start: Option<Start>,
    /// The others.
    pub batches: Vec<Batch>,
    /// Frames between the first and the first of the batches.
    skipped: usize,
    /// Where it is damaged in the middle, in bytes.
    pub damage: Option<u64>,
    /// The newest place that it had come to, as far as it can be read: also
    /// where what led there is lost.
    pub reached: Option<Position>,
    frames: Vec<Frame>,
    bytes: Vec<u8>,
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
    let mut batches: Vec<Batch> = Vec::new();
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
        start: None,
        skipped: 0,
        damage,
        reached: batches.last().and_then(|batch| batch.position().ok()),
        batches,
        frames,
        bytes,
    })
}

impl Loaded {
    /// Goes on from `start`, unless the file goes back to the genesis by
    /// itself. Without the one that it needs, nothing of it is of use.
    #[must_use]
    pub fn from(mut self, start: Option<Start>) -> Self {
        let index = |batch: &Batch| batch.read_header().map_or(0, |header| header.index);
        let first = self.batches.first().map(index);
        if first == Some(1) {
            return self;
        }
        let Some(at) = start.as_ref().map(|start| index(&start.at)) else {
            if first.is_some() {
                self.damage = Some(self.offset(0));
                self.batches.clear();
            }
            return self;
        };
        // The snapshot is written first: batches before it may still be there.
        self.skipped = self
            .batches
            .iter()
            .filter(|batch| index(batch) <= at)
            .count();
        self.batches.drain(..self.skipped);
        self.start = start;
        self
    }

    /// The index of the first of [`Loaded::batches`].
    pub fn first(&self) -> Option<u64> {
        Some(self.batches.first()?.read_header().ok()?.index)
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where batch number `n` of [`Loaded::batches`] starts, in bytes.
    pub fn offset(&self, n: usize) -> u64 {
        self.frames
            .get(self.skipped + n + 1)
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
        let frames = &self.frames[..=self.skipped + kept];
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
            .zip(&frames[self.skipped + 1..])
            .map(|(batch, frame)| {
                Held::new(batch, frame.payload.start as u64..frame.payload.end as u64)
            })
            .collect();
        let archive = Archive::new(&self.genesis, disk.reader(path));
        if let Some(start) = &self.start {
            archive.restart(start).map_err(io::Error::other)?;
        }
        archive.index().list(held);
        let appender = Appender {
            file,
            check: last.check,
            end: end as u64,
        };
        Ok((archive, appender))
    }
}

/// Writes batches at the end of the file.
pub struct Appender {
    file: Box<dyn AppendFile>,
    check: Check,
    end: u64,
}

impl Appender {
    /// A new file with the genesis alone in place of the one before.
    ///
    /// # Errors
    /// The disk's: the caller stops writing for good.
    pub async fn anew(disk: &dyn Disk, genesis: &SignedGenesis) -> io::Result<Self> {
        let (bytes, check) = begin(genesis);
        disk.replace(Path::new(LEDGER), &bytes).await?;
        Ok(Self {
            file: disk.append(Path::new(LEDGER)).await?,
            check,
            end: bytes.len() as u64,
        })
    }

    /// Goes on at the end of the file that is there, which `archive` lists.
    ///
    /// # Errors
    /// The disk's: the caller stops writing for good.
    pub async fn go_on(
        disk: &dyn Disk,
        genesis: &SignedGenesis,
        archive: &Archive,
    ) -> io::Result<Self> {
        let (end, check) = end_at(genesis, archive.index().position().index, archive).await?;
        Ok(Self {
            file: disk.append(Path::new(LEDGER)).await?,
            check,
            end,
        })
    }

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
        let (end, check) = end_at(genesis, index, archive).await?;
        archive.index().truncate(index);
        self.file.truncate(end).await?;
        (self.end, self.check) = (end, check);
        Ok(())
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.end
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
        archive.index().list(listed);
        Ok(())
    }
}

/// Where the batch at `index` ends in the file, or the genesis where that batch
/// isn't listed, and the checksum there.
async fn end_at(
    genesis: &SignedGenesis,
    index: u64,
    archive: &Archive,
) -> io::Result<(u64, Check)> {
    let Some(payload) = archive.index().payload_at(index) else {
        let (first, check) = begin(genesis);
        return Ok((first.len() as u64, check));
    };
    // A frame's head ends with its checksum.
    let bytes = archive.read(payload.start - 8..payload.start).await?;
    let check = bytes.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok((payload.end, check))
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
