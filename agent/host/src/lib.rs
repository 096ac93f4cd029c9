//! The outside world, as the agent sees it: clock, keys and randomness,
//! sockets, files, the tunnel. It comes in once, here, as one value; the
//! simulation hands in another. Nothing else in this crate may reach for a
//! clock, a random number, a socket or a file by itself.

#![allow(
    clippy::disallowed_methods,
    reason = "the one place that may: everything else asks the host"
)]

#[warn(clippy::disallowed_methods)]
pub mod bucket;
mod command;
pub mod disk;
pub mod duration;
mod file_set;
pub mod holder;
pub mod key_files;
pub mod keys;
#[warn(clippy::disallowed_methods)]
pub mod listen;
mod network;
pub mod outside;
#[warn(clippy::disallowed_methods)]
pub mod overlay;
pub mod owner;
mod resolv;
mod set;
mod sockets;
pub mod state_folder;
pub mod system;
pub mod tasks;
#[warn(clippy::disallowed_methods)]
pub mod telemetry;
mod time;
#[warn(clippy::disallowed_methods)]
pub mod tunnel;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use self::{keys::Keys, outside::Outside, tasks::Tasks};
pub use self::{
    network::{Accepted, Network, Stream, TcpListener, http_status},
    time::UnixTime,
    tunnel::Tunnels,
};

/// Everything outside the agent.
#[derive(Clone)]
pub struct Host {
    /// Monotonic and wall time.
    pub clock: Arc<dyn Clock>,
    /// Key generation, signing, verifying, randomness.
    pub keys: Arc<dyn Keys>,
    /// Sockets, addresses and probes.
    pub net: Arc<dyn Network>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Files of other programs, and commands.
    pub outside: Arc<dyn Outside>,
    /// Makes the tunnel interface.
    pub tunnels: Arc<dyn Tunnels>,
    /// Packet filter and routing: what closes the overlay to other networks.
    pub overlay: Arc<dyn crate::overlay::Overlay>,
    /// What runs in the background.
    pub tasks: Tasks,
}

/// Monotonic time: since some moment before the agent's start.
pub type Mono = Duration;

/// Time. Monotonic time drives every timeout; wall time is for people, for
/// stamps that a roster proposes, and to trigger renewals.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Mono;
    /// Milliseconds since 1970, as this host believes; it may be wrong and may jump.
    fn wall_ms(&self) -> u64;
    /// Waits; cancelling the future cancels the wait.
    async fn sleep(&self, duration: Duration);
}

/// What `work` gives, or `None` when it takes longer than `limit` by the
/// host's clock; it is then dropped.
pub async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(limit) => None,
    }
}

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
