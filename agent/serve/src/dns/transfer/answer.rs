//! From a signed request to its answer. A transfer's messages are made one by one
//! while they are written, from what all transfers share.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_server::net::xfer::Protocol;
use innermesh_host::Mono;
use innermesh_proto::limits;

use super::{
    super::places::Taking,
    journal::{Change, ServedZone},
    message::{AXFR, HEADER, IN, IXFR, Message, QR, SOA, Tsig, may_be_signed},
    records::Records,
    report::Fetched,
    secondary::Grant,
    serial::is_later,
    served::Transfers,
    tsig::{self, BADKEY, BADTIME, Refusal, Signer, append_unsigned, time_of},
};

const FORMERR: u8 = 1;
const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;
const NOTAUTH: u8 = 9;
/// In the third byte of a header: the operation and RD, which a response repeats.
const REPEATED: u8 = 0x79;
/// In the same byte: authoritative.
const AA: u8 = 0x04;
/// Bytes of one message: large enough that few are needed, and small enough that a
/// slow reader is seen to read.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How long a transfer may take in all.
const DEADLINE: Duration = Duration::from_secs(120);

/// What is said to a message of a secondary.
pub(in crate::dns) enum Answer {
    /// One message; nothing is sent where it is empty.
    Message(Vec<u8>),
    Transfer(Box<Transfer>),
}

/// A transfer that has begun.
pub(in crate::dns) struct Transfer {
    transfers: Arc<Transfers>,
    grant: Arc<Grant>,
    source: IpAddr,
    zone: Arc<ServedZone>,
    frame: Frame,
    pieces: VecDeque<Piece>,
    /// The record of the first piece that comes next.
    at: usize,
    signer: Signer,
    began: Mono,
    is_whole: bool,
    sent: usize,
    _place: Taking,
}

/// Why a transfer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::dns) enum Ended {
    #[error("the secondary was removed")]
    Removed,
    #[error("it takes longer than {} s", DEADLINE.as_secs())]
    Late,
}

/// What follows in a transfer.
enum Piece {
    Soa(Vec<u8>),
    All(Arc<Records>),
    Removed(Arc<Change>),
    Added(Arc<Change>),
}

impl Piece {
    fn record(&self, number: usize) -> Option<&[u8]> {
        match self {
            Self::Soa(soa) => (number == 0).then_some(soa),
            Self::All(records) => records.get(number),
            Self::Removed(change) => change.removed.get(number),
            Self::Added(change) => change.added.get(number),
        }
    }
}

/// What each message of an answer begins with.
struct Frame {
    id: [u8; 2],
    flags: u8,
    question: Vec<u8>,
    has_opt: bool,
}

impl Frame {
    fn of(message: &Message<'_>) -> Self {
        Self {
            id: message.id.to_be_bytes(),
            flags: QR | message.flags[0] & REPEATED,
            question: message.question().to_vec(),
            has_opt: message.has_opt,
        }
    }

    fn begin(&self, out: &mut Vec<u8>, authority: u8, rcode: u8) {
        out.extend(self.id);
        out.extend([self.flags | authority, rcode, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(&self.question);
    }

    /// Appends what stands behind the records (RFC 6891 §6.1.1), and counts those.
    fn end(&self, out: &mut Vec<u8>, start: usize, answers: u16) {
        if self.has_opt {
            let [high, low] = limits::DNS_UDP_BYTES.to_be_bytes();
            out.extend([0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
        }
        if let Some(counts) = out.get_mut(start + 6..start + HEADER) {
            let [high, low] = answers.to_be_bytes();
            counts.copy_from_slice(&[high, low, 0, 0, 0, u8::from(self.has_opt)]);
        }
    }

    /// A message with that error and no more, unsigned yet.
    fn error(&self, rcode: u8) -> Vec<u8> {
        let mut out = Vec::new();
        self.begin(&mut out, 0, rcode);
        self.end(&mut out, 0, 0);
        out
    }

    /// A message with one record, unsigned yet.
    fn one(&self, record: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.begin(&mut out, AA, 0);
        out.extend(record);
        self.end(&mut out, 0, 1);
        out
    }
}

impl Transfers {
    /// What is said to a message from `source`; `None` for what is no signed message
    /// from where a secondary is: others are answered as if there were none.
    pub(in crate::dns) fn answer(
        self: &Arc<Self>,
        bytes: &[u8],
        source: SocketAddr,
        protocol: Protocol,
    ) -> Option<Answer> {
        let ip = source.ip().to_canonical();
        if !may_be_signed(bytes) || !self.is_known(ip) {
            return None;
        }
        let message = Message::read(bytes).ok()?;
        if message.flags[0] & QR != 0 {
            // A response over TCP ends the connection, as any does.
            if protocol != Protocol::Udp {
                return None;
            }
            self.take_answer(&message, source);
            return Some(Answer::Message(Vec::new()));
        }
        let tsig = message.tsig.as_ref()?;
        let frame = Frame::of(&message);
        let Some(grant) = self.grant_of(tsig, ip) else {
            let mut out = frame.error(NOTAUTH);
            append_unsigned(&mut out, 0, tsig, BADKEY);
            return Some(Answer::Message(out));
        };
        let now_s = self.wall_s();
        let verified = grant.key.verify(&message, tsig, None, now_s);
        let mut signer = Signer::answer(&grant.key, tsig.mac);
        let mut out = match verified {
            Err(refusal) => {
                tracing::debug!(%source, ?refusal, "a secondary's signature is refused");
                return Some(Answer::Message(refused(
                    &frame, refusal, tsig, signer, now_s,
                )));
            }
            Ok(()) => match self.reply(&message, &grant, ip, protocol) {
                Reply::Error(rcode) => frame.error(rcode),
                Reply::Soa(soa) => frame.one(&soa),
                Reply::Transfer(start) => {
                    return Some(start.transfer(self, grant, ip, frame, signer));
                }
            },
        };
        signer.sign(&mut out, 0, now_s);
        Some(Answer::Message(out))
    }

    /// What is said to a request that is signed as it should be.
    fn reply(
        &self,
        message: &Message<'_>,
        grant: &Arc<Grant>,
        source: IpAddr,
        protocol: Protocol,
    ) -> Reply {
        if message.opcode() != 0 {
            return Reply::Error(NOTIMP);
        }
        if message.qclass != IN || !matches!(message.qtype, SOA | IXFR | AXFR) {
            return Reply::Error(REFUSED);
        }
        let zone = match self.zone(&message.name) {
            Some(zone) if grant.secondary.may_have(&message.name) => zone,
            Some(_) => return Reply::Error(REFUSED),
            // Nothing is transferred before the zone is whole.
            None if self.is_empty() => return Reply::Error(SERVFAIL),
            None => return Reply::Error(NOTAUTH),
        };
        self.was_asked(grant, &zone);
        let soa = || zone.content.encode_soa(zone.serial);
        let changes = match (message.qtype, message.serial, protocol) {
            (SOA, ..) => return Reply::Soa(soa()),
            // A transfer doesn't fit a datagram (RFC 5936 §4.2).
            (AXFR, _, Protocol::Udp) | (IXFR, None, _) => return Reply::Error(FORMERR),
            (IXFR, Some(serial), _) if serial == zone.serial || is_later(serial, zone.serial) => {
                self.is_current(grant, &zone);
                return Reply::Soa(soa());
            }
            // The newest SOA alone has it ask over TCP (RFC 1995 §2): nothing larger
            // than the question goes to an address that may be forged.
            (IXFR, _, Protocol::Udp) => return Reply::Soa(soa()),
            (IXFR, Some(serial), _) if self.gave(grant, source, &zone, serial) => {
                zone.since(serial)
            }
            _ => None,
        };
        match self.places.take(source) {
            Some(place) => Reply::Transfer(Start {
                zone,
                changes,
                place,
            }),
            None => Reply::Error(SERVFAIL),
        }
    }
}

enum Reply {
    Error(u8),
    Soa(Vec<u8>),
    Transfer(Start),
}

/// A transfer that is to begin.
struct Start {
    zone: Arc<ServedZone>,
    /// By which changes; the whole zone without.
    changes: Option<Vec<Arc<Change>>>,
    place: Taking,
}

impl Start {
    fn transfer(
        self,
        transfers: &Arc<Transfers>,
        grant: Arc<Grant>,
        source: IpAddr,
        frame: Frame,
        signer: Signer,
    ) -> Answer {
        let Self {
            zone,
            changes,
            place,
        } = self;
        let is_whole = changes.is_none();
        let soa = |serial| Piece::Soa(zone.content.encode_soa(serial));
        let mut pieces = VecDeque::from([soa(zone.serial)]);
        match changes {
            None => pieces.push_back(Piece::All(zone.content.records().clone())),
            Some(changes) => {
                for change in changes {
                    pieces.push_back(soa(change.from));
                    pieces.push_back(Piece::Removed(change.clone()));
                    pieces.push_back(soa(change.to));
                    pieces.push_back(Piece::Added(change));
                }
            }
        }
        pieces.push_back(soa(zone.serial));
        Answer::Transfer(Box::new(Transfer {
            began: transfers.now(),
            transfers: transfers.clone(),
            grant,
            source,
            zone,
            frame,
            pieces,
            at: 0,
            signer,
            is_whole,
            sent: 0,
            _place: place,
        }))
    }
}

impl Transfer {
    /// Appends the next message; whether others follow.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, Ended> {
        if !self.transfers.has(&self.grant) {
            return Err(Ended::Removed);
        }
        if self.transfers.now() > self.began + DEADLINE {
            return Err(Ended::Late);
        }
        let start = out.len();
        self.frame.begin(out, AA, 0);
        let room = start + MESSAGE_BYTES - tsig::longest(&self.grant.key.name);
        let mut answers = 0;
        while let Some(piece) = self.pieces.front() {
            let Some(record) = piece.record(self.at) else {
                self.pieces.pop_front();
                self.at = 0;
                continue;
            };
            if answers > 0 && (out.len() + record.len() > room || answers == u16::MAX) {
                break;
            }
            out.extend_from_slice(record);
            answers += 1;
            self.at += 1;
        }
        self.frame.end(out, start, answers);
        self.signer.sign(out, start, self.transfers.wall_s());
        self.sent += out.len() - start;
        Ok(!self.pieces.is_empty())
    }

    /// Waits until it may not go on, as the secondary was removed.
    pub async fn removed(&self) {
        self.transfers.until_without(&self.grant).await;
    }

    /// All of it was written.
    pub fn finished(self) {
        let fetched = Fetched {
            at: self.transfers.now(),
            serial: self.zone.serial,
            is_whole: self.is_whole,
            bytes: self.sent,
        };
        let (name, zone) = (&self.grant.secondary.name, &self.zone.content.origin);
        let (serial, bytes) = (fetched.serial, fetched.bytes);
        let kind = if self.is_whole { "AXFR" } else { "IXFR" };
        tracing::info!(secondary = %name, %zone, serial, kind, bytes, "a zone was transferred");
        self.transfers
            .fetched(&self.grant, self.source, &self.zone, fetched);
    }
}

/// What is said to a signature that isn't right (RFC 8945 §5.2).
fn refused(
    frame: &Frame,
    refusal: Refusal,
    tsig: &Tsig<'_>,
    mut signer: Signer,
    now_s: u64,
) -> Vec<u8> {
    match refusal {
        Refusal::Malformed => frame.error(FORMERR),
        Refusal::Unsigned(error) => {
            let mut out = frame.error(NOTAUTH);
            append_unsigned(&mut out, 0, tsig, error);
            out
        }
        Refusal::Signed(error) => {
            let mut out = frame.error(NOTAUTH);
            let time = time_of(now_s);
            // Its own time, so that it can check the signature, and ours beside it.
            let (time_s, other) = match error {
                BADTIME => (tsig.time_s, &time[..]),
                _ => (now_s, &[][..]),
            };
            signer.sign_error(&mut out, 0, (time_s, error, other));
            out
        }
    }
}
