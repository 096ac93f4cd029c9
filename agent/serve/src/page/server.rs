//! The sockets of the install page. Whoever reaches them may be anybody: each
//! connection has little room and little time, and nobody gets all of them.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_proto::limits;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{answer::answer, site::Site};
use innermesh_host::{
    Clock,
    holder::{self, Kind},
    listen::{self, Place, Room, Shares, Sources, Tcp},
    sockets,
};

/// Why the page isn't served at an address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "TCP port {} on {} is taken by {holder}; stop that program, or set `port` of [page] in the config",
        address.port(), address.ip()
    )]
    InUse {
        /// Where.
        address: SocketAddr,
        /// Who, as far as can be told.
        holder: String,
    },
    /// The address isn't this host's.
    #[error("no interface of this host has {}; see `listen` of [page] in the config", address.ip())]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("can't listen on TCP {address}: {error}; see [page] in the config")]
    Other {
        /// Where.
        address: SocketAddr,
        /// The operating system's error.
        #[source]
        error: io::Error,
    },
}

/// Serves the newest site. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    site: watch::Receiver<Arc<Site>>,
    sources: Arc<dyn Sources>,
    clock: Arc<dyn Clock>,
    room: Arc<Room>,
}

impl Server {
    /// Of this site, and those that follow it.
    pub fn new(
        site: watch::Receiver<Arc<Site>>,
        sources: Arc<dyn Sources>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let shares = Shares::new(
            limits::PAGE_CONNECTIONS,
            limits::PAGE_CONNECTIONS_PER_ADDRESS,
            limits::PAGE_CONNECTIONS_PER_USER,
        );
        Self {
            site,
            sources,
            room: Room::new(shares, clock.clone()),
            clock,
        }
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
        sockets::tcp(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse {
                address,
                holder: holder::of_address(Kind::Tcp, address)
                    .map_or_else(|| "another program".into(), |holder| holder.to_string()),
            },
            io::ErrorKind::AddrNotAvailable => BindError::NotHere { address },
            _ => BindError::Other { address, error },
        })
    }

    /// Takes connections until it is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let listener = Tcp::new(listener, self.sources.clone());
        let (room, clock) = (self.room.clone(), self.clock.clone());
        let answer = move |(stream, _), _, place| self.clone().converse(stream, place);
        listen::serve("the install page", listener, room, clock, answer).await;
    }

    async fn converse(self, stream: TcpStream, place: Arc<Place>) {
        let site = self.site;
        let service = service_fn(move |request: Request<Incoming>| {
            let _working = place.working();
            let site = site.borrow().clone();
            let (method, path) = (request.method(), request.uri().path());
            let response = answer(&site, method, path, request.headers());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(limits::PAGE_IDLE_MS))
            .max_buf_size(limits::PAGE_HEAD_BYTES)
            .max_headers(limits::PAGE_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // A client that went away, or said nothing right, is no news.
            _ = connection => {}
            () = self.clock.sleep(Duration::from_millis(limits::PAGE_CONNECTION_MS)) => {}
        }
    }
}
