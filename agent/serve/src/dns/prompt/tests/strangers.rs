//! What strangers ask over UDP takes nothing from others.

use std::{io, net::SocketAddr};

use innermesh_host::{DatagramBatch, DatagramSender, Responder, datagrams::Arrival};

use super::{corpus, *};
use crate::dns::udp;

struct NobodySends;

impl DatagramSender for NobodySends {
    fn send(&self, _: &[u8], _: SocketAddr, _: Option<IpAddr>) -> io::Result<()> {
        Ok(())
    }
}

/// A question with version 1 of EDNS, which the careful path looks at.
const ODD: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x03lab\x08internal\x00\
\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00";
const REFUSED: u8 = 5;

#[tokio::test]
async fn a_stranger_s_odd_questions_are_refused_at_once_and_leave_a_member_its_place() {
    let dns = Arc::new(dns(&corpus::input(), Arc::default()));
    let (responder, _careful) = udp::both(&dns, Arc::new(NobodySends));
    let arrival = |ip| Arrival {
        source: SocketAddr::new(ip, 4000),
        destination: None,
    };
    // Far more than wait together, and nobody takes any out.
    for _ in 0..40 {
        let flood = std::iter::repeat_n((arrival(STRANGER), ODD), 64);
        let mut batch = DatagramBatch::of(flood);
        responder.respond(&mut batch);
        for slot in batch.received() {
            assert_eq!(slot.reply.get(3).map(|flags| flags & 15), Some(REFUSED));
        }
    }
    assert_eq!(responder.waiting(), 0);
    let mut batch = DatagramBatch::of([(arrival(MEMBER), ODD)]);
    responder.respond(&mut batch);
    assert!(
        batch.received()[0].reply.is_empty(),
        "it is answered with care"
    );
    assert_eq!(responder.waiting(), 1);
}
