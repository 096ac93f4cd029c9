//! Asks other name servers: by UDP, and TCP where an answer was cut, or by a connection
//! that is kept; the next server beside one that is slow, so that a dead one costs
//! little.

#![allow(missing_docs, reason = "the names say it")]

mod kept;
mod tls;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::{
    net::{DnsHandle, NetError, tcp::TcpClientStream, xfer::FirstAnswer},
    proto::{
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode},
        rr::RecordType,
    },
};
use innermesh_proto::limits;

pub(super) use self::kept::Surroundings;
use self::kept::{Kept, KeptError};
pub use self::tls::UpstreamTrust;
use super::{
    exchange::Exchanges,
    name_server::{NameServer, Transport},
    padding,
    provider::Provider,
    relevant,
};
use innermesh_host::{Clock, Mono};

/// How long all servers together have. A stub resolver asks again after 5 s.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long one server has before the next is asked beside it.
const HEAD_START: Duration = Duration::from_millis(600);
/// How long a connection over TCP has that checks an answer in another case.
const CHECK: Duration = Duration::from_millis(800);
/// For how long a server that changes the case of names is asked without
/// mixing it.
const FOLDS: Duration = Duration::from_secs(3600);
/// For how long a server from before EDNS is asked without, where no signatures
/// are wanted: a forged answer must not take them away.
const PLAIN: Duration = Duration::from_secs(300);

/// What is asked of upstream.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub query: Query,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

/// Why upstream has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// There is nobody to ask.
    #[error("there is no upstream name server")]
    NoServer,
    /// Nobody answered in time.
    #[error("no answer from {servers} within {} s", DEADLINE.as_secs())]
    Silent { servers: String },
    /// The last to fail, and how.
    #[error("{server}: {why}")]
    Failed {
        server: NameServer,
        why: ExchangeError,
    },
}

/// Why one server has no answer that can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// It wasn't reached, or didn't answer.
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error("it answered another question")]
    OtherQuestion,
    #[error("it answered {0}")]
    Code(ResponseCode),
    /// It only says who else to ask.
    #[error("it doesn't recurse for this host")]
    Referral,
    #[error("its answer is about other names")]
    OtherNames,
    #[error("the name's aliases lead in a circle")]
    Circle,
}

/// Servers that know the same, and which of them answered last.
#[derive(Default)]
pub(super) struct Upstream {
    servers: Vec<Asking>,
    exchanges: Exchanges,
    provider: Provider,
    /// Place in the list of the server that answered last.
    preferred: AtomicUsize,
    /// Servers that change the case of names, and until when that counts.
    folding: Ways,
    /// Servers that know no EDNS, and until when that counts.
    plain: Ways,
}

/// One of the servers.
struct Asking {
    server: NameServer,
    /// The connection to it; none where it is asked by UDP.
    kept: Option<Kept>,
}

/// What is known of servers, and until when.
#[derive(Default)]
struct Ways(Mutex<BTreeMap<SocketAddr, Mono>>);

impl Ways {
    fn has(&self, server: SocketAddr, now: Mono) -> bool {
        let mut all = self.lock();
        all.retain(|_, until| now < *until);
        all.contains_key(&server)
    }

    fn note(&self, server: SocketAddr, until: Mono) {
        self.lock().insert(server, until);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Mono>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a question is asked.
#[derive(Clone, Copy)]
struct Way {
    edns: bool,
    /// In a case chosen at random, which the answer must have: 1 bit for each
    /// letter that a forger has to guess beside port and id
    /// (draft-vixie-dnsext-dns0x20).
    mixed: bool,
}

impl Upstream {
    /// Of these servers. Nothing is sent before something is asked.
    pub fn new(servers: Vec<NameServer>, around: &Surroundings) -> Self {
        let servers = servers.into_iter().map(|server| Asking {
            kept: match server.transport {
                Transport::Udp => None,
                _ => Some(Kept::new(server.clone(), around)),
            },
            server,
        });
        Self {
            servers: servers.collect(),
            ..Self::default()
        }
    }

    pub fn servers(&self) -> impl Iterator<Item = &NameServer> {
        self.servers.iter().map(|asking| &asking.server)
    }

    /// Asks the servers until one of them gives a usable answer.
    pub async fn ask(
        &self,
        clock: &dyn Clock,
        question: &Question,
    ) -> Result<Message, UpstreamError> {
        let servers = &self.servers;
        let first = self.preferred.load(Ordering::Relaxed) % servers.len().max(1);
        let mut waiting = (0..servers.len())
            .map(|n| (first + n) % servers.len())
            .filter_map(|place| Some((place, servers.get(place)?)));
        let mut asked = FuturesUnordered::new();
        let mut names = Vec::new();
        let mut error = UpstreamError::NoServer;
        let deadline = clock.sleep(DEADLINE);
        tokio::pin!(deadline);
        loop {
            if let Some((place, server)) = waiting.next() {
                names.push(server.server.to_string());
                asked.push(
                    async move { (place, server, self.exchange(clock, server, question).await) },
                );
            }
            if asked.is_empty() {
                return Err(error);
            }
            tokio::select! {
                Some((place, server, result)) = asked.next() => match result {
                    Ok(message) => {
                        self.preferred.store(place, Ordering::Relaxed);
                        return Ok(message);
                    }
                    Err(why) => {
                        let server = server.server.clone();
                        error = UpstreamError::Failed { server, why };
                    }
                },
                () = clock.sleep(HEAD_START) => {}
                () = &mut deadline => return Err(UpstreamError::Silent { servers: names.join(", ") }),
            }
        }
    }

    /// One server's usable answer.
    async fn exchange(
        &self,
        clock: &dyn Clock,
        server: &Asking,
        question: &Question,
    ) -> Result<Message, ExchangeError> {
        let address = server.server.address;
        let is_plain = !question.dnssec_ok && self.plain.has(address, clock.now());
        let response = match self.answer(clock, server, question, !is_plain).await? {
            response if is_plain || understands_edns(&response) => response,
            // A server from before EDNS (RFC 6891 §7).
            _ => {
                let response = self.answer(clock, server, question, false).await?;
                if understands_edns(&response) {
                    self.plain.note(address, clock.now() + PLAIN);
                }
                response
            }
        };
        let mut message = response.into_message();
        if message.queries != [question.query.clone()] {
            return Err(ExchangeError::OtherQuestion);
        }
        match message.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(ExchangeError::Code(code)),
        }
        let referral = message.answers.is_empty()
            && !message.recursion_available
            && message
                .authorities
                .iter()
                .any(|record| record.record_type() == RecordType::NS);
        if referral {
            return Err(ExchangeError::Referral);
        }
        if relevant::is_circle(&message.answers, question.query.name()) {
            return Err(ExchangeError::Circle);
        }
        if !relevant::keep(&mut message, question) {
            return Err(ExchangeError::OtherNames);
        }
        Ok(message)
    }

    /// An answer by the connection that is kept; else by UDP, or where that was cut, by
    /// TCP.
    async fn answer(
        &self,
        clock: &dyn Clock,
        server: &Asking,
        question: &Question,
        edns: bool,
    ) -> Result<DnsResponse, ExchangeError> {
        if let Some(kept) = &server.kept {
            return by_connection(kept, server, question, edns).await;
        }
        let server = server.server.address;
        let response = self.checked(clock, server, question, edns).await?;
        if response.truncation {
            return Ok(self.tcp(server, question, edns, DEADLINE).await?);
        }
        Ok(response)
    }

    /// An answer by UDP in the case in which it was asked for. One in another
    /// case is a forgery, or the server's way: it is had again over TCP, which
    /// can't be forged blindly, and only where that fails too, and the case is
    /// wrong a second time, the server is taken at its word.
    async fn checked(
        &self,
        clock: &dyn Clock,
        server: SocketAddr,
        question: &Question,
        edns: bool,
    ) -> Result<DnsResponse, NetError> {
        let mixed = !self.folding.has(server, clock.now());
        let way = Way { edns, mixed };
        match self.udp(clock, server, question, way).await {
            Err(NetError::QueryCaseMismatch) => {}
            other => return other,
        }
        if let Ok(response) = self.tcp(server, question, edns, CHECK).await {
            return Ok(response);
        }
        match self.udp(clock, server, question, way).await {
            Err(NetError::QueryCaseMismatch) => {}
            other => return other,
        }
        tracing::debug!(%server, "the name server changes the case of names");
        self.folding.note(server, clock.now() + FOLDS);
        let way = Way { edns, mixed: false };
        self.udp(clock, server, question, way).await
    }

    async fn udp(
        &self,
        clock: &dyn Clock,
        server: SocketAddr,
        question: &Question,
        way: Way,
    ) -> Result<DnsResponse, NetError> {
        let request = request(question, way);
        self.exchanges.ask(clock, server, &request, DEADLINE).await
    }

    async fn tcp(
        &self,
        server: SocketAddr,
        question: &Question,
        edns: bool,
        patience: Duration,
    ) -> Result<DnsResponse, NetError> {
        let provider = self.provider.clone();
        let exchange = TcpClientStream::exchange(server, None, patience, None, provider).await?;
        let way = Way { edns, mixed: false };
        exchange.send(request(question, way)).first_answer().await
    }
}

async fn by_connection(
    kept: &Kept,
    server: &Asking,
    question: &Question,
    edns: bool,
) -> Result<DnsResponse, ExchangeError> {
    let way = Way { edns, mixed: false };
    let mut message = request(question, way).to_vec().map_err(NetError::from)?;
    if server.server.transport.identity().is_some() {
        padding::pad(&mut message, 0, padding::QUERY_BLOCK);
    }
    let answer = kept.ask(message).await?;
    DnsResponse::from_buffer(answer).map_err(|_| KeptError::NoMessage.into())
}

/// Whether an answer to a question with EDNS was one to the question.
fn understands_edns(response: &DnsResponse) -> bool {
    !matches!(
        response.response_code,
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
    )
}

fn request(question: &Question, way: Way) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.use_edns = way.edns;
    options.case_randomization = way.mixed;
    options.edns_payload_len = limits::DNS_UDP_BYTES;
    options.edns_set_dnssec_ok = question.dnssec_ok;
    let mut request = DnsRequest::from_query(question.query.clone(), options);
    request.metadata.checking_disabled = question.checking_disabled;
    // Asks for the AD bit (RFC 6840 §5.7).
    request.metadata.authentic_data = true;
    request
}
