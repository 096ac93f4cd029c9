//! Files of a real file system. Every write is made under a temporary name,
//! synced, renamed, and the folder synced; blocking calls run on the blocking
//! pool.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};

use super::{AppendFile, Disk, ReadFile, identity::FileIdentity};

/// The state folder on a real disk.
pub struct SystemDisk {
    root: PathBuf,
    /// The folder that was locked, as it was then.
    locked: Arc<OnceLock<FileIdentity>>,
}

impl SystemDisk {
    /// Files below `root`, which exists.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            locked: Arc::default(),
        }
    }

    /// What looks, on a thread that may block, whether the folder is still there.
    fn guard(&self) -> impl Fn() -> io::Result<()> + Send + 'static {
        let (root, locked) = (self.root.clone(), self.locked.clone());
        move || match (locked.get(), FileIdentity::of(&root)?) {
            (Some(then), now) if now != Some(*then) => Err(gone(&root)),
            _ => Ok(()),
        }
    }
}

fn gone(root: &Path) -> io::Error {
    io::Error::other(format!(
        "the folder {} was removed or replaced while the agent ran",
        root.display()
    ))
}

#[async_trait]
impl Disk for SystemDisk {
    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = self.root.join(path);
        blocking(move || match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let (root, folder) = (self.root.clone(), folder.to_owned());
        blocking(move || {
            let entries = match fs::read_dir(root.join(&folder)) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(e),
            };
            let mut names = Vec::new();
            for entry in entries {
                names.push(folder.join(entry?.file_name()));
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (path, bytes) = (self.root.join(path), bytes.to_vec());
        let is_there = self.guard();
        blocking(move || {
            is_there()?;
            replace(&path, &bytes)
        })
        .await
    }

    async fn append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let path = self.root.join(path);
        let is_there = self.guard();
        let file = blocking(move || {
            is_there()?;
            private().append(true).create(true).open(path)
        })
        .await?;
        Ok(Box::new(SystemAppend(Arc::new(file))))
    }

    fn reader(&self, path: &Path) -> Box<dyn ReadFile> {
        Box::new(SystemRead(self.root.join(path)))
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        let is_there = self.guard();
        blocking(move || {
            is_there()?;
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => sync_folder(&path),
            }
        })
        .await
    }

    async fn free(&self) -> io::Result<u64> {
        let root = self.root.clone();
        blocking(move || {
            let told = nix::sys::statvfs::statvfs(&root)?;
            Ok(told.blocks_available() * told.fragment_size())
        })
        .await
    }

    async fn is_there(&self) -> bool {
        let is_there = self.guard();
        blocking(is_there).await.is_ok()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join(path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                if let Some(identity) = FileIdentity::of(&self.root)? {
                    // The first one counts, for as long as this process lives.
                    let _ = self.locked.set(identity);
                }
                Ok(Box::new(lock))
            }
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// Runs a blocking call off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        // The program ends, and the disk didn't fail.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = private()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

struct SystemAppend(Arc<File>);

#[async_trait]
impl AppendFile for SystemAppend {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (file, bytes) = (self.0.clone(), bytes.to_vec());
        blocking(move || (&*file).write_all(&bytes)).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        let file = self.0.clone();
        blocking(move || {
            // What nothing leads to any more is gone with this process.
            if file.metadata()?.nlink() == 0 {
                return Err(io::Error::other("the file was removed"));
            }
            file.sync_data()
        })
        .await
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
        let file = self.0.clone();
        blocking(move || {
            file.set_len(length)?;
            file.sync_all()
        })
        .await
    }
}

struct SystemRead(PathBuf);

#[async_trait]
impl ReadFile for SystemRead {
    async fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let path = self.0.clone();
        blocking(move || {
            let length =
                usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
            let mut out = vec![0; length];
            File::open(path)?.read_exact_at(&mut out, range.start)?;
            Ok(out)
        })
        .await
    }

    async fn length(&self) -> io::Result<u64> {
        let path = self.0.clone();
        blocking(move || Ok(fs::metadata(path)?.len())).await
    }
}

/// The whole file at `path`, which needn't be below a state folder; at most
/// `limit` bytes.
///
/// # Errors
/// The operating system's, or that the file is larger.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut out)?;
    if out.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_replaced_whole_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let path = Path::new("a/b");
        assert_eq!(disk.read(path).await.unwrap(), None);
        disk.replace(path, b"one").await.unwrap();
        disk.replace(path, b"two").await.unwrap();
        assert_eq!(disk.read(path).await.unwrap().unwrap(), b"two");
        let mode = fs::metadata(folder.path().join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            disk.list(Path::new("a")).await.unwrap(),
            [PathBuf::from("a/b")]
        );
    }

    #[tokio::test]
    async fn two_can_not_hold_one_lock() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let held = disk.lock(Path::new("lock")).unwrap();
        let second = disk.lock(Path::new("lock"));
        assert_eq!(second.err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(disk.lock(Path::new("lock")).is_ok());
    }

    #[tokio::test]
    async fn into_a_folder_that_was_removed_or_replaced_nothing_is_written() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("state");
        fs::create_dir(&root).unwrap();
        let disk = SystemDisk::new(root.clone());
        let _lock = disk.lock(Path::new("lock")).unwrap();
        let mut log = disk.append(Path::new("log")).await.unwrap();
        log.append(b"one").await.unwrap();
        log.sync().await.unwrap();
        assert!(disk.is_there().await);
        fs::rename(&root, scratch.path().join("old")).unwrap();
        for _ in ["gone", "another"] {
            assert!(!disk.is_there().await);
            assert!(disk.replace(Path::new("a/b"), b"x").await.is_err());
            assert!(disk.append(Path::new("other")).await.is_err());
            assert!(disk.remove(Path::new("log")).await.is_err());
            assert!(!root.join("a").exists() && !root.join("other").exists());
            // Once more with an empty folder in its place.
            fs::create_dir_all(&root).unwrap();
        }
        fs::remove_dir_all(scratch.path().join("old")).unwrap();
        log.append(b"two").await.unwrap();
        assert!(log.sync().await.is_err(), "it is on no disk");
    }

    #[tokio::test]
    async fn what_is_appended_can_be_read_in_parts_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let path = Path::new("log");
        let mut file = disk.append(path).await.unwrap();
        file.append(b"hello world").await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(disk.reader(path).read(6..11).await.unwrap(), b"world");
        file.truncate(5).await.unwrap();
        assert!(disk.reader(path).read(6..11).await.is_err());
    }
}
