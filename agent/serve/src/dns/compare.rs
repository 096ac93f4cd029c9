//! What both paths say to the same message: they must agree.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
};

use hickory_server::net::xfer::Protocol;

use super::{prompt::Prompt, received::Received, service::Dns};

/// Two answers to one message; `None` for no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BothWays {
    /// At once, from what is encoded; `None` also where that is left to the
    /// careful path.
    pub prompt: Option<Vec<u8>>,
    /// With care.
    pub careful: Option<Vec<u8>>,
}

impl Dns {
    /// Answers a message on both paths, with the same record's turn to be first.
    pub async fn both_ways(&self, message: &[u8], source: IpAddr, is_udp: bool) -> BothWays {
        let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
        let turn = self.turn.load(Ordering::Relaxed);
        let mut reply = Vec::new();
        let prompt = self.answer_promptly(&self.view(), message, source, protocol, &mut reply);
        self.turn.store(turn, Ordering::Relaxed);
        let source = SocketAddr::new(source, 5353);
        let careful = match Received::read(message, source, protocol) {
            Received::Nothing => None,
            Received::Malformed(reply) => Some(reply),
            Received::Question(request) => self.respond(&request).await.encode(&request, protocol),
        };
        BothWays {
            prompt: (prompt == Prompt::Answered).then_some(reply),
            careful,
        }
    }
}
