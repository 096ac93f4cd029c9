//! Signatures of messages by a shared secret (RFC 8945). The library's needs its
//! DNSSEC types in every message that is forwarded, and signs no more than one
//! message of an answer; see ADR 41.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use innermesh_proto::zone::DomainName;

use super::message::{ANY, Message, TSIG, Tsig};

/// Seconds that two clocks may be apart (RFC 8945 §10).
const FUDGE_S: u16 = 300;
/// Shortest MAC, in bytes (RFC 8945 §5.2.2.1).
const SHORTEST_MAC: usize = 10;

pub(super) const BADSIG: u16 = 16;
pub(super) const BADKEY: u16 = 17;
pub(super) const BADTIME: u16 = 18;
pub(super) const BADTRUNC: u16 = 22;

/// How messages are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// None of those algorithms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of hmac-sha256, hmac-sha384 and hmac-sha512")]
pub struct UnknownAlgorithm(String);

impl Algorithm {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Sha256, "hmac-sha256"),
        (Self::Sha384, "hmac-sha384"),
        (Self::Sha512, "hmac-sha512"),
    ];

    /// As DNS has it (RFC 8945 §6).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    /// Bytes of its MAC, which is also what a secret should have.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn wire(self) -> Vec<u8> {
        let text = self.as_str().as_bytes();
        // All three names have 11 octets.
        [&[text.len() as u8], text, &[0]].concat()
    }
}

impl std::str::FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let found = Self::ALL.iter().find(|(_, name)| *name == lower);
        let known = found.map(|(algorithm, _)| *algorithm);
        known.ok_or_else(|| UnknownAlgorithm(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that two servers share. What it signs with isn't shown.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub name: DomainName,
    algorithm: Algorithm,
    hmac: hmac::Key,
}

/// What is wrong with a signature, and what is said to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// FORMERR.
    Malformed,
    /// NOTAUTH with this error, unsigned.
    Unsigned(u16),
    /// NOTAUTH with this error, signed.
    Signed(u16),
}

impl Key {
    pub fn new(name: DomainName, algorithm: Algorithm, secret: &[u8]) -> Self {
        let hmac = hmac::Key::new(algorithm.hmac(), secret);
        Self {
            name,
            algorithm,
            hmac,
        }
    }

    /// Whether that is the name of this key and of its algorithm.
    pub fn is_of(&self, tsig: &Tsig<'_>) -> bool {
        let wire: Vec<u8> = tsig.algorithm.clone().into();
        tsig.key == self.name && self.algorithm.wire().split_last() == Some((&0, &wire))
    }

    /// Checks a message's signature: of an answer with the MAC of the request, which
    /// it covers (RFC 8945 §5.2, §5.3).
    pub fn verify(
        &self,
        message: &Message<'_>,
        tsig: &Tsig<'_>,
        request_mac: Option<&[u8]>,
        now_s: u64,
    ) -> Result<(), Refusal> {
        let full = self.algorithm.length();
        let shortest = SHORTEST_MAC.max(full / 2);
        if !(shortest..=full).contains(&tsig.mac.len()) {
            return Err(Refusal::Malformed);
        }
        let mut context = hmac::Context::with_key(&self.hmac);
        if let Some(mac) = request_mac {
            context.update(&length_of(mac));
            context.update(mac);
        }
        let unsigned = message.bytes.get(..tsig.start).unwrap_or_default();
        let Some(([_, _, header @ ..], rest)) = unsigned.split_first_chunk::<12>() else {
            return Err(Refusal::Malformed);
        };
        let mut header = *header;
        // One additional record less, and the id that it was signed with.
        let count = u16::from_be_bytes([header[8], header[9]]).saturating_sub(1);
        [header[8], header[9]] = count.to_be_bytes();
        context.update(&tsig.original_id.to_be_bytes());
        context.update(&header);
        context.update(rest);
        context.update(&self.variables(tsig.time_s, tsig.fudge_s, tsig.error, tsig.other));
        let mac = context.sign();
        let expected = mac.as_ref().get(..tsig.mac.len()).unwrap_or_default();
        if constant_time::verify_slices_are_equal(expected, tsig.mac).is_err() {
            return Err(Refusal::Unsigned(BADSIG));
        }
        if now_s.abs_diff(tsig.time_s) > u64::from(tsig.fudge_s.min(FUDGE_S)) {
            return Err(Refusal::Signed(BADTIME));
        }
        if tsig.mac.len() < full {
            return Err(Refusal::Signed(BADTRUNC));
        }
        Ok(())
    }

    /// What of a TSIG record its MAC covers (RFC 8945 §4.3.3).
    fn variables(&self, time_s: u64, fudge_s: u16, error: u16, other: &[u8]) -> Vec<u8> {
        let mut out: Vec<u8> = self.name.clone().into();
        out.push(0);
        out.extend(ANY.to_be_bytes());
        out.extend([0; 4]);
        out.extend(self.algorithm.wire());
        out.extend(timers(time_s, fudge_s));
        out.extend(error.to_be_bytes());
        out.extend(length_of(other));
        out.extend(other);
        out
    }
}

/// Signs the messages of one exchange, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    key: Key,
    /// The MAC before, which the next one covers.
    before: Option<Vec<u8>>,
    /// Whether the next message is a further one of an answer.
    is_further: bool,
}

impl Signer {
    /// For a request.
    pub fn request(key: &Key) -> Self {
        Self {
            key: key.clone(),
            before: None,
            is_further: false,
        }
    }

    /// For the answer to a request with that MAC.
    pub fn answer(key: &Key, request_mac: &[u8]) -> Self {
        Self {
            before: Some(request_mac.to_vec()),
            ..Self::request(key)
        }
    }

    /// Appends the signature to the message that begins at `start`; gives its MAC.
    pub fn sign(&mut self, out: &mut Vec<u8>, start: usize, now_s: u64) -> Vec<u8> {
        self.sign_error(out, start, (now_s, 0, &[]))
    }

    /// As [`Signer::sign`], with an error and what goes with it.
    pub fn sign_error(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        (time_s, error, other): (u64, u16, &[u8]),
    ) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key.hmac);
        if let Some(before) = &self.before {
            context.update(&length_of(before));
            context.update(before);
        }
        let message = out.get(start..).unwrap_or_default();
        context.update(message);
        // Of further messages the rest is known (RFC 8945 §5.3.1).
        if self.is_further {
            context.update(&timers(time_s, FUDGE_S));
        } else {
            context.update(&self.key.variables(time_s, FUDGE_S, error, other));
        }
        let mac = context.sign().as_ref().to_vec();
        let id = message.first_chunk::<2>().copied().unwrap_or_default();
        let algorithm = self.key.algorithm.wire();
        let parts = Parts {
            key: &self.key.name,
            algorithm: &algorithm,
            time_s,
            fudge_s: FUDGE_S,
            mac: &mac,
            id,
            error,
            other,
        };
        parts.append(out, start);
        self.before = Some(mac.clone());
        self.is_further = true;
        mac
    }
}

/// Appends a record without a MAC, which tells what was wrong with a request's
/// (RFC 8945 §5.3.2).
pub(super) fn append_unsigned(out: &mut Vec<u8>, start: usize, tsig: &Tsig<'_>, error: u16) {
    let mut algorithm: Vec<u8> = tsig.algorithm.clone().into();
    algorithm.push(0);
    let parts = Parts {
        key: &tsig.key,
        algorithm: &algorithm,
        time_s: tsig.time_s,
        fudge_s: tsig.fudge_s,
        mac: &[],
        id: tsig.original_id.to_be_bytes(),
        error,
        other: &[],
    };
    parts.append(out, start);
}

/// The time as the 48 bits of a BADTIME's other data (RFC 8945 §5.2.3).
pub(super) fn time_of(now_s: u64) -> [u8; 6] {
    let [_, _, time @ ..] = now_s.to_be_bytes();
    time
}

/// Bytes of a signed message's TSIG record at most, with names of this length.
pub(super) fn longest(name: &DomainName) -> usize {
    let name: Vec<u8> = name.clone().into();
    name.len() + 1 + 10 + 13 + 16 + 64
}

fn timers(time_s: u64, fudge_s: u16) -> [u8; 8] {
    let mut out = [0; 8];
    let (time, fudge) = out.split_at_mut(6);
    time.copy_from_slice(&time_of(time_s));
    fudge.copy_from_slice(&fudge_s.to_be_bytes());
    out
}

fn length_of(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// What a TSIG record is written from.
struct Parts<'p> {
    key: &'p DomainName,
    algorithm: &'p [u8],
    time_s: u64,
    fudge_s: u16,
    mac: &'p [u8],
    id: [u8; 2],
    error: u16,
    other: &'p [u8],
}

impl Parts<'_> {
    /// Appends the record to the message that begins at `start`, and counts it.
    fn append(&self, out: &mut Vec<u8>, start: usize) {
        let mut data = self.algorithm.to_vec();
        data.extend(timers(self.time_s, self.fudge_s));
        data.extend(length_of(self.mac));
        data.extend(self.mac);
        data.extend(self.id);
        data.extend(self.error.to_be_bytes());
        data.extend(length_of(self.other));
        data.extend(self.other);
        out.extend(Vec::from(self.key.clone()));
        out.push(0);
        out.extend(TSIG.to_be_bytes());
        out.extend(ANY.to_be_bytes());
        out.extend([0; 4]);
        out.extend(length_of(&data));
        out.extend(data);
        if let Some(count) = out.get_mut(start + 10..start + 12) {
            let before = count.first_chunk::<2>().copied().unwrap_or_default();
            let after = u16::from_be_bytes(before).saturating_add(1);
            count.copy_from_slice(&after.to_be_bytes());
        }
    }
}
