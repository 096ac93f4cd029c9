//! The socket file: made for all, and taken from an agent that was killed.
//!
//! The simulation has no such file, so this goes past the host's disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a Unix socket is no file that could be read or replaced through host.disk"
)]

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Everybody may connect: who may ask what is settled by the caller's user id.
const SOCKET_MODE: u32 = 0o666;
const FOLDER_MODE: u32 = 0o755;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there. Nothing was changed.
    #[error(
        "another agent runs on this folder: it answers on {0}; stop it first, or use another --dir"
    )]
    Taken(PathBuf),
    /// There is something else than a socket. Nothing was changed.
    #[error("{0} is in the way: it is not a socket; move it away")]
    InTheWay(PathBuf),
    /// Longer than the kernel takes (`sun_path`, 107 bytes). Nothing was changed.
    #[error("{0} is too long for a socket's path; use a shorter --dir")]
    TooLong(PathBuf),
    /// The operating system's. A folder may have been made.
    #[error("the control socket {0} can't be made: {1}")]
    Io(PathBuf, io::Error),
}

/// The socket, which goes away with this value.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket at `path` and the folder around it, both open to all.
    /// A socket that was left there by a killed agent is replaced.
    ///
    /// The caller holds the lock on the state folder, so that no two agents
    /// are in here for one path.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        if path.as_os_str().len() > LONGEST {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        let io = |e| SocketError::Io(path.to_owned(), e);
        clear(path).await?;
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(folder)
                .map_err(io)?;
            // The process's umask may have taken bits away.
            set_mode(folder, FOLDER_MODE).map_err(io)?;
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        set_mode(path, SOCKET_MODE).map_err(io)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Left behind, it is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// `sun_path` of `sockaddr_un` without its final zero (unix(7)).
const LONGEST: usize = 107;

async fn clear(path: &Path) -> Result<(), SocketError> {
    let io = |e| SocketError::Io(path.to_owned(), e);
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::InTheWay(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::Taken(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io(e)),
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_and_its_new_folder_are_open_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(mode(&path), SOCKET_MODE);
        assert_eq!(mode(path.parent().unwrap()), FOLDER_MODE);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_agent_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody removes the file of a killed agent");
        let first = Socket::bind(&path).await.unwrap();
        let second = Socket::bind(&path).await;
        assert!(matches!(second, Err(SocketError::Taken(_))), "{second:?}");
        drop(first);
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        fs::write(&path, "mine").unwrap();
        let refused = Socket::bind(&path).await;
        assert!(
            matches!(refused, Err(SocketError::InTheWay(_))),
            "{refused:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_path_that_the_kernel_would_refuse_is_named() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let refused = Socket::bind(&path).await;
        assert!(
            matches!(refused, Err(SocketError::TooLong(_))),
            "{refused:?}"
        );
    }
}
