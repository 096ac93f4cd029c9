//! DNS over UDP. What is there already is answered by the thread that received
//! the question, with all that came with it; what waits for others, or isn't of
//! the usual form, keeps nobody's turn.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::{net::xfer::Protocol, server::Request};
use innermesh_host::{
    DatagramBatch, DatagramSender, Responder,
    datagrams::{Arrival, DatagramSlot},
};
use innermesh_proto::limits;
use tokio::sync::mpsc;

use super::{
    places::{Places, Taking},
    prompt::Prompt,
    received::Received,
    responder::refusal,
    service::Dns,
    transfer::Answer,
    view::View,
};

/// Answers what came, and hands on what waits.
pub(super) struct UdpResponder {
    dns: Arc<Dns>,
    places: Places,
    waiting: mpsc::UnboundedSender<WaitingQuestion>,
}

/// A question that is answered with care.
struct WaitingQuestion {
    request: Box<Request>,
    from: Arrival,
    _place: Taking,
}

/// Answers with care for as long as it is polled.
pub(super) struct CarefulResponder {
    dns: Arc<Dns>,
    sender: Arc<dyn DatagramSender>,
    waiting: mpsc::UnboundedReceiver<WaitingQuestion>,
}

/// The two sides of the service at one address.
pub(super) fn both(
    dns: &Arc<Dns>,
    sender: Arc<dyn DatagramSender>,
) -> (UdpResponder, CarefulResponder) {
    // Each that waits has a place, so there are no more than these.
    let (waiting, taken) = mpsc::unbounded_channel();
    let udp = UdpResponder {
        dns: dns.clone(),
        places: Places::new(limits::DNS_UDP_WAITING, limits::DNS_UDP_WAITING_PER_ADDRESS),
        waiting,
    };
    let careful = CarefulResponder {
        dns: dns.clone(),
        sender,
        waiting: taken,
    };
    (udp, careful)
}

impl Responder for UdpResponder {
    fn respond(&self, batch: &mut DatagramBatch) {
        let view = self.dns.view();
        for slot in batch.received() {
            self.answer(&view, slot);
        }
    }
}

impl UdpResponder {
    /// How many questions have a place.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.places.all()
    }

    fn answer(&self, view: &View, slot: &mut DatagramSlot) {
        let from = slot.from();
        if !can_be_answered(from.source) {
            return;
        }
        let source = from.source.ip();
        let (message, reply) = slot.parts();
        let prompt = self
            .dns
            .answer_promptly(view, message, source, Protocol::Udp, reply);
        if prompt == Prompt::Answered {
            return;
        }
        let transfers = self.dns.transfers();
        if let Some(Answer::Message(answer)) = transfers.answer(message, from.source, Protocol::Udp)
        {
            *reply = answer;
            return;
        }
        match Received::read(message, from.source, Protocol::Udp) {
            Received::Nothing => {}
            Received::Malformed(error) => *reply = error,
            // Strangers take no places, however oddly they ask.
            Received::Question(request) if view.of(source).is_none() => {
                let mut refused = refusal();
                if self.dns.log().is_on() {
                    self.dns.log_reply(&request, &refused, Duration::ZERO);
                }
                *reply = refused.encode(&request, Protocol::Udp).unwrap_or_default();
            }
            Received::Question(request) => {
                // Over the limit nobody is told: whoever asked asks again.
                if let Some(place) = self.places.take(source.to_canonical()) {
                    let waiting = WaitingQuestion {
                        request,
                        from,
                        _place: place,
                    };
                    // It fails when the service ends.
                    let _ = self.waiting.send(waiting);
                }
            }
        }
    }
}

impl CarefulResponder {
    pub async fn serve(mut self) {
        let mut answering = FuturesUnordered::new();
        loop {
            tokio::select! {
                next = self.waiting.recv() => match next {
                    Some(next) => answering.push(answer(&self.dns, &*self.sender, next)),
                    None => return,
                },
                Some(()) = answering.next() => {}
            }
        }
    }
}

async fn answer(dns: &Dns, sender: &dyn DatagramSender, waiting: WaitingQuestion) {
    let WaitingQuestion { request, from, .. } = &waiting;
    let reply = dns.respond(request).await.encode(request, Protocol::Udp);
    let Some(reply) = reply else { return };
    if let Err(error) = sender.send(&reply, from.source, from.destination) {
        // A client that is gone is no fault of ours.
        tracing::debug!(source = %from.source, %error, "a reply over UDP was not sent");
    }
}

/// Whether a source is one that a reply could reach.
pub(super) fn can_be_answered(source: SocketAddr) -> bool {
    let ip = source.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}
