//! DNS over TCP (RFC 7766): questions of one connection are answered as soon as
//! each answer is there, so that a slow name keeps no other waiting (§6.2.1.1).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::net::xfer::Protocol;
use innermesh_host::{
    Clock, Stream,
    listen::{self, Place, Room},
};
use innermesh_proto::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{received::Received, responder::Dns};

/// How long a connection may be idle, and how long one message may take
/// (RFC 7766 §6.2.3: some seconds).
const IDLE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Tcp {
    pub dns: Arc<Dns>,
    pub clock: Arc<dyn Clock>,
}

impl Tcp {
    pub async fn serve(self, listener: listen::Tcp, room: Arc<Room>) {
        let clock = self.clock.clone();
        let answer =
            move |(stream, source): (Box<dyn Stream>, SocketAddr), _, place: Arc<Place>| {
                let tcp = self.clone();
                async move {
                    if let Err(error) = tcp.converse(stream, source, &place).await {
                        tracing::debug!(%source, %error, "DNS over TCP ended");
                    }
                }
            };
        listen::serve("DNS over TCP", listener, room, clock, answer).await;
    }

    /// Answers until the client has closed and has all its answers, is idle, or
    /// sends what is no question. With [`limits::DNS_TCP_PENDING`] questions open
    /// no more are read.
    async fn converse(
        &self,
        stream: Box<dyn Stream>,
        source: SocketAddr,
        place: &Arc<Place>,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut messages = Messages::default();
        let mut pending = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !pending.is_empty() {
            let may_read = is_open && pending.len() < limits::DNS_TCP_PENDING;
            tokio::select! {
                message = messages.next(&mut reader), if may_read => match message? {
                    None => is_open = false,
                    Some(message) => pending.push(self.answer(message, source, place)),
                },
                Some(answer) = pending.next() => {
                    let Some(answer): Option<Vec<u8>> = answer else { return Ok(()) };
                    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
                    let framed = [&length.to_be_bytes()[..], &answer].concat();
                    tokio::select! {
                        written = writer.write_all(&framed) => written?,
                        () = self.clock.sleep(IDLE) => return Err(io::ErrorKind::TimedOut.into()),
                    }
                }
                () = self.clock.sleep(IDLE), if pending.is_empty() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        Ok(())
    }

    /// The answer to a message; none to what ends the connection.
    async fn answer(
        &self,
        message: Vec<u8>,
        source: SocketAddr,
        place: &Arc<Place>,
    ) -> Option<Vec<u8>> {
        let _working = place.working();
        match Received::read(&message, source, Protocol::Tcp) {
            Received::Nothing => None,
            Received::Malformed(reply) => Some(reply),
            Received::Question(request) => {
                let mut reply = self.dns.respond(&request).await;
                reply.encode(&request, Protocol::Tcp)
            }
        }
    }
}

/// What has come of messages, each behind its length. Nothing is lost where
/// reading is given up half-way.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Messages {
    /// The next one; `None` where the client has closed.
    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = [0; 2048];
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            match stream.read(&mut chunk).await? {
                0 if self.0.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self
                    .0
                    .extend_from_slice(chunk.get(..length).unwrap_or_default()),
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let length = u16::from_be_bytes(*self.0.first_chunk::<2>()?);
        let end = 2 + usize::from(length);
        if self.0.len() < end {
            return None;
        }
        let rest = self.0.split_off(end);
        let mut message = std::mem::replace(&mut self.0, rest);
        message.drain(..2);
        Some(message)
    }
}
