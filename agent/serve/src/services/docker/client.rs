//! Asks Docker over its Unix socket: HTTP/1.1, GET only, a connection for each request.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use innermesh_host::{Clock, Host, Network};
use innermesh_proto::limits;
use tokio::sync::mpsc;

use super::{
    answer::{self, AnswerError, ContainerId, Event, RunState},
    tracker::{Looked, Outcome, Ticket},
};

/// Running containers with a name for us: `{"label":["innermesh.name"]}`.
const LIST: &str = "/containers/json?filters=%7B%22label%22%3A%5B%22innermesh.name%22%5D%7D";
/// What happens to these, but for commands in them, which health checks are made of:
/// `{"type":["container"],"label":["innermesh.name"],"event":[…]}`.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C\
     %22label%22%3A%5B%22innermesh.name%22%5D%2C\
     %22event%22%3A%5B%22start%22%2C%22die%22%2C%22destroy%22%2C%22pause%22%2C%22unpause%22%2C\
     %22rename%22%2C%22health_status%22%5D%7D";
/// How long Docker may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why Docker tells nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum DockerError {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("it broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("it broke off")]
    Ended,
    #[error("it answered with HTTP status {0}; is this Docker's socket?")]
    Status(StatusCode),
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("it took longer than {} ms to answer", .0.as_millis())]
    Late(Duration),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl DockerError {
    /// Whether it answered, and that answer is the trouble.
    fn is_of_the_answer(&self) -> bool {
        matches!(self, Self::Status(_) | Self::TooLong(_) | Self::Answer(_))
    }
}

/// What comes by the stream of events.
pub(super) enum Told {
    /// What happens from now on.
    Listening,
    Event(Event),
}

/// Asks Docker. Clones are the same.
#[derive(Clone)]
pub(super) struct Client {
    clock: Arc<dyn Clock>,
    net: Arc<dyn Network>,
    socket: PathBuf,
}

impl Client {
    pub fn new(host: &Host, socket: PathBuf) -> Self {
        Self {
            clock: host.clock.clone(),
            net: host.net.clone(),
            socket,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The running containers with a name for us.
    pub async fn list(&self) -> Result<Vec<ContainerId>, DockerError> {
        let bytes = self.get(LIST, limits::DOCKER_LIST_BYTES).await?;
        let bytes = bytes.ok_or(DockerError::Status(StatusCode::NOT_FOUND))?;
        Ok(answer::listed(&bytes)?)
    }

    /// Inspects a container, and the labels of its image.
    pub async fn look(&self, id: ContainerId, ticket: Ticket) -> (ContainerId, Ticket, Outcome) {
        let outcome = match self.looked(&id).await {
            Ok(Some(looked)) => Outcome::Seen(Box::new(looked)),
            Ok(None) => Outcome::Absent,
            Err(error) if error.is_of_the_answer() => Outcome::Unusable(error.to_string()),
            Err(error) => {
                tracing::debug!(?id, %error, "a container can't be looked at");
                Outcome::NoAnswer
            }
        };
        (id, ticket, outcome)
    }

    async fn looked(&self, id: &ContainerId) -> Result<Option<Looked>, DockerError> {
        let path = format!("/containers/{}/json", id.as_str());
        let Some(bytes) = self.get(&path, limits::DOCKER_ANSWER_BYTES).await? else {
            return Ok(None);
        };
        let container = answer::inspected(&bytes)?;
        let mut looked = Looked {
            container,
            image: Default::default(),
        };
        let Looked { container, image } = &mut looked;
        if container.state != RunState::Ended && container.labels.contains_key("name") {
            let path = format!("/images/{}/json", container.image.as_str());
            // Who removed the image of a container that runs isn't who made it.
            if let Some(bytes) = self.get(&path, limits::DOCKER_ANSWER_BYTES).await? {
                *image = answer::image_labels(&bytes)?;
            }
        }
        Ok(Some(looked))
    }

    /// Tells what happens until the connection ends.
    pub async fn follow(&self, tell: &mpsc::Sender<Told>) -> Result<Infallible, DockerError> {
        let (mut sender, connection) = self.connect().await?;
        let reading = async {
            let response = self
                .in_time(async { Ok(sender.send_request(request(EVENTS)).await?) })
                .await?;
            if !response.status().is_success() {
                return Err(DockerError::Status(response.status()));
            }
            let gone = |_| DockerError::Ended;
            tell.send(Told::Listening).await.map_err(gone)?;
            let mut body: Incoming = response.into_body();
            let mut lines = Lines::default();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else {
                    continue;
                };
                for event in lines.take(&data)? {
                    tell.send(Told::Event(event)).await.map_err(gone)?;
                }
            }
            Err(DockerError::Ended)
        };
        tokio::select! {
            ended = reading => ended,
            () = moved(connection) => Err(DockerError::Ended),
        }
    }

    /// The body of an answer; `None` where there is no such thing.
    async fn get(&self, path: &str, most: usize) -> Result<Option<Bytes>, DockerError> {
        self.in_time(async {
            let (mut sender, connection) = self.connect().await?;
            let asking = async {
                let response = sender.send_request(request(path)).await?;
                match response.status() {
                    StatusCode::NOT_FOUND => return Ok(None),
                    status if !status.is_success() => return Err(DockerError::Status(status)),
                    _ => {}
                }
                let body = Limited::new(response.into_body(), most).collect().await;
                let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                    Ok(error) => DockerError::Broken(*error),
                    Err(other) if other.is::<LengthLimitError>() => DockerError::TooLong(most),
                    Err(_) => DockerError::Ended,
                })?;
                Ok(Some(body.to_bytes()))
            };
            tokio::select! {
                answer = asking => answer,
                () = moved(connection) => Err(DockerError::Ended),
            }
        })
        .await
    }

    async fn connect(&self) -> Result<(Sender, Connection), DockerError> {
        self.in_time(async {
            let stream = self.net.connect_unix(&self.socket).await?;
            Ok(http1::handshake(TokioIo::new(stream)).await?)
        })
        .await
    }

    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, DockerError> {
        tokio::select! {
            answer = asking => answer,
            () = self.clock.sleep(PATIENCE) => Err(DockerError::Late(PATIENCE)),
        }
    }
}

type Sender = http1::SendRequest<Empty<Bytes>>;
type Connection = http1::Connection<TokioIo<Box<dyn innermesh_host::Stream>>, Empty<Bytes>>;

/// A connection moves bytes for whoever reads the answer, and its own error says less.
async fn moved(connection: Connection) {
    let _ = connection.await;
    std::future::pending().await
}

fn request(path: &str) -> hyper::Request<Empty<Bytes>> {
    let mut request = hyper::Request::new(Empty::new());
    // Paths are constants and hexadecimal ids.
    *request.uri_mut() = path.parse().unwrap_or_default();
    let host = hyper::header::HeaderValue::from_static("docker");
    request.headers_mut().insert(HOST, host);
    request
}

/// Events of a stream whose pieces end anywhere: each stands in a line.
#[derive(Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes a piece; gives the events of the lines that end in it.
    ///
    /// # Errors
    /// `AnswerError`, also for a line longer than [`limits::DOCKER_EVENT_BYTES`].
    pub fn take(&mut self, piece: &[u8]) -> Result<Vec<Event>, AnswerError> {
        let mut events = Vec::new();
        let mut pieces = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = pieces.next() {
            if self.begun.len() + part.len() > limits::DOCKER_EVENT_BYTES {
                return Err(AnswerError::LongLine);
            }
            self.begun.extend_from_slice(part);
            if pieces.peek().is_some() {
                let line = std::mem::take(&mut self.begun);
                if !line.trim_ascii().is_empty() {
                    events.extend(answer::event(&line)?);
                }
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_may_come_in_pieces_and_have_bounds() {
        let line = format!(
            r#"{{"Type":"container","Action":"start","Actor":{{"ID":"{}"}}}}"#,
            "ab".repeat(32)
        );
        let all = format!("{line}\n\r\n{line}\n{line}");
        let mut lines = Lines::default();
        let events: Vec<usize> = all
            .as_bytes()
            .chunks(7)
            .map(|piece| lines.take(piece).unwrap().len())
            .collect();
        assert_eq!(events.iter().sum::<usize>(), 2);
        assert_eq!(lines.take(b"\n").unwrap().len(), 1);
        let long = vec![b' '; limits::DOCKER_EVENT_BYTES];
        assert!(lines.take(&long).is_ok());
        assert!(lines.take(b" ").is_err());
    }

    #[test]
    fn the_filters_are_what_they_say() {
        for (path, wanted) in [
            (LIST, r#"{"label":["innermesh.name"]}"#),
            (
                EVENTS,
                r#"{"type":["container"],"label":["innermesh.name"],"event":["start","die",
                   "destroy","pause","unpause","rename","health_status"]}"#,
            ),
        ] {
            let (_, coded) = path.split_once("filters=").unwrap();
            let plain = coded
                .replace("%7B", "{")
                .replace("%7D", "}")
                .replace("%22", "\"")
                .replace("%3A", ":")
                .replace("%5B", "[")
                .replace("%5D", "]")
                .replace("%2C", ",");
            let read: serde_json::Value = serde_json::from_str(&plain).unwrap();
            let wanted: serde_json::Value = serde_json::from_str(wanted).unwrap();
            assert_eq!(read, wanted);
            assert_eq!(request(path).uri(), path);
        }
    }
}
