//! A lane from this end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_proto::{limits, path::LaneUrl};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::{
    Lane, Lanes,
    carry::{carry, settings},
};
use crate::host::{Network, Stream, within};

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub enum LaneDialError {
    /// TCP or TLS failed.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// Whoever answers there takes no lanes in.
    #[error("it takes no lanes in: {0}")]
    Refused(#[from] Box<tungstenite::Error>),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
}

/// A lane to a relay that is open.
pub struct OpenLane {
    lane: Lane,
    socket: WebSocketStream<Box<dyn Stream>>,
}

impl Lanes {
    /// Opens a lane to `url` by one of its addresses. It is carried from
    /// [`OpenLane::carry`] on.
    ///
    /// # Errors
    /// [`LaneDialError`].
    pub async fn dial(
        &self,
        net: &dyn Network,
        url: &LaneUrl,
        address: SocketAddr,
    ) -> Result<OpenLane, LaneDialError> {
        let limit = Duration::from_millis(limits::LANE_OPENS_MS);
        let opening = async {
            let stream = net.connect_past_exit(address).await?;
            let stream = if url.is_tls() {
                around(stream, url).await?
            } else {
                stream
            };
            let request = as_http(url);
            let (socket, _) = client_async_with_config(request, stream, Some(settings()))
                .await
                .map_err(Box::new)?;
            Ok(socket)
        };
        let socket = within(&*self.0.clock, limit, opening)
            .await
            .unwrap_or(Err(LaneDialError::Timeout))?;
        Ok(OpenLane {
            lane: self.open(address),
            socket,
        })
    }
}

impl OpenLane {
    /// The address that stands for it: QUIC is dialed there.
    pub fn address(&self) -> SocketAddr {
        self.lane.address()
    }

    /// Carries datagrams until it ends, or this is dropped; then its connections end too.
    pub async fn carry(self) {
        let end = carry(&self.lane, self.socket, None).await;
        tracing::debug!(%end, "a lane ended");
    }
}

/// What tungstenite takes: with the usual port left out, as `Host` has it (RFC 9110 §7.2).
fn as_http(url: &LaneUrl) -> String {
    url.to_string()
}

/// TLS, for what is on the way: see the module above.
async fn around(stream: Box<dyn Stream>, url: &LaneUrl) -> io::Result<Box<dyn Stream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(url.host().0.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// Takes any certificate: who the relay is proves QUIC's TLS inside.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
