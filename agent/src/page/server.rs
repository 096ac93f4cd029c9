//! The sockets of the install page. Whoever reaches them may be anybody: each
//! connection has little room and little time, and nobody gets all of them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_proto::limits;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{answer::answer, site::Site};
use crate::host::{
    Clock,
    holder::{self, Kind},
    sockets,
};

/// Pause after accepting failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    clock: Arc<dyn Clock>,
    places: Arc<Places>,
}

impl Server {
    /// Of this site, and those that follow it.
    pub fn new(site: watch::Receiver<Arc<Site>>, clock: Arc<dyn Clock>) -> Self {
        Self {
            site,
            clock,
            places: Arc::default(),
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
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    // Beyond the cap a connection is closed at once: better
                    // than one that is accepted and then never served.
                    Ok((stream, source)) => if let Some(place) = self.places.take(source.ip()) {
                        connections.spawn(self.clone().converse(stream, place));
                    },
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection to the install page");
                        self.clock.sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn converse(self, stream: TcpStream, place: Place) {
        let site = self.site;
        let service = service_fn(move |request: Request<Incoming>| {
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
        drop(place);
    }
}

/// How many connections there are, by address.
#[derive(Default)]
struct Places(Mutex<BTreeMap<IpAddr, usize>>);

/// One of them.
struct Place {
    places: Arc<Places>,
    source: IpAddr,
}

impl Places {
    fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = source.to_canonical();
        let mut taken = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let all: usize = taken.values().sum();
        let own = taken.get(&source).copied().unwrap_or(0);
        if all >= limits::PAGE_CONNECTIONS || own >= limits::PAGE_CONNECTIONS_PER_ADDRESS {
            return None;
        }
        taken.insert(source, own + 1);
        Some(Place {
            places: self.clone(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(own) = taken.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_some_places_all_together_get_a_few_more_and_each_comes_back() {
        let places = Arc::new(Places::default());
        let from = |n: u32| IpAddr::from(n.to_be_bytes());
        let own: Vec<Place> = std::iter::from_fn(|| places.take(from(1))).collect();
        assert_eq!(own.len(), limits::PAGE_CONNECTIONS_PER_ADDRESS);
        let others: Vec<Place> = (2..1000).filter_map(|n| places.take(from(n))).collect();
        assert_eq!(own.len() + others.len(), limits::PAGE_CONNECTIONS);
        drop((own, others));
        assert!(places.0.lock().unwrap().is_empty());
        assert!(places.take(from(1)).is_some());
    }
}
