//! Pre-shared keys of pairs of nodes, mixed into their WireGuard handshakes: how two
//! agree on one, and which of them counts.
//!
//! The node with the smaller id offers one half of a key exchange; the other answers with
//! its half, and keeps what follows beside the key in use. Only once the first has shown
//! that it has the same does the other use it, and the first when it has heard of that:
//! an offer that somebody repeats leads to nothing. All is signed, or known to nobody
//! else, so that any node may bring it.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    codec::raw,
    crypto::{Hash, Sealed},
    id::NodeId,
    tunnel::{PresharedKey, TunnelKey},
};

/// Tells these keys from whatever else is ever drawn from such a secret.
const LABEL: &[u8] = b"innermesh pair key v1";
/// The longest half of an exchange (X25519MLKEM768: 1,184 bytes of ML-KEM-768 and 32 of
/// X25519).
pub const SHARE_BYTES: usize = 2048;

/// What a node says and signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// A key is to be agreed.
    Offer {
        from: NodeId,
        to: NodeId,
        /// The WireGuard keys of the two, in that order: it is for their handshakes alone.
        tunnel: [TunnelKey; 2],
        /// Greater than that of each key of the pair before.
        number: u64,
        #[serde(with = "raw")]
        share: Vec<u8>,
    },
    /// The other half for an offer, by the hash of its statement.
    Answer {
        offer: Hash,
        #[serde(with = "raw")]
        share: Vec<u8>,
    },
    /// The pair has had a key of that number or a greater one.
    Stale { offer: Hash, number: u64 },
    /// The node that may not offer lacks a key that works.
    Wanted { from: NodeId, to: NodeId },
}

/// The body of PAIR_KEY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// An offer or a wish.
    Said(Sealed),
    /// Shows that its author has the key of an offer of its own.
    Confirm {
        from: NodeId,
        offer: Hash,
        proof: [u8; 32],
    },
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To an offer.
    Said(Sealed),
    /// To a wish.
    Noted,
    /// The key is in use; shows that its author has it.
    Confirmed([u8; 32]),
    /// No such key is held.
    Unknown,
}

/// The body of PAIR_KEY_BY: a [`Request`] for another node. The answer is that node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    pub to: NodeId,
    #[serde(with = "raw")]
    pub request: Vec<u8>,
}

/// A key that both ends have drawn.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    pub number: u64,
    /// The hash of the offer that it came of.
    pub offer: Hash,
    /// The WireGuard keys of this node and of the other for whose handshakes it is.
    pub tunnel: [TunnelKey; 2],
    key: [u8; 32],
    proof: [u8; 32],
    confirmed: [u8; 32],
    /// When that was, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What two nodes have told each other before they draw a key.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub number: u64,
    /// As [`Agreed::tunnel`].
    pub tunnel: [TunnelKey; 2],
    /// The hashes of the two statements.
    pub offer: Hash,
    pub answer: Hash,
}

/// What the other end knows of a pair that this node answered to.
#[derive(Clone)]
struct Pending {
    agreed: Agreed,
    answer: Sealed,
}

/// The keys of one node, by the other end.
#[derive(Clone, Default)]
pub struct PairKeys {
    used: BTreeMap<NodeId, Agreed>,
    pending: BTreeMap<NodeId, Pending>,
}

/// What is to be done with an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It was answered before, and is again.
    Answered(Sealed),
    /// A key of that number is there already.
    Stale(u64),
    /// It is to be answered.
    New,
}

impl Agreed {
    /// What follows from the secret of an exchange: the one-step key derivation of NIST
    /// SP 800-56C Rev. 2, section 4.1, with SHA-256, over the offer's and the answer's
    /// hash.
    pub fn of(secret: &[u8], exchange: Exchange, at_ms: u64) -> Self {
        let Exchange {
            number,
            tunnel,
            offer,
            answer,
        } = exchange;
        let drawn = |counter: u32| {
            let parts = [&counter.to_be_bytes(), secret, LABEL, &offer.0, &answer.0];
            Hash::of(&parts.concat()).0
        };
        Self {
            number,
            offer,
            tunnel,
            key: drawn(1),
            proof: drawn(2),
            confirmed: drawn(3),
            at_ms,
        }
    }

    /// The key itself, for the handshakes of these two WireGuard keys.
    pub fn key(&self, own: &TunnelKey, other: &TunnelKey) -> Option<PresharedKey> {
        let is_theirs = self.tunnel == [*own, *other];
        is_theirs.then_some(PresharedKey(self.key))
    }

    /// What its offerer shows, in [`Request::Confirm`].
    pub fn proof(&self) -> [u8; 32] {
        self.proof
    }

    /// Whether a [`Reply::Confirmed`] is that of somebody who has it.
    pub fn is_confirmed_by(&self, shown: &[u8; 32]) -> bool {
        is_equal(&self.confirmed, shown)
    }
}

impl PairKeys {
    /// With keys of an earlier run.
    pub fn new(used: BTreeMap<NodeId, Agreed>) -> Self {
        Self {
            used,
            pending: BTreeMap::new(),
        }
    }

    /// Those in use, to be kept for the next run.
    pub fn used(&self) -> &BTreeMap<NodeId, Agreed> {
        &self.used
    }

    /// The one in use with a node.
    pub fn with(&self, node: &NodeId) -> Option<&Agreed> {
        self.used.get(node)
    }

    /// Forgets the keys with whoever isn't to be kept. Whether there was one.
    pub fn retain(&mut self, is_kept: impl Fn(&NodeId) -> bool) -> bool {
        let before = self.used.len();
        self.used.retain(|node, _| is_kept(node));
        self.pending.retain(|node, _| is_kept(node));
        self.used.len() < before
    }

    /// Takes a verified offer.
    pub fn offered(&self, from: &NodeId, number: u64, offer: &Hash) -> Offered {
        if let Some(pending) = self.pending.get(from)
            && pending.agreed.offer == *offer
        {
            return Offered::Answered(pending.answer.clone());
        }
        match self.used.get(from) {
            Some(used) if used.number >= number => Offered::Stale(used.number),
            _ => Offered::New,
        }
    }

    /// Remembers what an offer was answered with, in place of an earlier one's.
    pub fn answered(&mut self, from: NodeId, agreed: Agreed, answer: Sealed) {
        self.pending.insert(from, Pending { agreed, answer });
    }

    /// Takes a [`Request::Confirm`]. Returns whether the key in use is another one now,
    /// and the reply: to be given once the key is stored.
    pub fn confirm(&mut self, from: &NodeId, offer: &Hash, proof: &[u8; 32]) -> (bool, Reply) {
        let shows = |agreed: &Agreed| agreed.offer == *offer && is_equal(&agreed.proof, proof);
        if let Some(used) = self.used.get(from).filter(|used| shows(used)) {
            return (false, Reply::Confirmed(used.confirmed));
        }
        let is_shown = |pending: &Pending| shows(&pending.agreed);
        if !self.pending.get(from).is_some_and(is_shown) {
            return (false, Reply::Unknown);
        }
        let Some(Pending { agreed, .. }) = self.pending.remove(from) else {
            return (false, Reply::Unknown);
        };
        let reply = Reply::Confirmed(agreed.confirmed);
        (self.adopt(*from, agreed), reply)
    }

    /// Uses a key that the other end has confirmed, where it is the newest. Whether it
    /// is.
    pub fn adopt(&mut self, node: NodeId, agreed: Agreed) -> bool {
        let before = self.used.get(&node).map(|used| used.number);
        let is_newest = before.is_none_or(|before| before < agreed.number);
        if is_newest {
            self.used.insert(node, agreed);
        }
        is_newest
    }
}

/// Takes as long for each two values.
fn is_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Signature;

    fn agreed(secret: u8, number: u64) -> Agreed {
        let offer = Hash::of(&[secret, 1]);
        let exchange = Exchange {
            number,
            tunnel: TUNNEL,
            offer,
            answer: Hash::of(&[secret, 2]),
        };
        Agreed::of(&[secret; 64], exchange, 7)
    }

    fn sealed(bytes: u8) -> Sealed {
        Sealed {
            bytes: vec![bytes],
            signature: Signature::from_bytes(&[0; 64]),
        }
    }

    const PEER: NodeId = NodeId([1; 16]);
    const TUNNEL: [TunnelKey; 2] = [TunnelKey([8; 32]), TunnelKey([9; 32])];

    #[test]
    fn what_is_drawn_depends_on_secret_offer_and_answer_and_serves_one_purpose_each() {
        let one = agreed(1, 1);
        assert!(one == agreed(1, 1));
        let drawn = [one.key, one.proof, one.confirmed];
        for (n, value) in drawn.iter().enumerate() {
            assert!(!drawn[..n].contains(value));
        }
        let hashes = [Hash::of(b"a"), Hash::of(b"b"), Hash::of(b"c")];
        let of = |secret: &[u8], offer: usize, answer: usize| {
            let exchange = Exchange {
                number: 1,
                tunnel: TUNNEL,
                offer: hashes[offer],
                answer: hashes[answer],
            };
            Agreed::of(secret, exchange, 0).key
        };
        let first = of(b"s", 0, 1);
        for other in [of(b"t", 0, 1), of(b"s", 2, 1), of(b"s", 0, 2)] {
            assert_ne!(first, other);
        }
        // SHA-256 over counter, secret, label, offer and answer.
        let bytes = [b"\0\0\0\x01s", LABEL, &hashes[0].0, &hashes[1].0].concat();
        assert_eq!(first, Hash::of(&bytes).0);
        let [own, other] = TUNNEL;
        assert!(one.key(&own, &other).is_some());
        assert!(one.key(&other, &own).is_none() && one.key(&own, &own).is_none());
    }

    #[test]
    fn an_answered_key_is_used_only_once_it_is_shown() {
        let mut keys = PairKeys::default();
        let new = agreed(1, 1);
        assert_eq!(keys.offered(&PEER, 1, &new.offer), Offered::New);
        keys.answered(PEER, new.clone(), sealed(1));
        assert!(keys.with(&PEER).is_none());
        assert_eq!(
            keys.offered(&PEER, 1, &new.offer),
            Offered::Answered(sealed(1))
        );
        let (changed, reply) = keys.confirm(&PEER, &new.offer, &[0; 32]);
        assert_eq!((changed, reply), (false, Reply::Unknown));
        let (changed, reply) = keys.confirm(&NodeId([2; 16]), &new.offer, &new.proof());
        assert_eq!((changed, reply), (false, Reply::Unknown));
        // Asked once more, as the answer may have been lost, it says the same.
        for is_first in [true, false] {
            let (changed, reply) = keys.confirm(&PEER, &new.offer, &new.proof());
            assert_eq!(changed, is_first);
            let Reply::Confirmed(shown) = reply else {
                panic!("{reply:?}")
            };
            assert!(new.is_confirmed_by(&shown));
        }
        assert!(keys.with(&PEER).is_some_and(|used| *used == new));
    }

    #[test]
    fn an_older_key_never_takes_the_place_of_a_newer_one() {
        let mut keys = PairKeys::default();
        assert!(keys.adopt(PEER, agreed(5, 5)));
        assert_eq!(
            keys.offered(&PEER, 5, &Hash::of(b"x")),
            Offered::Stale(5),
            "a number that was used"
        );
        let old = agreed(4, 4);
        keys.answered(PEER, old.clone(), sealed(4));
        assert!(!keys.confirm(&PEER, &old.offer, &old.proof()).0);
        assert!(!keys.adopt(PEER, agreed(6, 5)));
        assert!(keys.with(&PEER).is_some_and(|used| *used == agreed(5, 5)));
        let again = PairKeys::new(keys.used().clone());
        assert_eq!(again.offered(&PEER, 4, &old.offer), Offered::Stale(5));
    }

    #[test]
    fn keys_go_with_their_members() {
        let mut keys = PairKeys::default();
        keys.adopt(PEER, agreed(1, 1));
        keys.answered(PEER, agreed(2, 2), sealed(2));
        assert!(!keys.retain(|_| true));
        assert!(keys.retain(|node| *node != PEER));
        assert!(keys.with(&PEER).is_none());
        let new = agreed(2, 2);
        let (changed, reply) = keys.confirm(&PEER, &new.offer, &new.proof());
        assert_eq!((changed, reply), (false, Reply::Unknown));
    }
}
