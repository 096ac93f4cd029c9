//! What of a message may reach chitchat: the heads that are true, and the ids
//! behind which one stands.

use std::collections::BTreeMap;

use super::{GateError, GossipId, Known, Message, Name, Offer, Value, wire};
use crate::limits::{GOSSIP_HEAD_BYTES, GOSSIP_MESSAGE_BYTES};

/// What the agent holds. Asking changes nothing.
pub trait HeadFilter {
    /// The version of the newest verified head of exactly this id; `None` for
    /// any id that is not its node's newest generation. What is admitted stays
    /// in chitchat's state, and so in its digests, until chitchat forgets it;
    /// an implementation keeps that below [`crate::limits::GOSSIP_IDS`].
    fn verified(&self, id: &GossipId) -> Option<u64>;

    /// Whether a head that the message brings is one of `id`: signed by the
    /// node's key, its node, generation, address and sequence equal to `id` and
    /// the version, and no older generation than the one held. The head already
    /// held is one too: chitchat may still lack what a push has brought.
    fn is_genuine(&self, id: &GossipId, head: &Value) -> bool;
}

/// A peer's message that is in order as a whole, with nothing of it believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    me: GossipId,
    step: Step,
    /// Whether chitchat is given the heads.
    with_heads: bool,
}

/// What agents say to each other of a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Syn {
        cluster: String,
        digest: Vec<Known>,
    },
    SynAck {
        digest: Vec<Known>,
        delta: Vec<Offer>,
    },
    Ack {
        delta: Vec<Offer>,
    },
}

/// A message that may be handed to chitchat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// Which step of the handshake it is.
    pub kind: Kind,
    /// The message, written anew. The gate accepts it unchanged as long as the
    /// caller holds the heads that passed.
    pub bytes: Vec<u8>,
    /// What was left out.
    pub drops: Drops,
}

/// The step of the handshake that a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A digest that asks for a delta.
    Syn,
    /// A digest and a delta.
    SynAck,
    /// A delta.
    Ack,
}

/// How much of a message was left out, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Digest entries without a verified head.
    pub unknown: usize,
    /// Heads of this very node.
    pub own: usize,
    /// Heads that aren't genuine, or are longer than any head.
    pub refused: usize,
    /// True heads beside a newer one of the same node.
    pub superseded: usize,
    /// True heads beyond what one message holds without compression. The caller
    /// has them; chitchat gets them in a later exchange.
    pub deferred: usize,
}

/// Reads a peer's message. `cluster` is our own cluster id and `me` our own
/// gossip id.
///
/// # Errors
/// [`GateError`] when the message as a whole is refused.
pub fn read(message: &[u8], cluster: &str, me: &GossipId) -> Result<Incoming, GateError> {
    incoming(Message::parse(message)?, cluster, me, true)
}

/// As [`read`], of a message in the compact form: see [`super::compact::unpack`].
/// Its heads aren't written: chitchat needs to know of versions only, and of
/// those a message then holds those of a whole mesh.
///
/// # Errors
/// As [`read`].
pub fn read_compact(message: Message, cluster: &str, me: &GossipId) -> Result<Incoming, GateError> {
    message.check()?;
    incoming(message, cluster, me, false)
}

fn incoming(
    message: Message,
    cluster: &str,
    me: &GossipId,
    with_heads: bool,
) -> Result<Incoming, GateError> {
    let step = match message {
        Message::Syn {
            cluster: theirs, ..
        } if theirs != cluster => return Err(GateError::Cluster),
        Message::Syn { cluster, digest } => Step::Syn { cluster, digest },
        Message::SynAck { digest, delta } => Step::SynAck { digest, delta },
        Message::Ack { delta } => Step::Ack { delta },
        Message::BadCluster => return Err(GateError::BadCluster),
    };
    Ok(Incoming {
        me: *me,
        step,
        with_heads,
    })
}

impl Incoming {
    /// The heads that it brings and what each is said to be of, for the caller
    /// to verify and take: those of this very node as well, as one that this
    /// process didn't make is proof of a second holder of the key.
    pub fn heads(&self) -> impl Iterator<Item = (&GossipId, &Value)> {
        let delta: &[Offer] = match &self.step {
            Step::SynAck { delta, .. } | Step::Ack { delta } => delta,
            Step::Syn { .. } => &[],
        };
        let heads = delta
            .iter()
            .filter_map(|offer| Some((&offer.id, offer.head.as_ref()?)));
        heads.filter(|(_, head)| head.text.len() <= GOSSIP_HEAD_BYTES)
    }

    /// The message with what may pass.
    ///
    /// An entry's heartbeat is replaced by the version of the node's newest
    /// verified head, which only the node's own key can move: chitchat's failure
    /// detector then runs on head renewals. (A constant would have chitchat
    /// forget every node after its grace period, and for good, since it takes a
    /// forgotten node back only with a higher heartbeat.)
    pub fn filter(self, heads: &dyn HeadFilter) -> Filtered {
        let mut gate = Gate {
            me: &self.me,
            heads,
            newest: BTreeMap::new(),
            with_heads: self.with_heads,
            drops: Drops::default(),
        };
        let (kind, message) = match self.step {
            Step::Syn { cluster, digest } => {
                let digest = gate.digest(digest);
                (Kind::Syn, Message::Syn { cluster, digest })
            }
            Step::SynAck { digest, delta } => {
                // The delta first: a head in it may be what admits an entry.
                let delta = gate.genuine(delta);
                let digest = gate.digest(digest);
                let room = room_beside(&digest);
                let delta = gate.fit(delta, room);
                (Kind::SynAck, Message::SynAck { digest, delta })
            }
            Step::Ack { delta } => {
                let delta = gate.genuine(delta);
                let delta = gate.fit(delta, GOSSIP_MESSAGE_BYTES - HEADER_BYTES);
                (Kind::Ack, Message::Ack { delta })
            }
        };
        Filtered {
            kind,
            bytes: message.encode(),
            drops: gate.drops,
        }
    }
}

/// Magic number, version and type.
const HEADER_BYTES: usize = 4;

/// Bytes left for the delta in a message with this digest.
fn room_beside(digest: &[Known]) -> usize {
    let digest: usize = 2 + digest.iter().map(Known::len).sum::<usize>();
    GOSSIP_MESSAGE_BYTES.saturating_sub(HEADER_BYTES + digest)
}

/// One message on its way through.
struct Gate<'a> {
    me: &'a GossipId,
    heads: &'a dyn HeadFilter,
    /// Each node's id and version as this message's delta brings it.
    newest: BTreeMap<Name, (GossipId, u64)>,
    /// Whether chitchat is given the heads.
    with_heads: bool,
    drops: Drops,
}

impl Gate<'_> {
    /// Leaves the heads that are true, one for each node, and notes them in
    /// `newest`.
    fn genuine(&mut self, delta: Vec<Offer>) -> Vec<(Offer, Value)> {
        let mut passed = Vec::new();
        for mut offer in delta {
            // Taken out, so that each offer that passes has a head by its type.
            let Some(head) = offer.head.take() else {
                continue;
            };
            if offer.id.node == self.me.node {
                self.drops.own += 1;
            } else if head.text.len() <= GOSSIP_HEAD_BYTES
                && self.heads.is_genuine(&offer.id, &head)
            {
                self.note(&offer.id, head.version);
                passed.push((offer, head));
            } else {
                self.drops.refused += 1;
            }
        }
        let before = passed.len();
        passed.retain(|(offer, _)| {
            let newest = self.newest.get(&offer.id.node);
            newest.is_some_and(|(id, _)| *id == offer.id)
        });
        self.drops.superseded += before - passed.len();
        passed
    }

    /// One id for each node, or an owner could fill chitchat's state with
    /// signed generations and addresses of itself out of one message.
    fn note(&mut self, id: &GossipId, version: u64) {
        let newer = match self.newest.get(&id.node) {
            None => true,
            Some((held, _)) if held.generation == id.generation => {
                self.heads.verified(held).is_none() && self.heads.verified(id).is_some()
            }
            Some((held, _)) => held.generation < id.generation,
        };
        if newer {
            self.newest.insert(id.node, (*id, version));
        }
    }

    /// Leaves the entries behind which a verified head stands.
    fn digest(&mut self, mut digest: Vec<Known>) -> Vec<Known> {
        digest.retain_mut(|known| match self.heartbeat(&known.id) {
            Some(heartbeat) => {
                known.heartbeat = heartbeat;
                true
            }
            None => {
                self.drops.unknown += 1;
                false
            }
        });
        digest
    }

    fn heartbeat(&self, id: &GossipId) -> Option<u64> {
        if id.node == self.me.node {
            // chitchat ignores its own heartbeat, but needs its own entry to
            // see what the peer lacks. An earlier life of this node would only
            // come back to it.
            return (id == self.me).then_some(0);
        }
        let held = self.heads.verified(id);
        match self.newest.get(&id.node) {
            Some((newest, version)) if newest == id => held.max(Some(*version)),
            Some((newest, _)) if newest.generation >= id.generation => None,
            _ => held,
        }
    }

    /// Leaves the offers that fit into `room` bytes without compression.
    fn fit(&mut self, passed: Vec<(Offer, Value)>, room: usize) -> Vec<Offer> {
        let mut plain = 0;
        let mut delta = Vec::new();
        for (mut offer, mut head) in passed {
            if !self.with_heads {
                head.text.clear();
            }
            offer.head = Some(head);
            // Once one is too long none follows: the rest stays in its order.
            plain += offer.len();
            if wire::delta_len(plain) <= room {
                delta.push(offer);
            } else {
                self.drops.deferred += 1;
            }
        }
        delta
    }
}
