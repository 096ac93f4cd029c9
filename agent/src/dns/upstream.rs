//! Asks other name servers: UDP, and TCP where an answer was cut; the next
//! server beside one that is slow, so that a dead one costs little.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::{
    net::{
        DnsHandle, NetError,
        runtime::TokioRuntimeProvider,
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsRequestSender, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode},
        rr::RecordType,
    },
};
use innermesh_proto::limits;

use crate::host::Clock;

/// How long all servers together have. A stub resolver asks again after 5 s.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long one server has before the next is asked beside it.
const HEAD_START: Duration = Duration::from_millis(600);

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
    Silent {
        /// Who was asked.
        servers: String,
    },
    /// The last to fail, and how.
    #[error("{server}: {why}")]
    Failed {
        /// Who.
        server: SocketAddr,
        /// How.
        why: String,
    },
}

/// Asks, and remembers who answered.
#[derive(Default)]
pub(super) struct Upstream {
    provider: TokioRuntimeProvider,
    /// Place in the list of the server that answered last.
    preferred: AtomicUsize,
}

impl Upstream {
    /// Asks `servers` until one of them gives a usable answer.
    pub async fn ask(
        &self,
        clock: &dyn Clock,
        servers: &[SocketAddr],
        question: &Question,
    ) -> Result<Message, UpstreamError> {
        let first = self.preferred.load(Ordering::Relaxed) % servers.len().max(1);
        let mut waiting = (0..servers.len())
            .map(|n| (first + n) % servers.len())
            .filter_map(|place| Some((place, *servers.get(place)?)));
        let mut asked = FuturesUnordered::new();
        let mut names = Vec::new();
        let mut error = UpstreamError::NoServer;
        let deadline = clock.sleep(DEADLINE);
        tokio::pin!(deadline);
        loop {
            if let Some((place, server)) = waiting.next() {
                names.push(server.to_string());
                asked.push(async move { (place, server, self.exchange(server, question).await) });
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
                    Err(why) => error = UpstreamError::Failed { server, why },
                },
                () = clock.sleep(HEAD_START) => {}
                () = &mut deadline => return Err(UpstreamError::Silent { servers: names.join(", ") }),
            }
        }
    }

    /// One server's usable answer, or in words why there is none.
    async fn exchange(&self, server: SocketAddr, question: &Question) -> Result<Message, String> {
        let words = |error: NetError| error.to_string();
        let mut response = self.udp(server, question, true).await.map_err(words)?;
        // A server from before EDNS (RFC 6891 §7).
        if matches!(
            response.response_code,
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
        ) {
            response = self.udp(server, question, false).await.map_err(words)?;
        }
        if response.truncation {
            response = self.tcp(server, question).await.map_err(words)?;
        }
        let message = response.into_message();
        if message.queries != [question.query.clone()] {
            return Err("it answered another question".into());
        }
        match message.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(format!("it answered {code}")),
        }
        let referral = message.answers.is_empty()
            && !message.recursion_available
            && message
                .authorities
                .iter()
                .any(|record| record.record_type() == RecordType::NS);
        if referral {
            return Err("it doesn't recurse for this host".into());
        }
        Ok(message)
    }

    async fn udp(
        &self,
        server: SocketAddr,
        question: &Question,
        edns: bool,
    ) -> Result<DnsResponse, NetError> {
        // A new socket, and so a new random port, for each question (RFC 5452 §9.2).
        let mut stream = UdpClientStream::builder(server, self.provider.clone())
            .with_timeout(Some(DEADLINE))
            .build();
        stream
            .send_message(request(question, edns))
            .first_answer()
            .await
    }

    async fn tcp(&self, server: SocketAddr, question: &Question) -> Result<DnsResponse, NetError> {
        let provider = self.provider.clone();
        let exchange = TcpClientStream::exchange(server, None, DEADLINE, None, provider).await?;
        exchange.send(request(question, true)).first_answer().await
    }
}

fn request(question: &Question, edns: bool) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.use_edns = edns;
    options.edns_payload_len = limits::DNS_UDP_BYTES;
    options.edns_set_dnssec_ok = question.dnssec_ok;
    let mut request = DnsRequest::from_query(question.query.clone(), options);
    request.metadata.checking_disabled = question.checking_disabled;
    // Asks for the AD bit (RFC 6840 §5.7).
    request.metadata.authentic_data = true;
    request
}
