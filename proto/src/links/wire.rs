//! What links look like on the wire: the item of a head's body, and the packet of a link.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Key, Order, key};
use crate::{
    codec::{self, CodecError},
    id::NodeId,
    ledger::Position,
    limits,
};

/// The links that a node names in its head, at most [`limits::LINKS_NAMED`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedLinks {
    /// Only this node dials; nobody can dial it.
    pub behind_nat: bool,
    /// Each with the epoch: where the peer's head stood when the link came up.
    pub links: BTreeMap<Key, Order>,
}

#[derive(Serialize, Deserialize)]
struct Form {
    flags: u8,
    /// Big-endian keys, so that they are the beginnings of ids.
    links: Vec<([u8; 8], Order)>,
}

const BEHIND_NAT: u8 = 1;

impl NamedLinks {
    /// Whether it names a link with this node.
    pub fn names(&self, node: &NodeId) -> bool {
        self.links.contains_key(&key(node))
    }

    /// Whether it says all that `other` does, of the same epochs, and maybe more.
    pub fn has_all_of(&self, other: &Self) -> bool {
        let mut links = other.links.iter();
        self.behind_nat == other.behind_nat
            && links.all(|(peer, epoch)| self.links.get(peer) == Some(epoch))
    }

    /// As the item of a body.
    pub fn encode(&self) -> Vec<u8> {
        let links = self.links.iter();
        codec::encode(&Form {
            flags: if self.behind_nat { BEHIND_NAT } else { 0 },
            links: links
                .map(|(peer, epoch)| (peer.to_be_bytes(), *epoch))
                .collect(),
        })
    }

    /// Reads the item; `None` where it is malformed, names more than
    /// [`limits::LINKS_NAMED`], or one twice. Flags that this build doesn't know are
    /// passed over (S22).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let form: Form = codec::decode(bytes, limits::LINKS_ITEM_BYTES).ok()?;
        let named = form.links.len();
        let links = form.links.into_iter();
        let links: BTreeMap<Key, Order> = links
            .map(|(peer, epoch)| (Key::from_be_bytes(peer), epoch))
            .collect();
        (named <= limits::LINKS_NAMED && links.len() == named).then_some(Self {
            behind_nat: form.flags & BEHIND_NAT != 0,
            links,
        })
    }

    /// Whether it is of use as `owner`'s: nobody has a link with itself.
    pub fn is_sound(&self, owner: &NodeId) -> bool {
        !self.links.contains_key(&key(owner))
    }
}

/// A ledger position as beats state it: what a head states whole is compared here by
/// half of its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub index: u64,
    /// The first 16 bytes of the header's hash.
    pub hash: [u8; 16],
}

impl From<&Position> for Place {
    fn from(position: &Position) -> Self {
        let (first, _) = position.hash.0.split_at(16);
        Self {
            index: position.index,
            hash: first.try_into().expect("16 of 32 bytes"),
        }
    }
}

/// The packet of a link: a beat, its answer, an offer and a probe are the same, and each
/// says all that its sender knows of the link. Losing, doubling and reordering them does
/// no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub flags: Flags,
    /// The sender's attempt at this link; it rises each time that the link was lost.
    pub mine: u32,
    /// The receiver's attempt as the sender last heard it; 0 where the sender has none or
    /// doesn't take it up. The link is up for a receiver whose attempt it is.
    pub yours: u32,
    /// The sender's newest head.
    pub head: Order,
    /// Digest of the sender's head table, see [`super::digest`].
    pub digest: [u8; 16],
    /// How far it follows the ledger.
    pub position: Place,
    /// Its wall clock, in milliseconds since 1970: others compare a leader's with it.
    /// Nothing here depends on it.
    pub clock_ms: u64,
}

/// What a [`Beat`] says yes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags(u8);

impl Flags {
    /// An answer is wanted.
    pub const ASK: Self = Self(1);
    /// It is the sender's turn; the next is the receiver's.
    pub const TURN: Self = Self(2);
    /// The sender's ledger has reached the receiver's position: it would name the link.
    pub const READY: Self = Self(4);
    /// The sender has the receiver for a neighbour on a ring.
    pub const WANTS: Self = Self(8);
    /// The sender doesn't need the link any more, and did nothing else than end it.
    pub const RELEASE: Self = Self(16);
    /// The sender has as many links as it takes.
    pub const FULL: Self = Self(32);
    /// The sender stops.
    pub const LEAVING: Self = Self(64);
    /// Where the receiver has nothing new to say, the transport's acknowledgement is
    /// answer enough.
    pub const ACKS: Self = Self(128);

    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    /// Whether all of `others` are among these.
    pub fn has_all(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    #[must_use]
    pub fn with(self, flag: Self, is_set: bool) -> Self {
        if is_set { Self(self.0 | flag.0) } else { self }
    }

    #[must_use]
    pub fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }
}

impl Beat {
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a packet. What a newer build adds behind it is passed over (S22).
    ///
    /// # Errors
    /// [`CodecError`] says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode_front(bytes, limits::LINK_PACKET_BYTES).map(|(beat, _)| beat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: u64, epoch: Order) -> NamedLinks {
        NamedLinks {
            behind_nat: count.is_multiple_of(2),
            links: (0..count).map(|n| (n << 40 | 7, epoch)).collect(),
        }
    }

    #[test]
    fn links_survive_the_wire_and_64_of_them_fit() {
        for count in [0, 1, 8, limits::LINKS_NAMED as u64] {
            for epoch in [(1, 1), (u64::MAX, u64::MAX)] {
                let links = named(count, epoch);
                assert_eq!(NamedLinks::decode(&links.encode()), Some(links));
            }
        }
        let most = named(limits::LINKS_NAMED as u64, (u64::MAX, u64::MAX)).encode();
        assert!(most.len() <= limits::LINKS_ITEM_BYTES, "{}", most.len());
        // What a node has, as a rule: within what is pushed with a head.
        let usual = named(8, (40, 2000)).encode();
        assert!(usual.len() <= 8 * 12 + 4, "{}", usual.len());
    }

    #[test]
    fn a_body_that_names_too_many_links_or_one_twice_names_none() {
        let many = named(9999, (1, 1)).encode();
        assert_eq!(NamedLinks::decode(&many), None);
        let one_more = named(limits::LINKS_NAMED as u64 + 1, (1, 1)).encode();
        assert_eq!(NamedLinks::decode(&one_more), None);
        let twice = codec::encode(&Form {
            flags: 0,
            links: vec![([7; 8], (1, 1)), ([7; 8], (1, 2))],
        });
        assert_eq!(NamedLinks::decode(&twice), None);
        let itself = NamedLinks {
            links: [(key(&NodeId([9; 16])), (1, 1))].into(),
            ..NamedLinks::default()
        };
        assert!(!itself.is_sound(&NodeId([9; 16])));
        assert!(itself.is_sound(&NodeId([8; 16])));
    }

    #[test]
    fn flags_that_nobody_knows_are_passed_over() {
        let newer = codec::encode(&Form {
            flags: 0xff,
            links: vec![([7; 8], (1, 1))],
        });
        let read = NamedLinks::decode(&newer).unwrap();
        assert!(read.behind_nat && read.links.len() == 1);
    }

    #[test]
    fn a_beat_is_small_and_survives_the_wire() {
        let beat = Beat {
            flags: Flags::ASK.with(Flags::READY, true),
            mine: 65_537,
            yours: 65_539,
            head: (40, 2000),
            digest: [9; 16],
            position: Place {
                index: 60_000,
                hash: [7; 16],
            },
            clock_ms: 1_800_000_000_000,
        };
        let bytes = beat.encode();
        assert_eq!(Beat::decode(&bytes), Ok(beat.clone()));
        assert!(bytes.len() <= 64, "{}", bytes.len());
        let newer = [&bytes[..], &[1, 2, 3]].concat();
        assert_eq!(Beat::decode(&newer), Ok(beat.clone()));
        let largest = Beat {
            mine: u32::MAX,
            yours: u32::MAX,
            head: (u64::MAX, u64::MAX),
            position: Place {
                index: u64::MAX,
                hash: [7; 16],
            },
            clock_ms: u64::MAX,
            ..beat
        };
        assert!(largest.encode().len() <= limits::LINK_PACKET_BYTES);
        assert!(Beat::decode(&[1; limits::LINK_PACKET_BYTES + 1]).is_err());
        assert!(Beat::decode(&[]).is_err());
        assert!(!Flags::default().has(Flags::ASK) && Flags::ASK.has(Flags::ASK));
    }
}
