//! TLS in front of [`Acme`], and `http` behind it. A connection
//! costs its client something and the agent little: few at a time, and none for
//! long.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
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

use super::{
    Acme,
    http::{HTTP_2, Protocol, Requests},
};
use innermesh_ca::pem;
use innermesh_host::{
    Clock, Network, Presence, Stream,
    keys::CaKey,
    listen::{self, ListenError, Place, Room, Shares, Source, Sources, Tcp},
    within,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

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
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
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
        let stream = match within(&*self.clock, HANDSHAKE, self.tls.accept(stream)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::debug!(%from, %error, "an ACME client's handshake failed");
                return;
            }
            None => return,
        };
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP_2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let requests = Requests::new(self.acme.clone(), self.clock.clone(), source, place);
        requests.serve(stream, protocol).await;
    }
}
