//! The gossip gate: what stands between a peer's bytes and chitchat 0.11.2.
//!
//! chitchat believes what it is told, and asserts on what it isn't meant to be
//! told. So its bytes are read here, by a reader that accepts only what an
//! honest agent's chitchat says; ids that no verified head stands behind are
//! left out; and the rest is written anew. chitchat never sees a peer's bytes.
//!
//! Two kinds of wrong are kept apart. What no honest agent can have said
//! refuses the whole message ([`GateError`]). What an honest agent may well
//! pass on (a node not known here yet, a state from before this node's
//! restart, a head that a newer build understands) is left out one by one and
//! counted ([`Drops`]), so that nobody's bad head holds up another node's.
//!
//! The gate knows nothing of keys, members or time: [`Admission`] does.

pub mod compact;
mod envelope;
mod error;
mod name;
mod squeeze;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

pub use envelope::{unwrap, wrap};
pub use error::GateError;
pub use name::{Name, Short, gossip_address, gossip_id, short};
pub use wire::{GossipId, KEY, Known, Message, Offer, Value};

use crate::limits::{GOSSIP_HEAD_BYTES, GOSSIP_MESSAGE_BYTES};

/// The verified heads that the agent holds.
pub trait Admission {
    /// The version of the newest verified head of exactly this id; `None` for
    /// any id that is not its node's newest generation. What is admitted stays
    /// in chitchat's state, and so in its digests, until chitchat forgets it;
    /// an implementation keeps that below [`crate::limits::GOSSIP_IDS`].
    fn verified(&self, id: &GossipId) -> Option<u64>;

    /// Whether this text is a head of `id` at `version`: signed by the node's
    /// key, its node, generation, address and sequence equal to `id` and
    /// `version`, and no older generation than the one held. The head already
    /// held is one too: chitchat may still lack what a push has brought.
    ///
    /// It is asked about heads of this very node as well. They go no further,
    /// whatever the answer; but a valid one that this process didn't make is
    /// proof of a second holder of the key.
    fn judge(&mut self, id: &GossipId, version: u64, text: &str) -> bool;
}

/// A message that may be handed to chitchat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// Which step of the handshake it is.
    pub kind: Kind,
    /// The message, written anew. The gate accepts it unchanged once `heads`
    /// are in the caller's table.
    pub bytes: Vec<u8>,
    /// The heads that [`Admission::judge`] let through, at most one for a
    /// node, for the caller to take into its table.
    pub heads: Vec<(GossipId, Value)>,
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
    /// Heads that were judged false, or are longer than any head.
    pub refused: usize,
    /// True heads beside a newer one of the same node.
    pub superseded: usize,
    /// True heads beyond what one message holds without compression. They are
    /// in [`Filtered::heads`]; chitchat gets them in a later exchange.
    pub deferred: usize,
}

/// Reads a peer's message and writes it anew with what may pass.
///
/// `cluster` is our own cluster id and `me` our own gossip id.
///
/// An entry's heartbeat is replaced by the version of the node's newest
/// verified head, which only the node's own key can move: chitchat's failure
/// detector then runs on head renewals. (A constant would have chitchat
/// forget every node after its grace period, and for good, since it takes a
/// forgotten node back only with a higher heartbeat.)
///
/// # Errors
/// [`GateError`] when the message as a whole is refused: nothing was judged
/// and nothing changed.
pub fn filter(
    message: &[u8],
    cluster: &str,
    me: &GossipId,
    admission: &mut dyn Admission,
) -> Result<Filtered, GateError> {
    filter_message(Message::parse(message)?, cluster, me, admission, true)
}

/// As [`filter`], of a message in the compact form: see [`compact::unpack`].
/// Its heads aren't written: chitchat needs to know of versions only, and of
/// those a message then holds those of a whole mesh.
///
/// # Errors
/// As [`filter`].
pub fn filter_compact(
    message: Message,
    cluster: &str,
    me: &GossipId,
    admission: &mut dyn Admission,
) -> Result<Filtered, GateError> {
    message.check()?;
    filter_message(message, cluster, me, admission, false)
}

fn filter_message(
    message: Message,
    cluster: &str,
    me: &GossipId,
    admission: &mut dyn Admission,
    with_heads: bool,
) -> Result<Filtered, GateError> {
    let mut gate = Gate {
        me,
        admission,
        newest: BTreeMap::new(),
        with_heads,
        drops: Drops::default(),
    };
    let (kind, message, heads) = match message {
        Message::Syn {
            cluster: theirs,
            digest,
        } => {
            if theirs != cluster {
                return Err(GateError::Cluster);
            }
            let digest = gate.digest(digest);
            let message = Message::Syn {
                cluster: theirs,
                digest,
            };
            (Kind::Syn, message, Vec::new())
        }
        Message::SynAck { digest, delta } => {
            // The delta first: a head in it may be what admits an entry.
            let delta = gate.judge(delta);
            let digest = gate.digest(digest);
            let room = room_beside(&digest);
            let (delta, heads) = gate.fit(delta, room);
            (Kind::SynAck, Message::SynAck { digest, delta }, heads)
        }
        Message::Ack { delta } => {
            let delta = gate.judge(delta);
            let (delta, heads) = gate.fit(delta, GOSSIP_MESSAGE_BYTES - HEADER_BYTES);
            (Kind::Ack, Message::Ack { delta }, heads)
        }
        Message::BadCluster => return Err(GateError::BadCluster),
    };
    Ok(Filtered {
        kind,
        bytes: message.encode(),
        heads,
        drops: gate.drops,
    })
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
    admission: &'a mut dyn Admission,
    /// Each node's id and version as this message's delta brings it.
    newest: BTreeMap<Name, (GossipId, u64)>,
    /// Whether chitchat is given the heads.
    with_heads: bool,
    drops: Drops,
}

impl Gate<'_> {
    /// Leaves the heads that are true, one for each node, and notes them in
    /// `newest`.
    fn judge(&mut self, delta: Vec<Offer>) -> Vec<(Offer, Value)> {
        let mut passed = Vec::new();
        for mut offer in delta {
            // Taken out, so that each offer that passes has a head by its type.
            let Some(head) = offer.head.take() else {
                continue;
            };
            let genuine = head.text.len() <= GOSSIP_HEAD_BYTES
                && self.admission.judge(&offer.id, head.version, &head.text);
            if offer.id.node == self.me.node {
                self.drops.own += 1;
            } else if !genuine {
                self.drops.refused += 1;
            } else {
                self.note(&offer.id, head.version);
                passed.push((offer, head));
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
                self.admission.verified(held).is_none() && self.admission.verified(id).is_some()
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
        let held = self.admission.verified(id);
        match self.newest.get(&id.node) {
            Some((newest, version)) if newest == id => held.max(Some(*version)),
            Some((newest, _)) if newest.generation >= id.generation => None,
            _ => held,
        }
    }

    /// Leaves the offers that fit into `room` bytes without compression.
    fn fit(
        &mut self,
        passed: Vec<(Offer, Value)>,
        room: usize,
    ) -> (Vec<Offer>, Vec<(GossipId, Value)>) {
        let mut plain = 0;
        let mut delta = Vec::new();
        let mut heads = Vec::new();
        for (mut offer, head) in passed {
            let version = head.version;
            let text = if self.with_heads {
                head.text.clone()
            } else {
                String::new()
            };
            heads.push((offer.id, head));
            offer.head = Some(Value { version, text });
            // Once one is too long none follows: the rest stays in its order.
            plain += offer.len();
            if wire::delta_len(plain) <= room {
                delta.push(offer);
            } else {
                self.drops.deferred += 1;
            }
        }
        (delta, heads)
    }
}
