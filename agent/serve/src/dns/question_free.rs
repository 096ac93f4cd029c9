//! Sockets to other name servers. One from before EDNS may say that it doesn't
//! understand a question (RFC 6891 §7) without repeating it; hickory would take
//! that for a forgery and wait for another answer. What is asked goes by this host's
//! own routes, also where all else goes by an exit.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hickory_server::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, iocompat::AsyncIoTokioAsStd,
};
use innermesh_host::mark;
use tokio::net::TcpSocket;

type Tokio = TokioRuntimeProvider;
type Bound<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

const HEADER: usize = 12;
const QR: u8 = 0x80;
/// FORMERR and NOTIMP.
const NOT_UNDERSTOOD: [u8; 2] = [1, 4];

/// Sockets of the operating system, through [`Socket`] for UDP.
#[derive(Clone, Default)]
pub(super) struct Provider(Tokio);

impl RuntimeProvider for Provider {
    type Handle = <Tokio as RuntimeProvider>::Handle;
    type Timer = <Tokio as RuntimeProvider>::Timer;
    type Udp = Socket;
    type Tcp = <Tokio as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        _timeout: Option<Duration>,
    ) -> Bound<Self::Tcp> {
        Box::pin(async move {
            let socket = if server.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            mark::past_exit(&socket);
            if let Some(local) = local {
                socket.bind(local)?;
            }
            socket.set_nodelay(true)?;
            // Whoever asks ends it at its deadline.
            Ok(AsyncIoTokioAsStd(socket.connect(server).await?))
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Bound<Self::Udp> {
        let bound = self.0.bind_udp(local, server);
        Box::pin(async move {
            let socket = bound.await?;
            mark::past_exit(&socket);
            Ok(Socket {
                socket,
                question: Mutex::default(),
            })
        })
    }
}

/// A UDP socket that puts the question into such answers.
pub(super) struct Socket {
    socket: <Tokio as RuntimeProvider>::Udp,
    /// As it was sent last, in bytes.
    question: Mutex<Vec<u8>>,
}

impl DnsUdpSocket for Socket {
    type Time = <<Tokio as RuntimeProvider>::Udp as DnsUdpSocket>::Time;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let received = DnsUdpSocket::poll_recv_from(&self.socket, context, buffer);
        received.map_ok(|(length, from)| {
            let question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
            (with_question(buffer, length, &question), from)
        })
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let question = question(bytes).unwrap_or_default();
        *self.question.lock().unwrap_or_else(PoisonError::into_inner) = question.to_vec();
        DnsUdpSocket::poll_send_to(&self.socket, context, bytes, server)
    }
}

/// The first question of a message: its name isn't compressed.
fn question(message: &[u8]) -> Option<&[u8]> {
    let body = message.get(HEADER..)?;
    let mut end = 0;
    loop {
        match body.get(end)? {
            0 => return body.get(..end + 5),
            length => end += 1 + usize::from(*length),
        }
    }
}

/// Puts the question into an answer that says, without one, that it wasn't
/// understood. Gives the answer's length.
fn with_question(buffer: &mut [u8], length: usize, question: &[u8]) -> usize {
    let is_such = buffer.first_chunk::<HEADER>().is_some_and(|header| {
        length >= HEADER
            && header[2] & QR != 0
            && NOT_UNDERSTOOD.contains(&(header[3] & 0xf))
            && header[4..10] == [0; 6]
    });
    let end = length + question.len();
    if !is_such || question.is_empty() || end > buffer.len() {
        return length;
    }
    buffer.copy_within(HEADER..length, HEADER + question.len());
    if let Some(place) = buffer.get_mut(HEADER..HEADER + question.len()) {
        place.copy_from_slice(question);
    }
    if let Some(count) = buffer.get_mut(4..6) {
        count.copy_from_slice(&[0, 1]);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01a\x03org\0\0\x01\0\x01";
    const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

    fn answer(flags: [u8; 2], counts: [u8; 4], rest: &[u8]) -> (Vec<u8>, usize) {
        let [questions, answers, authorities, additionals] = counts;
        let [high, low] = flags;
        let header = [
            7,
            9,
            high,
            low,
            0,
            questions,
            0,
            answers,
            0,
            authorities,
            0,
            additionals,
        ];
        let message = [&header[..], rest].concat();
        let length = message.len();
        ([message, vec![0; 64]].concat(), length)
    }

    #[test]
    fn an_answer_without_question_gets_the_one_that_was_asked() {
        for code in NOT_UNDERSTOOD {
            let (mut buffer, length) = answer([0x81, code], [0; 4], &[]);
            let end = with_question(&mut buffer, length, QUESTION);
            let header = [7, 9, 0x81, code, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(buffer[..end], [&header[..], QUESTION].concat());
        }
        let (mut buffer, length) = answer([0x81, 1], [0, 0, 0, 1], OPT);
        let end = with_question(&mut buffer, length, QUESTION);
        assert_eq!(buffer[12..end], [QUESTION, OPT].concat());
    }

    #[test]
    fn other_answers_stay_as_they_are() {
        for (mut buffer, length) in [
            // A question, a good answer, a failure, one with its question.
            answer([0x01, 1], [0; 4], &[]),
            answer([0x81, 0], [0; 4], &[]),
            answer([0x81, 2], [0; 4], &[]),
            answer([0x81, 1], [1, 0, 0, 0], QUESTION),
        ] {
            let before = buffer.clone();
            assert_eq!(with_question(&mut buffer, length, QUESTION), length);
            assert_eq!(buffer, before);
        }
        let (mut buffer, length) = answer([0x81, 1], [0; 4], &[]);
        assert_eq!(with_question(&mut buffer[..16], length, QUESTION), length);
        assert_eq!(with_question(&mut buffer, 5, QUESTION), 5);
    }

    #[test]
    fn the_question_of_a_message_is_found() {
        let message = [&[0; 12][..], QUESTION, OPT].concat();
        assert_eq!(question(&message), Some(QUESTION));
        assert_eq!(question(&message[..14]), None);
    }
}
