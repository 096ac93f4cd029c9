//! What comes in: a question, or what is none, which is answered with FORMERR
//! where that can't start a conversation of two servers.

use std::net::SocketAddr;

use hickory_server::{net::xfer::Protocol, proto::op::OpCode, server::Request};
use innermesh_proto::limits;

use super::wire::{self, HEADER};

/// The highest bit of the third byte: a response.
const QR: u8 = 0x80;
/// In the same byte, what a response repeats: the operation, and whether
/// recursion is desired.
const REPEATED: u8 = 0x79;
const FORMERR: u8 = 1;

/// What came in.
pub(super) enum Received {
    Question(Box<Request>),
    /// With its whole answer.
    Malformed(Vec<u8>),
    /// A response, or no message of DNS: nobody is answered.
    Nothing,
}

impl Received {
    pub fn read(bytes: &[u8], source: SocketAddr, protocol: Protocol) -> Self {
        let header = bytes.first_chunk::<HEADER>();
        let Some(header) = header.filter(|header| header[2] & QR == 0) else {
            return Self::Nothing;
        };
        match Request::from_bytes(bytes.to_vec(), source, protocol) {
            Ok(request) if is_askable(&request, bytes) => Self::Question(Box::new(request)),
            _ => Self::Malformed(form_error(header, bytes)),
        }
    }
}

/// Whether it has one question at most (RFC 9619 §4), whose name is written out: before
/// it is only the header, to which nothing may point (RFC 1035 §4.1.4).
fn is_askable(request: &Request, bytes: &[u8]) -> bool {
    match request.queries.len() {
        0 => true,
        1 => is_written_out(bytes),
        _ => request.metadata.op_code != OpCode::Query,
    }
}

fn is_written_out(bytes: &[u8]) -> bool {
    let mut at = HEADER;
    loop {
        match bytes.get(at) {
            Some(0) => return true,
            Some(length @ 1..=63) => at += 1 + usize::from(*length),
            _ => return false,
        }
    }
}

/// The answer to what is no question that can be read; `None` where it is one, or
/// nothing that is answered.
pub fn formerr(bytes: &[u8]) -> Option<Vec<u8>> {
    let source = SocketAddr::from(([127, 0, 0, 1], 53));
    match Received::read(bytes, source, Protocol::Udp) {
        Received::Malformed(reply) => Some(reply),
        Received::Question(_) | Received::Nothing => None,
    }
}

/// FORMERR without the question, which may be what is malformed; with an OPT
/// record where there is one (RFC 6891 §6.1.1).
pub(super) fn form_error(header: &[u8; HEADER], bytes: &[u8]) -> Vec<u8> {
    let [id, low, flags, ..] = *header;
    let mut reply = vec![id, low, QR | flags & REPEATED, FORMERR];
    let has_opt = wire::opt(bytes).is_some();
    reply.extend([0, 0, 0, 0, 0, 0, 0, u8::from(has_opt)]);
    if has_opt {
        let [high, low] = limits::DNS_UDP_BYTES.to_be_bytes();
        reply.extend([0, 0, wire::OPT as u8, high, low, 0, 0, 0, 0, 0, 0]);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"\x01a\x03lab\x08internal\0";
    const OPT_RECORD: [u8; 11] = [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0];

    fn message(counts: [u8; 4], body: &[&[u8]]) -> Vec<u8> {
        let [questions, answers, authorities, additionals] = counts;
        let header = [
            7,
            9,
            1,
            0,
            0,
            questions,
            0,
            answers,
            0,
            authorities,
            0,
            additionals,
        ];
        [&header[..], &body.concat()].concat()
    }

    fn read(bytes: &[u8]) -> Received {
        Received::read(bytes, ([127, 0, 0, 1], 5353).into(), Protocol::Udp)
    }

    fn reply(bytes: &[u8]) -> Vec<u8> {
        match read(bytes) {
            Received::Malformed(reply) => reply,
            Received::Question(_) => panic!("a question"),
            Received::Nothing => panic!("nothing"),
        }
    }

    #[test]
    fn what_is_malformed_is_answered_with_formerr_and_with_opt_if_it_had_one() {
        let question: &[u8] = &[0, 1, 0, 1];
        let two = message([1, 0, 0, 2], &[NAME, question, &OPT_RECORD, &OPT_RECORD]);
        let with = reply(&two);
        assert_eq!(with[..12], [7, 9, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(with[12..], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        // The OPT record itself may be what is cut.
        let cut = message([1, 0, 0, 1], &[NAME, question, &OPT_RECORD[..10], &[9]]);
        assert_eq!(reply(&cut).len(), 12 + 11);
        let without = message([2, 0, 0, 0], &[NAME, question]);
        assert_eq!(reply(&without), [7, 9, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn two_questions_and_a_name_that_points_into_the_header_are_malformed() {
        let question: &[u8] = &[0, 1, 0, 1];
        let two = message([2, 0, 0, 0], &[NAME, question, NAME, question]);
        assert_eq!(reply(&two), [7, 9, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        for at in [0, 1, 11, 12] {
            for before in [&[][..], &[1, b'a']] {
                let name = [before, &[0xc0, at]].concat();
                let pointing = message([1, 0, 0, 0], &[&name, question]);
                assert_eq!(reply(&pointing)[3], FORMERR, "{name:?}");
            }
        }
        let none = message([0, 0, 0, 0], &[]);
        assert!(matches!(read(&none), Received::Question(_)));
    }

    #[test]
    fn responses_and_fragments_of_a_header_are_never_answered() {
        let mut response = message([1, 0, 0, 0], &[]);
        response[2] |= QR;
        assert!(matches!(read(&response), Received::Nothing));
        assert!(matches!(read(&[7, 9, 1]), Received::Nothing));
        let good = message([1, 0, 0, 0], &[NAME, &[0, 1, 0, 1]]);
        assert!(matches!(read(&good), Received::Question(_)));
    }

    #[test]
    fn whatever_is_damaged_is_answered_with_its_id_or_not_at_all() {
        let good = message([1, 0, 0, 1], &[NAME, &[0, 1, 0, 1], &OPT_RECORD]);
        for end in 0..good.len() {
            for (at, with) in (0..end).flat_map(|at| [0, 1, 63, 192, 255].map(|with| (at, with))) {
                let mut bytes = good[..end].to_vec();
                bytes[at] = with;
                if let Received::Malformed(reply) = read(&bytes) {
                    assert_eq!(reply[..2], bytes[..2]);
                }
            }
        }
    }
}
