//! When this node's changed links go out as a head, and which heads of others go on.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Key, Order, ms};
use crate::{id::NodeId, limits};

/// Dropped links are gathered for so long, and published no faster than that; more than
/// [`DROPS_IN_A_ROW`] of them each [`DROP_GAP_LATE`].
const DROP_GATHER: Duration = ms(50);
const DROP_GAP: Duration = ms(200);
const DROP_GAP_LATE: Duration = ms(1000);
const DROPS_IN_A_ROW: u32 = 12;
/// As for drops; the time between new links doubles up to [`ADD_GAP_MAX`].
const ADD_GATHER: Duration = ms(100);
const ADD_GAP: Duration = ms(250);
const ADD_GAP_MAX: Duration = ms(1000);
/// After so long without any, the next is the first of a row.
const ROW_ENDS: Duration = ms(3000);

/// Which links a head names, and when the next head is due.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    published: BTreeMap<Key, Order>,
    /// Since when there are drops and new links that no head says.
    dropped: Option<Duration>,
    added: Option<Duration>,
    newest: Option<Duration>,
    drops: u32,
    adds: u32,
}

impl Publisher {
    /// These links are to be named now.
    pub fn set(&mut self, links: &BTreeMap<Key, Order>, now: Duration) {
        let has_drop = self.published.keys().any(|peer| !links.contains_key(peer));
        let mut named = links.iter();
        let has_new = named.any(|(peer, epoch)| self.published.get(peer) != Some(epoch));
        self.dropped = has_drop.then(|| self.dropped.unwrap_or(now));
        self.added = has_new.then(|| self.added.unwrap_or(now));
    }

    /// When the next head is due; `None` while the newest says all.
    pub fn due(&self) -> Option<Duration> {
        let after = |gap| self.newest.map_or(Duration::ZERO, |newest| newest + gap);
        let drop_gap = if self.drops >= DROPS_IN_A_ROW {
            DROP_GAP_LATE
        } else {
            DROP_GAP
        };
        let add_gap = (ADD_GAP * 2u32.pow(self.adds.saturating_sub(1).min(2))).min(ADD_GAP_MAX);
        let dropped = self
            .dropped
            .map(|at| (at + DROP_GATHER).max(after(drop_gap)));
        let added = self.added.map(|at| (at + ADD_GATHER).max(after(add_gap)));
        dropped.into_iter().chain(added).min()
    }

    /// A head that names these links goes out now, for whatever reason. One that names
    /// what the one before did is none of a row.
    pub fn published(&mut self, links: BTreeMap<Key, Order>, now: Duration) {
        if self.dropped.is_none() && self.added.is_none() && links == self.published {
            return;
        }
        if self.newest.is_none_or(|newest| now >= newest + ROW_ENDS) {
            self.drops = 0;
            self.adds = 0;
        }
        self.drops += u32::from(self.dropped.take().is_some());
        self.adds += u32::from(self.added.take().is_some());
        self.newest = Some(now);
        self.published = links;
    }
}

/// How often each owner's changes are pushed on: what is beyond travels by repair.
#[derive(Clone, Debug, Default)]
pub struct PushBudget(BTreeMap<NodeId, VecDeque<Duration>>);

impl PushBudget {
    /// Whether a change of `owner` may be pushed on; it is, then.
    pub fn take(&mut self, owner: NodeId, now: Duration) -> bool {
        let minute = Duration::from_secs(60);
        let pushed = self.0.entry(owner).or_default();
        pushed.retain(|at| now < *at + minute);
        let may = pushed.len() < limits::PUSHES_PER_MINUTE as usize;
        if may {
            pushed.push_back(now);
        }
        may
    }

    /// Forgets owners of whom nothing was pushed within a minute.
    pub fn forget(&mut self, now: Duration) {
        let minute = Duration::from_secs(60);
        self.0
            .retain(|_, pushed| pushed.back().is_some_and(|at| now < *at + minute));
    }

    /// How many owners are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(peers: &[Key]) -> BTreeMap<Key, Order> {
        peers.iter().map(|peer| (*peer, (1, 1))).collect()
    }

    #[test]
    fn a_drop_goes_out_after_50_ms_and_many_in_a_row_each_second() {
        let mut publisher = Publisher::default();
        publisher.published(links(&(0..64).collect::<Vec<_>>()), Duration::ZERO);
        let mut now = ms(10_000);
        let mut gaps = Vec::new();
        for left in (0..30u64).rev() {
            publisher.set(&links(&(0..left).collect::<Vec<_>>()), now);
            let due = publisher.due().unwrap();
            gaps.push(due - now);
            now = due;
            publisher.published(links(&(0..left).collect::<Vec<_>>()), now);
        }
        assert_eq!(gaps[0], DROP_GATHER);
        assert!(gaps[1..12].iter().all(|gap| *gap == DROP_GAP));
        assert!(gaps[12..].iter().all(|gap| *gap == DROP_GAP_LATE));
    }

    #[test]
    fn new_links_are_gathered_for_longer_and_longer() {
        let mut publisher = Publisher::default();
        let mut now = ms(10_000);
        let mut gaps = Vec::new();
        for count in 1..7u64 {
            let named = links(&(0..count).collect::<Vec<_>>());
            publisher.set(&named, now);
            gaps.push(publisher.due().unwrap() - now);
            now = publisher.due().unwrap();
            publisher.published(named, now);
        }
        let expected = [100, 250, 500, 1000, 1000, 1000].map(ms);
        assert_eq!(gaps, expected);
    }

    #[test]
    fn heads_that_go_out_for_other_reasons_make_no_row_of_drops() {
        let mut publisher = Publisher::default();
        let mut named = links(&(0..64).collect::<Vec<_>>());
        publisher.published(named.clone(), Duration::ZERO);
        for second in 1..=120 {
            let now = ms(second * 1000);
            publisher.published(named.clone(), now);
            if second % 4 == 0 {
                named.pop_last();
                publisher.set(&named, now);
                assert_eq!(publisher.due(), Some(now + DROP_GATHER), "second {second}");
                publisher.published(named.clone(), now + DROP_GATHER);
            }
        }
    }

    #[test]
    fn a_link_that_comes_back_before_anybody_heard_costs_no_head_unless_it_is_another() {
        let mut publisher = Publisher::default();
        publisher.published(links(&[1, 2]), Duration::ZERO);
        publisher.set(&links(&[1]), ms(5000));
        assert_eq!(publisher.due(), Some(ms(5050)));
        publisher.set(&links(&[1, 2]), ms(5010));
        assert_eq!(publisher.due(), None);
        publisher.set(&[(1, (1, 1)), (2, (1, 9))].into(), ms(5020));
        assert_eq!(publisher.due(), Some(ms(5120)));
    }

    #[test]
    fn an_owner_that_changes_all_the_time_is_pushed_20_times_a_minute() {
        let mut budget = PushBudget::default();
        let (loud, other) = (NodeId([1; 16]), NodeId([2; 16]));
        let pushed = (0..60_000).filter(|n| budget.take(loud, ms(*n))).count();
        assert_eq!(pushed, 20);
        assert!(budget.take(other, ms(59_999)));
        let later = (60_000..120_000).filter(|n| budget.take(loud, ms(*n)));
        assert_eq!(later.count(), 20);
        assert_eq!(budget.len(), 2);
        budget.forget(ms(300_000));
        assert!(budget.is_empty());
    }
}
