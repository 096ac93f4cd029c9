//! Requests that wait for the leader: in a lane for each node that delivered
//! them, and decided in turn, so that a thousand of one node delay another's by
//! a place or two. By who delivers and not by who signed: what stands in a
//! request isn't proved before its signature is checked.

use std::collections::{BTreeMap, VecDeque};

use innermesh_proto::{id::NodeId, limits};

/// Who delivered a request; none is this node itself.
pub type Lane = Option<NodeId>;

/// What waits. Never empty lanes, and each lane once in the order.
pub struct Queue<T> {
    lanes: BTreeMap<Lane, VecDeque<T>>,
    order: VecDeque<Lane>,
    length: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            order: VecDeque::new(),
            length: 0,
        }
    }
}

impl<T> Queue<T> {
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds one at its lane's end. Gives what finds no room: `item` itself, or
    /// the newest of a longer lane in its place.
    pub fn push(&mut self, lane: Lane, item: T) -> Option<T> {
        let held = self.lanes.get(&lane).map_or(0, VecDeque::len);
        if held >= limits::WAITING_PER_NODE {
            return Some(item);
        }
        let mut left_out = None;
        if self.length >= limits::WAITING {
            let longest = self.lanes.iter().max_by_key(|(_, items)| items.len());
            let longest = longest.filter(|(_, items)| items.len() > held + 1);
            let Some(other) = longest.map(|(other, _)| *other) else {
                return Some(item);
            };
            // More than one waits there, so that the lane stays.
            left_out = self.lanes.get_mut(&other).and_then(VecDeque::pop_back);
            self.length -= 1;
        }
        let items = self.lanes.entry(lane).or_default();
        if items.is_empty() {
            self.order.push_back(lane);
        }
        items.push_back(item);
        self.length += 1;
        left_out
    }

    /// The first of the lane whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let lane = self.order.pop_front()?;
        let items = self.lanes.get_mut(&lane)?;
        let item = items.pop_front()?;
        self.length -= 1;
        if items.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.order.push_back(lane);
        }
        Some(item)
    }

    /// All that waits, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lanes.values().flatten()
    }

    /// Takes all of it out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(self).lanes.into_values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> Lane {
        Some(NodeId([number; 16]))
    }

    #[test]
    fn one_node_s_thousand_requests_delay_another_s_by_one() {
        let mut queue = Queue::default();
        for n in 0..limits::WAITING_PER_NODE {
            assert_eq!(queue.push(node(1), (1, n)), None);
        }
        assert_eq!(queue.push(node(1), (1, 9999)), Some((1, 9999)));
        assert_eq!(queue.push(node(2), (2, 0)), None);
        assert_eq!(queue.push(None, (0, 0)), None);
        let first: Vec<_> = (0..4).filter_map(|_| queue.pop()).collect();
        assert_eq!(first, [(1, 0), (2, 0), (0, 0), (1, 1)]);
    }

    #[test]
    fn a_full_queue_has_room_for_a_node_with_fewer_requests() {
        let mut queue = Queue::default();
        let lanes = limits::WAITING / limits::WAITING_PER_NODE;
        for lane in 0..lanes {
            for n in 0..limits::WAITING_PER_NODE {
                assert_eq!(queue.push(node(lane as u8), n), None);
            }
        }
        let newest = limits::WAITING_PER_NODE - 1;
        for n in 0..lanes {
            assert_eq!(queue.push(node(200), n), Some(newest), "{n}");
        }
        let mut left = 0;
        while queue.pop().is_some() {
            left += 1;
        }
        assert_eq!(left, limits::WAITING);
        assert!(queue.is_empty() && queue.order.is_empty());
    }

    #[test]
    fn what_is_drained_is_all_that_waited() {
        let mut queue = Queue::default();
        for n in 0..20 {
            assert_eq!(queue.push(node(n % 3), n), None);
        }
        let mut all: Vec<u8> = queue.drain().collect();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<u8>>());
        assert!(queue.is_empty() && queue.pop().is_none());
        assert_eq!(queue.push(node(1), 1), None);
        assert_eq!(queue.pop(), Some(1));
    }
}
