//! Asks one server many questions and keeps what it says to each.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::Host;

use crate::question::Question;

/// Questions that are under way over UDP.
const OPEN: usize = 64;
/// For how long an answer is waited for while others may still come, and, of the few
/// that had none, in each of two rounds more.
const SOON: Duration = Duration::from_millis(400);
const LATE: Duration = Duration::from_millis(1500);

/// What each of these servers says to all of the questions, in their order.
pub fn ask_all<const N: usize>(
    host: &Host,
    servers: [SocketAddr; N],
    questions: &[Question],
) -> [Vec<Option<Vec<u8>>>; N] {
    thread::scope(|scope| {
        let asking = servers.map(|server| {
            let over_udp = scope.spawn(move || by_udp(host, server, questions));
            let over_tcp = scope.spawn(move || by_tcp(host, server, questions));
            (over_udp, over_tcp)
        });
        asking.map(|(udp, tcp)| {
            let (udp, tcp) = (udp.join(), tcp.join());
            let both = udp.expect("UDP").into_iter().zip(tcp.expect("TCP"));
            both.map(|(udp, tcp)| udp.or(tcp)).collect()
        })
    })
}

/// The id of a question's message.
fn id(index: usize) -> u16 {
    u16::try_from(index).expect("fewer questions than ids")
}

fn by_udp(host: &Host, server: SocketAddr, questions: &[Question]) -> Vec<Option<Vec<u8>>> {
    let socket = host.udp_to(server).expect("a socket");
    let mut replies = vec![None; questions.len()];
    let mut left: Vec<usize> = (0..questions.len())
        .filter(|index| !questions[*index].is_tcp)
        .collect();
    // Those that nobody may answer last, as they are waited for.
    left.sort_by_key(|index| questions[*index].may_be_silent());
    for patience in [SOON, LATE, LATE] {
        for some in left.chunks(OPEN) {
            for index in some {
                let message = questions[*index].message(id(*index));
                socket.send(&message).expect("it is sent");
            }
            receive(&socket, some, patience, &mut replies);
        }
        left.retain(|index| replies[*index].is_none());
    }
    replies
}

/// Takes what comes until all of these have answers, or time is over.
fn receive(
    socket: &UdpSocket,
    wanted: &[usize],
    patience: Duration,
    replies: &mut [Option<Vec<u8>>],
) {
    let until = Instant::now() + patience;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    while wanted.iter().any(|index| replies[*index].is_none()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        socket.set_read_timeout(Some(left)).expect("a timeout");
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        };
        let reply = buffer[..length].to_vec();
        let id = reply.first_chunk().map(|id| u16::from_be_bytes(*id));
        let index = wanted.iter().find(|index| Some(self::id(**index)) == id);
        if let Some(index) = index {
            replies[*index] = Some(reply);
        }
    }
}

fn by_tcp(host: &Host, server: SocketAddr, questions: &[Question]) -> Vec<Option<Vec<u8>>> {
    let each = questions.iter().enumerate();
    each.map(|(index, question)| {
        question
            .is_tcp
            .then(|| over_one_connection(host, server, &question.message(id(index))))
            .flatten()
    })
    .collect()
}

/// None where the server hangs up.
fn over_one_connection(host: &Host, server: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let mut stream = host.tcp_to(server).expect("a connection");
    stream.set_read_timeout(Some(LATE)).expect("a timeout");
    let length = u16::try_from(message.len()).expect("a message");
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).expect("it is sent");
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).ok()?;
    Some(reply)
}
