//! Questions over UDP, whole and damaged, without end.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::slow::Abuse;
use crate::{Host, dns};

/// So long a host sends what is its turn, and takes what came back.
const TICK: Duration = Duration::from_millis(2);
/// Longest that fits into a datagram over IPv4.
const LONGEST: usize = 65_507;

/// How many kinds of messages are sent, in turn.
pub const FORMS: usize = 24;

/// What was sent, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub received_bytes: u64,
    /// Answers that are longer than what they answer, by what that was: both lengths.
    pub longer: BTreeMap<&'static str, (usize, usize)>,
    /// What was answered at all.
    pub answered: BTreeMap<&'static str, u64>,
}

/// Sends so many messages in a second from these addresses of a host, until it is over.
///
/// # Panics
/// When the host's network gives no sockets.
#[must_use]
pub fn flood(
    host: &Host,
    sources: &[Ipv4Addr],
    server: SocketAddr,
    per_second: u64,
    abuse: &Abuse,
) -> Flood {
    let sockets: Vec<UdpSocket> = sources
        .iter()
        .map(|source| {
            let socket = host.udp((*source, 0).into()).expect("a socket");
            socket.connect(server).expect("a way there");
            socket.set_nonblocking(true).expect("a socket");
            socket
        })
        .collect();
    let forms = forms();
    let (mut flood, mut turn) = (Flood::default(), 0);
    let began = Instant::now();
    while !abuse.is_over() {
        let due = u128::from(per_second) * began.elapsed().as_millis() / 1000;
        // What couldn't be sent in time isn't made up for all at once.
        let most = u128::from(per_second) / 50;
        let mut left = due.saturating_sub(flood.sent.into()).min(most);
        while left > 0 {
            let (_, form) = &forms[turn % FORMS];
            if sockets[turn % sockets.len()].send(form).is_ok() {
                flood.sent_bytes += form.len() as u64;
            }
            flood.sent += 1;
            turn += 1;
            left -= 1;
        }
        for socket in &sockets {
            receive(socket, &forms, &mut flood);
        }
        thread::sleep(TICK);
    }
    flood
}

fn receive(socket: &UdpSocket, forms: &[(&'static str, Vec<u8>)], flood: &mut Flood) {
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        flood.received += 1;
        flood.received_bytes += length as u64;
        // Which it answers stands in its id.
        let form = forms.get(usize::from(buffer[1]));
        let (what, sent) = form.map_or(("nothing", 0), |(what, form)| (*what, form.len()));
        *flood.answered.entry(what).or_default() += 1;
        if length > sent {
            flood.longer.insert(what, (sent, length));
        }
    }
}

/// Each with its number as its id.
fn forms() -> Vec<(&'static str, Vec<u8>)> {
    let name = "alpha.lab.internal";
    let plain = || dns::query(0, name);
    let of_type = |rtype: u16| {
        let mut message = plain();
        let at = message.len() - 4;
        message[at..at + 2].copy_from_slice(&rtype.to_be_bytes());
        message
    };
    let opt = |options: &[u8]| {
        let mut message = plain();
        message[11] = 1;
        message.extend([0, 0, 41, 16, 0, 0, 0, 0x80, 0]);
        message.extend(u16::try_from(options.len()).unwrap_or(0).to_be_bytes());
        [&message[..], options].concat()
    };
    let with = |at: usize, octet: u8| {
        let mut message = plain();
        message[at] = octet;
        message
    };
    let named = |name: &[u8]| [&plain()[..12], name, &[0, 1, 0, 1]].concat();
    let long_label = [&[63][..], &[b'x'; 63]].concat();
    let noise: Vec<u8> = (0..LONGEST).map(|n| ((n * 167) >> 3) as u8).collect();
    let mut forms = vec![
        ("an address", plain()),
        ("ANY", of_type(255)),
        ("AXFR", of_type(252)),
        ("IXFR over UDP", of_type(251)),
        ("OPT as a question", of_type(41)),
        ("signatures", opt(&[])),
        ("a cookie", opt(b"\0\x0a\0\x0812345678")),
        ("half a cookie", opt(b"\0\x0a\0\x03123")),
        ("a subnet", opt(b"\0\x08\0\x03999")),
        ("an option past its end", opt(b"\0\x0c\0\xff1")),
        ("a response", with(2, 0x81)),
        ("NOTIFY", with(2, 0x20)),
        ("UPDATE", with(2, 0x28)),
        ("two questions, one there", with(5, 2)),
        ("65,535 questions", with(4, 255)),
        ("no question", with(5, 0)),
        ("another class", with(plain().len() - 1, 255)),
        ("a pointer to itself", named(b"\xc0\x0c")),
        ("pointers in a circle", named(b"\xc0\x0e\xc0\x0c")),
        ("a pointer to the header", named(b"\x01a\xc0\x00")),
        ("a name of 255 octets", {
            named(&[&long_label.repeat(3)[..], &[61], &[b'y'; 61], &[0]].concat())
        }),
        ("a name without an end", named(&long_label.repeat(5))),
        ("half a header", plain()[..7].to_vec()),
        ("65,507 octets", noise),
    ];
    assert_eq!(forms.len(), FORMS);
    for (number, (what, form)) in forms.iter_mut().enumerate() {
        form[0] = 0;
        form[1] = u8::try_from(number).expect("few forms");
        if *what == "65,507 octets" {
            // No response, so that it is looked at.
            form[2] = 0;
        }
    }
    forms
}
