//! A host's state folder in memory. What was appended is durable only once it
//! was synced: a crash takes the rest, or leaves any part of it. A disk can be
//! made to fail, to stop in the middle of a write, to lose a bit, and to be as
//! it once was.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use innermesh_agent::host::{AppendFile, Disk, ReadFile};
use tokio::sync::watch;

use crate::random::Random;

/// A disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, File>,
    locks: BTreeSet<PathBuf>,
    broken: Option<Fault>,
    /// Bytes that can still be written, where that is to matter.
    free: Option<u64>,
    /// Writes, syncs and the like until everything stops, if it is to.
    stops_after: Option<u64>,
    /// Whether it has stopped.
    stopped: watch::Sender<bool>,
    /// What a crash leaves of that which wasn't synced; nothing without it.
    torn: Option<Random>,
    snapshot: Option<BTreeMap<PathBuf, File>>,
    /// Bytes that were read.
    read: u64,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// How much of it survives a crash.
    durable: usize,
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing can be written any more (ENOSPC).
    Full,
    /// What is written can't be made durable (EIO on fsync).
    Sync,
}

impl SimDisk {
    /// Makes the disk fail from now on, or work again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock_state().broken = fault;
    }

    /// Says that so many bytes can still be written, or as many as one likes.
    pub fn set_free(&self, free: Option<u64>) {
        self.lock_state().free = free;
    }

    /// A disk on which a crash leaves any beginning of what wasn't synced, as
    /// `random` has it.
    pub fn torn(random: Random) -> Self {
        let disk = Self::default();
        disk.lock_state().torn = Some(random);
        disk
    }

    /// Loses what wasn't synced, and lets go of locks, as a power failure does.
    pub fn crash(&self) {
        let mut state = self.lock_state();
        let state = &mut *state;
        state.locks.clear();
        state.stops_after = None;
        state.stopped.send_replace(false);
        for file in state.files.values_mut() {
            let tail = (file.bytes.len() - file.durable) as u64;
            let left = state
                .torn
                .as_mut()
                .map_or(0, |random| random.range(0, tail));
            file.durable += left as usize;
            file.bytes.truncate(file.durable);
        }
    }

    /// Stops everything in the middle of the `writes`th write from now on:
    /// that one is done in part, and it and all that follow never end.
    pub fn stop_after(&self, writes: u64) {
        self.lock_state().stops_after = Some(writes);
    }

    /// Lets it go on for ever, if it hasn't stopped already.
    pub fn stop_never(&self) {
        self.lock_state().stops_after = None;
    }

    /// Whether it has stopped, and news of that.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.lock_state().stopped.subscribe()
    }

    /// Remembers everything that is durable.
    pub fn snapshot(&self) {
        let mut state = self.lock_state();
        let durable = state.files.iter().map(|(path, file)| {
            let bytes = file.bytes[..file.durable].to_vec();
            let durable = file.durable;
            (path.clone(), File { bytes, durable })
        });
        state.snapshot = Some(durable.collect());
    }

    /// Makes everything as it was at [`SimDisk::snapshot`]; `false` when there
    /// was none.
    pub fn restore(&self) -> bool {
        let mut state = self.lock_state();
        match state.snapshot.clone() {
            Some(files) => {
                state.files = files;
                true
            }
            None => false,
        }
    }

    /// Holds what is durable on another disk, and nothing else.
    pub fn copy_of(&self, other: &Self) {
        let files = other.lock_state().files.clone();
        self.lock_state().files = files;
        // What the other wrote and didn't sync may be there, or not.
        self.crash();
    }

    /// Bytes that were read since this was last asked.
    pub fn take_read(&self) -> u64 {
        std::mem::take(&mut self.lock_state().read)
    }

    /// Changes a stored byte behind the agent's back.
    ///
    /// # Panics
    /// When the file has no such byte.
    pub fn flip(&self, path: &str, at: usize) {
        let mut state = self.lock_state();
        let file = state.files.get_mut(Path::new(path)).expect("the file");
        file.bytes[at] ^= 0x40;
    }

    /// Changes one stored bit, any; gives the file that has it, if there is
    /// one.
    pub fn rot(&self, random: &mut Random) -> Option<PathBuf> {
        let mut state = self.lock_state();
        let full = state
            .files
            .iter()
            .filter(|(_, file)| !file.bytes.is_empty());
        let paths: Vec<PathBuf> = full.map(|(path, _)| path.clone()).collect();
        let path = random.pick(&paths)?.clone();
        let bytes = &mut state.files.get_mut(&path)?.bytes;
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        Some(path)
    }

    /// Comes back in time for the next write, unless the disk stops here. Then
    /// `partly` does a part of it, and this never comes back.
    async fn turn(&self, partly: impl FnOnce(&mut State)) {
        {
            let mut state = self.lock_state();
            match state.stops_after {
                Some(0) => {}
                Some(1) => {
                    state.stops_after = Some(0);
                    partly(&mut state);
                    state.stopped.send_replace(true);
                }
                other => {
                    state.stops_after = other.map(|writes| writes - 1);
                    return;
                }
            }
        }
        std::future::pending().await
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn writable(&self) -> io::Result<()> {
        match self.broken {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn syncs(&self) -> io::Result<()> {
        match self.broken {
            None => Ok(()),
            Some(_) => Err(io::Error::other("the simulated disk doesn't sync")),
        }
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut File> {
        self.files
            .get_mut(path)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[async_trait]
impl Disk for SimDisk {
    fn root(&self) -> PathBuf {
        PathBuf::from("/simulated")
    }

    async fn free(&self) -> io::Result<u64> {
        Ok(self.lock_state().free.unwrap_or(u64::MAX))
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.lock_state();
        let bytes = state.files.get(path).map(|file| file.bytes.clone());
        state.read += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(bytes)
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock_state();
        let inside = |path: &&PathBuf| path.parent() == Some(folder);
        Ok(state.files.keys().filter(inside).cloned().collect())
    }

    async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Before the name changes: the old file stands, beside a temporary one.
        self.turn(|_| {}).await;
        let mut state = self.lock_state();
        state.writable()?;
        state.syncs()?;
        let file = File {
            bytes: bytes.to_vec(),
            durable: bytes.len(),
        };
        state.files.insert(path.to_owned(), file);
        Ok(())
    }

    async fn append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.lock_state().files.entry(path.to_owned()).or_default();
        Ok(Box::new(Handle {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn reader(&self, path: &Path) -> Box<dyn ReadFile> {
        Box::new(Handle {
            disk: self.clone(),
            path: path.to_owned(),
        })
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.turn(|_| {}).await;
        self.lock_state().files.remove(path);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.lock_state().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(Handle {
            disk: self.clone(),
            path: path.to_owned(),
        })))
    }
}

/// One file.
struct Handle {
    disk: SimDisk,
    path: PathBuf,
}

#[async_trait]
impl AppendFile for Handle {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        let path = &self.path;
        let partly = |state: &mut State| {
            if let Ok(file) = state.file(path) {
                file.bytes.extend_from_slice(half);
                file.durable = file.bytes.len();
            }
        };
        self.disk.turn(partly).await;
        let mut state = self.disk.lock_state();
        state.writable()?;
        state.file(&self.path)?.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.disk.turn(|_| {}).await;
        let mut state = self.disk.lock_state();
        state.syncs()?;
        let file = state.file(&self.path)?;
        file.durable = file.bytes.len();
        Ok(())
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.turn(|_| {}).await;
        let mut state = self.disk.lock_state();
        state.syncs()?;
        let file = state.file(&self.path)?;
        file.bytes
            .resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        file.durable = file.bytes.len();
        Ok(())
    }
}

#[async_trait]
impl ReadFile for Handle {
    async fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let start = usize::try_from(range.start).map_err(io::Error::other)?;
        let end = usize::try_from(range.end).map_err(io::Error::other)?;
        let mut state = self.disk.lock_state();
        state.read += range.end.saturating_sub(range.start);
        let bytes = state.file(&self.path)?.bytes.get(start..end);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.lock_state();
        Ok(state.file(&self.path)?.bytes.len() as u64)
    }
}

struct Lock(Handle);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.disk.lock_state().locks.remove(&self.0.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crash_takes_what_was_not_synced() {
        let disk = SimDisk::default();
        let path = Path::new("log");
        let mut file = disk.append(path).await.unwrap();
        file.append(b"kept").await.unwrap();
        file.sync().await.unwrap();
        file.append(b" lost").await.unwrap();
        assert_eq!(disk.reader(path).read(5..9).await.unwrap(), b"lost");
        disk.crash();
        assert_eq!(disk.read(path).await.unwrap().unwrap(), b"kept");
        assert!(disk.reader(path).read(3..5).await.is_err());
    }

    #[tokio::test]
    async fn a_disk_that_stops_leaves_half_a_write_and_works_after_the_crash() {
        let disk = SimDisk::default();
        let path = Path::new("log");
        let mut file = disk.append(path).await.unwrap();
        disk.stop_after(3);
        file.append(b"kept").await.unwrap();
        file.sync().await.unwrap();
        let stopped = disk.stopped();
        tokio::select! {
            biased;
            _ = file.append(b"half") => panic!("it came back"),
            () = std::future::ready(()) => {}
        }
        assert!(*stopped.borrow());
        disk.crash();
        assert_eq!(disk.read(path).await.unwrap().unwrap(), b"keptha");
        file.append(b"!").await.unwrap();
        disk.snapshot();
        file.sync().await.unwrap();
        assert!(disk.restore());
        assert_eq!(disk.read(path).await.unwrap().unwrap(), b"keptha");
        let rotten = disk.rot(&mut Random::new(1)).unwrap();
        assert_eq!(rotten, path);
        assert_ne!(disk.read(path).await.unwrap().unwrap(), b"keptha");
    }

    #[tokio::test]
    async fn a_crash_may_leave_any_beginning_of_what_was_not_synced() {
        let mut left = BTreeSet::new();
        for seed in 0..50 {
            let disk = SimDisk::torn(Random::new(seed));
            let path = Path::new("log");
            let mut file = disk.append(path).await.unwrap();
            file.append(b"abc").await.unwrap();
            disk.crash();
            left.insert(disk.read(path).await.unwrap().unwrap().len());
        }
        assert_eq!(left, [0, 1, 2, 3].into());
    }

    #[tokio::test]
    async fn a_lock_is_held_until_it_is_dropped() {
        let disk = SimDisk::default();
        let lock = disk.lock(Path::new("lock")).unwrap();
        let refused = disk.lock(Path::new("lock")).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        assert!(disk.lock(Path::new("lock")).is_ok());
    }

    #[tokio::test]
    async fn a_disk_that_fails_keeps_what_it_has() {
        let disk = SimDisk::default();
        let path = Path::new("a");
        disk.replace(path, b"old").await.unwrap();
        for fault in [Fault::Full, Fault::Sync] {
            disk.set_fault(Some(fault));
            assert!(disk.replace(path, b"new").await.is_err());
            assert_eq!(disk.read(path).await.unwrap().unwrap(), b"old");
        }
        disk.set_fault(None);
        disk.replace(path, b"new").await.unwrap();
        assert_eq!(disk.list(Path::new("")).await.unwrap(), [path]);
    }
}
