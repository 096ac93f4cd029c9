//! DNS over UDP: replies leave from the address that was asked (RFC 2181 §4.1).
//! What the zone answers is answered at once; what waits for others keeps
//! nobody's turn.

use std::{
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::net::xfer::Protocol;
use innermesh_host::{Clock, Datagram, DnsSocket};
use innermesh_proto::limits;

use super::{received::Received, responder::Dns};

/// Longest question, in bytes: names and options together have far less.
const QUESTION: usize = 4096;

/// Answers on a socket for as long as it is polled.
pub(super) async fn serve(dns: Arc<Dns>, clock: Arc<dyn Clock>, socket: DnsSocket) {
    let mut buffer = vec![0; QUESTION];
    let mut waiting = FuturesUnordered::new();
    loop {
        let received = tokio::select! {
            received = socket.receive(&mut buffer) => received,
            Some(()) = waiting.next() => continue,
        };
        let datagram = match received {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::warn!(%error, "can't receive DNS over UDP; trying again");
                clock
                    .sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS))
                    .await;
                continue;
            }
        };
        let question = buffer.get(..datagram.length).unwrap_or_default().to_vec();
        let mut answering = Box::pin(answer(&dns, &socket, question, datagram));
        let waits = poll_fn(|context| Poll::Ready(answering.as_mut().poll(context).is_pending()));
        // Over the limit nobody is told: whoever asked asks again.
        if waits.await && waiting.len() < limits::DNS_UDP_WAITING {
            waiting.push(answering);
        }
    }
}

async fn answer(dns: &Dns, socket: &DnsSocket, question: Vec<u8>, from: Datagram) {
    if !can_be_answered(from.source) {
        return;
    }
    let reply = match Received::read(&question, from.source, Protocol::Udp) {
        Received::Nothing => return,
        Received::Malformed(reply) => Some(reply),
        Received::Question(request) => dns.respond(&request).await.encode(&request, Protocol::Udp),
    };
    let Some(reply) = reply else { return };
    if let Err(error) = socket.send(&reply, from.source, from.destination).await {
        // A client that is gone is no fault of ours.
        tracing::debug!(source = %from.source, %error, "a reply over UDP was not sent");
    }
}

/// Whether a source is one that a reply could reach.
fn can_be_answered(source: SocketAddr) -> bool {
    let ip = source.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}
