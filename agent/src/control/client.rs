//! The command line's side of the control socket: one connection for each
//! request.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use innermesh_proto::{limits, name::Label};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{
    api::{
        CertRequest, CertRow, ControlError, Invite, InviteRequest, Issued, Peer, PingReply,
        QueryReport, ServiceAdded, ServiceRow, Status,
    },
    server::{Done, TRACEPARENT, ZoneText},
};
use crate::{services::Spec, telemetry};

/// Longer than the agent gives itself, so that its own words arrive.
const TIMEOUT: Duration = Duration::from_millis(limits::CONTROL_REQUEST_MS + 5_000);

/// Talks to the agent behind a socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket. Nothing was changed.
    #[error(
        "the agent isn't running (no answer on {0}); start it with `systemctl start innermesh` or `agent run`"
    )]
    NotRunning(PathBuf),
    /// The socket can't be used. Nothing was changed.
    #[error("the agent can't be reached on {0}: {1}")]
    Unreachable(PathBuf, io::Error),
    /// It took too long. What was asked may be done or not.
    #[error("the agent on {0} took too long to answer; is it overloaded or stopped?")]
    Timeout(PathBuf),
    /// The agent refused, in its own words.
    #[error(transparent)]
    Refused(#[from] ControlError),
    /// The connection broke. What was asked may be done or not.
    #[error("the agent broke off ({0}); try again, and look at its log: `journalctl -u innermesh`")]
    Broken(String),
    /// An answer that this build can't read. What was asked is done.
    #[error("the agent's answer isn't understood ({0}); is another version running? restart it")]
    NotUnderstood(String),
}

/// What comes back.
pub type Answer<T> = Result<T, ClientError>;

impl Client {
    /// For the agent behind `socket`, which needn't be there yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// See [`super::Control::status`]; so with all below.
    ///
    /// # Errors
    /// [`ClientError`], here and below.
    pub async fn status(&self) -> Answer<Status> {
        self.get("/v1/status").await
    }

    /// The other members.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn peers(&self) -> Answer<Vec<Peer>> {
        self.get("/v1/peers").await
    }

    /// Probes a member.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ping(&self, node: &Label, count: u32) -> Answer<PingReply> {
        self.get(&format!("/v1/ping?node={node}&count={count}"))
            .await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invite(&self, request: &InviteRequest) -> Answer<Invite> {
        self.post("/v1/invites", request).await
    }

    /// Adds or changes a service.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn service_add(&self, service: &Spec) -> Answer<ServiceAdded> {
        self.post("/v1/services", service).await
    }

    /// Takes a service away.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn service_rm(&self, name: &Label, release: bool) -> Answer<()> {
        let path = format!("/v1/services/{name}?release={release}");
        let Done {} = self.call(Method::DELETE, &path, Bytes::new()).await?;
        Ok(())
    }

    /// The services of all nodes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn service_list(&self) -> Answer<Vec<ServiceRow>> {
        self.get("/v1/services").await
    }

    /// Has a certificate issued.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cert_issue(&self, request: &CertRequest) -> Answer<Issued> {
        self.post("/v1/certificates", request).await
    }

    /// Every certificate.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cert_list(&self) -> Answer<Vec<CertRow>> {
        self.get("/v1/certificates").await
    }

    /// Asks the resolver.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dns_query(&self, name: &str, rtype: &str) -> Answer<QueryReport> {
        let (name, rtype) = (escape(name), escape(rtype));
        self.get(&format!("/v1/dns/query?name={name}&type={rtype}"))
            .await
    }

    /// The zone as text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dns_zone(&self) -> Answer<String> {
        let ZoneText { zone } = self.get("/v1/dns/zone").await?;
        Ok(zone)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Answer<T> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Broken(e.to_string()))?;
        self.call(Method::POST, path, body.into()).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Answer<T> {
        let (status, body) = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body))
            .await
            .map_err(|_| ClientError::Timeout(self.socket.clone()))??;
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|e| ClientError::NotUnderstood(e.to_string()))
        } else {
            match serde_json::from_slice::<ControlError>(&body) {
                Ok(error) => Err(error.into()),
                Err(_) => Err(ClientError::NotUnderstood(status.to_string())),
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Answer<(StatusCode, Bytes)> {
        let broken = |e: hyper::Error| ClientError::Broken(e.to_string());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.no_connection(e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "agent")
            .header(CONTENT_TYPE, "application/json");
        if let Some(parent) = telemetry::traceparent() {
            request = request.header(TRACEPARENT, parent);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|e| ClientError::Broken(e.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), limits::CONTROL_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|e| ClientError::Broken(e.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        // The connection only moves bytes for the exchange, whose own error
        // says more; it may end first, with the answer already buffered.
        let moving = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = exchange => answer,
            () = moving => Err(ClientError::Broken("the connection ended".into())),
        }
    }

    fn no_connection(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(self.socket.clone())
            }
            _ => ClientError::Unreachable(self.socket.clone(), error),
        }
    }
}

/// Percent-encoding of all but RFC 3986's unreserved characters (§2.3).
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}
