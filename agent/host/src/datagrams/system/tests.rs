use std::{net::UdpSocket as StdSocket, time::Duration};

use super::*;
use crate::{Presence, sockets};

/// Says "answer" to a question, and to none else.
struct Answer;

impl Responder for Answer {
    fn respond(&self, batch: &mut DatagramBatch) {
        for slot in batch.received() {
            let (bytes, reply) = slot.parts();
            if bytes.starts_with(b"question") {
                reply.extend_from_slice(b"answer");
                reply.extend_from_slice(&bytes[8..]);
            }
        }
    }
}

fn client(at: &str, server: SocketAddr) -> StdSocket {
    let client = StdSocket::bind(at).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.connect(server).unwrap();
    client
}

fn heard(client: &StdSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    let length = client.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

/// What a client hears that takes answers from the address it asked alone.
fn exchange(any: &str, from: &str, asked: &str) {
    let server = sockets::udp(any.parse().unwrap(), Presence::Present).unwrap();
    let asked = SocketAddr::new(asked.parse().unwrap(), server.local_addr().port());
    let sender = server.sender();
    let _serving = Box::new(server).serve(Arc::new(Answer)).unwrap();
    let client = client(from, asked);
    // Nothing is said to the first, and that keeps nothing back.
    client.send(b"noise").unwrap();
    for n in 0..3 * BATCH {
        client.send(format!("question{n}").as_bytes()).unwrap();
        assert_eq!(heard(&client), format!("answer{n}").as_bytes());
    }
    let late = SocketAddr::new(
        client.local_addr().unwrap().ip(),
        client.local_addr().unwrap().port(),
    );
    let from = Some(asked.ip()).filter(|_| any.starts_with("0.0.0.0") || any.starts_with("[::]"));
    sender.send(b"late", late, from).unwrap();
    assert_eq!(heard(&client), b"late");
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    exchange("0.0.0.0:0", "127.0.0.1:0", "127.0.0.7");
    exchange("127.0.0.9:0", "127.0.0.1:0", "127.0.0.9");
}

#[test]
fn replies_over_ipv6_leave_from_the_address_that_was_asked() {
    if StdSocket::bind("[::1]:0").is_err() {
        innermesh_skip::skip("this machine has no IPv6 loopback address");
        return;
    }
    exchange("[::]:0", "[::1]:0", "::1");
}

#[test]
fn a_full_batch_is_answered_whole_whatever_address_each_was_sent_to() {
    let server = sockets::udp("0.0.0.0:0".parse().unwrap(), Presence::Present).unwrap();
    let port = server.local_addr().port();
    let clients: Vec<StdSocket> = (1..=4)
        .map(|n| client("127.0.0.1:0", SocketAddr::from(([127, 0, 0, n], port))))
        .collect();
    // All wait at the sockets before anybody looks.
    for n in 0..BATCH {
        for client in &clients {
            client.send(format!("question{n}").as_bytes()).unwrap();
        }
    }
    let _serving = Box::new(server).serve(Arc::new(Answer)).unwrap();
    for client in &clients {
        for n in 0..BATCH {
            assert_eq!(heard(client), format!("answer{n}").as_bytes());
        }
    }
}

#[tokio::test]
async fn an_address_is_free_when_its_service_has_ended() {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut server = sockets::udp(any, Presence::Present).unwrap();
    let address = server.local_addr();
    for _ in 0..20 {
        let serving = Box::new(server).serve(Arc::new(Answer)).unwrap();
        let again = sockets::udp(address, Presence::Present).map(drop);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // Its thread waits for the next alone.
        let client = client("127.0.0.1:0", address);
        for _ in 0..6 {
            client.send(b"question").unwrap();
            assert_eq!(heard(&client), b"answer");
        }
        drop(client);
        serving.end().await;
        server = sockets::udp(address, Presence::Present).unwrap();
    }
}

#[test]
fn a_port_of_a_program_that_shares_it_is_not_taken_beside_it() {
    let other = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    other.set_reuse_port(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    other.bind(&any.into()).unwrap();
    let address = other.local_addr().unwrap().as_socket().unwrap();
    let taken = sockets::udp(address, Presence::Present).map(drop);
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
