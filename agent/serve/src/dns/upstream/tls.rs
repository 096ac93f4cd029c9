//! TLS with a name server elsewhere: its certificate is one that a root vouches for,
//! for the name that was given or else its address, or its key is one that is pinned.
//! Nothing is ever asked without.

use std::{fmt, sync::Arc, time::Duration};

use innermesh_proto::crypto::Hash;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::super::name_server::{Identity, NameServer, Transport};

/// Who vouches for name servers.
#[derive(Clone)]
pub struct UpstreamTrust {
    /// This host's roots, and the mesh's. It may read files.
    pub roots: Arc<dyn Fn() -> Vec<CertificateDer<'static>> + Send + Sync>,
    /// By which certificates are judged, in milliseconds since 1970.
    pub wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for UpstreamTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamTrust")
    }
}

impl TimeProvider for UpstreamTrust {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_millis((self.wall_ms)());
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl UpstreamTrust {
    /// What a client of this server says and checks. It may read files.
    pub(super) fn config(&self, server: &NameServer) -> Option<Arc<ClientConfig>> {
        let (identity, protocol): (_, &[u8]) = match &server.transport {
            Transport::Tls(identity) => (identity, b"dot"),
            Transport::Https { identity, .. } => (identity, b"h2"),
            Transport::Udp | Transport::Tcp => return None,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(self.clone()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3");
        let mut config = if identity.pins.is_empty() {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates((self.roots)());
            builder.with_root_certificates(roots).with_no_client_auth()
        } else {
            let verifier = PinnedKey {
                identity: identity.clone(),
                provider,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth()
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Some(Arc::new(config))
    }
}

/// The name that a server's certificate must have.
pub(super) fn server_name(server: &NameServer) -> ServerName<'static> {
    let address = ServerName::IpAddress(server.address.ip().into());
    let name = server.transport.identity().and_then(|id| id.name.clone());
    name.and_then(|name| ServerName::try_from(name).ok())
        .unwrap_or(address)
}

/// Whoever has one of these keys (RFC 7858 §4.2): its certificate may be signed by
/// anybody, for any name and time.
#[derive(Debug)]
struct PinnedKey {
    identity: Identity,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        let key = Hash::of(leaf.tbs_certificate.subject_pki.raw);
        if self.identity.pins.contains(&key.0) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
