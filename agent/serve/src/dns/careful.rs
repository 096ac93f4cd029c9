//! The careful path, for connections.

use std::net::SocketAddr;

use hickory_server::net::xfer::Protocol;

use super::{received::Received, service::Dns};

impl Dns {
    /// The answer to a message that came over a connection; none to what is no
    /// question.
    pub(super) async fn answer_with_care(
        &self,
        message: &[u8],
        source: SocketAddr,
    ) -> Option<Vec<u8>> {
        match Received::read(message, source, Protocol::Tcp) {
            Received::Nothing => None,
            Received::Malformed(reply) => Some(reply),
            Received::Question(request) => {
                let mut reply = self.respond(&request).await;
                reply.encode(&request, Protocol::Tcp)
            }
        }
    }
}
