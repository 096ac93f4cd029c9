//! One question to a name server over UDP, and its answer. A socket is used for one
//! question at a time, and again for some more: each then waits at a port that nobody
//! can foresee (RFC 5452 §9.2), without a socket being made for each.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_server::{
    net::NetError,
    proto::op::{DnsRequest, DnsResponse},
};
use innermesh_host::{Clock, Mono, mark};
use tokio::net::UdpSocket;

/// When a question is sent again, each time from another socket, while none of them
/// has an answer.
const RESEND: Duration = Duration::from_millis(333);
/// For how long, and for how many questions, a socket is used.
const LIFETIME: Duration = Duration::from_secs(10);
const QUESTIONS: u16 = 64;
/// Sockets to one server among which the next port is, before any is used again.
const ROTATING: usize = 16;
/// Sockets that wait to be used again.
const IDLE: usize = 128;
/// Longest answer, in bytes: more than is asked for.
const ANSWER_BYTES: usize = 4096;

const HEADER: usize = 12;
const QR: u8 = 0x80;
/// FORMERR and NOTIMP.
const NOT_UNDERSTOOD: [u8; 2] = [1, 4];

/// Sockets of earlier questions.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    idle: Mutex<VecDeque<AskingSocket>>,
}

#[derive(Debug)]
struct AskingSocket {
    /// Connected: what others send to it doesn't come in.
    socket: UdpSocket,
    server: SocketAddr,
    opened: Mono,
    asked: u16,
}

/// A question as it is sent.
struct Message {
    bytes: Vec<u8>,
    /// The question section in the case that was wanted, not the one that is sent.
    wanted: Vec<u8>,
}

impl Exchanges {
    /// The answer to a question, with the question as it was before its case was mixed.
    ///
    /// # Errors
    /// [`NetError::Timeout`], [`NetError::QueryCaseMismatch`], what the operating
    /// system says, and for an answer that can't be read.
    pub async fn ask(
        &self,
        clock: &dyn Clock,
        server: SocketAddr,
        request: &DnsRequest,
        patience: Duration,
    ) -> Result<DnsResponse, NetError> {
        let message = Message::new(request)?;
        let end = clock.sleep(patience);
        tokio::select! {
            biased;
            answer = self.ask_again(clock, server, &message) => answer,
            () = end => Err(NetError::Timeout),
        }
    }

    async fn ask_again(
        &self,
        clock: &dyn Clock,
        server: SocketAddr,
        message: &Message,
    ) -> Result<DnsResponse, NetError> {
        let first = self.ask_once(clock, server, message);
        tokio::pin!(first);
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = clock.sleep(RESEND) => {}
        }
        let again = self.ask_once(clock, server, message);
        tokio::pin!(again);
        tokio::select! {
            answer = &mut first => return answer,
            answer = &mut again => return answer,
            () = clock.sleep(RESEND) => {}
        }
        tokio::select! {
            answer = first => answer,
            answer = again => answer,
            answer = self.ask_once(clock, server, message) => answer,
        }
    }

    async fn ask_once(
        &self,
        clock: &dyn Clock,
        server: SocketAddr,
        message: &Message,
    ) -> Result<DnsResponse, NetError> {
        let now = clock.now();
        let mut socket = match self.take(server, now) {
            Some(socket) => socket,
            None => AskingSocket::open(server, now).await?,
        };
        let answer = socket.ask(message).await;
        if !matches!(answer, Err(NetError::Io(_))) {
            self.put_back(socket);
        }
        answer
    }

    /// The one to a server that waits for longest, if there are so many that nobody can
    /// tell which port is next; those that are too old go.
    fn take(&self, server: SocketAddr, now: Mono) -> Option<AskingSocket> {
        let mut idle = self.idle();
        idle.retain(|socket| now < socket.opened + LIFETIME);
        let fitting = (0..)
            .zip(&*idle)
            .filter(|(_, socket)| socket.server == server);
        let mut places = fitting.map(|(place, _)| place);
        let first = places.next()?;
        places.nth(ROTATING - 2)?;
        idle.remove(first)
    }

    fn put_back(&self, socket: AskingSocket) {
        let mut idle = self.idle();
        if socket.asked < QUESTIONS && idle.len() < IDLE {
            idle.push_back(socket);
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<AskingSocket>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AskingSocket {
    async fn open(server: SocketAddr, now: Mono) -> io::Result<Self> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        // The system takes ports at random, none that other programs count on.
        let socket = UdpSocket::bind(any).await?;
        mark::past_exit(&socket);
        socket.connect(server).await?;
        Ok(Self {
            socket,
            server,
            opened: now,
            asked: 0,
        })
    }

    async fn ask(&mut self, message: &Message) -> Result<DnsResponse, NetError> {
        self.asked += 1;
        self.socket.send(&message.bytes).await?;
        let mut buffer = [0; ANSWER_BYTES];
        loop {
            let length = self.socket.recv(&mut buffer).await?;
            let answer = buffer.get(..length).unwrap_or_default();
            match message.answered_by(answer) {
                Answered::No => {}
                Answered::InAnotherCase => return Err(NetError::QueryCaseMismatch),
                Answered::By(bytes) => return Ok(DnsResponse::from_buffer(bytes)?),
            }
        }
    }
}

/// What a datagram is to a question.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    /// Another question's answer, or a forgery.
    No,
    InAnotherCase,
    /// Its answer, with the question in the case that was wanted.
    By(Vec<u8>),
}

impl Message {
    fn new(request: &DnsRequest) -> Result<Self, NetError> {
        let bytes = request.to_vec()?;
        let mut wanted = question(&bytes).unwrap_or_default().to_vec();
        if let Some(original) = request.original_query() {
            // Letters alone differ, and no length is one.
            let name = original.name().iter().flatten();
            let places = wanted.iter_mut().scan(0_u8, |left, octet| {
                let is_length = *left == 0;
                *left = if is_length { *octet } else { *left - 1 };
                Some((is_length, octet))
            });
            let letters = places.filter(|(is_length, _)| !is_length);
            for ((_, place), octet) in letters.zip(name) {
                *place = *octet;
            }
        }
        Ok(Self { bytes, wanted })
    }

    fn answered_by(&self, answer: &[u8]) -> Answered {
        let Some((header, body)) = answer.split_first_chunk::<HEADER>() else {
            return Answered::No;
        };
        let is_its = self.bytes.starts_with(&header[..2]) && header[2] & QR != 0;
        if !is_its {
            return Answered::No;
        }
        // One from before EDNS may say that it doesn't understand a question (RFC 6891
        // §7) without repeating it.
        if NOT_UNDERSTOOD.contains(&(header[3] & 0xf)) && header[4..10] == [0; 6] {
            let mut header = *header;
            header[5] = 1;
            return Answered::By([&header[..], &self.wanted, body].concat());
        }
        let asked = question(&self.bytes).unwrap_or_default();
        let Some((told, rest)) = body.split_at_checked(asked.len()) else {
            return Answered::No;
        };
        // Its type and class have no case.
        let name = asked.len().saturating_sub(4);
        let (told_name, told_kind) = told.split_at(name);
        let (asked_name, asked_kind) = asked.split_at(name);
        let is_same = told_kind == asked_kind && told_name.eq_ignore_ascii_case(asked_name);
        if header[4..6] != [0, 1] || !is_same {
            Answered::No
        } else if told_name != asked_name {
            Answered::InAnotherCase
        } else {
            Answered::By([header, &*self.wanted, rest].concat())
        }
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

#[cfg(test)]
mod tests {
    use hickory_server::proto::{
        op::{DnsRequestOptions, Query},
        rr::{Name, RecordType},
    };

    use super::*;

    const NAME: &str = "Www.a-name-with-many-letters.example.org.";
    const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

    fn message() -> Message {
        let query = Query::query(Name::from_ascii(NAME).unwrap(), RecordType::HTTPS);
        let mut options = DnsRequestOptions::default();
        options.case_randomization = true;
        Message::new(&DnsRequest::from_query(query, options)).unwrap()
    }

    /// An answer with these flags and counts.
    fn answer(message: &Message, flags: [u8; 2], counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let counts = counts.map(|count| [0, count]).concat();
        [&message.bytes[..2], &flags, &counts, rest].concat()
    }

    #[test]
    fn an_answer_is_taken_for_its_question_alone_and_in_its_case() {
        let message = message();
        let asked = question(&message.bytes).unwrap();
        assert_eq!(
            asked[..asked.len() - 4].to_ascii_lowercase(),
            message.wanted[..asked.len() - 4].to_ascii_lowercase()
        );
        assert!(
            message
                .wanted
                .starts_with(b"\x03Www\x18a-name-with-many-letters\x07example\x03org\0")
        );
        let good = answer(&message, [0x81, 0x80], [1, 0, 0, 1], &[asked, OPT].concat());
        let Answered::By(bytes) = message.answered_by(&good) else {
            panic!("not taken")
        };
        assert_eq!(bytes[12..], [&*message.wanted, OPT].concat());
        assert_eq!(bytes[..12], good[..12]);
        let mut other_case = good.clone();
        other_case[13] ^= 0x20;
        assert_eq!(message.answered_by(&other_case), Answered::InAnotherCase);
        for (place, bit) in [
            // The id, the bit of answers, how many questions, a digit of a length,
            // type and class: those have no case.
            (0, 1),
            (2, 0x80),
            (5, 2),
            (12, 1),
            (12 + asked.len() - 3, 0x20),
            (12 + asked.len() - 1, 2),
        ] {
            let mut other = good.clone();
            other[place] ^= bit;
            assert_eq!(message.answered_by(&other), Answered::No, "{place}");
        }
        for length in 0..12 + asked.len() {
            assert_eq!(
                message.answered_by(&good[..length]),
                Answered::No,
                "{length}"
            );
        }
    }

    #[test]
    fn an_answer_that_it_was_not_understood_gets_the_question() {
        let message = message();
        for code in NOT_UNDERSTOOD {
            let bare = answer(&message, [0x81, code], [0; 4], &[]);
            let Answered::By(bytes) = message.answered_by(&bare) else {
                panic!("not taken")
            };
            let header = answer(&message, [0x81, code], [1, 0, 0, 0], &[]);
            assert_eq!(bytes, [&*header, &message.wanted].concat());
        }
        let edns = answer(&message, [0x81, 1], [0, 0, 0, 1], OPT);
        let Answered::By(bytes) = message.answered_by(&edns) else {
            panic!("not taken")
        };
        assert_eq!(bytes[12..], [&*message.wanted, OPT].concat());
        // A question, an answer and a failure without question.
        for flags in [[0x01, 1], [0x81, 0], [0x81, 2]] {
            let other = answer(&message, flags, [0; 4], &[]);
            assert_eq!(message.answered_by(&other), Answered::No);
        }
    }

    #[test]
    fn sockets_are_used_again_for_a_while() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _in_it = runtime.enter();
        let server = SocketAddr::from(([127, 0, 0, 1], 53));
        let other = SocketAddr::from(([127, 0, 0, 2], 53));
        let open = |opened| {
            runtime
                .block_on(AskingSocket::open(server, opened))
                .unwrap()
        };
        let exchanges = Exchanges::default();
        let second = Mono::ZERO + Duration::from_secs(1);
        for _ in 1..ROTATING {
            exchanges.put_back(open(second));
        }
        exchanges.put_back(open(Mono::ZERO));
        assert!(exchanges.take(other, second).is_none());
        assert!(exchanges.take(server, second).is_some());
        assert!(exchanges.take(server, second).is_none(), "they are too few");
        exchanges.put_back(open(second));
        let end = Mono::ZERO + LIFETIME;
        assert!(exchanges.take(server, end).is_none(), "one is too old");
        let mut last = open(second);
        last.asked = QUESTIONS;
        exchanges.put_back(last);
        assert!(
            exchanges.take(server, end).is_none(),
            "one had its questions"
        );
        for _ in 0..=IDLE {
            exchanges.put_back(open(second));
        }
        assert_eq!(exchanges.idle().len(), IDLE);
    }
}
