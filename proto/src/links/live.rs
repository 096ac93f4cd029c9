//! Who is live for this node, by the links that heads name.
//!
//! A node is live that has a link up with this one, whatever heads say; and one that is
//! reached over live nodes by links that count, with at least half of its own named links
//! such, and no drop unanswered for longer than [`ANSWER`].
//!
//! Reached means part of a tree that grows from this node. What changes at one node is
//! worked out from there: its part of the tree is cut off and tied to the rest again
//! wherever a link allows it. Only a neighbour of this node's can hold a large part.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{ANSWER, HALF_GRACE, KEEP_VIEW, Key, NamedLinks, Order, graph::Graph};

/// By whom a node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    /// This node has a link up with it.
    Me,
    Via(Key),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Live {
    me: Key,
    graph: Graph,
    /// With whom this node has a link up.
    up: BTreeSet<Key>,
    tree: BTreeMap<Key, Parent>,
    /// Until when nodes stay live that have fallen below half of their links.
    grace: BTreeMap<Key, Duration>,
    /// When a node is to be looked at again, and the same the other way round.
    due: BTreeMap<Key, Duration>,
    timers: BTreeSet<(Duration, Key)>,
    /// Nobody is taken for dead before that.
    keep_until: Duration,
    /// Who would be dead but for that.
    kept: BTreeSet<Key>,
    /// Who is live: those of the tree, and those that are kept.
    verdicts: BTreeSet<Key>,
    /// Who became live or dead since the last [`Live::take_changes`].
    changes: BTreeMap<Key, bool>,
    /// Nodes that were looked at so far.
    work: u64,
}

impl Live {
    /// For a node that starts: for a while it takes nobody for dead.
    pub fn new(me: Key, keep_until: Duration) -> Self {
        Self {
            me,
            graph: Graph::default(),
            up: BTreeSet::new(),
            tree: BTreeMap::new(),
            grace: BTreeMap::new(),
            due: BTreeMap::new(),
            timers: BTreeSet::new(),
            keep_until,
            kept: BTreeSet::new(),
            verdicts: BTreeSet::new(),
            changes: BTreeMap::new(),
            work: 0,
        }
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn is_live(&self, node: Key) -> bool {
        node == self.me || self.verdicts.contains(&node)
    }

    /// How many others are live.
    pub fn len(&self) -> usize {
        self.verdicts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a node's newest head, this node's own too.
    pub fn set_head(
        &mut self,
        node: Key,
        order: Order,
        leaving: bool,
        named: &NamedLinks,
        now: Duration,
    ) {
        let touched = self.graph.set_head(node, order, leaving, named, now);
        self.update(touched, now);
    }

    /// Forgets who is no member any more.
    pub fn forget(&mut self, node: Key, now: Duration) {
        let mut touched = self.graph.forget(node, now);
        touched.insert(node);
        self.up.remove(&node);
        self.update(touched, now);
        if self.kept.remove(&node) {
            self.pass(node, false);
        }
    }

    /// A link of this node's own came up, or went down.
    pub fn set_up(&mut self, node: Key, is_up: bool, now: Duration) {
        let is_new = if is_up {
            self.up.insert(node)
        } else {
            self.up.remove(&node)
        };
        if is_new {
            self.update([node].into(), now);
        }
    }

    /// When [`Live::poll`] has something to do.
    pub fn next_due(&self) -> Option<Duration> {
        let first = self.timers.first().map(|(at, _)| *at);
        let kept = (!self.kept.is_empty()).then_some(self.keep_until);
        first.into_iter().chain(kept).min()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) {
        let mut late = BTreeSet::new();
        while let Some((at, node)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.due.remove(&node);
            late.insert(node);
        }
        if !late.is_empty() {
            self.update(late, now);
        }
        if now >= self.keep_until {
            for node in std::mem::take(&mut self.kept) {
                self.pass(node, false);
            }
        }
    }

    /// This node stood still for `pause`, up to `now`: what it hasn't heard meanwhile says
    /// nothing. For a while it takes nobody for dead.
    pub fn excuse(&mut self, pause: Duration, now: Duration) {
        self.graph.excuse(pause, now);
        for until in self.grace.values_mut() {
            *until += pause;
        }
        self.keep_until = self.keep_until.max(now + KEEP_VIEW);
        let all: Vec<Key> = self.due.keys().copied().collect();
        for node in all {
            self.schedule(node);
        }
    }

    /// Verdicts are passed from now on: this node has heard what others know.
    pub fn settle(&mut self, now: Duration) {
        self.keep_until = now;
    }

    /// Who became live (`true`) or dead since the last time.
    pub fn take_changes(&mut self) -> BTreeMap<Key, bool> {
        std::mem::take(&mut self.changes)
    }

    /// How many nodes were looked at so far: what a change costs.
    pub fn work(&self) -> u64 {
        self.work
    }

    fn update(&mut self, touched: BTreeSet<Key>, now: Duration) {
        for node in &touched {
            self.weigh(*node, now);
        }
        let mut loose = touched;
        loose.remove(&self.me);
        let lost: Vec<Key> = loose.iter().copied().collect();
        for node in lost {
            if !self.holds(node, now) && !self.tie_elsewhere(node, now) {
                self.cut(node, &mut loose);
            }
        }
        let mut open: Vec<Key> = loose.iter().copied().collect();
        while let Some(node) = open.pop() {
            self.work += 1;
            if !self.tree.contains_key(&node) {
                let Some(parent) = self.find_parent(node, now) else {
                    continue;
                };
                self.tree.insert(node, parent);
                self.kept.remove(&node);
                self.pass(node, true);
                self.schedule(node);
            }
            // A link that counts from now on may reach others.
            open.extend(self.reachable_from(node, now));
        }
        for node in loose {
            if !self.tree.contains_key(&node) {
                self.grace.remove(&node);
                self.lose(node, now);
            }
            self.schedule(node);
        }
    }

    /// Begins or ends a node's grace.
    fn weigh(&mut self, node: Key, now: Duration) {
        let tally = self.graph.tally(node);
        if tally.counts >= tally.dropped {
            self.grace.remove(&node);
        } else if tally.counts > 0 && self.tree.contains_key(&node) {
            self.grace.entry(node).or_insert(now + HALF_GRACE);
        }
    }

    /// Whether its own links speak for a node.
    fn is_sound(&self, node: Key, now: Duration) -> bool {
        let tally = self.graph.tally(node);
        let has_half = tally.counts >= tally.dropped
            || self.grace.get(&node).is_some_and(|until| now < *until);
        let answers = tally.dropped_since.is_none_or(|since| now < since + ANSWER);
        tally.counts > 0 && has_half && answers && !self.graph.is_leaving(node)
    }

    /// Whether a node's place in the tree is one still; also where it has none.
    fn holds(&self, node: Key, now: Duration) -> bool {
        match self.tree.get(&node) {
            None => true,
            Some(Parent::Me) => self.up.contains(&node),
            Some(Parent::Via(parent)) => {
                self.is_sound(node, now)
                    && self.tree.contains_key(parent)
                    && self.graph.counts(*parent, node)
            }
        }
    }

    /// Finds another place for a node, with all that hangs on it, that isn't below itself.
    fn tie_elsewhere(&mut self, node: Key, now: Duration) -> bool {
        let parent = if self.up.contains(&node) {
            Some(Parent::Me)
        } else if self.is_sound(node, now) {
            let mut counted = self.graph.counted(node);
            let other = counted.find(|peer| self.is_apart(*peer, node));
            other.map(Parent::Via)
        } else {
            None
        };
        if let Some(parent) = parent {
            self.tree.insert(node, parent);
        }
        parent.is_some()
    }

    /// Whether the way from this node to `peer` doesn't lead over `node`.
    fn is_apart(&self, peer: Key, node: Key) -> bool {
        let mut at = peer;
        while at != node {
            match self.tree.get(&at) {
                Some(Parent::Me) => return true,
                Some(Parent::Via(parent)) => at = *parent,
                None => return false,
            }
        }
        false
    }

    /// Takes a node out of the tree with all that hangs on it.
    fn cut(&mut self, node: Key, loose: &mut BTreeSet<Key>) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            self.work += 1;
            if self.tree.remove(&node).is_none() {
                continue;
            }
            loose.insert(node);
            // A child's link may just have stopped to count: then it is touched itself.
            let below = self.graph.counted(node);
            open.extend(below.filter(|child| self.tree.get(child) == Some(&Parent::Via(node))));
        }
    }

    fn find_parent(&self, node: Key, now: Duration) -> Option<Parent> {
        if node == self.me {
            return None;
        }
        if self.up.contains(&node) {
            return Some(Parent::Me);
        }
        if !self.is_sound(node, now) {
            return None;
        }
        let mut counted = self.graph.counted(node);
        counted
            .find(|peer| self.tree.contains_key(peer))
            .map(Parent::Via)
    }

    /// Who may be reached by way of a node and isn't yet.
    fn reachable_from(&self, node: Key, now: Duration) -> Vec<Key> {
        let counted = self.graph.counted(node);
        counted
            .filter(|peer| *peer != self.me && !self.tree.contains_key(peer))
            .filter(|peer| self.is_sound(*peer, now))
            .collect()
    }

    /// A node isn't in the tree any more.
    fn lose(&mut self, node: Key, now: Duration) {
        let is_kept = now < self.keep_until && !self.graph.is_leaving(node);
        if is_kept && self.verdicts.contains(&node) {
            self.kept.insert(node);
        } else {
            self.pass(node, false);
        }
    }

    fn pass(&mut self, node: Key, is_live: bool) {
        let is_new = if is_live {
            self.verdicts.insert(node)
        } else {
            self.verdicts.remove(&node)
        };
        if is_new && self.changes.remove(&node).is_none() {
            self.changes.insert(node, is_live);
        }
    }

    /// Notes when a node is to be looked at again although nothing is heard of it.
    fn schedule(&mut self, node: Key) {
        if let Some(at) = self.due.remove(&node) {
            self.timers.remove(&(at, node));
        }
        // With a link up it is live whatever its own links come to.
        if !matches!(self.tree.get(&node), Some(Parent::Via(_))) {
            return;
        }
        let answer = self.graph.tally(node).dropped_since;
        let answer = answer.map(|since| since + ANSWER);
        let grace = self.grace.get(&node).copied();
        if let Some(at) = answer.into_iter().chain(grace).min() {
            self.due.insert(node, at);
            self.timers.insert((at, node));
        }
    }
}
