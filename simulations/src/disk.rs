//! A host's state folder in memory. What was appended is durable only once it
//! was synced: a crash takes the rest. A disk can be made to fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use innermesh_agent::host::{AppendFile, Disk, ReadFile};

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
}

#[derive(Default)]
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

    /// Loses what wasn't synced, and lets go of locks, as a power failure does.
    pub fn crash(&self) {
        let mut state = self.lock_state();
        state.locks.clear();
        for file in state.files.values_mut() {
            file.bytes.truncate(file.durable);
        }
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

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let state = self.lock_state();
        Ok(state.files.get(path).map(|file| file.bytes.clone()))
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock_state();
        let inside = |path: &&PathBuf| path.parent() == Some(folder);
        Ok(state.files.keys().filter(inside).cloned().collect())
    }

    async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
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
        let mut state = self.disk.lock_state();
        state.writable()?;
        state.file(&self.path)?.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.syncs()?;
        let file = state.file(&self.path)?;
        file.durable = file.bytes.len();
        Ok(())
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
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
        let bytes = state.file(&self.path)?.bytes.get(start..end);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
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
