//! The socket that `wg` and wireguard-control reach the embedded device
//! through: the cross-platform configuration protocol of
//! <https://www.wireguard.com/xplatform/>.
//!
//! Owns the socket's file. Must not know what the requests mean.

#![allow(
    clippy::disallowed_methods,
    reason = "the device node and the control socket are the backend itself, which the simulation replaces as a whole"
)]

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use gotatun::device::uapi::{UapiClient, command::Request};
use innermesh_proto::limits;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
};
use wireguard_control::InterfaceName;

use super::TunnelError;

/// Where `wg` looks, in every network namespace of the host.
const FOLDER: &str = "/var/run/wireguard";

/// A listening socket. Dropping it closes the socket and removes its file.
pub(super) struct Socket {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Socket {
    /// Listens for `device`. A file that a dead process left is replaced.
    pub(super) fn listen(name: &InterfaceName, device: UapiClient) -> Result<Self, TunnelError> {
        let path = path(name);
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| TunnelError::Socket { path, source }
        };
        make_folder().map_err(failed(Path::new(FOLDER)))?;
        refuse_if_answered(name)?;
        // Under another name until only root may connect: the folder may be
        // one that another program made for all.
        let hidden = path.with_extension("new");
        let listener = remove(&hidden)
            .and_then(|()| UnixListener::bind(&hidden))
            .map_err(failed(&hidden))?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&hidden, &path))
            .map_err(failed(&path))?;
        let accepting = tokio::spawn(accept(listener, device));
        Ok(Self { path, accepting })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "can't remove the tunnel's socket");
        }
    }
}

/// Connects to the device's socket, whoever answers.
pub(super) fn connect(name: &InterfaceName) -> io::Result<BlockingStream> {
    BlockingStream::connect(path(name))
}

/// Fails where a living process has the interface's name.
pub(super) fn refuse_if_answered(name: &InterfaceName) -> Result<(), TunnelError> {
    match connect(name) {
        Ok(_) => Err(TunnelError::Taken {
            interface: name.to_string(),
            holder: "another running WireGuard program",
        }),
        Err(_) => Ok(()),
    }
}

fn path(name: &InterfaceName) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.sock"))
}

fn make_folder() -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn accept(listener: UnixListener, device: UapiClient) {
    let slots = Arc::new(Semaphore::new(limits::TUNNEL_SOCKET_CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let device = device.clone();
                tokio::spawn(async move {
                    let _slot = slot;
                    if let Err(error) = serve(stream, &device).await {
                        tracing::debug!(%error, "a client of the tunnel's socket went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the tunnel's socket is closed: `wg` can't read it any more");
                return;
            }
        }
    }
}

/// Requests are lines up to an empty one, and so are answers.
async fn serve(stream: UnixStream, device: &UapiClient) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(limits::TUNNEL_SOCKET_BYTES)).lines();
    let mut request = String::new();
    while let Some(line) = lines.next_line().await? {
        if !line.is_empty() {
            request.push_str(&line);
            request.push('\n');
            continue;
        }
        let answer = match request.parse::<Request>() {
            Ok(request) => match device.send(request).await {
                Ok(response) => format!("{response}\n"),
                Err(_) => return Ok(()),
            },
            Err(_) => format!("errno={}\n\n", nix::errno::Errno::EINVAL as i32),
        };
        write.write_all(answer.as_bytes()).await?;
        request.clear();
    }
    Ok(())
}
