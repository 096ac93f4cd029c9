//! What strangers get who follow one of the mesh's names in the public DNS: that
//! access is denied, for every name and path alike. Nothing of the inside shows in it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_host::{
    Clock, Network, Presence, Stream,
    listen::{self, ListenError, Place, Room, Shares, Sources, Tcp},
};
use innermesh_proto::limits;

/// The port of HTTP.
pub const PORT: u16 = 80;
/// The page, unless the user has another one.
pub const PAGE: &str = include_str!("sinkhole.html");
/// What a person can set so that it listens elsewhere.
const INSTEAD: &str = "set `listen` of [sinkhole] in the config";

/// Denies access. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    page: Bytes,
    sources: Arc<dyn Sources>,
    clock: Arc<dyn Clock>,
    room: Arc<Room>,
}

impl Server {
    /// Says `page`, which is HTML.
    pub fn new(page: Bytes, sources: Arc<dyn Sources>, clock: Arc<dyn Clock>) -> Self {
        let shares = Shares::new(
            limits::SINKHOLE_CONNECTIONS,
            limits::SINKHOLE_CONNECTIONS_PER_ADDRESS,
            limits::SINKHOLE_CONNECTIONS,
        );
        Self {
            page,
            sources,
            room: Room::new(shares, clock.clone()),
            clock,
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

    /// Takes connections until it is dropped.
    pub async fn serve(self, listener: Tcp) {
        let (room, clock) = (self.room.clone(), self.clock.clone());
        let answer = move |(stream, _): (_, SocketAddr), _, place| {
            let server = self.clone();
            server.converse(stream, place)
        };
        listen::serve("the sinkhole's page", listener, room, clock, answer).await;
    }

    async fn converse(self, stream: Box<dyn Stream>, place: Arc<Place>) {
        let (page, clock) = (self.page, self.clock);
        let service = service_fn(move |_: Request<Incoming>| {
            let _working = place.working();
            let response = denied(page.clone());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(limits::PAGE_IDLE_MS))
            .max_buf_size(limits::PAGE_HEAD_BYTES)
            .max_headers(limits::PAGE_HEADERS)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // A client that went away, or said nothing right, is no news.
            _ = connection => {}
            () = clock.sleep(Duration::from_millis(limits::SINKHOLE_CONNECTION_MS)) => {}
        }
    }
}

/// The answer to every request. It is not kept, so that who comes in later isn't shown
/// it again, and says nothing about HTTPS.
fn denied(page: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page));
    *response.status_mut() = StatusCode::FORBIDDEN;
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_says_nothing_of_any_mesh() {
        let response = denied(Bytes::from_static(PAGE.as_bytes()));
        let head: usize = response
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        // The status line, `date`, `content-length` and `connection` are hyper's.
        let bytes = head + PAGE.len() + 120;
        assert!(bytes <= 1024, "{bytes} bytes");
        assert!(PAGE.contains("ACCESS DENIED") && PAGE.contains("prefers-color-scheme"));
        assert!(!PAGE.to_lowercase().contains("innermesh"));
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        for absent in ["location", "strict-transport-security", "server"] {
            assert!(!response.headers().contains_key(absent), "{absent}");
        }
    }
}
