//! A DNS client that asks without starting a process: benchmarks ask many
//! agents many times a second; and the smallest name server there is. RFC 1035;
//! questions are for addresses.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::Host;

/// A name server outside the mesh that has the same address for every name.
#[derive(Debug)]
pub struct Upstream(Arc<AtomicUsize>);

impl Upstream {
    /// How many questions reached it.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts one on a host.
///
/// # Panics
/// When its port 53 is taken.
#[must_use]
pub fn serve(host: &Host, address: Ipv4Addr) -> Upstream {
    let socket = host
        .udp((host.ipv4, 53).into())
        .expect("port 53 of a fresh host");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || answer_all(&socket, address, &counter));
    Upstream(count)
}

fn answer_all(socket: &UdpSocket, address: Ipv4Addr, count: &AtomicUsize) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        count.fetch_add(1, Ordering::Relaxed);
        // The question, up to its end: whatever follows (EDNS) is left out.
        let Some(end) = buffer[12..length].iter().position(|b| *b == 0) else {
            continue;
        };
        let question = &buffer[12..12 + end + 5];
        let is_a = question[question.len() - 4..] == [0, 1, 0, 1];
        let mut message = buffer[..2].to_vec();
        message.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        message.extend(question);
        if is_a {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            message.extend(address.octets());
        }
        let _ = socket.send_to(&message, from);
    }
}

/// A query for the IPv4 addresses of `name`.
#[must_use]
pub fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
        message.extend(label.as_bytes());
    }
    // The root; type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// An answer, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The query's.
    pub id: u16,
    /// 0 is no error, 3 no such name.
    pub code: u8,
    /// The addresses of the A records.
    pub addresses: Vec<Ipv4Addr>,
}

/// Reads an answer; `None` when it isn't one.
#[must_use]
pub fn parse(message: &[u8]) -> Option<Answer> {
    let id = word(message, 0)?;
    let code = message.get(3)? & 15;
    if message.get(2)? & 128 == 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..word(message, 4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..word(message, 6)? {
        at = skip_name(message, at)?;
        let (kind, length) = (word(message, at)?, usize::from(word(message, at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        if kind == 1 {
            addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(Answer {
        id,
        code,
        addresses,
    })
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        message.get(at..at + 2)?.try_into().ok()?,
    ))
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length >= 192 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ipv4Addr, parse, query};

    #[test]
    fn an_answer_is_read_past_its_question_and_compressed_names() {
        let mut message = query(7, "a.lab.internal");
        message[2] |= 128;
        message[7] = 2;
        message.extend([192, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 1, 0, 2]);
        message.extend([192, 12, 0, 28, 0, 1, 0, 0, 0, 5, 0, 1, 9]);
        let answer = parse(&message).expect("an answer");
        assert_eq!((answer.id, answer.code), (7, 0));
        assert_eq!(answer.addresses, [Ipv4Addr::new(10, 1, 0, 2)]);
        message.pop();
        assert_eq!(parse(&message), None);
        assert_eq!(parse(&query(7, "a")), None);
    }
}
