//! Connections to a name server that is asked over TCP, TLS or HTTPS: one at a time,
//! kept while it is used, with many questions under way, made again when it is lost,
//! and later each time that fails. Another transport is never tried instead.

mod https;
mod stream;

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use innermesh_host::{Clock, Mono, Stream, mark, tasks::Tasks, within};
use innermesh_proto::limits;
use rustls::ClientConfig;
use tokio::{
    net::TcpSocket,
    sync::{mpsc, oneshot},
};
use tokio_rustls::TlsConnector;

use super::{
    super::name_server::{NameServer, Transport},
    tls::{UpstreamTrust, server_name},
};

/// How long TCP's and TLS's handshakes may take together; less than a question has.
const CONNECT: Duration = Duration::from_millis(2500);
/// How long a connection is kept without questions. Servers close earlier or later
/// (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(15);
/// How long the oldest question waits on a connection from which nothing comes, until
/// it is taken for dead: a question has as long.
const SILENCE: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses from the second failure in a row on: twice as long each time, up to the
/// second. A stub resolver asks again after 5 s.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_AT_MOST: Duration = Duration::from_secs(5);
/// How old what a client knows of roots may be.
const ROOTS: Duration = Duration::from_secs(3600);

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::dns) enum KeptError {
    #[error("can't connect: {0}")]
    Connect(String),
    #[error("no encrypted connection: {0}")]
    Handshake(String),
    #[error("it doesn't speak HTTP/2")]
    NoHttp2,
    #[error("it closed the connection")]
    Closed,
    #[error("it doesn't answer")]
    Silent,
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("its answer is no message of DNS")]
    NoMessage,
    #[error("too many questions are under way to it")]
    Busy,
}

/// A name server that is asked by such connections.
pub(super) struct Kept(mpsc::Sender<Asked>);

/// What connections need.
#[derive(Clone)]
pub(in crate::dns) struct Surroundings {
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub trust: UpstreamTrust,
}

/// A question that waits for its answer.
struct Asked {
    message: Vec<u8>,
    answer: oneshot::Sender<Result<Vec<u8>, KeptError>>,
    /// Whether a connection was lost under it before.
    was_lost: bool,
}

impl Asked {
    /// As it was asked.
    fn id(&self) -> [u8; 2] {
        self.message.first_chunk().copied().unwrap_or_default()
    }

    fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    fn end(self, answer: Result<Vec<u8>, KeptError>) {
        // Whoever asked may have got an answer elsewhere.
        let _ = self.answer.send(answer);
    }
}

impl Kept {
    /// Connects once something is asked. Ends when this is dropped.
    pub fn new(server: NameServer, around: &Surroundings) -> Self {
        let (questions, asked) = mpsc::channel(limits::DNS_FORWARDS);
        let keeper = Keeper {
            server,
            around: around.clone(),
            asked,
            lost: VecDeque::new(),
            failures: 0,
            tls: None,
        };
        around.tasks.spawn(keeper.run());
        Self(questions)
    }

    /// The server's answer to a message, with the same id.
    pub async fn ask(&self, message: Vec<u8>) -> Result<Vec<u8>, KeptError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            message,
            answer,
            was_lost: false,
        };
        self.0.try_send(asked).map_err(|_| KeptError::Busy)?;
        answered.await.unwrap_or(Err(KeptError::Closed))
    }
}

/// Keeps the connection.
struct Keeper {
    server: NameServer,
    around: Surroundings,
    asked: mpsc::Receiver<Asked>,
    /// What a connection was lost under, to be asked once more (RFC 7766 §6.2.4).
    lost: VecDeque<Asked>,
    /// Connections in a row by which nothing was answered.
    failures: u32,
    tls: Option<(Mono, Arc<ClientConfig>)>,
}

/// How a connection ended.
struct Ended {
    /// What wasn't answered.
    open: Vec<Asked>,
    has_answered: bool,
    why: KeptError,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            self.lost.retain(|asked| !asked.is_given_up());
            if self.lost.is_empty() {
                match self.asked.recv().await {
                    Some(asked) if asked.is_given_up() => continue,
                    Some(asked) => self.lost.push_back(asked),
                    None => return,
                }
            }
            let connected = within(&*self.around.clock.clone(), CONNECT, self.connect()).await;
            let timeout = || Err(KeptError::Connect("no answer in time".into()));
            let ended = match connected.unwrap_or_else(timeout) {
                Ok(stream) => self.converse(stream).await,
                Err(why) => Ended {
                    open: Vec::new(),
                    has_answered: false,
                    why,
                },
            };
            self.end(ended).await;
        }
    }

    /// What a lost connection leaves is asked again, where it had answered before; else
    /// all that waits fails, and what is asked during a pause too.
    async fn end(&mut self, ended: Ended) {
        let Ended {
            open,
            has_answered,
            why,
        } = ended;
        let (again, failed) = open
            .into_iter()
            .partition::<Vec<Asked>, _>(|asked| has_answered && !asked.was_lost);
        for asked in failed {
            asked.end(Err(why.clone()));
        }
        for mut asked in again {
            asked.was_lost = true;
            self.lost.push_back(asked);
        }
        if has_answered {
            self.failures = 0;
            return;
        }
        // One that nothing was asked on says nothing of the server.
        tracing::debug!(server = %self.server, %why, "a name server isn't reached");
        for asked in self.lost.drain(..) {
            asked.end(Err(why.clone()));
        }
        self.failures += 1;
        // A name that it takes long to find out about is no failure yet.
        let Some(more) = self.failures.checked_sub(2) else {
            return;
        };
        let pause = PAUSE * 2u32.pow(more.min(8));
        let clock = self.around.clock.clone();
        let pause = clock.sleep(pause.min(PAUSE_AT_MOST));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(asked) => asked.end(Err(why.clone())),
                    None => return,
                },
                () = &mut pause => return,
            }
        }
    }

    async fn connect(&mut self) -> Result<Box<dyn Stream>, KeptError> {
        let stream = self
            .tcp()
            .await
            .map_err(|error| KeptError::Connect(error.to_string()))?;
        let Some(config) = self.config().await else {
            return Ok(Box::new(stream));
        };
        let name = server_name(&self.server);
        let connecting = TlsConnector::from(config).connect(name, stream).await;
        let stream = connecting.map_err(|error| KeptError::Handshake(error.to_string()))?;
        let is_https = matches!(self.server.transport, Transport::Https { .. });
        if is_https && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(KeptError::NoHttp2);
        }
        Ok(Box::new(stream))
    }

    async fn tcp(&self) -> io::Result<tokio::net::TcpStream> {
        let socket = if self.server.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        mark::past_exit(&socket);
        socket.set_nodelay(true)?;
        socket.connect(self.server.address).await
    }

    /// What TLS says and checks; `None` where there is none. Sessions are resumed while
    /// it is the same.
    async fn config(&mut self) -> Option<Arc<ClientConfig>> {
        self.server.transport.identity()?;
        let now = self.around.clock.now();
        if let Some((since, config)) = &self.tls
            && now.saturating_sub(*since) < ROOTS
        {
            return Some(config.clone());
        }
        let (trust, server) = (self.around.trust.clone(), self.server.clone());
        let config = tokio::task::spawn_blocking(move || trust.config(&server));
        let config = config.await.ok().flatten()?;
        self.tls = Some((now, config.clone()));
        Some(config)
    }

    async fn converse(&mut self, stream: Box<dyn Stream>) -> Ended {
        match &self.server.transport {
            Transport::Https { .. } => self.converse_http(stream).await,
            _ => self.converse_stream(stream).await,
        }
    }
}
