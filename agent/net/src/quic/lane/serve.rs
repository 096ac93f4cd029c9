//! Lanes from others: TCP, perhaps TLS, and the upgrade to a WebSocket.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use innermesh_proto::limits;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::handshake::server::{ErrorResponse, Request, Response},
};

use super::{
    Lanes,
    carry::{carry, settings},
};
use crate::{
    host::{Network, Presence, Stream, within},
    listen::{self, ListenError, Place, Room, Shares, Source, Sources, Tcp},
};

/// What a person can set so that it listens elsewhere.
const INSTEAD: &str = "set `listen` or `listen_tls` of [lane] in the config";
/// The header by which a proxy says whom it speaks for.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Takes lanes in. Clones are the same server.
#[derive(Clone)]
pub struct LaneServer {
    lanes: Lanes,
    sources: Arc<dyn Sources>,
    /// Connections.
    room: Arc<Room>,
    /// Of these, those that a proxy on this host brings, by whom they are of.
    forwarded: Arc<Room>,
}

impl LaneServer {
    /// One for these lanes; `sources` tells clients apart.
    pub fn new(lanes: Lanes, sources: Arc<dyn Sources>) -> Self {
        // A proxy on this host may bring all of them.
        let shares = Shares::new(limits::LANES, limits::LANES_PER_ADDRESS, limits::LANES);
        let clock = lanes.0.clock.clone();
        Self {
            room: Room::new(shares, clock.clone()),
            forwarded: Room::new(shares, clock),
            lanes,
            sources,
        }
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(&self, net: &dyn Network, address: SocketAddr) -> Result<Tcp, ListenError> {
        let sources = self.sources.clone();
        Tcp::bind(net, address, Presence::Present, sources, INSTEAD)
    }

    /// Takes lanes in until it is dropped, with TLS around them where it is given.
    pub async fn serve(self, listener: Tcp, tls: Option<Arc<rustls::ServerConfig>>) {
        let (room, clock) = (self.room.clone(), self.lanes.0.clock.clone());
        let tls = tls.map(TlsAcceptor::from);
        let answer = move |(stream, from), _, place| {
            let (server, tls) = (self.clone(), tls.clone());
            async move { server.answer(stream, from, tls, place).await }
        };
        listen::serve("lanes", listener, room, clock, answer).await;
    }

    async fn answer(
        self,
        stream: Box<dyn Stream>,
        from: SocketAddr,
        tls: Option<TlsAcceptor>,
        place: Arc<Place>,
    ) {
        let limit = Duration::from_millis(limits::LANE_OPENS_MS);
        let opening = async {
            let stream: Box<dyn Stream> = match tls {
                Some(tls) => Box::new(tls.accept(stream).await.ok()?),
                None => stream,
            };
            upgrade(stream).await
        };
        let opened = within(&*self.lanes.0.clock, limit, opening).await.flatten();
        let Some((socket, forwarded)) = opened else {
            tracing::debug!(%from, "a connection didn't become a lane");
            self.lanes.0.tally.lanes_failed.add();
            return;
        };
        // Only a proxy of this host is believed.
        let ip = forwarded.filter(|_| from.ip().to_canonical().is_loopback());
        let mut places = vec![place];
        if let Some(ip) = ip {
            let Some(place) = self.forwarded.enter(Source::other(ip)).await else {
                self.lanes.0.tally.lanes_failed.add();
                return;
            };
            places.push(Arc::new(place));
        }
        let from = SocketAddr::new(ip.unwrap_or(from.ip()), from.port());
        let lane = self.lanes.open(from);
        let displaced = async {
            match places.get(1) {
                Some(place) => place.displaced().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = carry(&lane, socket, Some(&places)) => tracing::debug!(%from, %end, "a lane ended"),
            () = displaced => tracing::debug!(%from, "a lane gave its place up"),
        }
    }
}

/// The WebSocket that a client asks for, and whom a proxy speaks for.
#[allow(
    clippy::result_large_err,
    reason = "tungstenite's callback has this form"
)]
async fn upgrade(
    stream: Box<dyn Stream>,
) -> Option<(WebSocketStream<Box<dyn Stream>>, Option<IpAddr>)> {
    let forwarded = OnceLock::new();
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let values = request.headers().get_all(FORWARDED_FOR).iter();
        // Each proxy adds whom it heard at the end.
        let last = values.filter_map(|value| value.to_str().ok()).next_back();
        let last = last.and_then(|value| value.rsplit(',').next());
        if let Some(ip) = last.and_then(|ip| ip.trim().parse().ok()) {
            let _ = forwarded.set(ip);
        }
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, note, Some(settings())).await;
    let socket = socket.ok()?;
    Some((socket, forwarded.get().copied()))
}
