//! `raft.log`: frames, append-only. The first says whose log it is and where it
//! starts; each further one holds what was promised and the entries that were
//! appended with it, in place of those that it overlaps. Every frame is synced
//! before the next is begun, so that a crash can tear the last one only.

use std::{io, path::Path};

use innermesh_proto::{codec, limits};
use serde::{Deserialize, Serialize};

use super::{
    check,
    message::{Base, Entry, Hard, VoterId},
    store::Saved,
};
use crate::{
    frames::{self, Check},
    host::{AppendFile, Disk},
};

/// The file, below the state folder.
pub const LOG: &str = "raft.log";
/// What the first frame's checksum covers in place of a predecessor's.
const FIRST: Check = *b"raft.log";

/// Why the file can't be used. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk's own error.
    #[error("raft.log can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is damaged before its end: what this voter promised isn't known.
    #[error("raft.log is damaged at byte {0}")]
    Damaged(u64),
}

#[derive(Serialize, Deserialize)]
enum Record {
    Start { id: VoterId, base: Base },
    Write { hard: Hard, entries: Vec<Entry> },
}

/// The file, open.
pub struct DiskLog {
    file: Box<dyn AppendFile>,
    id: VoterId,
    check: Check,
}

impl DiskLog {
    /// Writes a new file in place of any.
    ///
    /// # Errors
    /// The disk's; the old file stands.
    pub async fn create(disk: &dyn Disk, id: VoterId, saved: &Saved) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut check = FIRST;
        let mut add = |record: &Record| {
            let (frame, next) = frames::frame(&check, &codec::encode(record));
            bytes.extend(frame);
            check = next;
        };
        add(&Record::Start {
            id,
            base: saved.base.clone(),
        });
        add(&Record::Write {
            hard: saved.hard,
            entries: Vec::new(),
        });
        for entry in &saved.entries {
            add(&Record::Write {
                hard: saved.hard,
                entries: vec![entry.clone()],
            });
        }
        let path = Path::new(LOG);
        disk.replace(path, &bytes).await?;
        Ok(Self {
            file: disk.append(path).await?,
            id,
            check,
        })
    }

    /// Reads the file and opens it for appending, a torn tail cut; none when
    /// there is no file.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn open(disk: &dyn Disk) -> Result<Option<(Self, VoterId, Saved)>, LogError> {
        let path = Path::new(LOG);
        let Some(bytes) = disk.read(path).await? else {
            return Ok(None);
        };
        let (id, saved, end, check) = parse(&bytes)?;
        let mut file = disk.append(path).await?;
        if end < bytes.len() {
            file.truncate(end as u64).await?;
        }
        Ok(Some((Self { file, id, check }, id, saved)))
    }

    /// Appends a frame and makes it durable.
    ///
    /// # Errors
    /// The file's tail is then unknown: the caller votes no more.
    pub async fn write(&mut self, hard: Hard, entries: Vec<Entry>) -> io::Result<()> {
        let payload = codec::encode(&Record::Write { hard, entries });
        let (bytes, check) = frames::frame(&self.check, &payload);
        self.file.append(&bytes).await?;
        self.file.sync().await?;
        self.check = check;
        Ok(())
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// The old file stands, but the caller can't go on with it if what is to
    /// be written was promised.
    pub async fn rewrite(&mut self, disk: &dyn Disk, saved: &Saved) -> io::Result<()> {
        *self = Self::create(disk, self.id, saved).await?;
        Ok(())
    }
}

/// Whose log it is, what it holds, where its whole frames end, and the last
/// one's checksum.
pub fn parse(bytes: &[u8]) -> Result<(VoterId, Saved, usize, Check), LogError> {
    let (frames, damage) = frames::scan(bytes, FIRST, limits::RAFT_FRAME_BYTES);
    if let Some(at) = damage {
        return Err(LogError::Damaged(at));
    }
    // The file appears whole: it has its first frame, or lost it.
    let first = frames.first().ok_or(LogError::Damaged(0))?;
    let read = |frame: &frames::Frame| {
        codec::decode::<Record>(&bytes[frame.payload.clone()], limits::RAFT_FRAME_BYTES)
            .map_err(|_| LogError::Damaged(frame.payload.start as u64))
    };
    let Record::Start { id, base } = read(first)? else {
        return Err(LogError::Damaged(0));
    };
    let mut saved = Saved {
        base,
        hard: Hard::default(),
        entries: Vec::new(),
    };
    for frame in &frames[1..] {
        let at = LogError::Damaged(frame.payload.start as u64);
        let Record::Write { hard, entries } = read(frame)? else {
            return Err(at);
        };
        if !append(&mut saved, entries) {
            return Err(at);
        }
        saved.hard = hard;
    }
    let last = frames.last().unwrap_or(first);
    Ok((id, saved, last.payload.end, last.check))
}

/// Puts entries in place of those that they overlap; `false` when they can't
/// follow.
fn append(saved: &mut Saved, entries: Vec<Entry>) -> bool {
    let Some(first) = entries.first() else {
        return true;
    };
    let base = &saved.base;
    let Some(kept) = first.index.checked_sub(base.index + 1) else {
        return false;
    };
    let kept = usize::try_from(kept).unwrap_or(usize::MAX);
    if kept > saved.entries.len() {
        return false;
    }
    saved.entries.truncate(kept);
    let before = saved.entries.last();
    let (index, term) = before.map_or((base.index, base.term), |entry| (entry.index, entry.term));
    if check::check_entries(index, term, limits::RAFT_NUMBER, &entries).is_err() {
        return false;
    }
    saved.entries.extend(entries);
    true
}
