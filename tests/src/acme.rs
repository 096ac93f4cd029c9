//! What an ACME client in this process needs to be one of a host of the
//! laboratory: a way for its requests, which writes down what was answered, and
//! a web server for its challenges. RFC 8555.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Bytes,
    client::conn::{http1, http2},
    header::HeaderValue,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient,
    Identifier, NewOrder, RetryPolicy,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::{
    Agent, Host, Process,
    agent::{DOMAIN, PATIENCE},
    namespace::inside,
    wait_for,
    web::Web,
};

/// What is put in place of a nonce that is to be refused.
const SPOILT: &str = "c3BvaWx0";
const NONCE: &str = "replay-nonce";

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// What the client was at; see [`Way::step`].
    pub step: String,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
    /// The names of the headers, in lower case.
    pub headers: BTreeSet<String>,
    /// What the body is said to be.
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

/// The way of requests to one server, from a host: HTTP/1.1 or HTTP/2 over TLS,
/// on one connection for as long as the server keeps it.
#[derive(Clone)]
pub struct Way(Arc<Inner>);

struct Inner {
    network: File,
    server: SocketAddr,
    tls: TlsConnector,
    connection: tokio::sync::Mutex<Option<http1::SendRequest<Full<Bytes>>>>,
    /// The same of HTTP/2, where that is spoken: for many requests at a time.
    shared: Option<tokio::sync::Mutex<Option<http2::SendRequest<Full<Bytes>>>>>,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    step: String,
    seen: Vec<Exchange>,
    /// Each of how many nonces is spoilt; 0 for none.
    spoil: usize,
    nonces: usize,
}

impl Way {
    /// From `host` to `server`, whatever name a URL has; its certificate is
    /// checked against `root`, PEM.
    ///
    /// # Panics
    /// When the root can't be used.
    #[must_use]
    pub fn new(host: &Host, server: SocketAddr, root: &str) -> Self {
        Self::with(host, server, root, None)
    }

    /// As [`Way::new`], by HTTP/2.
    ///
    /// # Panics
    /// When the root can't be used.
    #[must_use]
    pub fn http_2(host: &Host, server: SocketAddr, root: &str) -> Self {
        Self::with(host, server, root, Some(tokio::sync::Mutex::default()))
    }

    fn with(
        host: &Host,
        server: SocketAddr,
        root: &str,
        shared: Option<tokio::sync::Mutex<Option<http2::SendRequest<Full<Bytes>>>>>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("a root");
        roots.add(root).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        if shared.is_some() {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Self(Arc::new(Inner {
            network: host.network().expect("the host's network"),
            server,
            tls: TlsConnector::from(Arc::new(config)),
            connection: tokio::sync::Mutex::default(),
            shared,
            notes: Mutex::default(),
        }))
    }

    /// Has every `each`th nonce be one that the server has to refuse.
    pub fn spoil_nonces(&self, each: usize) {
        self.notes().spoil = each;
    }

    /// Notes what follows under this title.
    pub fn step(&self, title: &str) {
        title.clone_into(&mut self.notes().step);
    }

    /// What was answered so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Exchange> {
        self.notes().seen.clone()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.unwrap_or_else(|never| match never {});
        let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        let authority = parts
            .uri
            .authority()
            .ok_or(Error::Str("a URL has a host"))?;
        let (name, host) = (authority.host().to_owned(), authority.to_string());
        if self.0.shared.is_none() {
            let host = HeaderValue::from_str(&host).map_err(other)?;
            parts.headers.insert("host", host);
            parts.uri = parts.uri.path().parse().map_err(other)?;
        }
        let request = Request::from_parts(parts, Full::new(body.to_bytes()));
        let response = self.send(request, &name).await.map_err(other)?;

        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map_err(other)?.to_bytes();
        let mut notes = self.notes();
        let exchange = Exchange {
            step: notes.step.clone(),
            method,
            path,
            status: parts.status.as_u16(),
            headers: parts.headers.keys().map(ToString::to_string).collect(),
            content_type: parts
                .headers
                .get("content-type")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body: body.to_vec(),
        };
        notes.seen.push(exchange);
        if parts.headers.contains_key(NONCE) {
            notes.nonces += 1;
            if notes.spoil > 0 && notes.nonces.is_multiple_of(notes.spoil) {
                let spoilt = HeaderValue::from_static(SPOILT);
                parts.headers.insert(NONCE, spoilt);
            }
        }
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }

    /// On the connection that is there, or on a new one.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        name: &str,
    ) -> Result<Response<hyper::body::Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        if let Some(shared) = &self.0.shared {
            let mut sender = self.shared(shared, name).await?;
            sender.ready().await?;
            return Ok(sender.send_request(request).await?);
        }
        let mut connection = self.0.connection.lock().await;
        let kept = match connection.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut sender = match kept {
            Some(kept) => kept,
            None => {
                let (sender, connection) = http1::handshake(self.connect(name).await?).await?;
                tokio::spawn(connection);
                sender
            }
        };
        let response = sender.send_request(request).await?;
        *connection = Some(sender);
        Ok(response)
    }

    async fn shared(
        &self,
        shared: &tokio::sync::Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
        name: &str,
    ) -> Result<http2::SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let mut shared = shared.lock().await;
        if let Some(kept) = shared.as_ref().filter(|kept| !kept.is_closed()) {
            return Ok(kept.clone());
        }
        let stream = self.connect(name).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(shared.insert(sender).clone())
    }

    async fn connect(
        &self,
        name: &str,
    ) -> Result<
        TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
        Box<dyn std::error::Error + Send + Sync>,
    > {
        let (network, server) = (self.0.network.try_clone()?, self.0.server);
        let patience = Duration::from_secs(5);
        let stream = inside(network, move || {
            TcpStream::connect_timeout(&server, patience)
        })?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(TokioIo::new(self.0.tls.connect(name, stream).await?))
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

impl HttpClient for Way {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().ask(request))
    }
}

/// A web server on port 80 that has answers to `http-01`.
#[derive(Debug, Clone, Default)]
pub struct Responder(Arc<Mutex<BTreeMap<String, String>>>);

impl Responder {
    /// Starts one on a host; it ends with the laboratory.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(host: &Host) -> io::Result<Self> {
        let listener = host.listen((Ipv6Addr::UNSPECIFIED, 80).into())?;
        let responder = Self::default();
        let answers = responder.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // A client that went away is no news.
                let _ = answers.answer(stream);
            }
        });
        Ok(responder)
    }

    /// Has an answer to a token from now on.
    pub fn set(&self, token: &str, answer: &str) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(token.to_owned(), answer.to_owned());
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let asked = lines.next().transpose()?.unwrap_or_default();
        while lines
            .next()
            .transpose()?
            .is_some_and(|line| !line.is_empty())
        {}
        let path = asked.split(' ').nth(1).unwrap_or_default();
        let token = path.rsplit('/').next().unwrap_or_default();
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = match answers.get(token) {
            Some(answer) => ("200 OK", answer.as_str()),
            None => ("404 Not Found", ""),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Starts pebble, in strict mode, on the host of an agent that has the service
/// photos, under that name and on `port`; tells where it listens.
///
/// It neither waits nor refuses nonces by itself: see [`Way::spoil_nonces`].
///
/// # Panics
/// When it doesn't answer.
#[must_use]
pub fn start_pebble(agent: &Agent, web: &Web<'_>, port: u16) -> (SocketAddr, Process) {
    start_pebble_asking(agent, web, port, agent.dns())
}

/// As [`start_pebble`]; it asks this name server.
///
/// # Panics
/// When it doesn't answer.
#[must_use]
pub fn start_pebble_asking(
    agent: &Agent,
    web: &Web<'_>,
    port: u16,
    dns: SocketAddr,
) -> (SocketAddr, Process) {
    let certs = "/etc/innermesh/certs";
    let issue = ["cert", "issue", "photos", "--out", certs];
    let _ = agent.cli(&issue).ok();
    let config = serde_json::json!({ "pebble": {
        "listenAddress": format!("[::]:{port}"),
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": format!("{certs}/photos.crt"),
        "privateKey": format!("{certs}/photos.key"),
        "httpPort": 80,
        "tlsPort": 443,
    }});
    let path = "/etc/pebble.json";
    web.put(path, &config.to_string());
    let dns = dns.to_string();
    let words = ["pebble", "-strict", "-config", path, "-dnsserver", &dns];
    let fixed = [
        ("PEBBLE_VA_NOSLEEP", "1"),
        ("PEBBLE_AUTHZREUSE", "0"),
        ("PEBBLE_WFE_NONCEREJECT", "0"),
    ];
    let process = web.start("pebble", &words, &fixed);
    let url = format!("https://photos.{DOMAIN}:{port}/dir");
    wait_for("pebble", PATIENCE, || web.curl(&[&url]).result());
    let overlay: Ipv4Addr = agent.overlay_ipv4(&agent.name).parse().expect("an address");
    ((overlay, port).into(), process)
}

/// Brings an order for one name from its start to its certificate, PEM, by
/// `http-01`.
///
/// # Errors
/// The client's.
pub async fn certificate(
    account: &Account,
    responder: &Responder,
    name: &str,
) -> Result<String, Error> {
    certificate_for(account, responder, &[Identifier::Dns(name.to_owned())]).await
}

/// As [`certificate`], for names and addresses.
///
/// # Errors
/// The client's.
pub async fn certificate_for(
    account: &Account,
    responder: &Responder,
    identifiers: &[Identifier],
) -> Result<String, Error> {
    let retries = RetryPolicy::new()
        .initial_delay(Duration::from_millis(1))
        .timeout(Duration::from_secs(60));
    let mut order = account.new_order(&NewOrder::new(identifiers)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            // Used again by the server.
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(Error::Str("no http-01"))?;
        let answer = challenge.key_authorization();
        responder.set(&challenge.token, answer.as_str());
        challenge.set_ready().await?;
    }
    order.poll_ready(&retries).await?;
    order.finalize().await?;
    order.poll_certificate(&retries).await
}
