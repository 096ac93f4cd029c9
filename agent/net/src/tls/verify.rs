//! Which certificates are accepted in a handshake. rustls-webpki walks the
//! chain (signatures, name constraints, usages, the end of validity); what
//! stands here is the shape of a membership certificate, the root's
//! fingerprint, and the time by which all is judged.

use std::{fmt, sync::Arc, time::Duration};

use innermesh_proto::{
    certificate::{Certificate, CertificateError},
    id::MeshId,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::host::keys::Keys;

/// Why a peer's certificate was refused, where it isn't one of rustls' own
/// reasons. The connection is closed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can't be read.
    #[error("the peer's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// More certificates than leaf, issuer and root.
    #[error("the peer sent {0} certificates; at most 3 were expected")]
    Length(usize),
    /// The root with the expected fingerprint isn't among what was sent.
    #[error("the peer belongs to another mesh: its root isn't {0}")]
    OtherMesh(MeshId),
    /// Anything but a node's membership.
    #[error("the peer's certificate is not a node's membership")]
    NotMembership,
}

/// As for a person: rustls and quinn show what went wrong in this form.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let other = OtherError(Arc::new(refusal));
        Self::InvalidCertificate(rustls::CertificateError::Other(other))
    }
}

/// Whom to trust.
#[derive(Clone)]
pub enum Trust {
    /// What hangs from this root.
    Root(Arc<Anchor>),
    /// What hangs from a root with this fingerprint, which the peer sends.
    Mesh(MeshId),
    /// What hangs from whatever root the peer sends: whose it is shows later.
    Any,
}

/// A root, ready for use.
pub struct Anchor {
    mesh: MeshId,
    key_id: Option<Vec<u8>>,
    store: RootCertStore,
}

impl Anchor {
    /// From a certificate in DER.
    pub fn new(der: &[u8]) -> Result<Self, Error> {
        let root = Certificate::parse(der).map_err(Refusal::from)?;
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from(der.to_vec()))?;
        Ok(Self {
            mesh: MeshId::of_root(&root.spki),
            key_id: root.key_id,
            store,
        })
    }

    /// Roots of meshes with the same domain have the same name: by it alone a
    /// stranger would only look like a forger.
    fn check_mesh(&self, chain: &[Certificate]) -> Result<(), Refusal> {
        match chain.get(1) {
            Some(issuer) if issuer.authority_key_id != self.key_id => {
                Err(Refusal::OtherMesh(self.mesh))
            }
            _ => Ok(()),
        }
    }
}

/// Accepts servers that are members.
pub struct MeshServers {
    trust: Trust,
    keys: Arc<dyn Keys>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MeshServers {
    pub fn new(trust: Trust, keys: Arc<dyn Keys>, provider: &CryptoProvider) -> Self {
        Self {
            trust,
            keys,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// The mesh whose members are accepted.
    pub fn mesh(&self) -> MeshId {
        match &self.trust {
            Trust::Root(anchor) => anchor.mesh,
            Trust::Mesh(mesh) => *mesh,
            Trust::Any => MeshId([0; 32]),
        }
    }

    /// The root to check against. One that the peer sent must have signed
    /// itself, or its constraints would be the peer's to choose.
    fn anchor(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<Anchor>, Error> {
        let mesh = match &self.trust {
            Trust::Root(anchor) => return Ok(anchor.clone()),
            Trust::Mesh(mesh) => Some(mesh),
            Trust::Any => None,
        };
        let root = sent.iter().find(|der| {
            Certificate::parse(der).is_ok_and(|root| {
                mesh.is_none_or(|mesh| MeshId::of_root(&root.spki) == *mesh)
                    && root.is_signed_by(&root.spki, &*self.keys)
            })
        });
        let root = root.ok_or(match mesh {
            Some(mesh) => Refusal::OtherMesh(*mesh),
            None => Refusal::NotMembership,
        })?;
        Ok(Arc::new(Anchor::new(root)?))
    }
}

impl fmt::Debug for MeshServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trust {
            Trust::Root(anchor) => write!(f, "servers of {:?}", anchor.mesh),
            Trust::Mesh(mesh) => write!(f, "servers of {mesh:?}, to join it"),
            Trust::Any => write!(f, "servers of any mesh, to ask to be let in"),
        }
    }
}

impl ServerCertVerifier for MeshServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = membership(end_entity, intermediates)?;
        let at = judged_at(now, &chain);
        let anchor = self.anchor(intermediates)?;
        anchor.check_mesh(&chain)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &anchor.store,
            intermediates,
            at,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Accepts clients that are members, and those that show no certificate.
pub struct MemberClients {
    anchor: Arc<Anchor>,
    webpki: Arc<dyn ClientCertVerifier>,
}

impl MemberClients {
    /// # Errors
    /// rustls' reason for refusing the root.
    pub fn new(anchor: Arc<Anchor>, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let store = Arc::new(anchor.store.clone());
        let webpki = WebPkiClientVerifier::builder_with_provider(store, provider.clone())
            .allow_unauthenticated()
            // A stranger has no business knowing whose mesh this is.
            .clear_root_hint_subjects()
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        Ok(Self { anchor, webpki })
    }

    /// The mesh whose members are accepted.
    pub fn mesh(&self) -> MeshId {
        self.anchor.mesh
    }
}

impl fmt::Debug for MemberClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clients of {:?}", self.anchor.mesh)
    }
}

impl ClientCertVerifier for MemberClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = membership(end_entity, intermediates)?;
        let at = judged_at(now, &chain);
        self.anchor.check_mesh(&chain)?;
        self.webpki
            .verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Reads all that was sent, leaf first, and checks that the leaf is a node's
/// membership: other leaves hang from the same issuers and must not pass.
fn membership(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<Vec<Certificate>, Refusal> {
    if intermediates.len() > 2 {
        return Err(Refusal::Length(intermediates.len() + 1));
    }
    let leaf = Certificate::parse(end_entity)?;
    let key = leaf.ed25519().ok_or(Refusal::NotMembership)?;
    let named = leaf.common_name == Some(key.node_id().to_string());
    if leaf.is_ca || !leaf.server_auth || !leaf.client_auth || leaf.other_usage || !named {
        return Err(Refusal::NotMembership);
    }
    // Name constraints reach neither of these (SAFETY S16).
    if leaf.other_names > 0 || leaf.dns.iter().any(|name| name.starts_with('*')) {
        return Err(Refusal::NotMembership);
    }
    let mut all = vec![leaf];
    for der in intermediates {
        all.push(Certificate::parse(der)?);
    }
    Ok(all)
}

/// Mesh time, or the latest beginning of a certificate if that is later: the
/// issuer is trusted, so what it signed shows how far time has come.
fn judged_at(now: UnixTime, chain: &[Certificate]) -> UnixTime {
    let begun = chain
        .iter()
        .map(|certificate| certificate.not_before_ms)
        .max();
    let begun = Duration::from_millis(begun.unwrap_or(0));
    UnixTime::since_unix_epoch(begun.max(Duration::from_secs(now.as_secs())))
}
