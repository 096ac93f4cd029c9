//! TLS and HTTP in front of [`Acme`]. A connection costs its client something
//! and the agent little: few at a time, and none for long.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::http::{Request, Response, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use innermesh_proto::limits;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Acme, Answer, BODY_BYTES, problem::Problem};
use innermesh_ca::pem;
use innermesh_host::{
    Clock, Network, Presence, Stream,
    keys::CaKey,
    listen::{self, Class, ListenError, Place, Room, Shares, Source, Sources, Tcp, Who},
    within,
};

/// How long a handshake, and the head of a request, may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(120);

/// The certificate that is shown; none until the ledger has issued one.
#[derive(Debug, Default)]
pub struct Shown(ArcSwapOption<CertifiedKey>);

/// Why a certificate can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShownError {
    /// Its chain isn't PEM.
    #[error(transparent)]
    Chain(#[from] pem::PemError),
    /// Its key can't be used.
    #[error(transparent)]
    Key(#[from] rustls::Error),
}

impl Shown {
    /// Shows this one from now on.
    ///
    /// # Errors
    /// [`ShownError`]; the one before stays.
    pub fn set(&self, chain: &str, key: &dyn CaKey) -> Result<(), ShownError> {
        let blocks = pem::decode(chain)?;
        let chain = blocks
            .into_iter()
            .map(|block| CertificateDer::from(block.content))
            .collect();
        let pkcs8 = PrivatePkcs8KeyDer::from(key.pkcs8().as_bytes().to_vec());
        let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::from(pkcs8))?;
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

/// Listens at an address; `sources` tells clients apart.
///
/// # Errors
/// [`ListenError`].
pub fn bind(
    net: &dyn Network,
    address: SocketAddr,
    sources: Arc<dyn Sources>,
) -> Result<Tcp, ListenError> {
    const INSTEAD: &str = "set `acme.port` in the config, on all machines alike";
    Tcp::bind(net, address, Presence::Present, sources, INSTEAD)
}

/// Serves on `listeners` for as long as it is polled.
pub async fn serve(acme: Arc<Acme>, shown: Arc<Shown>, listeners: Vec<Tcp>, clock: Arc<dyn Clock>) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Arc::new(AcmeServer {
        acme,
        tls: TlsAcceptor::from(Arc::new(config)),
        clock: clock.clone(),
    });
    let shares = Shares::new(
        limits::ACME_CONNECTIONS,
        limits::ACME_PER_ADDRESS,
        limits::ACME_PER_USER,
    );
    let room = Room::new(shares, clock.clone());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let server = server.clone();
        let answer = move |stream, source, place| server.clone().answered(stream, source, place);
        accepting.spawn(listen::serve(
            "ACME",
            listener,
            room.clone(),
            clock.clone(),
            answer,
        ));
    }
    while accepting.join_next().await.is_some() {}
}

struct AcmeServer {
    acme: Arc<Acme>,
    tls: TlsAcceptor,
    clock: Arc<dyn Clock>,
}

impl AcmeServer {
    async fn answered(
        self: Arc<Self>,
        (stream, from): (Box<dyn Stream>, SocketAddr),
        source: Source,
        place: Arc<Place>,
    ) {
        let connection = self.connection(stream, from, source, &place);
        within(&*self.clock, CONNECTION, connection).await;
    }

    async fn connection(
        &self,
        stream: Box<dyn Stream>,
        from: SocketAddr,
        source: Source,
        place: &Arc<Place>,
    ) {
        let handshake = within(&*self.clock, HEAD, self.tls.accept(stream)).await;
        let stream = match handshake {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::debug!(%from, %error, "an ACME client's handshake failed");
                return;
            }
            None => return,
        };
        let service = service_fn(|request| self.answer(request, source, place));
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
        source: Source,
        place: &Arc<Place>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let read = within(&*self.clock, HEAD, Limited::new(body, BODY_BYTES).collect()).await;
        let answer = match read {
            Some(Ok(body)) => {
                let request = super::Request {
                    method: parts.method.as_str().to_owned(),
                    path: parts.uri.path().to_owned(),
                    content_type: content_type.map(str::to_owned),
                    body: body.to_bytes().to_vec(),
                    is_local: source.class == Class::Local,
                    user: match source.who {
                        Who::User(uid) => uid,
                        Who::Address(_) => None,
                    },
                };
                let _working = place.working();
                self.acme.handle(&request).await
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
