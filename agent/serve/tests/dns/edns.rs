//! Name servers from before EDNS (RFC 6891 §7).

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use innermesh_control::dns::QueryReport;
use innermesh_proto::zone::RecordType;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::bench::{Bench, input};

/// Such a server: what it says to a question with EDNS, and whether its answers
/// over UDP are cut.
#[derive(Clone, Copy)]
struct Old {
    code: u8,
    repeats: bool,
    cuts: bool,
}

impl Old {
    fn reply(self, question: &[u8], is_tcp: bool) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
        let id = &question[..2];
        let asked = &question[12..end];
        if has_opt(question) {
            let count = u8::from(self.repeats);
            let header = [0x81, 0x80 | self.code, 0, count, 0, 0, 0, 0, 0, 0];
            return [id, &header, if self.repeats { asked } else { &[] }].concat();
        }
        if self.cuts && !is_tcp {
            return [id, &[0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], asked].concat();
        }
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
        [id, &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], asked, &record].concat()
    }

    /// Where it answers, and which questions had EDNS, in order.
    async fn start(self) -> (SocketAddr, Arc<Mutex<Vec<bool>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let (udp, tcp) = (seen.clone(), seen.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = &buffer[..length];
                udp.lock().unwrap().push(has_opt(question));
                let _ = socket.send_to(&self.reply(question, false), from).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                tcp.lock().unwrap().push(has_opt(&question));
                let reply = self.reply(&question, true);
                stream.write_u16(reply.len() as u16).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
        (address, seen)
    }
}

fn has_opt(question: &[u8]) -> bool {
    question[11] != 0
}

async fn ask(bench: &Bench, name: &str) -> QueryReport {
    bench.dns.query(&name.parse().unwrap(), RecordType::A).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_edns_is_asked_without() {
    for code in [1, 4] {
        for repeats in [true, false] {
            for cuts in [false, true] {
                let old = Old {
                    code,
                    repeats,
                    cuts,
                };
                let bench = Bench::start(&input("lab.internal"));
                let (upstream, seen) = old.start().await;
                bench.dns.set_upstreams(&[upstream], &[]);
                let report = ask(&bench, "www.example.org").await;
                assert_eq!(report.rcode, "NOERROR", "{report:?}");
                assert!(report.answers[0].ends_with("192.0.2.1"), "{report:?}");
                let with = |seen: &[bool]| seen.iter().filter(|edns| **edns).count();
                assert_eq!(with(&seen.lock().unwrap()), 1, "asked with EDNS once");
                // The next question comes without at once.
                let report = ask(&bench, "other.example.org").await;
                assert_eq!(report.rcode, "NOERROR", "{report:?}");
                assert_eq!(with(&seen.lock().unwrap()), 1);
                // And after a while with it again: the server may be a new one.
                bench.clock.advance(301);
                let report = ask(&bench, "third.example.org").await;
                assert_eq!(report.rcode, "NOERROR", "{report:?}");
                assert_eq!(with(&seen.lock().unwrap()), 2);
            }
        }
    }
}

/// A server that answers in another case is asked over TCP, and may not know EDNS
/// there either.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_over_tcp_has_it_asked_without_edns_there_too() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let old = Old {
        code: 1,
        repeats: false,
        cuts: false,
    };
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // Over UDP it takes EDNS, and has to cut.
            let end = 12 + buffer[12..length].iter().position(|b| *b == 0).unwrap() + 5;
            let header = [0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
            let reply = [&buffer[..2], &header, &buffer[12..end]].concat();
            let _ = socket.send_to(&reply, from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            let reply = old.reply(&question, true);
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    let bench = Bench::start(&input("lab.internal"));
    bench.dns.set_upstreams(&[address], &[]);
    let report = ask(&bench, "www.example.org").await;
    assert_eq!(report.rcode, "NOERROR", "{report:?}");
    assert!(report.answers[0].ends_with("192.0.2.1"), "{report:?}");
}
