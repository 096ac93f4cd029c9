//! DNS over TCP: answers as they come (RFC 7766 §6.2.1.1). A program of its own:
//! questions that wait take ports at random, which other tests count on.

#[allow(dead_code, reason = "the tests of dns use the rest")]
#[path = "dns/bench.rs"]
mod bench;

use std::net::SocketAddr;

use innermesh_proto::limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use bench::{Bench, input};

const INSIDE: &[u8] = b"\x01a\x03lab\x08internal\0";

fn question(id: u8, name: &[u8]) -> Vec<u8> {
    let header = [0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let message = [&header[..], name, &[0, 1, 0, 1]].concat();
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], &message].concat()
}

fn outside(number: usize) -> Vec<u8> {
    let label = format!("n{number}");
    let length = u8::try_from(label.len()).unwrap();
    [&[length], label.as_bytes(), b"\x07outside\x03org\0"].concat()
}

/// The id and the code of the next answer.
async fn answer(stream: &mut TcpStream) -> (u8, u8) {
    let length = stream.read_u16().await.unwrap();
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.unwrap();
    (message[1], message[3] & 0xf)
}

/// A name server that is asked and says nothing.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_name_keeps_no_other_on_the_same_connection_waiting() {
    let bench = Bench::start(&input("lab.internal"));
    let (_silent, upstream) = silent().await;
    bench.dns.set_upstreams(&[upstream], &[]);
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    let both = [question(1, &outside(0)), question(2, INSIDE)].concat();
    stream.write_all(&both).await.unwrap();
    assert_eq!(answer(&mut stream).await, (2, 0));
    // The slow one fails in the end, on the same connection.
    assert_eq!(answer(&mut stream).await, (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_so_many_questions_open_and_no_more() {
    let bench = Bench::start(&input("lab.internal"));
    let (silent, upstream) = silent().await;
    bench.dns.set_upstreams(&[upstream], &[]);
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    let slow: Vec<Vec<u8>> = (0..limits::DNS_TCP_PENDING)
        .map(|number| question(1, &outside(number)))
        .collect();
    stream.write_all(&slow.concat()).await.unwrap();
    stream.write_all(&question(2, INSIDE)).await.unwrap();
    let mut buffer = [0; 512];
    for _ in 0..limits::DNS_TCP_PENDING {
        silent.recv(&mut buffer).await.unwrap();
    }
    // The next is read when one of them is answered, and not before.
    let (first, _) = answer(&mut stream).await;
    assert_eq!(first, 1);
    let mut later = Vec::new();
    for _ in 0..limits::DNS_TCP_PENDING {
        later.push(answer(&mut stream).await.0);
    }
    assert_eq!(later.iter().filter(|id| **id == 2).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_so_many_bytes_of_questions_open_and_no_more() {
    const LONG: usize = 60_000;
    let bench = Bench::start(&input("lab.internal"));
    let (silent, upstream) = silent().await;
    bench.dns.set_upstreams(&[upstream], &[]);
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    // Each with as much behind it that says nothing.
    let long = |number| {
        let mut message = question(1, &outside(number));
        message.resize(LONG + 2, 0);
        message[..2].copy_from_slice(&u16::try_from(LONG).unwrap().to_be_bytes());
        message
    };
    let most = limits::DNS_TCP_PENDING_BYTES.div_ceil(LONG);
    let (mut reader, mut writer) = stream.split();
    let all: Vec<u8> = (0..most).flat_map(long).collect();
    let all = [all, question(2, INSIDE)].concat();
    let written = async {
        writer.write_all(&all).await.unwrap();
        let mut buffer = [0; 512];
        for _ in 0..most {
            silent.recv(&mut buffer).await.unwrap();
        }
    };
    // The last is read when one of them is answered, and not before.
    let first = async {
        let mut length = [0; 2];
        reader.read_exact(&mut length).await.unwrap();
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        reader.read_exact(&mut message).await.unwrap();
        message[1]
    };
    let ((), first) = tokio::join!(written, first);
    assert_eq!(first, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_said_all_gets_the_answers_that_it_waits_for() {
    let bench = Bench::start(&input("lab.internal"));
    let (_silent, upstream) = silent().await;
    bench.dns.set_upstreams(&[upstream], &[]);
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    let message = question(1, &outside(0));
    let (front, back) = message.split_at(9);
    // In two pieces, and with another question in the second.
    stream.write_all(front).await.unwrap();
    stream.flush().await.unwrap();
    let rest = [back, &question(2, INSIDE)].concat();
    stream.write_all(&rest).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(answer(&mut stream).await, (2, 0));
    assert_eq!(answer(&mut stream).await, (1, 2));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_many_slow_names_leaves_room_for_those_of_others() {
    let bench = Bench::start(&input("lab.internal"));
    let (silent, upstream) = silent().await;
    bench.dns.set_upstreams(&[upstream], &[]);
    let mut streams = Vec::new();
    let mut buffer = [0; 512];
    let mut number = 0;
    let mut first = None;
    while number < limits::DNS_FORWARDS_PER_ADDRESS {
        let mut stream = TcpStream::connect(bench.address()).await.unwrap();
        let most = (number + limits::DNS_TCP_PENDING).min(limits::DNS_FORWARDS_PER_ADDRESS);
        let slow: Vec<_> = (number..most).map(|n| question(1, &outside(n))).collect();
        stream.write_all(&slow.concat()).await.unwrap();
        streams.push(stream);
        while number < most {
            let (length, from) = silent.recv_from(&mut buffer).await.unwrap();
            first.get_or_insert((buffer[..length].to_vec(), from));
            number += 1;
        }
    }
    // What is beyond its share waits for its turn.
    let beyond = number;
    let mut last = TcpStream::connect(bench.address()).await.unwrap();
    last.write_all(&question(2, &outside(beyond)))
        .await
        .unwrap();
    number += 1;
    // Another client's is asked of the name server.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(bench.address()).await.unwrap();
    other
        .write_all(&question(1, &outside(number)))
        .await
        .unwrap();
    let names = |message: &[u8], number: usize| {
        let label = format!("n{number}").into_bytes();
        let message = message.to_ascii_lowercase();
        message.windows(label.len()).any(|part| part == label)
    };
    loop {
        let length = silent.recv(&mut buffer).await.unwrap();
        assert!(!names(&buffer[..length], beyond));
        if names(&buffer[..length], number) {
            break;
        }
    }
    // One of its slow names fails, which makes room.
    let (mut failed, from) = first.unwrap();
    failed[2..4].copy_from_slice(&[0x81, 0x82]);
    silent.send_to(&failed, from).await.unwrap();
    loop {
        let length = silent.recv(&mut buffer).await.unwrap();
        if names(&buffer[..length], beyond) {
            break;
        }
    }
}
