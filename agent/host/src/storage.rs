//! Files of the state folder.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

/// Files, all below one folder. Paths are relative to it.
#[async_trait]
pub trait Disk: Send + Sync {
    /// The folder, for messages to a person.
    fn root(&self) -> PathBuf;
    /// The whole file; `None` when it isn't there.
    ///
    /// # Errors
    /// Any but "not found".
    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Paths of the files in a folder, sorted; none when it is absent.
    ///
    /// # Errors
    /// The operating system's.
    async fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Writes under a temporary name, syncs, renames, syncs the folder; mode 0600.
    ///
    /// # Errors
    /// The old content stands.
    async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Opens for appending, made when absent, mode 0600.
    ///
    /// # Errors
    /// The operating system's.
    async fn append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;
    /// For reading parts of a file that only grows.
    fn reader(&self, path: &Path) -> Box<dyn ReadFile>;
    /// Removes; absent is fine.
    ///
    /// # Errors
    /// The operating system's.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that can still be written.
    ///
    /// # Errors
    /// The operating system's.
    async fn free(&self) -> io::Result<u64>;
    /// Whether the folder is the one that was locked: not so once somebody removed
    /// it or put another in its place. Nothing is written then.
    async fn is_there(&self) -> bool {
        true
    }
    /// Takes the lock that two agents on one folder can't both hold; it is
    /// held until the returned value is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// A file that only grows, but for a torn tail that is cut.
#[async_trait]
pub trait AppendFile: Send {
    /// Appends; durable only after [`AppendFile::sync`].
    ///
    /// # Errors
    /// The tail is then unknown: the writer stops for good.
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all that was appended durable (fdatasync).
    ///
    /// # Errors
    /// What was appended may be lost: the writer stops for good.
    async fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `length` bytes and syncs.
    ///
    /// # Errors
    /// The operating system's.
    async fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// Reads parts of a file.
#[async_trait]
pub trait ReadFile: Send + Sync {
    /// The bytes in `range`.
    ///
    /// # Errors
    /// The operating system's, also when the file is shorter.
    async fn read(&self, range: std::ops::Range<u64>) -> io::Result<Vec<u8>>;
    /// Bytes of the file now.
    ///
    /// # Errors
    /// The operating system's.
    async fn length(&self) -> io::Result<u64>;
}
