//! Heads on their way on: for each peer the newest of each owner, gathered where many come
//! at a time. A flood by one owner goes on no faster than that, and its last head goes on
//! always.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use innermesh_proto::{id::NodeId, message::PushedHead};

use crate::host::Mono;

/// Time between two messages to one peer, and after one of more than [`FEW`] heads: then
/// much is changing, and more of it fits in the next.
const GAP: Duration = Duration::from_millis(20);
const GAP_LATE: Duration = Duration::from_millis(100);
const FEW: usize = 3;
/// Time between two heads of one owner to one peer: 20 a second.
const OWNER_GAP: Duration = Duration::from_millis(50);
/// How long a head waits that only names more links: nobody dies of that.
const PATIENT: Duration = Duration::from_millis(200);

/// Generation and sequence of a head.
type Order = (u64, u64);

/// See the module.
#[derive(Default)]
pub(super) struct Passing(BTreeMap<NodeId, Waiting>);

/// What waits for one peer.
#[derive(Default)]
struct Waiting {
    heads: BTreeMap<NodeId, Head>,
    /// When the first of them may go; it may be gone.
    due: Option<Mono>,
    /// When the next message may go.
    next: Mono,
    /// Owners of whom a head went within [`OWNER_GAP`], and when.
    passed: BTreeMap<NodeId, Mono>,
}

struct Head {
    order: Order,
    pushed: Arc<PushedHead>,
    due: Mono,
}

impl Waiting {
    fn due_of(&self, owner: &NodeId, head: &Head) -> Mono {
        let passed = self.passed.get(owner).map(|at| *at + OWNER_GAP);
        head.due.max(self.next).max(passed.unwrap_or_default())
    }

    fn set_due(&mut self) {
        let heads = self.heads.iter();
        self.due = heads.map(|(owner, head)| self.due_of(owner, head)).min();
    }

    /// All that may go now, where one is due.
    fn take(&mut self, now: Mono) -> Vec<Arc<PushedHead>> {
        self.set_due();
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.passed.retain(|_, at| now < *at + OWNER_GAP);
        let passed = &mut self.passed;
        let mut taken = Vec::new();
        self.heads.retain(|owner, head| {
            if passed.contains_key(owner) {
                return true;
            }
            passed.insert(*owner, now);
            taken.push(head.pushed.clone());
            false
        });
        let gap = if taken.len() > FEW { GAP_LATE } else { GAP };
        self.next = now + gap;
        self.set_due();
        taken
    }
}

impl Passing {
    /// `owner`'s head of this `order` is to go to `peer`.
    pub(super) fn put(
        &mut self,
        peer: NodeId,
        (owner, order): (NodeId, Order),
        pushed: &Arc<PushedHead>,
        is_urgent: bool,
        now: Mono,
    ) {
        let patience = if is_urgent { Duration::ZERO } else { PATIENT };
        let waiting = self.0.entry(peer).or_default();
        let mut due = now + patience;
        if let Some(before) = waiting.heads.get(&owner) {
            if before.order >= order {
                return;
            }
            due = due.min(before.due);
        }
        let pushed = pushed.clone();
        let head = Head { order, pushed, due };
        let due = waiting.due_of(&owner, &head);
        waiting.due = Some(waiting.due.map_or(due, |before| before.min(due)));
        waiting.heads.insert(owner, head);
    }

    /// `peer` has `owner`'s head of this order: it isn't sent that one.
    pub(super) fn note_held(&mut self, peer: &NodeId, owner: &NodeId, order: Order) {
        if let Some(waiting) = self.0.get_mut(peer)
            && waiting
                .heads
                .get(owner)
                .is_some_and(|head| head.order <= order)
        {
            waiting.heads.remove(owner);
        }
    }

    /// What is to go now, for each peer that `is_connected`; others are forgotten.
    pub(super) fn take(
        &mut self,
        now: Mono,
        is_connected: impl Fn(&NodeId) -> bool,
    ) -> Vec<(NodeId, Vec<Arc<PushedHead>>)> {
        self.0.retain(|peer, waiting| {
            is_connected(peer) && (!waiting.heads.is_empty() || now < waiting.next + OWNER_GAP)
        });
        let due = self.0.iter_mut();
        let due = due.filter(|(_, waiting)| waiting.due.is_some_and(|due| due <= now));
        due.map(|(peer, waiting)| (*peer, waiting.take(now)))
            .filter(|(_, heads)| !heads.is_empty())
            .collect()
    }

    /// When there may be more to go; `None` while nothing waits.
    pub(super) fn due(&self) -> Option<Mono> {
        self.0.values().filter_map(|waiting| waiting.due).min()
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::crypto::{Sealed, Signature};

    use super::*;

    const PEER: NodeId = NodeId([9; 16]);

    fn at(ms: u64) -> Mono {
        Duration::from_millis(ms)
    }

    fn head(n: u8) -> Arc<PushedHead> {
        Arc::new(PushedHead {
            head: Sealed {
                bytes: Vec::new(),
                signature: Signature::from_bytes(&[0; 64]),
            },
            body: Some(vec![n]),
        })
    }

    /// What goes to [`PEER`], as the bodies.
    fn taken(passing: &mut Passing, ms: u64) -> Vec<u8> {
        let all = passing.take(at(ms), |_| true);
        let heads = all.iter().flat_map(|(_, heads)| heads);
        heads
            .filter_map(|head| Some(head.body.as_ref()?[0]))
            .collect()
    }

    #[test]
    fn of_an_owner_s_flood_20_go_on_in_a_second_and_the_last_always() {
        let mut passing = Passing::default();
        let owner = NodeId([1; 16]);
        let mut gone = Vec::new();
        for ms in 0..1000 {
            let newest = (1, ms);
            passing.put(PEER, (owner, newest), &head((ms % 251) as u8), true, at(ms));
            gone.extend(taken(&mut passing, ms));
        }
        assert_eq!(gone.len(), 20);
        assert_eq!(passing.due(), Some(at(1000)));
        assert_eq!(taken(&mut passing, 1000), [(999 % 251) as u8]);
        assert_eq!(passing.due(), None);
    }

    #[test]
    fn the_first_goes_at_once_and_what_follows_together() {
        let mut passing = Passing::default();
        let owner = |n: u8| NodeId([n; 16]);
        passing.put(PEER, (owner(0), (1, 1)), &head(0), true, at(0));
        assert_eq!(taken(&mut passing, 0), [0]);
        for n in 1..6 {
            passing.put(PEER, (owner(n), (1, 1)), &head(n), true, at(1));
        }
        assert!(taken(&mut passing, 19).is_empty());
        assert_eq!(taken(&mut passing, 20), [1, 2, 3, 4, 5]);
        passing.put(PEER, (owner(7), (1, 1)), &head(7), true, at(21));
        assert_eq!(passing.due(), Some(at(120)), "much is changing");
    }

    #[test]
    fn what_can_wait_does_until_something_goes_and_what_a_peer_has_does_not_go() {
        let mut passing = Passing::default();
        let (one, other) = (NodeId([1; 16]), NodeId([2; 16]));
        passing.put(PEER, (one, (1, 1)), &head(1), false, at(0));
        assert_eq!(passing.due(), Some(at(200)));
        passing.put(PEER, (other, (1, 1)), &head(2), true, at(50));
        assert_eq!(taken(&mut passing, 50), [1, 2]);

        passing.put(PEER, (one, (1, 2)), &head(3), true, at(300));
        passing.note_held(&PEER, &one, (1, 1));
        assert_eq!(passing.due(), Some(at(300)), "it has an older one");
        passing.note_held(&PEER, &one, (1, 2));
        assert!(taken(&mut passing, 300).is_empty());
        assert_eq!(passing.due(), None);
        // An older one takes no newer one's place.
        passing.put(PEER, (one, (1, 4)), &head(4), true, at(400));
        passing.put(PEER, (one, (1, 3)), &head(3), true, at(400));
        assert_eq!(taken(&mut passing, 400), [4]);
    }

    #[test]
    fn peers_that_nothing_goes_to_any_more_are_forgotten() {
        let mut passing = Passing::default();
        let owner = NodeId([1; 16]);
        passing.put(PEER, (owner, (1, 1)), &head(1), true, at(0));
        assert!(passing.take(at(0), |_| false).is_empty());
        assert!(passing.0.is_empty(), "it isn't connected");
        passing.put(PEER, (owner, (1, 1)), &head(1), true, at(0));
        assert_eq!(taken(&mut passing, 0), [1]);
        assert!(taken(&mut passing, 500).is_empty());
        assert!(passing.0.is_empty());
    }
}
