//! The newest head of each node, and what it says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Announcement, Head, MAX_LEASE_MS};
use crate::{
    crypto::{Hash, Sealed},
    id::NodeId,
    ledger::Position,
    links::NamedLinks,
};

/// What a node knows of another by gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The newest head.
    pub head: Head,
    /// As it was signed.
    pub sealed: Sealed,
    /// The body in force: the newest that was verified, which may be older
    /// than the head while its own is being fetched.
    pub body: Option<Arc<Body>>,
    /// When the newest head arrived, monotonic; `None` when it was read from
    /// disk and the node hasn't been heard of since.
    pub heard: Option<Duration>,
    /// Whether the ledger held here reached the node's own position since the
    /// node came or came back: only then is it known here what was revoked of
    /// those it meets (S13). It stays so while the node stays.
    pub ledger_caught_up: bool,
}

/// A verified body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its bytes, for peers that ask.
    pub bytes: Vec<u8>,
    /// Hash of the bytes.
    pub hash: Hash,
    /// What it says but for its links: those change with its neighbours, and nothing
    /// that follows from the rest is to be made anew for them.
    pub announcement: Arc<Announcement>,
    pub links: Option<NamedLinks>,
    /// When what it says was put in force here, monotonic; `None` where it was read from
    /// disk.
    pub since: Option<Duration>,
}

impl Body {
    /// Reads a body; `None` when it isn't one.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut announcement = Announcement::decode(&bytes)?;
        let links = announcement.links.take();
        Some(Self {
            hash: Hash::of(&bytes),
            bytes,
            announcement: Arc::new(announcement),
            links,
            since: None,
        })
    }
}

impl Known {
    /// Whether the node is live at `now`.
    pub fn is_live(&self, now: Duration) -> bool {
        self.expires().is_some_and(|at| now < at)
    }

    /// Whether it is live, and no more than one renewal of its head is overdue: of two
    /// nodes that serve the same, the better one.
    pub fn is_prompt(&self, now: Duration) -> bool {
        let until = self.heard.map(|heard| heard + self.lease() * 3 / 4);
        until.is_some_and(|until| now < until)
    }

    /// When it stops being live unless a newer head arrives.
    pub fn expires(&self) -> Option<Duration> {
        Some(self.heard? + self.lease())
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.head.lease_ms.min(MAX_LEASE_MS)))
    }

    /// Whether it is new that the ledger held here reaches the node's position.
    fn compare(&mut self, with_stored: bool, reached: impl Fn(&Position) -> bool) -> bool {
        let is_compared = with_stored || self.heard.is_some();
        let new = !self.ledger_caught_up && is_compared && reached(&self.head.position);
        self.ledger_caught_up |= new;
        new
    }

    /// Whether the node said goodbye.
    pub fn is_leaving(&self) -> bool {
        self.head.lease_ms == 0
    }

    /// The hash of the body that the head names, if that isn't in force yet.
    pub fn missing_body(&self) -> Option<Hash> {
        let have = self.body.as_ref().map(|body| body.hash);
        (have != Some(self.head.body)).then_some(self.head.body)
    }
}

/// What came of a head that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Older than what is held, or the same.
    Old,
    /// Newer, with the body that is in force.
    Renewed,
    /// Newer, and what it says differs: another body, or a goodbye.
    Changed,
    /// Another head with the same place as the one held: its key is in use
    /// twice (S10). The one held stands.
    Conflict,
}

/// The newest head of each node: the truth about gossip on this node. It never
/// goes backwards (S2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadTable {
    known: BTreeMap<NodeId, Known>,
}

impl HeadTable {
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        self.known.iter()
    }

    pub fn get(&self, node: &NodeId) -> Option<&Known> {
        self.known.get(node)
    }

    /// The first node's from this id on.
    pub fn first_from(&self, node: &NodeId) -> Option<&Known> {
        let (_, known) = self.known.range(*node..).next()?;
        Some(known)
    }

    /// Takes a head that [`super::open`] accepted. `now` is when it arrived; `None`
    /// for one that is read from disk. `was_live`: its node was taken for live before.
    pub fn offer(
        &mut self,
        head: Head,
        sealed: Sealed,
        now: Option<Duration>,
        was_live: bool,
    ) -> Offer {
        let Some(known) = self.known.get_mut(&head.node) else {
            let node = head.node;
            let known = Known {
                head,
                sealed,
                body: None,
                heard: now,
                ledger_caught_up: false,
            };
            self.known.insert(node, known);
            return Offer::Changed;
        };
        if head.order() < known.head.order() {
            return Offer::Old;
        }
        if head.order() == known.head.order() {
            return if head == known.head {
                // Read from disk at start, then heard from a peer: it may be
                // stale news of a dead node, so it makes nobody live.
                Offer::Old
            } else {
                Offer::Conflict
            };
        }
        let changed = head.body != known.head.body
            || head.generation != known.head.generation
            || (head.lease_ms == 0) != (known.head.lease_ms == 0);
        let returns = now.is_some() && !was_live;
        if returns || head.generation != known.head.generation {
            known.ledger_caught_up = false;
        }
        let changed = changed || returns;
        known.head = head;
        known.sealed = sealed;
        known.heard = now.or(known.heard);
        if changed {
            Offer::Changed
        } else {
            Offer::Renewed
        }
    }

    /// Takes the body that a node's head names, at `now` (monotonic); false when
    /// it isn't that.
    pub fn put_body(&mut self, node: &NodeId, bytes: Vec<u8>, now: Duration) -> bool {
        let Some(known) = self.known.get_mut(node) else {
            return false;
        };
        if bytes.len() != known.head.body_len as usize
            || known.missing_body() != Some(Hash::of(&bytes))
        {
            return false;
        }
        let Some(mut body) = Body::parse(bytes) else {
            return false;
        };
        body.since = Some(now);
        if let Some(before) = &known.body
            && before.announcement == body.announcement
        {
            body.announcement = before.announcement.clone();
            body.since = before.since;
        }
        known.body = Some(Arc::new(body));
        true
    }

    /// Puts a body in force that an older head named: what is known of a node
    /// from disk stays in force until its newest body arrives.
    pub fn restore_body(&mut self, node: &NodeId, bytes: Vec<u8>) {
        if let Some(known) = self.known.get_mut(node)
            && known.body.is_none()
        {
            known.body = Body::parse(bytes).map(Arc::new);
        }
    }

    /// Forgets all nodes but these.
    pub fn retain(&mut self, is_known: impl Fn(&NodeId) -> bool) {
        self.known.retain(|node, _| is_known(node));
    }

    /// Marks each node whose position `reached` confirms and that was heard, or with
    /// `with_stored` is known from disk. Returns whether any is new.
    pub fn compare(&mut self, with_stored: bool, reached: impl Fn(&Position) -> bool) -> bool {
        let mut any = false;
        for known in self.known.values_mut() {
            any |= known.compare(with_stored, &reached);
        }
        any
    }

    /// As [`Self::compare`], for one node.
    pub fn compare_one(
        &mut self,
        node: &NodeId,
        with_stored: bool,
        reached: impl Fn(&Position) -> bool,
    ) -> bool {
        let known = self.known.get_mut(node);
        known.is_some_and(|known| known.compare(with_stored, reached))
    }

    /// Gives every node `pause` more: this observer itself stood still, so its
    /// silence says nothing of others (Lifeguard, arXiv 1707.00788). Those that
    /// were heard since are as fresh as at `now`, and no fresher.
    pub fn excuse(&mut self, pause: Duration, now: Duration) {
        for known in self.known.values_mut() {
            known.heard = known.heard.map(|heard| (heard + pause).min(now));
        }
    }

    /// The next moment after `now` at which some node stops being live.
    pub fn next_expiry(&self, now: Duration) -> Option<Duration> {
        self.known
            .values()
            .filter_map(Known::expires)
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(generation: u64, seq: u64, body: &[u8]) -> Head {
        Head {
            node: NodeId([2; 16]),
            generation,
            seq,
            lease_ms: 4500,
            body: Hash::of(body),
            body_len: body.len() as u32,
            position: Position {
                index: 0,
                hash: Hash::default(),
            },
            clock_ms: 0,
        }
    }

    fn sealed() -> Sealed {
        Sealed {
            bytes: vec![1],
            signature: crate::crypto::Signature::from_bytes(&[0; 64]),
        }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_table_never_goes_backwards() {
        let mut table = HeadTable::default();
        assert_eq!(
            table.offer(head(1, 5, b""), sealed(), Some(at(0)), true),
            Offer::Changed
        );
        assert_eq!(
            table.offer(head(1, 4, b"x"), sealed(), Some(at(1)), true),
            Offer::Old
        );
        assert_eq!(
            table.offer(head(1, 5, b""), sealed(), Some(at(2)), true),
            Offer::Old
        );
        assert_eq!(
            table.offer(head(1, 5, b"x"), sealed(), Some(at(2)), true),
            Offer::Conflict
        );
        assert_eq!(
            table.offer(head(1, 6, b""), sealed(), Some(at(3)), true),
            Offer::Renewed
        );
        assert_eq!(
            table.offer(head(2, 1, b""), sealed(), Some(at(4)), true),
            Offer::Changed
        );
        assert_eq!(table.get(&NodeId([2; 16])).unwrap().head.order(), (2, 1));
    }

    #[test]
    fn a_node_is_live_while_its_head_is_fresh_and_a_replayed_head_refreshes_nothing() {
        let mut table = HeadTable::default();
        let node = NodeId([2; 16]);
        table.offer(head(1, 1, b""), sealed(), Some(at(0)), true);
        table.offer(head(1, 1, b""), sealed(), Some(at(4000)), true);
        assert!(table.get(&node).unwrap().is_live(at(4499)));
        assert!(!table.get(&node).unwrap().is_live(at(4500)));
        assert_eq!(table.next_expiry(at(0)), Some(at(4500)));
        table.excuse(at(1000), at(9000));
        assert!(table.get(&node).unwrap().is_live(at(5000)));
    }

    #[test]
    fn a_node_that_is_forgotten_leaves_nothing_behind() {
        let mut table = HeadTable::default();
        table.offer(head(1, 5, b""), sealed(), Some(at(0)), true);
        let before = table.clone();
        table.retain(|node| *node == NodeId([2; 16]));
        assert_eq!(table, before);
        table.retain(|_| false);
        assert_eq!(table, HeadTable::default());
    }

    #[test]
    fn what_was_read_from_disk_is_not_live() {
        let mut table = HeadTable::default();
        table.offer(head(1, 1, b""), sealed(), None, true);
        assert!(!table.get(&NodeId([2; 16])).unwrap().is_live(at(0)));
    }

    #[test]
    fn a_body_is_taken_only_if_the_head_names_it() {
        let announcement = Announcement {
            version: "1".into(),
            ..Announcement::default()
        };
        let body = announcement.encode();
        let mut table = HeadTable::default();
        let node = NodeId([2; 16]);
        table.offer(head(1, 1, &body), sealed(), Some(at(0)), true);
        assert!(!table.put_body(&node, Announcement::default().encode(), Duration::ZERO));
        assert!(table.put_body(&node, body, Duration::ZERO));
        let known = table.get(&node).unwrap();
        assert_eq!(*known.body.as_ref().unwrap().announcement, announcement);
        assert_eq!(known.missing_body(), None);
    }

    #[test]
    fn a_node_that_has_other_links_says_the_same_as_before() {
        let mut table = HeadTable::default();
        let node = NodeId([2; 16]);
        let links = |epoch| NamedLinks {
            behind_nat: false,
            links: [(7, (1, epoch))].into(),
        };
        let mut put = |seq, version: &str, links| {
            let announcement = Announcement {
                version: version.into(),
                links,
                ..Announcement::default()
            };
            let body = announcement.encode();
            table.offer(head(1, seq, &body), sealed(), Some(at(seq)), true);
            assert!(table.put_body(&node, body, at(seq)));
            table.get(&node).unwrap().body.clone().unwrap()
        };
        let first = put(1, "1", None);
        let second = put(2, "1", Some(links(5)));
        assert_eq!((&first.links, &second.links), (&None, &Some(links(5))));
        assert!(Arc::ptr_eq(&first.announcement, &second.announcement));
        assert_eq!((first.since, second.since), (Some(at(1)), Some(at(1))));
        let third = put(3, "2", Some(links(5)));
        assert_eq!(
            (third.announcement.version.as_str(), third.since),
            ("2", Some(at(3)))
        );
    }
}
