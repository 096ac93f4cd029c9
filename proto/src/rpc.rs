//! The envelope of everything that travels between two agents on a QUIC
//! stream: request and response frames, method and status numbers, close codes.
//!
//! A stream carries one frame each way and its end is the frame's end, so a
//! frame has no length in front. What a body means is its method's affair; this
//! module must not know.
//!
//! Numbers stay for ever and are never used again for another meaning. A frame
//! of a later version with this layout is answered like any other, unknown
//! extensions are ignored, and an unknown status is an error that keeps its
//! number: a newer peer is never cut off for being newer.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError, raw},
    limits,
};

/// Version that this build writes into its frames.
pub const VERSION: u16 = 1;

/// What is asked, by number.
pub mod method {
    /// Answers the body that it was given.
    pub const PING: u16 = 1;
    /// One-way: a gossip message.
    pub const GOSSIP: u16 = 2;
    /// One-way: heads that are new.
    pub const PUSH: u16 = 3;
    /// The body of a head, by its hash.
    pub const BODY: u16 = 4;
    /// A range of the ledger.
    pub const LEDGER: u16 = 5;
    /// One-way: batches that are new.
    pub const BATCHES: u16 = 6;
    /// A request for the ledger, on its way to the leader.
    pub const PROPOSE: u16 = 7;
    /// Joining.
    pub const JOIN: u16 = 8;
    /// Renewing a membership certificate.
    pub const RENEW: u16 = 9;
    /// The genesis of the ledger.
    pub const GENESIS: u16 = 10;
    /// All heads held.
    pub const HEADS: u16 = 11;
    /// One-way, between the transports themselves: [`super::Hello`], the first
    /// frame that either end of a connection sends.
    pub const HELLO: u16 = 12;
    /// One-way, between CA nodes: a message of the roster's log.
    pub const RAFT: u16 = 13;
    /// One-way, between CA nodes: a signature over a batch.
    pub const ENDORSE: u16 = 14;

    /// Between an admin's agent and the member that a machine without a token
    /// asked.
    pub const ADMISSION: u16 = 15;
    /// The public keys of a node's issuers, for an admin that renews them.
    pub const ISSUER_KEYS: u16 = 20;
    /// Who leads, and how far the CA nodes are.
    pub const COUNCIL: u16 = 21;
    /// The batch by which the root replaced a lost roster.
    pub const RECOVERY: u16 = 22;
    /// A state of the ledger, and what shows that it is one.
    pub const SNAPSHOT: u16 = 23;
    /// A part of that state's bytes.
    pub const SNAPSHOT_PART: u16 = 24;
    /// The newest revocation list of one issuer.
    pub const REVOCATIONS: u16 = 28;
    /// Whether the peer has cut a node off.
    pub const CUT_OFF: u16 = 33;
    /// As [`PROPOSE`], by who takes a refusal that isn't in the ledger.
    pub const SUBMIT: u16 = 40;
    /// Whose requests the leader turns away, for admins.
    pub const SPENDERS: u16 = 41;
    /// The invites that a node's people gave out and that are open, for admins.
    pub const INVITES: u16 = 42;
    /// What the asked node's WireGuard device counted of the asking node's packets.
    pub const TUNNEL_SEEN: u16 = 50;
    /// A request for the ledger of a node that doesn't reach the leader, to a member
    /// that may.
    pub const RELAY: u16 = 51;
    /// As [`SUBMIT`], by a member that another node asked by [`RELAY`].
    pub const RELAYED: u16 = 52;
    /// Which heads the peer holds, where its table differs from the asking node's.
    pub const COMPARE: u16 = 53;
    /// Heads of some nodes.
    pub const HEADS_OF: u16 = 54;
    /// Where the asked node's WireGuard device sees the asking node.
    pub const TUNNEL_PLACE: u16 = 55;
    /// To a neighbour of a node: tell that node that this one looks for it.
    pub const PUNCH: u16 = 56;
    /// From a neighbour: another node looks for this one.
    pub const PUNCHED: u16 = 57;
    /// A step towards a pre-shared key of two nodes.
    pub const PAIR_KEY: u16 = 58;
    /// As [`PAIR_KEY`], for a node that the asked one is connected with.
    pub const PAIR_KEY_BY: u16 = 59;

    /// A method's name, for traces and logs.
    pub fn name(method: u16) -> &'static str {
        match method {
            PING => "ping",
            GOSSIP => "gossip",
            PUSH => "push",
            BODY => "body",
            LEDGER => "ledger",
            BATCHES => "batches",
            PROPOSE => "propose",
            JOIN => "join",
            RENEW => "renew",
            GENESIS => "genesis",
            HEADS => "heads",
            HELLO => "hello",
            RAFT => "raft",
            ENDORSE => "endorse",
            ISSUER_KEYS => "issuer keys",
            COUNCIL => "council",
            RECOVERY => "recovery",
            SNAPSHOT => "snapshot",
            SNAPSHOT_PART => "snapshot part",
            REVOCATIONS => "revocations",
            INVITES => "invites",
            TUNNEL_SEEN => "tunnel seen",
            TUNNEL_PLACE => "tunnel place",
            PUNCH => "punch",
            PUNCHED => "punched",
            PAIR_KEY => "pair key",
            PAIR_KEY_BY => "pair key by",
            RELAY => "relay",
            RELAYED => "relayed",
            COMPARE => "compare",
            HEADS_OF => "heads of",
            SUBMIT => "submit",
            SPENDERS => "spenders",
            ADMISSION => "admission",
            CUT_OFF => "cut off",
            _ => "unknown",
        }
    }
}

/// Why one end closed a connection (QUIC application error codes).
pub mod close {
    /// Nothing to say.
    pub const NORMAL: u32 = 0;
    /// Another connection between the two stays. Whatever was sent on this one
    /// and not answered was not looked at: it may be sent again.
    pub const DUPLICATE: u32 = 1;
    /// The peer started anew and this connection led to its former self.
    pub const REPLACED: u32 = 2;
    /// The peer's membership was revoked.
    pub const REVOKED: u32 = 3;
    /// The time or the room for peers that are not members ran out.
    pub const STRANGER: u32 = 4;
    /// This agent is stopping.
    pub const SHUTDOWN: u32 = 5;
    /// Another node answered than the one that was meant.
    pub const WRONG_NODE: u32 = 6;
    /// The agent decided to part from this peer.
    pub const PARTED: u32 = 7;
}

/// Why one end stopped or reset a stream (QUIC application error codes).
pub mod stop {
    /// The frame is longer than its sender may send.
    pub const TOO_LONG: u32 = 1;
    /// The frame didn't arrive in time.
    pub const TOO_SLOW: u32 = 2;
}

/// What one agent asks of or tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// The sender's [`VERSION`]; for people, nothing is refused by it.
    pub version: u16,
    /// One of [`method`].
    pub method: u16,
    /// Milliseconds after which the caller no longer wants the answer.
    pub deadline_ms: u32,
    /// The caller's span (W3C Trace Context, `traceparent`), if it is traced.
    pub traceparent: Option<String>,
    /// The method's own content.
    #[serde(with = "raw")]
    pub body: Vec<u8>,
    /// What later versions add, by number. Unknown ones are ignored.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// The answer to a [`RequestFrame`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// The sender's [`VERSION`].
    pub version: u16,
    /// 0 when it was done, else [`Failure::status`].
    pub status: u16,
    /// The method's own content, or the failure's text.
    #[serde(with = "raw")]
    pub body: Vec<u8>,
    /// What later versions add, by number. Unknown ones are ignored.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// How a transport introduces itself on a new connection, so that both ends
/// come to the same view of which connection is in force and notice a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Random, one for each start of the agent.
    pub instance: u64,
    /// Counts the dialer's connections from its start; 0 from the end that was
    /// dialed.
    pub serial: u64,
}

/// Why a peer did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Understood, and not allowed or not possible. Nothing was changed.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer has no such method: it runs another version. Nothing was changed.
    #[error("the peer doesn't know this method; update the older of the two agents")]
    UnknownMethod,
    /// The peer couldn't read the request. Nothing was changed.
    #[error("the peer couldn't read the request")]
    Malformed,
    /// The peer doesn't hold the caller for a member. Nothing was changed.
    #[error("the peer doesn't know this node as a member; its ledger may be behind")]
    NotMember,
    /// Too much is running for this caller. Nothing was changed; ask again later.
    #[error("the peer is busy with earlier requests")]
    Busy,
    /// The deadline passed while the peer worked; how far it came isn't known.
    #[error("the peer didn't finish in time")]
    DeadlineExceeded,
    /// Not now: what is needed is not there yet. Nothing was changed; ask
    /// again later or elsewhere.
    #[error("not available now: {0}")]
    Unavailable(String),
    /// The peer failed; how far it came isn't known.
    #[error("the peer failed: {0}")]
    Internal(String),
    /// A status of a later version.
    #[error("failed with the unknown status {0}: {1}")]
    Other(u16, String),
}

impl RequestFrame {
    /// A frame of this build's version, without extensions.
    pub fn new(method: u16, deadline_ms: u32, traceparent: Option<String>, body: Vec<u8>) -> Self {
        Self {
            version: VERSION,
            method,
            deadline_ms,
            traceparent,
            body,
            extensions: Vec::new(),
        }
    }

    /// Its bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame of at most `limit` bytes. A `traceparent` that isn't one
    /// is dropped, not an error: tracing must not get in the way.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are not such a frame.
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, CodecError> {
        let mut frame: Self = codec::decode(bytes, limit)?;
        few(&frame.extensions)?;
        frame.traceparent = frame.traceparent.filter(|t| is_traceparent(t));
        Ok(frame)
    }
}

impl ResponseFrame {
    /// From what a handler answered.
    pub fn new(result: Result<Vec<u8>, Failure>) -> Self {
        let (status, body) = match result {
            Ok(body) => (0, body),
            Err(failure) => (failure.status(), failure.text().into_bytes()),
        };
        Self {
            version: VERSION,
            status,
            body,
            extensions: Vec::new(),
        }
    }

    /// Its bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame of at most `limit` bytes.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are not such a frame.
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, CodecError> {
        let frame: Self = codec::decode(bytes, limit)?;
        few(&frame.extensions)?;
        Ok(frame)
    }

    /// What the handler answered.
    ///
    /// # Errors
    /// The peer's [`Failure`].
    pub fn into_result(self) -> Result<Vec<u8>, Failure> {
        if self.status == 0 {
            return Ok(self.body);
        }
        Err(Failure::from_wire(self.status, &self.body))
    }
}

impl Failure {
    /// The number on the wire.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused(_) => 1,
            Self::UnknownMethod => 2,
            Self::Malformed => 3,
            Self::NotMember => 4,
            Self::Busy => 5,
            Self::DeadlineExceeded => 6,
            Self::Unavailable(_) => 7,
            Self::Internal(_) => 8,
            Self::Other(status, _) => *status,
        }
    }

    fn from_wire(status: u16, body: &[u8]) -> Self {
        let text = || cut(&String::from_utf8_lossy(body));
        match status {
            1 => Self::Refused(text()),
            2 => Self::UnknownMethod,
            3 => Self::Malformed,
            4 => Self::NotMember,
            5 => Self::Busy,
            6 => Self::DeadlineExceeded,
            7 => Self::Unavailable(text()),
            8 => Self::Internal(text()),
            other => Self::Other(other, text()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Refused(text)
            | Self::Unavailable(text)
            | Self::Internal(text)
            | Self::Other(_, text) => cut(text),
            _ => String::new(),
        }
    }
}

/// Whether `text` is a version 00 `traceparent` (W3C Trace Context §3.2.2).
pub fn is_traceparent(text: &str) -> bool {
    let hex = |s: &str| {
        s.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = text.split('-');
    let (Some("00"), Some(trace), Some(span), Some(flags), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return false;
    };
    let id = |s: &str, len| s.len() == len && hex(s) && s.bytes().any(|b| b != b'0');
    id(trace, 32) && id(span, 16) && flags.len() == 2 && hex(flags)
}

/// A peer's words end up in logs and on terminals: no control characters, not long.
fn cut(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > limits::FAILURE_TEXT_BYTES {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

fn few(extensions: &[(u16, Vec<u8>)]) -> Result<(), CodecError> {
    if extensions.len() > limits::RPC_EXTENSIONS {
        return Err(CodecError::Malformed(format!(
            "{} extensions",
            extensions.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request() -> RequestFrame {
        RequestFrame::new(method::PING, 1000, Some(PARENT.into()), b"hello".to_vec())
    }

    #[test]
    fn frames_survive_the_round_trip() {
        let frame = request();
        assert_eq!(RequestFrame::decode(&frame.encode(), 1000), Ok(frame));
        for result in [
            Ok(vec![1, 2]),
            Err(Failure::Refused("no".into())),
            Err(Failure::UnknownMethod),
            Err(Failure::Malformed),
            Err(Failure::NotMember),
            Err(Failure::Busy),
            Err(Failure::DeadlineExceeded),
            Err(Failure::Unavailable("later".into())),
            Err(Failure::Internal("disk".into())),
            Err(Failure::Other(77, "new".into())),
        ] {
            let bytes = ResponseFrame::new(result.clone()).encode();
            let frame = ResponseFrame::decode(&bytes, 1000).unwrap();
            assert_eq!(frame.into_result(), result);
        }
    }

    #[test]
    fn a_later_version_and_unknown_extensions_are_read() {
        let mut frame = request();
        frame.version = VERSION + 1;
        frame.extensions = vec![(9, vec![1, 2, 3])];
        assert_eq!(RequestFrame::decode(&frame.encode(), 1000), Ok(frame));
    }

    #[test]
    fn an_invalid_traceparent_is_dropped_and_the_request_stands() {
        for text in [
            "",
            "00-",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-x"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let mut frame = request();
            frame.traceparent = Some(text.to_string());
            let read = RequestFrame::decode(&frame.encode(), 1000).unwrap();
            assert_eq!(read.traceparent, None, "{text}");
            assert_eq!(read.body, frame.body);
        }
        assert!(is_traceparent(PARENT));
    }

    #[test]
    fn frames_over_their_limit_or_with_too_many_extensions_are_refused() {
        let mut frame = request();
        let bytes = frame.encode();
        assert!(matches!(
            RequestFrame::decode(&bytes, bytes.len() - 1),
            Err(CodecError::TooLong { .. })
        ));
        frame.extensions = vec![(1, Vec::new()); limits::RPC_EXTENSIONS + 1];
        assert!(matches!(
            RequestFrame::decode(&frame.encode(), 1000),
            Err(CodecError::Malformed(_))
        ));
    }

    #[test]
    fn a_failure_text_is_cut_and_holds_no_control_characters() {
        let long = "\u{1b}[2Jä".repeat(limits::FAILURE_TEXT_BYTES);
        let bytes = ResponseFrame {
            version: 1,
            status: 1,
            body: long.into_bytes(),
            extensions: Vec::new(),
        };
        let Err(Failure::Refused(text)) = bytes.into_result() else {
            panic!("a refusal was sent");
        };
        assert!(text.len() <= limits::FAILURE_TEXT_BYTES);
        assert!(!text.chars().any(char::is_control));
    }

    #[test]
    fn the_encoding_of_a_body_is_that_of_a_plain_list_of_bytes() {
        let plain = (1u16, 0u16, vec![200u8; 300], Vec::<(u16, Vec<u8>)>::new());
        let frame = ResponseFrame::new(Ok(vec![200; 300]));
        assert_eq!(frame.encode(), codec::encode(&plain));
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_what_it_accepts_it_writes_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = ResponseFrame::decode(&bytes, 300).map(ResponseFrame::into_result);
            if let Ok(frame) = RequestFrame::decode(&bytes, 300) {
                prop_assert_eq!(RequestFrame::decode(&frame.encode(), 400), Ok(frame));
            }
        }

        #[test]
        fn a_frame_with_bytes_changed_never_panics(
            at in 0usize..100, to in any::<u8>(), keep in 0usize..120,
        ) {
            let mut bytes = request().encode();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(keep);
            let _ = RequestFrame::decode(&bytes, 300);
            let _ = ResponseFrame::decode(&bytes, 300).map(ResponseFrame::into_result);
            let _ = codec::decode::<Hello>(&bytes, 300);
        }
    }
}
