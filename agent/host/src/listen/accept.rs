//! The accept loop of everything that listens on TCP or a Unix socket.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_proto::limits;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    guard::Source,
    room::{Place, Room},
    sources::{Sources, source},
};
use crate::Clock;

/// What accepts connections.
pub trait Listener: Send + Sync {
    /// A connection.
    type Stream: Send + 'static;

    /// The next one, and where it comes from.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Source)>> + Send;
}

/// A TCP listener.
pub struct Tcp {
    listener: TcpListener,
    sources: Arc<dyn Sources>,
}

impl Tcp {
    /// One whose clients are told apart by `sources`.
    pub fn new(listener: TcpListener, sources: Arc<dyn Sources>) -> Self {
        Self { listener, sources }
    }
}

impl Listener for Tcp {
    type Stream = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<(Self::Stream, Source)> {
        let (stream, from) = self.listener.accept().await?;
        let to = stream.local_addr().ok();
        let source = source(&*self.sources, from, to);
        Ok(((stream, from), source))
    }
}

/// Accepts for as long as it is polled, whatever goes wrong, and runs `answer`
/// for each connection that has a place, until it ends or gives its place up.
pub async fn serve<L, A, F>(
    what: &'static str,
    listener: L,
    room: Arc<Room>,
    clock: Arc<dyn Clock>,
    answer: A,
) where
    L: Listener,
    A: Fn(L::Stream, Source, Arc<Place>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => {
                    let (room, answer) = (room.clone(), answer.clone());
                    connections.spawn(async move {
                        let Some(place) = room.enter(source).await.map(Arc::new) else {
                            tracing::debug!(?source, what, "no place for a connection");
                            return;
                        };
                        tokio::select! {
                            () = answer(stream, source, place.clone()) => {}
                            () = place.displaced() => {
                                tracing::debug!(?source, what, "a connection gave its place up");
                            }
                        }
                    });
                }
                // It fails again at once while the process is out of file
                // descriptors; then some connection has to end first.
                Err(error) => {
                    tracing::warn!(%error, what, "can't accept a connection; trying again");
                    clock.sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
