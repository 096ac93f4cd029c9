//! Challenges, and whom the agent connects to for them.

use std::{collections::BTreeMap, io, net::SocketAddr};

use innermesh_proto::crypto::Hash;
use ipnet::IpNet;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::acme::{order::Method, problem::Kind};
use innermesh_host::{Network, Stream};

/// What answers at an address.
#[derive(Clone)]
pub(super) enum Answers {
    /// HTTP with this response.
    Http(String),
    /// HTTP with this response at a path, and a redirect everywhere else.
    Moved(&'static str, &'static str, String),
    /// The same over TLS, by this certificate; or only TLS.
    Tls(Arc<rustls::ServerConfig>, String),
}

/// A network in which only what a test put there answers, and which remembers
/// who was asked.
pub(super) struct FakeNet {
    real: Arc<dyn Network>,
    answers: Mutex<BTreeMap<SocketAddr, Answers>>,
    asked: Mutex<BTreeSet<SocketAddr>>,
}

impl FakeNet {
    pub(super) fn new(real: Arc<dyn Network>) -> Self {
        Self {
            real,
            answers: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    pub(super) fn answer(&self, port: u16, answers: Answers) {
        let at = SocketAddr::new(OWN, port);
        self.answers.lock().unwrap().insert(at, answers);
    }

    fn asked(&self) -> BTreeSet<SocketAddr> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Network for FakeNet {
    fn quic_socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.real.quic_socket(listen)
    }
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        self.real.quic_runtime()
    }
    async fn local_addresses(&self) -> Vec<(String, IpAddr)> {
        Vec::new()
    }
    async fn clash(&self, _: IpNet, _: &str) -> Option<String> {
        None
    }
    async fn upstream_resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        self.asked.lock().unwrap().insert(address);
        let answers = self.answers.lock().unwrap().get(&address).cloned();
        let answers = answers.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            match answers {
                Answers::Http(response) => respond(theirs, |_| response).await,
                Answers::Moved(path, location, response) => {
                    let wanted = format!("GET {path} HTTP/1.1");
                    let is_there = |asked: &str| asked.lines().next() == Some(&wanted);
                    let elsewhere = moved(location);
                    let at = |asked: &str| if is_there(asked) { response } else { elsewhere };
                    respond(theirs, at).await;
                }
                Answers::Tls(config, response) => {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(theirs).await {
                        respond(stream, |_| response).await;
                    }
                }
            }
        });
        Ok(Box::new(ours))
    }
    async fn probe_tcp(&self, _: SocketAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn probe_http(&self, _: SocketAddr, _: &str, _: &str) -> io::Result<u16> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

async fn respond(mut stream: impl Stream, response: impl FnOnce(&str) -> String) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend(&buffer[..length]),
        }
    }
    let response = response(&String::from_utf8_lossy(&request));
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
}

pub(super) fn ok(body: &str) -> Answers {
    Answers::Http(found(body))
}

fn found(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn redirect(location: &str) -> Answers {
    Answers::Http(moved(location))
}

fn moved(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// A TLS server's certificate; with `digest` it answers a challenge.
fn tls(names: &[&str], digest: Option<&[u8]>, protocol: &[u8]) -> Arc<rustls::ServerConfig> {
    let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.custom_extensions = digest
        .map(CustomExtension::new_acme_identifier)
        .into_iter()
        .collect();
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let pkcs8 = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // rustls would look at the certificate, and refuse the extension.
    let key = aws_lc_rs::sign::any_supported_type(&pkcs8).unwrap();
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn photos() -> Identifier {
    Identifier::Dns("photos.lab.internal".into())
}

async fn validate(
    server: &Server,
    method: Method,
    identifier: &Identifier,
) -> Result<(), (Kind, String)> {
    let shown = server
        .acme
        .validate(method, identifier, "tok", "tok.key")
        .await;
    shown.map_err(|problem| (problem.r#type, problem.detail))
}

#[tokio::test]
async fn a_file_of_the_web_server_shows_control() {
    let server = server().await;
    server.net.answer(80, ok("tok.key\n"));
    assert_eq!(validate(&server, Method::Http, &photos()).await, Ok(()));
    let address = Identifier::Ip(OWN);
    assert_eq!(validate(&server, Method::Http, &address).await, Ok(()));
    // To https, where any certificate will do.
    server
        .net
        .answer(80, redirect("https://photos.lab.internal/x"));
    let Answers::Http(response) = ok("tok.key") else {
        unreachable!()
    };
    let config = tls(&["other.example"], None, b"http/1.1");
    server.net.answer(443, Answers::Tls(config, response));
    assert_eq!(validate(&server, Method::Http, &photos()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_relative_redirect_of_the_web_server_is_followed() {
    for (location, leads) in [
        ("other", "/.well-known/acme-challenge/other"),
        ("../../elsewhere?q", "/elsewhere?q"),
        ("?again", "/.well-known/acme-challenge/tok?again"),
    ] {
        let server = server().await;
        let answers = Answers::Moved(leads, location, found("tok.key"));
        server.net.answer(80, answers);
        let shown = validate(&server, Method::Http, &photos()).await;
        assert_eq!(shown, Ok(()), "{location}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_answer_is_none() {
    let long = "x".repeat(5000);
    for (answers, kind) in [
        (ok("tok.other"), Kind::IncorrectResponse),
        (ok(""), Kind::IncorrectResponse),
        (ok(&long), Kind::Connection),
        (ok("tok.key and more"), Kind::IncorrectResponse),
        (
            Answers::Http("HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\ntok.key".into()),
            Kind::Unauthorized,
        ),
        (
            Answers::Http("SSH-2.0-nothing\r\n".into()),
            Kind::Connection,
        ),
        (Answers::Http(String::new()), Kind::Connection),
        (redirect("/again"), Kind::Connection),
    ] {
        let server = server().await;
        server.net.answer(80, answers);
        let (got, detail) = validate(&server, Method::Http, &photos())
            .await
            .unwrap_err();
        assert_eq!(got, kind, "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_but_members_at_the_web_s_ports_is_connected_to() {
    for location in [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "https://192.168.1.1/admin",
        "http://169.254.169.254/latest/meta-data",
        "http://example.com/",
        "http://photos.lab.internal:8080/",
        "http://photos.lab.internal:22/",
        "http://10.42.0.9/",
        "http://2130706433/",
        "http://0x7f.1/",
        "gopher://photos.lab.internal/",
        "http://user@127.0.0.1/",
    ] {
        let server = server().await;
        server.net.answer(80, redirect(location));
        let refused = validate(&server, Method::Http, &photos()).await;
        assert!(refused.is_err(), "{location}");
        let asked = server.net.asked();
        assert_eq!(asked, [SocketAddr::new(OWN, 80)].into(), "{location}");
    }
    // A name without an address in the mesh, and addresses of nobody.
    let server = server().await;
    for identifier in [
        Identifier::Dns("mail.lab.internal".into()),
        Identifier::Ip("127.0.0.1".parse().unwrap()),
        Identifier::Ip("192.168.1.1".parse().unwrap()),
    ] {
        for method in [Method::Http, Method::TlsAlpn] {
            let (kind, _) = validate(&server, method, &identifier).await.unwrap_err();
            assert_eq!(kind, Kind::Dns);
        }
    }
    assert!(server.net.asked().is_empty());
}

#[tokio::test]
async fn a_certificate_of_the_tls_server_shows_control() {
    let server = server().await;
    let digest = Hash::of(b"tok.key").0;
    let with = |names: &[&str], digest: &[u8; 32]| {
        Answers::Tls(tls(names, Some(digest), b"acme-tls/1"), String::new())
    };
    server
        .net
        .answer(443, with(&["photos.lab.internal"], &digest));
    assert_eq!(validate(&server, Method::TlsAlpn, &photos()).await, Ok(()));
    server.net.answer(443, with(&["10.42.0.1"], &digest));
    let address = Identifier::Ip(OWN);
    assert_eq!(validate(&server, Method::TlsAlpn, &address).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn another_certificate_shows_nothing() {
    let digest = Hash::of(b"tok.key").0;
    let name = "photos.lab.internal";
    for (config, kind) in [
        (
            tls(&[name], Some(&[0; 32]), b"acme-tls/1"),
            Kind::IncorrectResponse,
        ),
        (tls(&[name], None, b"acme-tls/1"), Kind::IncorrectResponse),
        (
            tls(&[name, "films.lab.internal"], Some(&digest), b"acme-tls/1"),
            Kind::IncorrectResponse,
        ),
        (
            tls(&["films.lab.internal"], Some(&digest), b"acme-tls/1"),
            Kind::IncorrectResponse,
        ),
        (
            tls(&["10.42.0.1"], Some(&digest), b"acme-tls/1"),
            Kind::IncorrectResponse,
        ),
        // A web server that knows nothing of it.
        (tls(&[name], Some(&digest), b"http/1.1"), Kind::Tls),
    ] {
        let server = server().await;
        server.net.answer(443, Answers::Tls(config, String::new()));
        let (got, detail) = validate(&server, Method::TlsAlpn, &photos())
            .await
            .unwrap_err();
        assert_eq!(got, kind, "{detail}");
    }
}
