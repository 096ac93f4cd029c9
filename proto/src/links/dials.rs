//! Whom this node dials, and whom it leaves alone because that failed.

use std::{collections::BTreeMap, time::Duration};

use super::{COURTESY, DIAL_PAUSE, DIAL_PAUSE_MAX};
use crate::{id::NodeId, limits};

/// What is known of dialing one node.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    /// Since when it is under way.
    under_way: Option<Duration>,
    /// It isn't dialed before that.
    not_before: Duration,
    failures: u32,
    /// Since when it is connected.
    connected: Option<Duration>,
}

/// A connection that is lost sooner counts as a dial that failed: two machines with one
/// key would have each other's replaced without end.
const SHORT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Dials(BTreeMap<NodeId, Attempt>);

impl Dials {
    /// Whether a node is to be dialed now; it is, then. `is_polite`: the other end is to
    /// have the first try.
    pub fn begin(&mut self, node: NodeId, is_polite: bool, now: Duration) -> bool {
        let attempt = self.0.entry(node).or_insert_with(|| Attempt {
            not_before: if is_polite { now + COURTESY } else { now },
            ..Attempt::default()
        });
        let is_due = attempt.under_way.is_none() && now >= attempt.not_before;
        if is_due && self.under_way() < limits::LINK_DIALS {
            let under_way = Some(now);
            self.0.entry(node).and_modify(|at| at.under_way = under_way);
            return true;
        }
        false
    }

    fn under_way(&self) -> usize {
        let attempts = self.0.values();
        attempts.filter(|at| at.under_way.is_some()).count()
    }

    /// A dial failed, or what it led to is of no use. `spread`, of 256, shortens the pause
    /// down to half: the sides of a split don't all look for each other in step.
    pub fn failed(&mut self, node: NodeId, spread: u8, now: Duration) {
        let attempt = self.0.entry(node).or_default();
        let pause = DIAL_PAUSE * 2u32.saturating_pow(attempt.failures.min(8));
        let pause = pause.min(DIAL_PAUSE_MAX);
        attempt.under_way = None;
        attempt.connected = None;
        attempt.failures = attempt.failures.saturating_add(1);
        attempt.not_before = now + pause - pause * u32::from(spread) / 512;
    }

    /// The node is connected, whoever dialed.
    pub fn connected(&mut self, node: NodeId, now: Duration) {
        let attempt = self.0.entry(node).or_default();
        attempt.under_way = None;
        attempt.not_before = now;
        attempt.connected = Some(now);
    }

    /// Its connection is gone. `spread` as in [`Dials::failed`].
    pub fn lost(&mut self, node: NodeId, spread: u8, now: Duration) {
        let attempt = self.0.get(&node);
        match attempt.and_then(|at| at.connected) {
            Some(since) if now < since + SHORT => self.failed(node, spread, now),
            Some(_) => self.forget(&node),
            None => {}
        }
    }

    /// The node said something new: it runs, and may be elsewhere by now. It isn't left
    /// alone for longer than after a first failure. `spread` as in [`Dials::failed`].
    pub fn speaks(&mut self, node: &NodeId, spread: u8, now: Duration) {
        if let Some(attempt) = self.0.get_mut(node) {
            let pause = DIAL_PAUSE - DIAL_PAUSE * u32::from(spread) / 512;
            attempt.failures = attempt.failures.min(1);
            attempt.not_before = attempt.not_before.min(now + pause);
        }
    }

    /// The node is of no interest any more.
    pub fn forget(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    /// Keeps what is known of these.
    pub fn retain(&mut self, is_of_use: impl Fn(&NodeId) -> bool) {
        self.0.retain(|node, _| is_of_use(node));
    }

    /// Whether the last dial failed a moment ago.
    pub fn is_paused(&self, node: &NodeId, now: Duration) -> bool {
        let attempt = self.0.get(node);
        attempt.is_some_and(|at| at.failures > 0 && at.under_way.is_none() && now < at.not_before)
    }

    /// For how long a dial has been under way, or left to the other end.
    pub fn age(&self, node: &NodeId, now: Duration) -> Option<Duration> {
        let attempt = self.0.get(node)?;
        let since = attempt.under_way?;
        Some(now.saturating_sub(since))
    }

    /// When the next that waits may be dialed.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let waiting = self.0.values().filter(|at| at.under_way.is_none());
        waiting.map(|at| at.not_before).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn dials_that_fail_pause_for_2_to_30_seconds() {
        let mut dials = Dials::default();
        let node = NodeId([1; 16]);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(dials.begin(node, false, now));
            assert!(!dials.begin(node, false, now));
            dials.failed(node, 0, now);
            assert!(dials.is_paused(&node, now));
            let due = dials.next_due(now).unwrap();
            assert!(!dials.begin(node, false, due - at(1)));
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30, 30]);
        dials.failed(node, 255, now);
        let spread = dials.next_due(now).unwrap() - now;
        assert!(spread > at(15_000) && spread < at(15_100), "{spread:?}");
        dials.forget(&node);
        assert!(dials.begin(node, false, now));
    }

    #[test]
    fn connections_that_are_lost_at_once_pause_as_dials_that_fail() {
        let mut dials = Dials::default();
        let node = NodeId([1; 16]);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            assert!(dials.begin(node, false, now));
            dials.connected(node, now);
            dials.lost(node, 0, now + at(20));
            assert!(dials.is_paused(&node, now + at(20)));
            let due = dials.next_due(now + at(20)).unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [2, 4, 8, 16]);
        dials.connected(node, now);
        dials.lost(node, 0, now + SHORT);
        assert!(dials.begin(node, false, now + SHORT));
    }

    #[test]
    fn a_node_that_says_something_new_is_dialed_again_after_2_seconds() {
        let mut dials = Dials::default();
        let node = NodeId([1; 16]);
        for _ in 0..6 {
            dials.failed(node, 0, at(0));
        }
        dials.speaks(&node, 0, at(1000));
        assert!(!dials.begin(node, false, at(2999)));
        assert!(dials.begin(node, false, at(3000)));
        dials.failed(node, 0, at(3000));
        assert_eq!(dials.next_due(at(3000)), Some(at(7000)));
        // It can't put off what was due before.
        dials.speaks(&node, 0, at(6000));
        assert!(dials.begin(node, false, at(7000)));
    }

    #[test]
    fn the_other_end_has_the_first_try_and_few_dials_run_at_once() {
        let mut dials = Dials::default();
        let node = NodeId([1; 16]);
        assert!(!dials.begin(node, true, at(0)));
        assert!(!dials.begin(node, true, at(299)));
        assert!(dials.begin(node, true, at(300)));
        assert_eq!(dials.age(&node, at(1300)), Some(at(1000)));
        let begun = (2..50).filter(|n| dials.begin(NodeId([*n; 16]), false, at(0)));
        assert_eq!(begun.count(), limits::LINK_DIALS - 1);
    }
}
