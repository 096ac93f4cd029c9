//! DNS over TCP (RFC 7766) and over TLS (RFC 7858), which differ by what is below:
//! questions of one connection are answered as soon as each answer is there, so that
//! a slow name keeps no other waiting (§6.2.1.1).

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BufMut;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_server::net::xfer::Protocol;
use innermesh_host::{
    Clock, Stream,
    listen::{self, Place, Room},
};
use innermesh_proto::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{padding, prompt::Prompt, service::Dns, transfer::Answer};

/// How long a connection may be idle, and how long one message may take
/// (RFC 7766 §6.2.3: some seconds).
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const CHUNK: usize = 8 * 1024;
/// Bytes of replies that are written at once, and a little more.
const REPLIES: usize = 32 * 1024;

#[derive(Clone)]
pub(super) struct Tcp {
    pub dns: Arc<Dns>,
    pub clock: Arc<dyn Clock>,
    /// Whether nobody between can read it: then answers are padded for who asks for
    /// that.
    pub is_encrypted: bool,
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
    /// sends what is no question. With [`limits::DNS_TCP_PENDING`] questions open, or
    /// [`limits::DNS_TCP_PENDING_BYTES`] of them, no more are read.
    pub async fn converse(
        &self,
        stream: impl Stream,
        source: SocketAddr,
        place: &Arc<Place>,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut messages = Messages::default();
        let mut pending = FuturesUnordered::new();
        let mut pending_bytes = 0;
        let has_room = |questions: usize, bytes: usize| {
            questions < limits::DNS_TCP_PENDING && bytes < limits::DNS_TCP_PENDING_BYTES
        };
        let mut replies = Vec::new();
        let mut is_open = true;
        while is_open || !pending.is_empty() {
            let may_read = is_open && has_room(pending.len(), pending_bytes);
            tokio::select! {
                more = messages.read(&mut reader), if may_read => is_open = more?,
                Some((length, reply)) = pending.next() => {
                    pending_bytes -= length;
                    let Some(reply): Option<Vec<u8>> = reply else { return Ok(()) };
                    frame(&mut replies, |out| out.extend_from_slice(&reply))?;
                }
                () = self.clock.sleep(IDLE), if pending.is_empty() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            while has_room(pending.len(), pending_bytes) && messages.has_next() {
                let working = place.working();
                let rest = self.answer_promptly(&mut messages, source.ip(), &mut replies)?;
                self.write(&mut writer, &mut replies).await?;
                if let Some(message) = rest {
                    let transfers = self.dns.transfers();
                    match transfers.answer(&message, source, Protocol::Tcp) {
                        Some(answer) => self.transfer(answer, &mut writer).await?,
                        None => {
                            let length = message.len();
                            pending_bytes += length;
                            let answer = self.answer(message, source, place);
                            pending.push(async move { (length, answer.await) });
                        }
                    }
                }
                drop(working);
            }
            self.write(&mut writer, &mut replies).await?;
        }
        if !messages.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // TLS says that this is the end.
        self.in_time(writer.shutdown()).await
    }

    /// Answers what has come, up to so many bytes, or up to a message that it can't
    /// answer, which is given back.
    fn answer_promptly(
        &self,
        messages: &mut Messages,
        source: IpAddr,
        replies: &mut Vec<u8>,
    ) -> io::Result<Option<Vec<u8>>> {
        let view = self.dns.view();
        while replies.len() < REPLIES
            && let Some(message) = messages.next()
        {
            let mut prompt = Prompt::Careful;
            let before = replies.len();
            let pads = self.pads(message);
            frame(replies, |out| {
                let (protocol, begin) = (Protocol::Tcp, out.len());
                prompt = self
                    .dns
                    .answer_promptly(&view, message, source, protocol, out);
                if pads && prompt == Prompt::Answered {
                    padding::pad(out, begin, padding::RESPONSE_BLOCK);
                }
            })?;
            if prompt == Prompt::Careful {
                replies.truncate(before);
                return Ok(Some(message.to_vec()));
            }
        }
        Ok(None)
    }

    /// Writes what a secondary gets, a message after the other.
    async fn transfer(
        &self,
        answer: Answer,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut out = Vec::new();
        let mut transfer = match answer {
            Answer::Message(message) => {
                frame(&mut out, |out| out.extend_from_slice(&message))?;
                return self.write(writer, &mut out).await;
            }
            Answer::Transfer(transfer) => transfer,
        };
        let mut has_more = Ok(true);
        while let Ok(true) = has_more {
            frame(&mut out, |out| has_more = transfer.next(out))?;
            if has_more.is_ok() {
                tokio::select! {
                    written = self.write(writer, &mut out) => written?,
                    () = transfer.removed() => return Err(io::ErrorKind::ConnectionAborted.into()),
                }
            }
        }
        has_more.map_err(io::Error::other)?;
        transfer.finished();
        Ok(())
    }

    async fn write(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        replies: &mut Vec<u8>,
    ) -> io::Result<()> {
        if !replies.is_empty() {
            let written = async {
                writer.write_all(replies).await?;
                writer.flush().await
            };
            self.in_time(written).await?;
            replies.clear();
        }
        Ok(())
    }

    async fn in_time(&self, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        tokio::select! {
            done = work => done,
            () = self.clock.sleep(IDLE) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The answer to a message with care; none to what ends the connection.
    async fn answer(
        &self,
        message: Vec<u8>,
        source: SocketAddr,
        place: &Arc<Place>,
    ) -> Option<Vec<u8>> {
        let _working = place.working();
        let mut reply = self.dns.answer_with_care(&message, source).await?;
        if self.pads(&message) {
            padding::pad(&mut reply, 0, padding::RESPONSE_BLOCK);
        }
        Some(reply)
    }

    fn pads(&self, message: &[u8]) -> bool {
        self.is_encrypted && padding::is_wanted(message)
    }
}

/// Writes a message behind its length.
pub(super) fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    let length = u16::try_from(out.len() - start - 2).map_err(io::Error::other)?;
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// What has come of messages, each behind its length. Nothing is lost where
/// reading is given up half-way.
#[derive(Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
}

impl Messages {
    /// Waits until the next one is whole; `false` where the client has closed.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        while !self.has_next() {
            self.bytes.reserve(CHUNK);
            let mut more = (&mut self.bytes).limit(CHUNK);
            if stream.read_buf(&mut more).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the next one is whole.
    pub fn has_next(&self) -> bool {
        self.end().is_some_and(|end| end <= self.bytes.len())
    }

    /// The next one that is whole.
    pub fn next(&mut self) -> Option<&[u8]> {
        let (start, end) = (self.taken + 2, self.end()?);
        let message = self.bytes.get(start..end)?;
        self.taken = end;
        Some(message)
    }

    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Where the next one ends.
    fn end(&self) -> Option<usize> {
        let length = self.bytes.get(self.taken..)?.first_chunk::<2>()?;
        Some(self.taken + 2 + usize::from(u16::from_be_bytes(*length)))
    }
}
