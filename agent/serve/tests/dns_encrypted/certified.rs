//! A CA of the tests', what it certifies, and clients that trust it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use innermesh_host::Presence;
use innermesh_serve::dns::{EncryptedDns, EncryptedServer, Encryption, UpstreamTrust};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::bench::{self, Bench};

pub const NAME: &str = "ns.lab.internal";
/// In 2026.
pub const NOW_MS: u64 = 1_790_000_000_000;

/// A CA and a key that it certified for [`NAME`] and 127.0.0.1.
pub struct Certified {
    pub root: CertificateDer<'static>,
    pub leaf: CertificateDer<'static>,
    key: Vec<u8>,
    /// SubjectPublicKeyInfo of the key.
    pub spki: Vec<u8>,
}

impl Certified {
    pub fn new() -> Self {
        Self::until(2100)
    }

    /// One that ends with a year's beginning.
    pub fn until(year: i32) -> Self {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::new(vec![NAME.into()]).unwrap();
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        leaf.subject_alt_names.push(address);
        leaf.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &root).unwrap();
        Self {
            root: root.der().clone(),
            leaf: leaf.der().clone(),
            spki: rcgen::PublicKeyData::subject_public_key_info(&key),
            key: key.serialize_der(),
        }
    }

    fn certified_key(&self) -> CertifiedKey {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        CertifiedKey::new(vec![self.leaf.clone()], key)
    }

    pub fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(self.certified_key().into())
    }

    pub fn trust(&self) -> UpstreamTrust {
        let root = self.root.clone();
        UpstreamTrust {
            roots: Arc::new(move || vec![root.clone()]),
            wall_ms: Arc::new(|| NOW_MS),
        }
    }

    /// Serves what `bench` answers, at a port of its own.
    pub fn serve(&self, bench: &Bench, encryption: Encryption) -> EncryptedServer {
        let around = bench::around(&bench.clock);
        let dns = EncryptedDns::new(bench.dns.clone(), self.resolver());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        dns.start(&around, any, encryption, Presence::Present)
            .unwrap()
    }

    /// A handshake of a client at `from`.
    pub async fn connect(
        &self,
        from: [u8; 4],
        to: SocketAddr,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = tcp(from, to).await;
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(NAME).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(Duration::from_secs(20), connecting)
            .await
            .unwrap()
    }
}

pub async fn tcp(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}
