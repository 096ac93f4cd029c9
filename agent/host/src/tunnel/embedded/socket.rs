//! The socket that `wg` reaches the embedded device through: the cross-platform configuration protocol of
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
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::limits;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use wireguard_control::InterfaceName;

use super::{
    TunnelError, WallClock,
    driver::{Handle, Running},
    uapi::{self, Request},
};

/// Where `wg` looks, in every network namespace of the host.
const FOLDER: &str = "/var/run/wireguard";

/// How long a failed `accept` or `bind` is left alone.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether the socket's file is there.
const FOUND: Duration = Duration::from_secs(5);

/// A socket that stays: its listener survives any error of `accept`, and comes
/// back when its file is gone or was replaced. The agent itself never needs it.
/// Dropping it closes the socket and removes its file.
pub(super) struct Socket {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Socket {
    /// Listens for `device`, now or as soon as it can. A file that a dead
    /// process left is replaced.
    pub(super) fn open(name: InterfaceName, device: Handle, clock: WallClock) -> Self {
        let path = path(&name);
        let listening = listen(&name);
        // It ends with the device that it serves, not with the agent's tasks.
        let serving = tokio::spawn(keep(name, listening, Asked { device, clock }));
        Self { path, serving }
    }
}

/// What is asked through it.
#[derive(Clone)]
struct Asked {
    device: Handle,
    clock: WallClock,
}

impl Asked {
    /// The answer's lines, without the empty one at its end.
    async fn answer(&self, request: Request) -> io::Result<String> {
        match request {
            Request::Get => {
                let unix = Duration::from_millis((self.clock)());
                let describe = move |running: &mut Running| uapi::describe(running, unix);
                self.device.ask(describe).await
            }
            Request::Set(changes) => {
                let change = move |running: &mut Running| uapi::change(running, changes);
                let changed = self.device.ask(change).await?;
                Ok(uapi::outcome(changed))
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.serving.abort();
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "can't remove the tunnel's socket");
        }
    }
}

/// A bound socket and what tells its file from another's: as long as the socket
/// is open no other file gets its number.
struct Listening {
    listener: UnixListener,
    file: (u64, u64),
}

impl Listening {
    /// Whether its file is still where clients look.
    fn is_found(&self, path: &Path) -> bool {
        identity(path).is_some_and(|file| file == self.file)
    }
}

/// Listens, and listens again, for as long as the device is there.
async fn keep(name: InterfaceName, mut listening: Result<Listening, TunnelError>, device: Asked) {
    let slots = Arc::new(Semaphore::new(limits::TUNNEL_SOCKET_CONNECTIONS));
    let mut clients = JoinSet::new();
    // Said once, and again after it was mended.
    let mut told = false;
    loop {
        match &listening {
            Ok(socket) => {
                told = false;
                accept(socket, &path(&name), &slots, &device, &mut clients).await;
                tracing::warn!(interface = %name, "the file of the tunnel's socket is gone; making it again");
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "`wg` can't read the tunnel; trying again");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        drop(listening);
        listening = listen(&name);
    }
}

/// Serves until the socket's file is gone.
async fn accept(
    socket: &Listening,
    path: &Path,
    slots: &Arc<Semaphore>,
    device: &Asked,
    clients: &mut JoinSet<()>,
) {
    let mut look = tokio::time::interval(FOUND);
    let mut told = false;
    loop {
        let client = async {
            let slot = Arc::clone(slots).acquire_owned().await;
            (slot, socket.listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            client = client => client,
            Some(_) = clients.join_next() => continue,
            _ = look.tick() => {
                if socket.is_found(path) {
                    continue;
                }
                return;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                told = false;
                let device = device.clone();
                clients.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = serve(stream, &device).await {
                        tracing::debug!(%error, "a client of the tunnel's socket went away");
                    }
                });
            }
            // Such as EMFILE and ECONNABORTED: the client waits in the queue,
            // or is gone.
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "the tunnel's socket can't take a client now");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

fn listen(name: &InterfaceName) -> Result<Listening, TunnelError> {
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
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600)).map_err(failed(&hidden))?;
    let file = identity(&hidden)
        .ok_or(io::ErrorKind::NotFound.into())
        .map_err(failed(&hidden))?;
    fs::rename(&hidden, &path).map_err(failed(&path))?;
    Ok(Listening { listener, file })
}

/// Device and number of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Fails where a living process has the interface's name.
pub(super) fn refuse_if_answered(name: &InterfaceName) -> Result<(), TunnelError> {
    match UnixStream::connect(path(name)) {
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

/// Requests are lines up to an empty one, and so are answers.
async fn serve(stream: tokio::net::UnixStream, device: &Asked) -> io::Result<()> {
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
            Ok(request) => device.answer(request).await?,
            Err(_) => uapi::outcome(Err(nix::errno::Errno::EINVAL.into())),
        };
        write.write_all(answer.as_bytes()).await?;
        write.write_all(b"\n").await?;
        request.clear();
    }
    Ok(())
}
