//! The graph of links that heads name, and which of them count.
//!
//! Nodes are known by their [`Key`]s here, so that a link to a node that isn't known yet
//! is one to a node without a head: pending. A head changes what stands beside its own
//! links and those that lead to it, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Key, NamedLinks, Order};

/// How one end's word stands to the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Both name it.
    Counts,
    /// The other end's head that is held here is no newer than the link: it couldn't name
    /// it yet. It speaks neither for the node nor against it.
    Pending,
    /// The other end has a newer head and doesn't name it.
    Dropped {
        /// Since when that is seen here, monotonic.
        since: Duration,
    },
}

#[derive(Clone, Copy, Debug)]
struct Naming {
    epoch: Order,
    status: Status,
}

/// What a node's own links come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub counts: usize,
    pub dropped: usize,
    /// Since when the longest has been dropped that it still names.
    pub dropped_since: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// The newest head; none of a node that is only named.
    head: Option<Order>,
    leaving: bool,
    names: BTreeMap<Key, Naming>,
    named_by: BTreeSet<Key>,
    tally: Tally,
}

impl Entry {
    fn count(&mut self) {
        let mut tally = Tally::default();
        for naming in self.names.values() {
            match naming.status {
                Status::Counts => tally.counts += 1,
                Status::Pending => {}
                Status::Dropped { since } => {
                    tally.dropped += 1;
                    let longest = tally
                        .dropped_since
                        .map_or(since, |before| before.min(since));
                    tally.dropped_since = Some(longest);
                }
            }
        }
        self.tally = tally;
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<Key, Entry>,
}

impl Graph {
    /// Takes a node's newest head; `leaving` when it says goodbye. Gives the nodes whose
    /// own links stand otherwise since.
    pub fn set_head(
        &mut self,
        node: Key,
        order: Order,
        leaving: bool,
        named: &NamedLinks,
        now: Duration,
    ) -> BTreeSet<Key> {
        let entry = self.nodes.entry(node).or_default();
        entry.head = Some(order);
        entry.leaving = leaving;
        let before = std::mem::take(&mut entry.names);
        let names = named.links.iter().filter(|(peer, _)| **peer != node);
        entry.names = names
            .map(|(peer, epoch)| {
                let status = match before.get(peer) {
                    Some(naming) if naming.epoch == *epoch => naming.status,
                    _ => Status::Pending,
                };
                let epoch = *epoch;
                (*peer, Naming { epoch, status })
            })
            .collect();
        let peers: BTreeSet<Key> = before.keys().chain(entry.names.keys()).copied().collect();
        for peer in &peers {
            let is_named = self.names(node, *peer);
            let named_by = &mut self.nodes.entry(*peer).or_default().named_by;
            if is_named {
                named_by.insert(node);
            } else {
                named_by.remove(&node);
            }
        }
        self.settle(node, peers, now)
    }

    /// Forgets a node's head.
    pub fn forget(&mut self, node: Key, now: Duration) -> BTreeSet<Key> {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return BTreeSet::new();
        };
        entry.head = None;
        entry.leaving = false;
        let peers: BTreeSet<Key> = std::mem::take(&mut entry.names).into_keys().collect();
        for peer in &peers {
            if let Some(entry) = self.nodes.get_mut(peer) {
                entry.named_by.remove(&node);
            }
        }
        self.settle(node, peers, now)
    }

    /// Works out anew what the head of `node` changed: its own links, those of `peers`
    /// (which it names or named), and of who names it.
    fn settle(&mut self, node: Key, peers: BTreeSet<Key>, now: Duration) -> BTreeSet<Key> {
        let mut touched = BTreeSet::from([node]);
        let by = self.nodes.get(&node).map(|entry| entry.named_by.clone());
        for peer in peers.iter().copied().chain(by.into_iter().flatten()) {
            self.judge(node, peer, now);
            if self.judge(peer, node, now) {
                touched.insert(peer);
            }
        }
        for node in &touched {
            if let Some(entry) = self.nodes.get_mut(node) {
                entry.count();
            }
        }
        for unused in peers.into_iter().chain([node]) {
            let is_used = self
                .nodes
                .get(&unused)
                .is_some_and(|entry| entry.head.is_some() || !entry.named_by.is_empty());
            if !is_used {
                self.nodes.remove(&unused);
            }
        }
        touched
    }

    /// Judges what `from` says of its link with `to`. Returns whether that is new.
    fn judge(&mut self, from: Key, to: Key, now: Duration) -> bool {
        let is_mutual = self.names(to, from);
        let head = self.order(to);
        let Some(naming) = self
            .nodes
            .get_mut(&from)
            .and_then(|entry| entry.names.get_mut(&to))
        else {
            // A link that isn't named any more is news for who named it.
            return false;
        };
        let status = if is_mutual {
            Status::Counts
        } else if head.is_none_or(|head| head <= naming.epoch) {
            Status::Pending
        } else if let Status::Dropped { since } = naming.status {
            Status::Dropped { since }
        } else {
            Status::Dropped { since: now }
        };
        let is_new = status != naming.status;
        naming.status = status;
        is_new
    }

    /// Whether `from` names `to`.
    pub fn names(&self, from: Key, to: Key) -> bool {
        let entry = self.nodes.get(&from);
        entry.is_some_and(|entry| entry.names.contains_key(&to))
    }

    /// How `from`'s word on its link with `to` stands; `None` where it doesn't name it.
    pub fn status(&self, from: Key, to: Key) -> Option<Status> {
        let naming = self.nodes.get(&from)?.names.get(&to)?;
        Some(naming.status)
    }

    /// Where a node's newest head stands.
    pub fn order(&self, node: Key) -> Option<Order> {
        self.nodes.get(&node)?.head
    }

    /// Whether its newest head says goodbye.
    pub fn is_leaving(&self, node: Key) -> bool {
        self.nodes.get(&node).is_some_and(|entry| entry.leaving)
    }

    /// With whom it has links that count.
    pub fn counted(&self, node: Key) -> impl Iterator<Item = Key> {
        let names = self.nodes.get(&node).map(|entry| &entry.names);
        let names = names.into_iter().flatten();
        names
            .filter(|(_, naming)| naming.status == Status::Counts)
            .map(|(peer, _)| *peer)
    }

    /// Whether a link between two counts.
    pub fn counts(&self, one: Key, other: Key) -> bool {
        self.status(one, other) == Some(Status::Counts)
    }

    pub fn tally(&self, node: Key) -> Tally {
        let entry = self.nodes.get(&node);
        entry.map(|entry| entry.tally).unwrap_or_default()
    }

    /// This observer stood still for `pause`: whoever was to answer meanwhile may have.
    pub fn excuse(&mut self, pause: Duration, now: Duration) {
        for entry in self.nodes.values_mut() {
            for naming in entry.names.values_mut() {
                if let Status::Dropped { since } = &mut naming.status {
                    *since = (*since + pause).min(now);
                }
            }
            entry.count();
        }
    }

    /// Those that have heads, or are named.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.nodes.keys().copied()
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
