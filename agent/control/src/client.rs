//! The command line's side of the control socket: one connection for each
//! request.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use innermesh_proto::limits;
use tokio::net::UnixStream;

use super::{
    error::ControlError,
    request::{Request, written},
    server::TRACEPARENT,
};
use innermesh_host::telemetry;

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
    #[error("the agent isn't running (no answer on {0})")]
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

impl Client {
    /// For the agent behind `socket`, which needn't be there yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks the agent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask<R: Request>(&self, request: &R) -> Result<R::Answer, ClientError> {
        let (path, body) = written(request).map_err(|e| ClientError::Broken(e.to_string()))?;
        let exchange = self.exchange(R::METHOD, &path, body.into());
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| ClientError::Timeout(self.socket.clone()))??;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|e| ClientError::NotUnderstood(e.to_string()));
        }
        match serde_json::from_slice::<ControlError>(&body) {
            Ok(error) => Err(error.into()),
            Err(_) => Err(ClientError::NotUnderstood(status.to_string())),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |e: hyper::Error| ClientError::Broken(e.to_string());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.no_connection(e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut request = hyper::Request::builder()
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
