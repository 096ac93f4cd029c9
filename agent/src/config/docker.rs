//! `[docker]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest path of a Unix socket, without the zero at its end (unix(7)).
const SOCKET_BYTES: usize = 107;

/// `[docker]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// Docker's socket, which is read for labelled containers; none for no such
    /// services.
    pub socket: Option<PathBuf>,
}

/// A socket that can't be one.
#[derive(Debug, thiserror::Error)]
#[error(
    "`socket` of [docker] is {}; give a path such as /var/run/docker.sock, of at most \
     {SOCKET_BYTES} bytes",
    .0.display()
)]
pub(super) struct SocketError(PathBuf);

impl DockerConfig {
    pub(super) fn check(&self) -> Result<(), SocketError> {
        match &self.socket {
            Some(socket) if !socket.is_absolute() || socket.as_os_str().len() > SOCKET_BYTES => {
                Err(SocketError(socket.clone()))
            }
            _ => Ok(()),
        }
    }
}
