//! The accept loop of everything that listens on TCP or a Unix socket.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_proto::limits;
use tokio::task::JoinSet;

use super::{
    error::ListenError,
    guard::Source,
    room::{Place, Room},
    sources::{Sources, source},
};
use crate::{Clock, Network, Presence, Stream, TcpListener, holder::Kind};

/// What accepts connections.
pub trait Listener: Send + Sync {
    /// A connection.
    type Stream: Send + 'static;

    /// The next one, and where it comes from.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Source)>> + Send;
}

/// A TCP listener.
pub struct Tcp {
    listener: Box<dyn TcpListener>,
    address: SocketAddr,
    sources: Arc<dyn Sources>,
}

impl Tcp {
    /// Listens at an address; port 0 takes a free one. Clients are told apart by
    /// `sources`, and `instead` is what a person can set so that it listens
    /// elsewhere.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(
        net: &dyn Network,
        address: SocketAddr,
        presence: Presence,
        sources: Arc<dyn Sources>,
        instead: &'static str,
    ) -> Result<Self, ListenError> {
        let failed = |error| ListenError::new(net, Kind::Tcp, address, error, instead);
        let listener = net.listen_tcp(address, presence).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            sources,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Listener for Tcp {
    type Stream = (Box<dyn Stream>, SocketAddr);

    async fn accept(&self) -> io::Result<(Self::Stream, Source)> {
        let accepted = self.listener.accept().await?;
        let user = || self.listener.user_of(&accepted);
        let source = source(&*self.sources, accepted.from, user);
        Ok(((accepted.stream, accepted.from), source))
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
