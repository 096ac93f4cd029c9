//! Datagrams of tunnels on their way by a relay, each in a datagram of the connection
//! with it. What doesn't fit into one goes in two halves.

use std::collections::{BTreeMap, VecDeque};

use crate::{id::NodeId, limits};

/// The first byte: for another node, or from it. Links have others (`links::packet`).
const TO: u8 = 16;
const FROM: u8 = 17;
/// Bytes before what is carried: kind, part, number, node.
const HEADER: usize = 1 + 1 + 2 + 16;

/// A datagram, or half of one, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// To a relay: for whom it is. From one: by whom.
    pub node: NodeId,
    /// Whether the relay is to bring it to `node`.
    pub to: bool,
    /// How much of a datagram it is.
    pub part: Part,
    /// What is carried.
    pub bytes: &'a [u8],
}

/// How much of a datagram it is, and which number it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first half.
    First(u16),
    /// The other.
    Second(u16),
}

/// Whether a datagram of a connection is a frame.
pub fn is_frame(datagram: &[u8]) -> bool {
    matches!(datagram, [TO | FROM, ..])
}

impl<'a> Frame<'a> {
    /// As a datagram.
    pub fn encode(&self) -> Vec<u8> {
        let (part, number) = match self.part {
            Part::Whole => (0, 0),
            Part::First(number) => (1, number),
            Part::Second(number) => (2, number),
        };
        let mut datagram = Vec::with_capacity(HEADER + self.bytes.len());
        datagram.extend([if self.to { TO } else { FROM }, part]);
        datagram.extend(u16::to_le_bytes(number));
        datagram.extend(self.node.0);
        datagram.extend(self.bytes);
        datagram
    }

    /// Reads a datagram; `None` where it is no frame of a known form.
    pub fn decode(datagram: &'a [u8]) -> Option<Self> {
        let (header, bytes) = datagram.split_first_chunk::<HEADER>()?;
        let [kind, part, low, high, node @ ..] = header;
        let number = u16::from_le_bytes([*low, *high]);
        let part = match part {
            0 => Part::Whole,
            1 => Part::First(number),
            2 => Part::Second(number),
            _ => return None,
        };
        let to = match *kind {
            TO => true,
            FROM => false,
            _ => return None,
        };
        (!bytes.is_empty()).then_some(Self {
            node: NodeId(*node),
            to,
            part,
            bytes,
        })
    }
}

/// The frames of one datagram where a connection takes `room` bytes in one; none where
/// not even half of it fits. `number` tells it from others of the time.
pub fn pieces(
    node: NodeId,
    to: bool,
    bytes: &[u8],
    room: usize,
    number: u16,
) -> impl Iterator<Item = Vec<u8>> {
    let fits = |length: usize| HEADER + length <= room;
    let (first, second) = bytes.split_at(bytes.len().div_ceil(2));
    let parts = if fits(bytes.len()) {
        [Some((Part::Whole, bytes)), None]
    } else if fits(first.len()) {
        let halves = [(Part::First(number), first), (Part::Second(number), second)];
        halves.map(Some)
    } else {
        [None, None]
    };
    let frames = parts.into_iter().flatten();
    frames.map(move |(part, bytes)| {
        let frame = Frame {
            node,
            to,
            part,
            bytes,
        };
        frame.encode()
    })
}

/// Halves that wait for the other.
#[derive(Debug, Default)]
pub struct Halves {
    waiting: BTreeMap<NodeId, VecDeque<(Part, Vec<u8>)>>,
}

impl Halves {
    /// Takes what came of a node's datagrams; a whole one, where this completes it.
    pub fn take(&mut self, from: NodeId, part: Part, bytes: &[u8]) -> Option<Vec<u8>> {
        let other = match part {
            Part::Whole => return Some(bytes.to_vec()),
            Part::First(number) => Part::Second(number),
            Part::Second(number) => Part::First(number),
        };
        if !self.waiting.contains_key(&from) && self.waiting.len() >= limits::HALVES_OF {
            // Whoever it is, only what is under way is lost.
            self.waiting.pop_first();
        }
        let waiting = self.waiting.entry(from).or_default();
        let place = waiting.iter().position(|(part, _)| *part == other);
        if let Some((_, half)) = place.and_then(|place| waiting.remove(place)) {
            if waiting.is_empty() {
                self.waiting.remove(&from);
            }
            return Some(match part {
                Part::Second(_) => [&half, bytes].concat(),
                _ => [bytes, &half].concat(),
            });
        }
        if waiting.len() >= limits::HALVES {
            waiting.pop_front();
        }
        waiting.push_back((part, bytes.to_vec()));
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId([7; 16]);

    proptest! {
        #[test]
        fn what_goes_in_pieces_comes_out_whole_in_any_order(
            bytes in proptest::collection::vec(any::<u8>(), 1..1500),
            room in 700usize..1500,
            swapped: bool,
        ) {
            let mut frames: Vec<Vec<u8>> = pieces(NODE, true, &bytes, room, 9).collect();
            if bytes.len().div_ceil(2) + HEADER > room {
                prop_assert!(frames.is_empty());
                return Ok(());
            }
            if swapped {
                frames.reverse();
            }
            let mut halves = Halves::default();
            let mut whole = Vec::new();
            for datagram in &frames {
                prop_assert!(datagram.len() <= room && is_frame(datagram));
                let frame = Frame::decode(datagram).unwrap();
                prop_assert_eq!((frame.node, frame.to), (NODE, true));
                whole.extend(halves.take(NODE, frame.part, frame.bytes));
            }
            prop_assert_eq!(whole, [bytes]);
            prop_assert!(halves.waiting.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(frame) = Frame::decode(&bytes) {
                let again = frame.encode();
                prop_assert_eq!(Frame::decode(&again), Some(frame));
            }
        }
    }

    #[test]
    fn halves_without_the_other_are_bounded() {
        let mut halves = Halves::default();
        for node in 0..2000u16 {
            let [low, high] = node.to_le_bytes();
            let mut id = [0; 16];
            (id[0], id[1]) = (low, high);
            for number in 0..100 {
                assert_eq!(halves.take(NodeId(id), Part::First(number), &[1]), None);
            }
        }
        assert!(halves.waiting.len() <= limits::HALVES_OF);
        let most = halves.waiting.values().map(VecDeque::len).max();
        assert!(most.is_some_and(|most| most <= limits::HALVES));
    }
}
