//! DNS over TLS (RFC 7858) and over HTTPS (RFC 8484): the same answers as over TCP,
//! behind a handshake. Who may see no name gets none, and with it no certificate,
//! which has names of the mesh.

#![allow(missing_docs, reason = "the names say it")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ResolvesServerCert, ServerSessionMemoryCache},
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{handshakes::Handshakes, https, server::Surroundings, service::Dns, tcp::Tcp};
use innermesh_host::{
    Clock, Presence, Stream,
    listen::{self, ListenError, Place, Source},
    within,
};
use innermesh_proto::limits;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// What a person can set so that it listens elsewhere, or not at all.
const INSTEAD: &str = "change `tls` or `https` of [dns] in the configuration";

/// Whether DNS is answered over TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsChoice {
    /// Where the port is free.
    #[default]
    Auto,
    /// As that, and told in `status` where it isn't.
    On,
    Off,
}

/// The port of DNS over TLS (RFC 7858 §3.1).
pub const TLS_PORT: u16 = 853;

/// What is spoken behind the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encryption {
    Tls,
    Https,
}

impl Encryption {
    /// As it is called in a handshake (RFC 7301).
    fn protocol(self) -> &'static [u8] {
        match self {
            Self::Tls => b"dot",
            Self::Https => b"h2",
        }
    }
}

/// What servers have in common.
#[derive(Clone)]
pub struct EncryptedDns {
    dns: Arc<Dns>,
    certificate: Arc<dyn ResolvesServerCert>,
    handshakes: Arc<Handshakes>,
}

impl EncryptedDns {
    /// Answers as `dns`, and shows `certificate`.
    pub fn new(dns: Arc<Dns>, certificate: Arc<dyn ResolvesServerCert>) -> Self {
        Self {
            dns,
            certificate,
            handshakes: Arc::default(),
        }
    }

    /// Serves at an address; port 0 takes a free one. Connections have places of
    /// `host`'s room.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn start(
        &self,
        host: &Surroundings,
        at: SocketAddr,
        encryption: Encryption,
        presence: Presence,
    ) -> Result<EncryptedServer, ListenError> {
        let sources = host.sources.clone();
        let listener = listen::Tcp::bind(&*host.net, at, presence, sources, INSTEAD)?;
        let address = listener.address();
        let server = Server {
            tcp: Tcp {
                dns: self.dns.clone(),
                clock: host.clock.clone(),
                is_encrypted: true,
            },
            encryption,
            tls: TlsAcceptor::from(Arc::new(self.config(encryption))),
            handshakes: self.handshakes.clone(),
        };
        let answer = move |(stream, from), source, place| {
            let server = server.clone();
            async move { server.answer(stream, from, source, &place).await }
        };
        let what = match encryption {
            Encryption::Tls => "DNS over TLS",
            Encryption::Https => "DNS over HTTPS",
        };
        let (room, clock) = (host.room.clone(), host.clock.clone());
        let serving = listen::serve(what, listener, room, clock, answer);
        self.dns.listens_encrypted(address);
        Ok(EncryptedServer {
            dns: self.dns.clone(),
            address,
            serving: host.tasks.spawn(serving),
        })
    }

    /// No data before the handshake is done (it could be replayed), few sessions
    /// kept, and no tickets that are encrypted to a key of this host.
    fn config(&self, encryption: Encryption) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![encryption.protocol().to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(limits::DNS_TLS_SESSIONS);
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 1;
        config
    }
}

/// Serves until it is dropped.
pub struct EncryptedServer {
    dns: Arc<Dns>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl EncryptedServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EncryptedServer {
    fn drop(&mut self) {
        self.serving.abort();
        self.dns.listens_encrypted_no_more(self.address);
    }
}

#[derive(Clone)]
struct Server {
    tcp: Tcp,
    encryption: Encryption,
    tls: TlsAcceptor,
    handshakes: Arc<Handshakes>,
}

impl Server {
    async fn answer(
        &self,
        stream: Box<dyn Stream>,
        from: SocketAddr,
        source: Source,
        place: &Arc<Place>,
    ) {
        let clock: &dyn Clock = &*self.tcp.clock;
        if self.tcp.dns.view().of(from.ip()).is_none() {
            tracing::debug!(%from, "a stranger gets no handshake");
            return;
        }
        if !self.handshakes.begin(&source, clock.now()) {
            tracing::debug!(%from, "too many handshakes");
            return;
        }
        let handshake = self.tls.accept(stream);
        let stream = match within(clock, HANDSHAKE, handshake).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::debug!(%from, %error, "a handshake of DNS failed");
                return;
            }
            None => return,
        };
        match self.encryption {
            Encryption::Tls => {
                if let Err(error) = self.tcp.converse(stream, from, place).await {
                    tracing::debug!(%from, %error, "DNS over TLS ended");
                }
            }
            // HTTP/1.1 isn't spoken, also where a client doesn't say what it speaks.
            Encryption::Https if stream.get_ref().1.alpn_protocol().is_none() => {}
            Encryption::Https => {
                let (dns, clock) = (self.tcp.dns.clone(), self.tcp.clock.clone());
                let requests = https::Requests::new(dns, clock, from, place.clone());
                https::converse(requests, stream).await;
            }
        }
    }
}
