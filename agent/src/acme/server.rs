//! TLS and HTTP in front of [`Acme`]. A connection costs its client something
//! and the agent little: few at a time, and none for long.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use axum::http::{Request, Response, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Acme, Answer, Asked, BODY_BYTES, problem::Problem};
use crate::{
    ca::pem,
    host::{Clock, keys::CaKey},
    quic::within,
};

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How long a handshake, and the head of a request, may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(120);
/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The certificate that is shown; none until the ledger has issued one.
#[derive(Debug, Default)]
pub struct Shown(ArcSwapOption<CertifiedKey>);

impl Shown {
    /// Shows this one from now on.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn set(&self, chain: &str, key: &dyn CaKey) -> Result<(), String> {
        let blocks = pem::decode(chain).map_err(|error| error.to_string())?;
        let chain = blocks
            .into_iter()
            .map(|block| CertificateDer::from(block.content))
            .collect();
        let pkcs8 = PrivatePkcs8KeyDer::from(key.pkcs8().as_bytes().to_vec());
        let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::from(pkcs8))
            .map_err(|error| error.to_string())?;
        self.0.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// Tells whether a source counts as this machine.
pub type IsLocal = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Serves on `listeners` for as long as it is polled.
pub async fn serve(
    acme: Arc<Acme>,
    shown: Arc<Shown>,
    listeners: Vec<TcpListener>,
    is_local: Arc<IsLocal>,
    clock: Arc<dyn Clock>,
) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Arc::new(Server {
        acme,
        tls: TlsAcceptor::from(Arc::new(config)),
        places: Arc::new(Semaphore::new(CONNECTIONS)),
        is_local,
        clock,
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(server.clone().accept(listener));
    }
    while accepting.join_next().await.is_some() {}
}

struct Server {
    acme: Arc<Acme>,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    is_local: Arc<IsLocal>,
    clock: Arc<dyn Clock>,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        // Who is too many waits in the kernel's queue no
                        // longer than it takes to be turned away.
                        let Ok(place) = self.places.clone().try_acquire_owned() else {
                            tracing::warn!(%from, "too many ACME connections");
                            continue;
                        };
                        let server = self.clone();
                        connections.spawn(async move {
                            let clock = server.clock.clone();
                            within(&*clock, CONNECTION, server.connection(stream, from)).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no ACME connection can be accepted");
                        self.clock.sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream, from: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let handshake = within(&*self.clock, HEAD, self.tls.accept(stream)).await;
        let stream = match handshake {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::debug!(%from, %error, "an ACME client's handshake failed");
                return;
            }
            None => return,
        };
        let is_local = (self.is_local)(from.ip().to_canonical());
        let service = service_fn(|request| self.answer(request, is_local));
        // A client that went away is no news.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BODY_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        is_local: bool,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let read = within(&*self.clock, HEAD, Limited::new(body, BODY_BYTES).collect()).await;
        let answer = match read {
            Some(Ok(body)) => {
                let asked = Asked {
                    method: parts.method.as_str().to_owned(),
                    path: parts.uri.path().to_owned(),
                    content_type: content_type.map(str::to_owned),
                    body: body.to_bytes().to_vec(),
                    is_local,
                };
                self.acme.handle(&asked).await
            }
            Some(Err(_)) => Answer::from(
                Problem::malformed(format!("a request has at most {BODY_BYTES} bytes"))
                    .with_status(413),
            ),
            None => Answer::from(
                Problem::malformed("the request didn't arrive in time").with_status(408),
            ),
        };
        Ok(response(answer))
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(answer.status);
    if !answer.content_type.is_empty() {
        response = response.header(header::CONTENT_TYPE, answer.content_type);
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response
        .body(Full::new(answer.body.into()))
        .unwrap_or_default()
}
