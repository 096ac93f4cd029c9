//! TLS 1.3 between agents, for quinn: which certificate is shown, and which
//! are accepted. A certificate says that its holder was admitted to this mesh;
//! whether it is a member **now** the ledger says, and the caller asks it
//! after the handshake, by the key that [`peer_key`] returns.
//!
//! Validity is judged by mesh time, the newest ledger stamp held here, and
//! never by a clock (SAFETY S19). A certificate that begins after that stamp
//! only shows that this node is behind, so `notBefore` is no reason to refuse;
//! a node that doesn't know the ledger yet (stamp 0) judges no end either.

mod verify;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_proto::{
    certificate::{Certificate, CertificateError, check_issuer},
    crypto::PublicKey,
    id::MeshId,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::{ResolvesClientCert, Resumption, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, danger::ClientCertVerifier as _,
    },
    sign::{CertifiedKey, Signer, SigningKey},
    time_provider::TimeProvider,
    version::TLS13,
};

pub use self::verify::Refusal;
use self::verify::{Anchor, MemberClients, MeshServers, Trust};
use crate::host::keys::{Keys, NodeKey};

/// The one protocol that agents speak over QUIC.
pub const ALPN: &[u8] = b"innermesh/1";

/// The server name to pass to quinn. It is neither sent nor checked: peers are
/// told apart by key.
pub const SERVER_NAME: &str = "innermesh";

/// What this node shows and trusts.
pub struct MeshTls {
    trust: Trust,
    identity: Option<Identity>,
    time: Arc<MeshTime>,
    keys: Arc<dyn Keys>,
    provider: Arc<CryptoProvider>,
}

/// A membership certificate and what it hangs from, each in DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The node's own certificate.
    pub leaf: Vec<u8>,
    /// Who signed it.
    pub issuer: Vec<u8>,
    /// Who signed that.
    pub root: Vec<u8>,
}

/// Why there is no TLS configuration. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// One of the stored certificates can't be used.
    #[error("this node's certificates can't be used: {0}; `agent join` gets new ones")]
    Certificate(#[from] CertificateError),
    /// The certificate is for another key.
    #[error("this node's certificate is for another key than the one stored beside it")]
    Mismatch,
    /// A joining node has nothing to show to those who connect.
    #[error("a node that has not joined a mesh can't be connected to")]
    NotJoined,
    /// The TLS library refused.
    #[error("TLS can't be set up: {0}")]
    Library(String),
}

impl MeshTls {
    /// For a member: `chain` is shown, `key` is the leaf's, and peers must hang
    /// from the same root. `stamp_ms` holds the newest ledger stamp, in
    /// milliseconds since 1970; the caller keeps it current.
    ///
    /// # Errors
    /// [`TlsError`] when chain and key don't fit together.
    pub fn member(
        chain: &Chain,
        key: Arc<dyn NodeKey>,
        stamp_ms: Arc<AtomicU64>,
        keys: Arc<dyn Keys>,
    ) -> Result<Self, TlsError> {
        let root = Certificate::parse(&chain.root)?;
        let issuer = Certificate::parse(&chain.issuer)?;
        let leaf = Certificate::parse(&chain.leaf)?;
        check_issuer(&issuer, &root, &*keys)?;
        if !leaf.is_signed_by(&issuer.spki, &*keys) {
            return Err(CertificateError::Signature.into());
        }
        if leaf.spki != key.public().spki() {
            return Err(TlsError::Mismatch);
        }
        let identity = Identity {
            chain: chain.clone(),
            not_after_ms: leaf.not_after_ms,
            signer: Arc::new(NodeSigner::new(key)),
        };
        let trust = Trust::Root(Arc::new(Anchor::new(&chain.root).map_err(library)?));
        Ok(Self::new(trust, Some(identity), stamp_ms, keys))
    }

    /// For a node that joins: it shows nothing, and whom it connects to must
    /// show a root with the fingerprint `mesh`.
    pub fn joining(mesh: MeshId, stamp_ms: Arc<AtomicU64>, keys: Arc<dyn Keys>) -> Self {
        Self::new(Trust::Mesh(mesh), None, stamp_ms, keys)
    }

    /// For a node that asks to be let in without knowing more than an address:
    /// it shows nothing, and whoever answers is to be trusted only once an
    /// admin's code has shown whose mesh it is.
    pub fn asking(stamp_ms: Arc<AtomicU64>, keys: Arc<dyn Keys>) -> Self {
        Self::new(Trust::Any, None, stamp_ms, keys)
    }

    /// For connecting as a member. A certificate that has ended by mesh time is
    /// left out, since it would only be refused: what is open to strangers,
    /// renewing among it, then still works.
    ///
    /// # Errors
    /// [`TlsError::Library`].
    pub fn client(&self) -> Result<Arc<ClientTls>, TlsError> {
        self.client_tls(true)
    }

    /// For connecting without a certificate: to renew one that a peer, whose
    /// ledger is further on, refused as expired ([`refused_as_expired`]).
    ///
    /// # Errors
    /// [`TlsError::Library`].
    pub fn client_without_certificate(&self) -> Result<Arc<ClientTls>, TlsError> {
        self.client_tls(false)
    }

    /// For being connected to, by members and by those who show no certificate.
    ///
    /// # Errors
    /// [`TlsError::NotJoined`], [`TlsError::Library`].
    pub fn server(&self) -> Result<Arc<ServerTls>, TlsError> {
        let config = self.server_config()?;
        let (identity, anchor) = self.joined()?;
        Ok(Arc::new(ServerTls {
            quic: Arc::new(QuicServerConfig::try_from(config).map_err(library)?),
            clients: MemberClients::new(anchor.clone(), &self.provider).map_err(library)?,
            own: identity.certified(true),
            time: self.time.clone(),
        }))
    }

    fn new(
        trust: Trust,
        identity: Option<Identity>,
        stamp_ms: Arc<AtomicU64>,
        keys: Arc<dyn Keys>,
    ) -> Self {
        let provider = keys.tls();
        Self {
            trust,
            identity,
            time: Arc::new(MeshTime(stamp_ms)),
            keys,
            provider: Arc::new(provider),
        }
    }

    fn client_tls(&self, show: bool) -> Result<Arc<ClientTls>, TlsError> {
        let config = self.client_config(show)?;
        Ok(Arc::new(ClientTls {
            quic: Arc::new(QuicClientConfig::try_from(config).map_err(library)?),
            servers: self.servers(),
            shown: self
                .identity
                .as_ref()
                .filter(|_| show)
                .map(|identity| self.shown(identity)),
            time: self.time.clone(),
        }))
    }

    fn servers(&self) -> MeshServers {
        MeshServers::new(self.trust.clone(), self.keys.clone(), &self.provider)
    }

    fn shown(&self, identity: &Identity) -> Shown {
        Shown {
            certified: Arc::new(identity.certified(false)),
            not_after_ms: identity.not_after_ms,
            time: self.time.clone(),
        }
    }

    fn joined(&self) -> Result<(&Identity, &Arc<Anchor>), TlsError> {
        match (&self.identity, &self.trust) {
            (Some(identity), Trust::Root(anchor)) => Ok((identity, anchor)),
            _ => Err(TlsError::NotJoined),
        }
    }

    fn client_config(&self, show: bool) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_details(self.provider.clone(), self.time.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(library)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.servers()));
        let mut config = match &self.identity {
            Some(identity) if show => {
                builder.with_client_cert_resolver(Arc::new(self.shown(identity)))
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        // A resumed session would keep a certificate's judgement of yesterday.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let (identity, anchor) = self.joined()?;
        let verifier = MemberClients::new(anchor.clone(), &self.provider).map_err(library)?;
        let mut config =
            ServerConfig::builder_with_details(self.provider.clone(), self.time.clone())
                .with_protocol_versions(&[&TLS13])
                .map_err(library)?
                .with_client_cert_verifier(Arc::new(verifier))
                .with_cert_resolver(Arc::new(Own(Arc::new(identity.certified(true)))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// For connecting: quinn's configuration, and what it shows and accepts, for a
/// transport that has no TLS.
pub struct ClientTls {
    quic: Arc<QuicClientConfig>,
    servers: MeshServers,
    shown: Option<Shown>,
    time: Arc<MeshTime>,
}

impl ClientTls {
    /// For quinn.
    pub fn quic(&self) -> Arc<QuicClientConfig> {
        self.quic.clone()
    }

    /// The certificates in DER that a server is shown at this moment, the own
    /// first; none where nothing is of use.
    pub fn shown(&self) -> Vec<Vec<u8>> {
        let shown = self.shown.as_ref().filter(|shown| shown.is_of_use());
        shown.map_or_else(Vec::new, |shown| der(&shown.certified))
    }

    /// Judges what a server showed, in DER, and gives its key.
    ///
    /// # Errors
    /// [`Unaccepted`].
    pub fn accept(&self, chain: &[Vec<u8>]) -> Result<PublicKey, Unaccepted> {
        let name = ServerName::try_from(SERVER_NAME).expect("it is one");
        let now = self.time.unix();
        judge(chain, |leaf, rest| {
            let verified = self.servers.verify_server_cert(leaf, rest, &name, &[], now);
            verified.map(|_| ())
        })
    }

    /// All that a judgement depends on besides what is judged: the mesh that
    /// is trusted, and mesh time in milliseconds.
    pub fn basis(&self) -> (MeshId, u64) {
        (self.servers.mesh(), self.time.now_ms())
    }
}

/// For being connected to: as [`ClientTls`].
pub struct ServerTls {
    quic: Arc<QuicServerConfig>,
    clients: MemberClients,
    own: CertifiedKey,
    time: Arc<MeshTime>,
}

impl ServerTls {
    /// For quinn.
    pub fn quic(&self) -> Arc<QuicServerConfig> {
        self.quic.clone()
    }

    /// The certificates in DER that a client is shown, the own first.
    pub fn shown(&self) -> Vec<Vec<u8>> {
        der(&self.own)
    }

    /// Judges what a client showed, in DER, and gives its key.
    ///
    /// # Errors
    /// [`Unaccepted`].
    pub fn accept(&self, chain: &[Vec<u8>]) -> Result<PublicKey, Unaccepted> {
        let now = self.time.unix();
        judge(chain, |leaf, rest| {
            let verified = self.clients.verify_client_cert(leaf, rest, now);
            verified.map(|_| ())
        })
    }

    /// As [`ClientTls::basis`].
    pub fn basis(&self) -> (MeshId, u64) {
        (self.clients.mesh(), self.time.now_ms())
    }
}

/// Why a peer's certificates were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unaccepted {
    /// They ended, by mesh time.
    #[error("the certificate has ended")]
    Expired,
    /// Any other reason.
    #[error("{0}")]
    Refused(String),
}

fn der(certified: &CertifiedKey) -> Vec<Vec<u8>> {
    certified.cert.iter().map(|der| der.to_vec()).collect()
}

fn judge(
    chain: &[Vec<u8>],
    verify: impl FnOnce(&CertificateDer<'_>, &[CertificateDer<'_>]) -> Result<(), rustls::Error>,
) -> Result<PublicKey, Unaccepted> {
    let refused = |why: &dyn fmt::Display| Unaccepted::Refused(why.to_string());
    let parts: Vec<CertificateDer<'_>> = chain
        .iter()
        .map(|der| CertificateDer::from(&der[..]))
        .collect();
    let (leaf, rest) = parts.split_first().ok_or(refused(&"nothing was shown"))?;
    verify(leaf, rest).map_err(|error| match error {
        rustls::Error::InvalidCertificate(
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
        ) => Unaccepted::Expired,
        other => refused(&other),
    })?;
    let leaf = Certificate::parse(leaf).map_err(|e| refused(&e))?;
    leaf.ed25519().ok_or(refused(&"it holds no Ed25519 key"))
}

/// The certificate that the peer showed, once the handshake is complete; a
/// server always shows one. It was checked against the root and mesh time.
pub fn peer_certificate(connection: &quinn::Connection) -> Option<Certificate> {
    Certificate::parse(peer_chain(connection).first()?).ok()
}

/// The identity key of the peer.
pub fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    peer_certificate(connection)?.ed25519()
}

/// All certificates that the peer sent, leaf first, in DER. A server sends
/// leaf, issuer and root.
pub fn peer_chain(connection: &quinn::Connection) -> Vec<Vec<u8>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| chain.iter().map(|der| der.to_vec()).collect())
        .unwrap_or_default()
}

/// Whether the peer closed the connection because our certificate has ended by
/// its mesh time: renew it over a connection without one. The client's side of
/// a handshake completes first, so this may also be seen on an open connection.
pub fn refused_as_expired(error: &quinn::ConnectionError) -> bool {
    /// RFC 8446 §6.
    const CERTIFICATE_EXPIRED: u8 = 45;
    let expired = quinn::TransportErrorCode::crypto(CERTIFICATE_EXPIRED);
    matches!(error, quinn::ConnectionError::ConnectionClosed(close) if close.error_code == expired)
}

fn library(error: impl fmt::Display) -> TlsError {
    TlsError::Library(error.to_string())
}

struct Identity {
    chain: Chain,
    not_after_ms: u64,
    signer: Arc<NodeSigner>,
}

impl Identity {
    /// The root goes along where the other side may only know its fingerprint.
    fn certified(&self, with_root: bool) -> CertifiedKey {
        let mut certificates = vec![self.chain.leaf.clone(), self.chain.issuer.clone()];
        if with_root {
            certificates.push(self.chain.root.clone());
        }
        let certificates = certificates.into_iter().map(CertificateDer::from).collect();
        CertifiedKey::new(certificates, self.signer.clone())
    }
}

/// Mesh time for rustls.
#[derive(Debug)]
struct MeshTime(Arc<AtomicU64>);

impl MeshTime {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn unix(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_millis(self.now_ms()))
    }
}

impl TimeProvider for MeshTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.unix())
    }
}

/// What a server shows.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// What a client shows, as long as it is of use.
#[derive(Debug)]
struct Shown {
    certified: Arc<CertifiedKey>,
    not_after_ms: u64,
    time: Arc<MeshTime>,
}

impl Shown {
    fn is_of_use(&self) -> bool {
        self.time.now_ms() <= self.not_after_ms
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_of_use().then(|| self.certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The host's key, as rustls wants one.
struct NodeSigner {
    key: Arc<dyn NodeKey>,
    spki: [u8; 44],
}

impl NodeSigner {
    fn new(key: Arc<dyn NodeKey>) -> Self {
        let spki = key.public().spki();
        Self { key, spki }
    }
}

impl fmt::Debug for NodeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.key.public())
    }
}

impl SigningKey for NodeSigner {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| {
            let signer = Self {
                key: self.key.clone(),
                spki: self.spki,
            };
            Box::new(signer) as Box<dyn Signer>
        })
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.spki[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[cfg(test)]
mod tests;
