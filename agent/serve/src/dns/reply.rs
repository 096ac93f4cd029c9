//! What is said to a question, and how it is made to fit its transport.

#![allow(missing_docs, reason = "the names say it")]

use hickory_server::{
    net::xfer::Protocol,
    proto::{
        ProtoError,
        op::{Edns, EmitAndCount, Metadata, ResponseCode, emit_message_parts},
        rr::{Record, rdata::opt::EdnsOption},
        serialize::binary::BinEncoder,
    },
    zone_handler::{MessageRequest, Queries},
};
use innermesh_control::dns::Origin;
use innermesh_proto::limits;

use super::cookies::WholeCookie;

/// Why an answer isn't what was hoped for (RFC 8914), in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtendedError {
    code: u16,
    text: String,
}

const HEADER: usize = 12;
/// The option's code (RFC 8914 §2).
const EDE_OPTION: u16 = 15;
/// RFC 7873 §4.
const COOKIE_OPTION: u16 = 10;

impl ExtendedError {
    /// The zone can't tell yet (code 14, Not Ready).
    pub fn loading() -> Self {
        Self::new(
            14,
            "this agent is still learning the mesh's names; ask again in a moment",
        )
    }

    /// The name may be in a part of the ledger that isn't here yet (code 14, Not
    /// Ready).
    pub fn behind() -> Self {
        Self::new(
            14,
            "this agent is fetching what it lacks of the mesh's ledger; ask again in a moment",
        )
    }

    /// The answer is beyond its TTL (code 3, Stale Answer, and 19, Stale NXDOMAIN).
    pub fn stale(rcode: ResponseCode) -> Self {
        let code = if rcode == ResponseCode::NXDomain {
            19
        } else {
            3
        };
        Self::new(
            code,
            "no upstream name server answers; this is its last answer",
        )
    }

    /// An answer from outside named an address inside (code 15, Blocked).
    pub fn rebinding() -> Self {
        Self::new(
            15,
            "an upstream answer with an address of the mesh was dropped (DNS rebinding)",
        )
    }

    /// A member's alias led to an address of a local network (code 15, Blocked).
    pub fn private() -> Self {
        Self::new(
            15,
            "an address of a local network was dropped, because a node that is no admin added the alias that leads to it",
        )
    }

    /// There is nobody to ask (code 22, No Reachable Authority).
    pub fn no_upstream() -> Self {
        Self::new(
            22,
            "this host has no upstream name server; set `dns.upstream` in the config",
        )
    }

    /// Nobody answered, or not usably (code 22, No Reachable Authority).
    pub fn upstream_failed(why: &str) -> Self {
        Self::new(22, why)
    }

    /// Too much at once (code 0, Other).
    pub fn busy() -> Self {
        Self::new(
            0,
            "too many questions are being forwarded; ask again in a moment",
        )
    }

    /// Aliases lead in a circle, or too far (code 0, Other).
    pub fn circle() -> Self {
        Self::new(
            0,
            "the name's aliases lead in a circle, or too far; look at them with `agent record list`",
        )
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn new(code: u16, text: &str) -> Self {
        // An error must not be what makes an answer too long.
        let text = text.chars().take(200).collect();
        Self { code, text }
    }

    fn option(&self) -> EdnsOption {
        let mut data = self.code.to_be_bytes().to_vec();
        data.extend_from_slice(self.text.as_bytes());
        EdnsOption::Unknown(EDE_OPTION, data)
    }
}

/// The answer to one question.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub rcode: ResponseCode,
    pub authoritative: bool,
    pub authentic: bool,
    pub recursion_available: bool,
    pub truncated: bool,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    pub error: Option<ExtendedError>,
    pub origin: Origin,
    /// Goes back to a client that sent one.
    pub cookie: Option<WholeCookie>,
}

impl Reply {
    /// A reply without records.
    pub fn empty(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            authoritative: false,
            authentic: false,
            recursion_available: true,
            truncated: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            error: None,
            origin: Origin::Rule,
            cookie: None,
        }
    }

    /// The header of the response to a request.
    pub fn metadata(&self, request: &MessageRequest) -> Metadata {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = self.rcode;
        metadata.authoritative = self.authoritative;
        metadata.truncation = self.truncated;
        metadata.recursion_available = self.recursion_available;
        metadata.authentic_data = self.authentic;
        // Nothing in the zone was checked or left unchecked (RFC 4035 §3.1.6).
        if self.origin == Origin::Zone {
            metadata.checking_disabled = false;
        }
        metadata
    }

    /// The OPT record of the response; none for a request without one
    /// (RFC 6891 §6.1.1).
    pub fn edns(&self, request: &MessageRequest) -> Option<Edns> {
        let request = request.edns.as_ref()?;
        let mut edns = Edns::new();
        edns.set_max_payload(limits::DNS_UDP_BYTES);
        edns.set_dnssec_ok(request.flags().dnssec_ok);
        if let Some(cookie) = self.cookie {
            let cookie = EdnsOption::Unknown(COOKIE_OPTION, cookie.to_vec());
            edns.options_mut().insert(cookie);
        }
        if let Some(error) = &self.error {
            edns.options_mut().insert(error.option());
        }
        Some(edns)
    }

    /// The response as bytes, cut to what `protocol` and the client's buffer
    /// take: first the additional records go, which nobody must have
    /// (RFC 2181 §9), then all, with the bit that makes the client ask again
    /// over TCP. `None` when not even that fits.
    pub fn encode(&mut self, request: &MessageRequest, protocol: Protocol) -> Option<Vec<u8>> {
        self.name_alike(&request.queries);
        let limit = match protocol {
            Protocol::Udp => {
                let theirs = request.edns.as_ref().map_or(512, Edns::max_payload);
                theirs.clamp(512, limits::DNS_UDP_BYTES)
            }
            _ => u16::MAX,
        };
        loop {
            if let Some(bytes) = self.try_encode(request, limit) {
                return Some(bytes);
            }
            if !self.additionals.is_empty() {
                self.additionals.clear();
            } else if self.truncated {
                return None;
            } else {
                self.truncated = true;
                self.answers.clear();
                self.authorities.clear();
            }
        }
    }

    fn try_encode(&self, request: &MessageRequest, limit: u16) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(limit);
        let header = emit_message_parts(
            &self.metadata(request),
            &mut Questions(&request.queries),
            &mut self.answers.iter(),
            &mut self.authorities.iter(),
            &mut self.additionals.iter(),
            self.edns(request).as_ref(),
            None,
            &mut encoder,
        )
        .ok()?;
        if header.metadata.truncation != self.truncated {
            return None;
        }
        let question = request.queries.as_bytes();
        bytes
            .get_mut(HEADER..HEADER + question.len())?
            .copy_from_slice(question);
        Some(bytes)
    }

    /// Has records of the name that was asked for named as it is written in
    /// [`Questions`], so that all point there.
    fn name_alike(&mut self, queries: &Queries) {
        let [query] = queries.queries() else { return };
        let name = query.original().name();
        let lower = name.to_lowercase();
        let sections = [
            &mut self.answers,
            &mut self.authorities,
            &mut self.additionals,
        ];
        for record in sections.into_iter().flatten() {
            if record.name.eq_ignore_root(name) {
                record.name = lower.clone();
            }
        }
    }
}

/// The questions of a request. A name is written in lower case until all else is,
/// and names behind it point to it or to its end: so they are the same names,
/// whatever case it was asked in. Then the question is put there octet for octet:
/// clients that mix its case against forgery compare it.
struct Questions<'a>(&'a Queries);

impl EmitAndCount for Questions<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        let bytes = self.0.as_bytes();
        let start = encoder.offset();
        match labels(self.0) {
            None => encoder.emit_vec(bytes)?,
            Some(labels) => {
                encoder.emit_vec(&bytes.to_ascii_lowercase())?;
                let end = start + bytes.len() - 5;
                for label in labels {
                    encoder.store_label_pointer(start + label, end);
                }
            }
        }
        Ok(self.0.len())
    }
}

/// Where the labels of the one question's name begin; `None` where there are
/// others, or the name isn't written out.
fn labels(queries: &Queries) -> Option<Vec<usize>> {
    let bytes = queries.as_bytes();
    let [_] = queries.queries() else { return None };
    let mut labels = Vec::new();
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return (bytes.len() == at + 5).then_some(labels),
            length @ 1..=63 => {
                labels.push(at);
                at += 1 + usize::from(length);
            }
            _ => return None,
        }
    }
}
