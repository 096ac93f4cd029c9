//! The sockets of the install page. Whoever reaches them may be anybody: each
//! connection has little room and little time, and nobody gets all of them.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_proto::limits;
use tokio::sync::watch;

use super::{answer::answer, lan::is_of_a_lan, site::Site};
use innermesh_host::{
    Clock, Network, Presence, Stream,
    listen::{self, ListenError, Place, Room, Shares, Sources, Tcp},
};

/// What a person can set so that it listens elsewhere.
const INSTEAD: &str = "set `port` or `listen` of [page] in the config";

/// Whether a visitor of a LAN's page is on a LAN, or this host.
fn is_near(address: IpAddr) -> bool {
    is_of_a_lan(address) || address.to_canonical().is_loopback()
}

/// Serves the newest site. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    site: watch::Receiver<Arc<Site>>,
    sources: Arc<dyn Sources>,
    clock: Arc<dyn Clock>,
    room: Arc<Room>,
    /// Where it listens on a LAN; none where only the mesh and this host come.
    lan: Option<SocketAddr>,
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
            lan: None,
        }
    }

    /// The same for a LAN, which takes none of the places of the mesh.
    #[must_use]
    pub fn for_lans(&self) -> Self {
        let shares = Shares::new(
            limits::PAGE_LAN_CONNECTIONS,
            limits::PAGE_LAN_CONNECTIONS_PER_ADDRESS,
            limits::PAGE_LAN_CONNECTIONS,
        );
        Self {
            room: Room::new(shares, self.clock.clone()),
            ..self.clone()
        }
    }

    /// The same at one address of a LAN.
    #[must_use]
    pub fn at_lan(&self, address: SocketAddr) -> Self {
        Self {
            lan: Some(address),
            ..self.clone()
        }
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(&self, net: &dyn Network, address: SocketAddr) -> Result<Tcp, ListenError> {
        Tcp::bind(
            net,
            address,
            Presence::Present,
            self.sources.clone(),
            INSTEAD,
        )
    }

    /// Takes connections until it is dropped.
    pub async fn serve(self, listener: Tcp) {
        let (room, clock) = (self.room.clone(), self.clock.clone());
        let answer = move |(stream, from): (_, SocketAddr), _, place| {
            let server = self.clone();
            // A port that a router forwards makes no LAN of the internet.
            let is_welcome = server.lan.is_none() || is_near(from.ip());
            async move {
                if is_welcome {
                    server.converse(stream, place).await;
                }
            }
        };
        listen::serve("the install page", listener, room, clock, answer).await;
    }

    async fn converse(self, stream: Box<dyn Stream>, place: Arc<Place>) {
        let (site, lan) = (self.site, self.lan);
        let service = service_fn(move |request: Request<Incoming>| {
            let _working = place.working();
            let site = site.borrow().clone();
            let (method, path) = (request.method(), request.uri().path());
            let response = answer(&site, lan, method, path, request.headers());
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
