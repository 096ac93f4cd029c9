//! A folder in memory that can stop in the middle of any write.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::host::{AppendFile, Disk, ReadFile};

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, File>,
    /// Writes and syncs until everything stops, and how much of that one is
    /// done, in bytes.
    stop: Option<(u64, usize)>,
    fails: bool,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    durable: usize,
}

impl MemDisk {
    /// Stops in the `writes`th write from now on, with `done` bytes of it
    /// durable: it and all that follow never end.
    pub fn stop_after(&self, writes: u64, done: usize) {
        self.state().stop = Some((writes, done));
    }

    /// Loses what wasn't synced, and works again.
    pub fn crash(&self) {
        let mut state = self.state();
        state.stop = None;
        for file in state.files.values_mut() {
            file.bytes.truncate(file.durable);
        }
    }

    /// From now on nothing can be made durable.
    pub fn fail(&self) {
        self.state().fails = true;
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let state = self.state();
        let file = state.files.get(Path::new(path));
        file.map(|file| file.bytes.clone()).unwrap_or_default()
    }

    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let durable = bytes.len();
        let file = File { bytes, durable };
        self.state().files.insert(path.into(), file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, partly: impl FnOnce(&mut State, usize)) -> io::Result<()> {
        let stopped = {
            let mut state = self.state();
            match &mut state.stop {
                None => false,
                Some((0, _)) => true,
                Some((1, done)) => {
                    let done = *done;
                    state.stop = Some((0, 0));
                    partly(&mut state, done);
                    true
                }
                Some((left, _)) => {
                    *left -= 1;
                    false
                }
            }
        };
        if stopped {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Disk for MemDisk {
    fn root(&self) -> PathBuf {
        PathBuf::from("/memory")
    }

    async fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let state = self.state();
        Ok(state.files.get(path).map(|file| file.bytes.clone()))
    }

    async fn list(&self, _folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.turn(|_, _| {}).await?;
        let mut state = self.state();
        if state.fails {
            return Err(io::Error::other("it fails"));
        }
        let (bytes, durable) = (bytes.to_vec(), bytes.len());
        state.files.insert(path.into(), File { bytes, durable });
        Ok(())
    }

    async fn append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.state().files.entry(path.into()).or_default();
        Ok(Box::new(Handle(self.clone(), path.into())))
    }

    fn reader(&self, path: &Path) -> Box<dyn ReadFile> {
        Box::new(Handle(self.clone(), path.into()))
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().files.remove(path);
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

struct Handle(MemDisk, PathBuf);

#[async_trait]
impl AppendFile for Handle {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = &self.1;
        let partly = |state: &mut State, done: usize| {
            let file = state.files.entry(path.clone()).or_default();
            file.bytes
                .extend_from_slice(&bytes[..done.min(bytes.len())]);
            file.durable = file.bytes.len();
        };
        self.0.turn(partly).await?;
        let mut state = self.0.state();
        let file = state.files.entry(path.clone()).or_default();
        file.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.0.turn(|_, _| {}).await?;
        let mut state = self.0.state();
        if state.fails {
            return Err(io::Error::other("it fails"));
        }
        let file = state.files.entry(self.1.clone()).or_default();
        file.durable = file.bytes.len();
        Ok(())
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.turn(|_, _| {}).await?;
        let mut state = self.0.state();
        let file = state.files.entry(self.1.clone()).or_default();
        file.bytes.truncate(length as usize);
        file.durable = file.bytes.len();
        Ok(())
    }
}

#[async_trait]
impl ReadFile for Handle {
    async fn read(&self, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
        let bytes = self.0.bytes(&self.1.display().to_string());
        let part = bytes.get(range.start as usize..range.end as usize);
        Ok(part.unwrap_or_default().to_vec())
    }

    async fn length(&self) -> io::Result<u64> {
        Ok(self.0.bytes(&self.1.display().to_string()).len() as u64)
    }
}
