//! chitchat 0.11.2's message bytes: the only reader and writer of them.
//!
//! The reader accepts what an honest agent's chitchat can say and no more:
//! one key `head` for each node, set only, nothing ever collected as garbage.
//! It knows nothing of signatures or of who is a member.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{GateError, Name, compression};
use crate::limits::{
    GOSSIP_BLOCK_BYTES, GOSSIP_BLOCKS, GOSSIP_DELTA_NODES, GOSSIP_DIGEST_BYTES,
    GOSSIP_MESSAGE_BYTES, GOSSIP_NODE_BYTES,
};

/// The one key that an agent publishes.
pub const KEY: &str = "head";

const MAGIC: u16 = 45_139;
const VERSION: u8 = 0;

const BLOCK_END: u8 = 0;
const BLOCK_ZSTD: u8 = 1;
const BLOCK_RAW: u8 = 2;

const OP_NODE: u8 = 0;
const OP_SET: u8 = 1;
const OP_MAX_VERSION: u8 = 2;

const STATUS_SET: u8 = 0;

/// Who a gossip state is about. Ordered as chitchat orders its ids, which is
/// the order of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GossipId {
    /// What names the node.
    pub node: Name,
    /// Rises with each start of the node.
    pub generation: u64,
    /// The node's gossip address.
    pub address: SocketAddr,
}

/// One step of the gossip handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "This is what I have": opens an exchange.
    Syn {
        /// The cluster that the sender believes to be in.
        cluster: String,
        /// What the sender has.
        digest: Vec<Known>,
    },
    /// The answer to a `Syn`.
    SynAck {
        /// What the answering side has.
        digest: Vec<Known>,
        /// What the opening side lacks.
        delta: Vec<Offer>,
    },
    /// The answer to a `SynAck`.
    Ack {
        /// What the answering side lacks.
        delta: Vec<Offer>,
    },
    /// The answer to a `Syn` for another cluster.
    BadCluster,
}

/// One entry of a digest: how much of a node's state the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The node.
    pub id: GossipId,
    /// chitchat's sign of life. Nobody signs it.
    pub heartbeat: u64,
    /// The highest version that the sender has, 0 for none.
    pub version: u64,
}

/// One node of a delta: what the sender offers about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The node.
    pub id: GossipId,
    /// The version that the receiver is taken to have.
    pub from: u64,
    /// The head; `None` where the sender's size limit fell between the node
    /// and its head, which only the last offer of a delta can be.
    pub head: Option<Value>,
}

/// A head as gossip carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The version under which chitchat holds it, from 1 up.
    pub version: u64,
    /// The sealed head as text.
    pub text: String,
}

impl Message {
    /// Reads exactly one message.
    ///
    /// # Errors
    /// [`GateError`] names the first thing that an honest agent can't have
    /// said.
    pub fn parse(bytes: &[u8]) -> Result<Self, GateError> {
        if bytes.len() > GOSSIP_MESSAGE_BYTES {
            return Err(GateError::Oversized(bytes.len()));
        }
        let mut reader = Reader(bytes);
        if reader.u16()? != MAGIC {
            return Err(GateError::Magic);
        }
        match reader.u8()? {
            VERSION => {}
            other => return Err(GateError::Version(other)),
        }
        let message = match reader.u8()? {
            0 => {
                let digest = reader.digest()?;
                let cluster = reader.text()?.to_owned();
                Self::Syn { cluster, digest }
            }
            1 => {
                let digest = reader.digest()?;
                let delta = reader.delta()?;
                Self::SynAck { digest, delta }
            }
            2 => Self::Ack {
                delta: reader.delta()?,
            },
            3 => Self::BadCluster,
            other => return Err(GateError::Kind(other)),
        };
        match reader.0.len() {
            0 => Ok(message),
            more => Err(GateError::Trailing(more)),
        }
    }

    /// What [`Self::parse`] refuses, of a message that wasn't parsed.
    ///
    /// # Errors
    /// [`GateError`], as there.
    pub(super) fn check(&self) -> Result<(), GateError> {
        match self {
            Self::Syn { digest, .. } => check_digest(digest),
            Self::SynAck { digest, delta } => {
                check_digest(digest)?;
                check_delta(delta)
            }
            Self::Ack { delta } => check_delta(delta),
            Self::BadCluster => Ok(()),
        }
    }

    /// The canonical bytes of this message: raw blocks only, each but the last
    /// one full.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.push(VERSION);
        match self {
            Self::Syn { cluster, digest } => {
                out.push(0);
                put_digest(&mut out, digest);
                put_text(&mut out, cluster);
            }
            Self::SynAck { digest, delta } => {
                out.push(1);
                put_digest(&mut out, digest);
                put_delta(&mut out, delta);
            }
            Self::Ack { delta } => {
                out.push(2);
                put_delta(&mut out, delta);
            }
            Self::BadCluster => out.push(3),
        }
        out
    }
}

fn check_digest(digest: &[Known]) -> Result<(), GateError> {
    if 2 + digest.iter().map(Known::len).sum::<usize>() > GOSSIP_DIGEST_BYTES {
        return Err(GateError::LongDigest);
    }
    if digest.is_sorted_by(|one, next| one.id < next.id) {
        Ok(())
    } else {
        Err(GateError::DigestOrder)
    }
}

fn check_delta(delta: &[Offer]) -> Result<(), GateError> {
    if delta.len() > GOSSIP_DELTA_NODES {
        return Err(GateError::ManyNodes);
    }
    let mut seen = BTreeSet::new();
    for (place, offer) in delta.iter().enumerate() {
        if !seen.insert(offer.id) {
            return Err(GateError::Repeated);
        }
        match &offer.head {
            Some(value) if value.version <= offer.from => return Err(GateError::StaleOffer),
            None if place + 1 < delta.len() => return Err(GateError::NodeWithoutHead),
            _ => {}
        }
    }
    let plain = delta.iter().map(Offer::len).sum();
    if delta_len(plain) > GOSSIP_BLOCKS * GOSSIP_BLOCK_BYTES {
        Err(GateError::ManyBlocks)
    } else {
        Ok(())
    }
}

/// Bytes that `plain` bytes of operations take as a canonical delta.
pub(super) fn delta_len(plain: usize) -> usize {
    plain + 3 * plain.div_ceil(GOSSIP_BLOCK_BYTES) + 1
}

impl Offer {
    /// Bytes of this offer's operations.
    pub(super) fn len(&self) -> usize {
        let head = self.head.as_ref();
        1 + id_len(&self.id)
            + 16
            + head.map_or(0, |head| 1 + 2 + KEY.len() + 2 + head.text.len() + 9)
    }
}

impl Known {
    /// Bytes of this entry.
    pub(super) fn len(&self) -> usize {
        id_len(&self.id) + 24
    }
}

fn id_len(id: &GossipId) -> usize {
    2 + id.node.len() + 8 + 1 + if id.address.is_ipv4() { 4 } else { 16 } + 2
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], GateError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(GateError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GateError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(GateError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, GateError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, GateError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GateError> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, GateError> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(len.into())?).map_err(|_| GateError::Text)
    }

    fn id(&mut self) -> Result<GossipId, GateError> {
        let text = self.text()?;
        let name = Name::new(text).filter(|name| name.len() <= GOSSIP_NODE_BYTES);
        let node = name.ok_or(GateError::LongId(text.len()))?;
        let generation = self.u64()?;
        let ip: IpAddr = match self.u8()? {
            4 => self.array::<4>()?.into(),
            6 => self.array::<16>()?.into(),
            other => return Err(GateError::AddressFamily(other)),
        };
        Ok(GossipId {
            node,
            generation,
            address: SocketAddr::new(ip, self.u16()?),
        })
    }

    /// 0, and nothing else: an agent deletes nothing, so that nothing can have
    /// been collected.
    fn last_gc(&mut self) -> Result<(), GateError> {
        match self.u64()? {
            0 => Ok(()),
            _ => Err(GateError::Collected),
        }
    }

    fn digest(&mut self) -> Result<Vec<Known>, GateError> {
        let before = self.0.len();
        let count = self.u16()?;
        let mut digest: Vec<Known> = Vec::new();
        for _ in 0..count {
            let id = self.id()?;
            if digest.last().is_some_and(|last| last.id >= id) {
                return Err(GateError::DigestOrder);
            }
            let heartbeat = self.u64()?;
            self.last_gc()?;
            let version = self.u64()?;
            digest.push(Known {
                id,
                heartbeat,
                version,
            });
            if before - self.0.len() > GOSSIP_DIGEST_BYTES {
                return Err(GateError::LongDigest);
            }
        }
        Ok(digest)
    }

    fn delta(&mut self) -> Result<Vec<Offer>, GateError> {
        let plain = self.blocks()?;
        let mut ops = Reader(&plain);
        let mut delta: Vec<Offer> = Vec::new();
        let mut seen = BTreeSet::new();
        while !ops.0.is_empty() {
            match ops.u8()? {
                OP_NODE => {
                    if delta.last().is_some_and(|last| last.head.is_none()) {
                        return Err(GateError::NodeWithoutHead);
                    }
                    if delta.len() == GOSSIP_DELTA_NODES {
                        return Err(GateError::ManyNodes);
                    }
                    let offer = ops.node()?;
                    if !seen.insert(offer.id) {
                        return Err(GateError::Repeated);
                    }
                    delta.push(offer);
                }
                OP_SET => {
                    let value = ops.head()?;
                    let offer = delta.last_mut().ok_or(GateError::HeadWithoutNode)?;
                    if offer.head.is_some() {
                        return Err(GateError::SecondKey);
                    }
                    // A sender skips what the receiver has, so that a version
                    // at or below that, 0 above all, is never offered.
                    if value.version <= offer.from {
                        return Err(GateError::StaleOffer);
                    }
                    offer.head = Some(value);
                }
                OP_MAX_VERSION => return Err(GateError::SetMaxVersion),
                other => return Err(GateError::Operation(other)),
            }
        }
        Ok(delta)
    }

    /// The plaintext of a delta's blocks.
    fn blocks(&mut self) -> Result<Vec<u8>, GateError> {
        let mut plain = Vec::new();
        let mut buffer = Vec::new();
        for _ in 0..=GOSSIP_BLOCKS {
            let tag = self.u8()?;
            if tag == BLOCK_END {
                return Ok(plain);
            }
            let len = self.u16()?;
            let block = self.take(len.into())?;
            match tag {
                BLOCK_ZSTD => {
                    buffer.resize(GOSSIP_BLOCK_BYTES, 0);
                    let len = compression::decompress(block, &mut buffer[..])
                        .map_err(|_| GateError::Zstd)?;
                    buffer.truncate(len);
                    plain.extend_from_slice(&buffer);
                }
                BLOCK_RAW if block.len() > GOSSIP_BLOCK_BYTES => return Err(GateError::LongBlock),
                BLOCK_RAW => plain.extend_from_slice(block),
                other => return Err(GateError::Block(other)),
            }
        }
        Err(GateError::ManyBlocks)
    }

    fn node(&mut self) -> Result<Offer, GateError> {
        let id = self.id()?;
        self.last_gc()?;
        Ok(Offer {
            id,
            from: self.u64()?,
            head: None,
        })
    }

    fn head(&mut self) -> Result<Value, GateError> {
        if self.text()? != KEY {
            return Err(GateError::Key);
        }
        let text = self.text()?.to_owned();
        let version = self.u64()?;
        match self.u8()? {
            STATUS_SET => Ok(Value { version, text }),
            other => Err(GateError::Status(other)),
        }
    }
}

/// Texts come from a message or are the mesh's own id: never beyond 65,535
/// bytes.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_id(out: &mut Vec<u8>, id: &GossipId) {
    put_text(out, &id.node);
    out.extend_from_slice(&id.generation.to_le_bytes());
    match id.address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&id.address.port().to_le_bytes());
}

fn put_digest(out: &mut Vec<u8>, digest: &[Known]) {
    out.extend_from_slice(&(digest.len() as u16).to_le_bytes());
    for known in digest {
        put_id(out, &known.id);
        out.extend_from_slice(&known.heartbeat.to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        out.extend_from_slice(&known.version.to_le_bytes());
    }
}

fn put_delta(out: &mut Vec<u8>, delta: &[Offer]) {
    let mut plain = Vec::new();
    for offer in delta {
        plain.push(OP_NODE);
        put_id(&mut plain, &offer.id);
        plain.extend_from_slice(&0u64.to_le_bytes());
        plain.extend_from_slice(&offer.from.to_le_bytes());
        if let Some(head) = &offer.head {
            plain.push(OP_SET);
            put_text(&mut plain, KEY);
            put_text(&mut plain, &head.text);
            plain.extend_from_slice(&head.version.to_le_bytes());
            plain.push(STATUS_SET);
        }
    }
    for block in plain.chunks(GOSSIP_BLOCK_BYTES) {
        out.push(BLOCK_RAW);
        out.extend_from_slice(&(block.len() as u16).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.push(BLOCK_END);
}
