//! What comes most often, within bounds (Misra and Gries, 1982), and by whom: a source
//! that brings ever new things lowers its own counts and nobody else's.

use std::{collections::BTreeMap, net::IpAddr};

use innermesh_control::dns::QueryTop;

use super::shares::Shares;

/// Lines of a list.
pub(super) const TOP: usize = 20;

/// Counts are too low by `missed` at most.
#[derive(Debug)]
pub(super) struct Tally<K> {
    most: usize,
    each: BTreeMap<IpAddr, BTreeMap<K, u64>>,
    /// How many of them each source has.
    shares: Shares,
    missed: u64,
}

impl<K: Ord + Clone> Tally<K> {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            each: BTreeMap::new(),
            shares: Shares::default(),
            missed: 0,
        }
    }

    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// A subtraction takes at least one off each count that it looks at, and a call adds
    /// one: on the average a call costs the same, whatever comes.
    pub fn count(&mut self, source: IpAddr, key: K) {
        let known = self.each.get_mut(&source);
        if let Some(count) = known.and_then(|counts| counts.get_mut(&key)) {
            *count += 1;
        } else if self.shares.total() < self.most || self.makes_room(source) {
            self.each.entry(source).or_default().insert(key, 1);
            self.shares.add(source, 1);
        }
    }

    /// Lowers the counts of who has most of them; whether that left a place to another.
    fn makes_room(&mut self, source: IpAddr) -> bool {
        let Some((largest, size)) = self.shares.largest() else {
            return false;
        };
        // As many sources as places: who comes once gives way to who comes often.
        if size == 1 {
            let all: Vec<IpAddr> = self.each.keys().copied().collect();
            for source in all {
                self.lower(source, 1);
            }
            self.missed += 1;
            return false;
        }
        if self.shares.of(source) == size {
            self.lower(source, 1);
            self.missed += 1;
            return false;
        }
        let counts = self.each.get(&largest);
        let least = counts.and_then(|counts| counts.values().min().copied());
        let least = least.unwrap_or_default();
        self.lower(largest, least);
        self.missed += least;
        true
    }

    fn lower(&mut self, source: IpAddr, by: u64) {
        let Some(counts) = self.each.get_mut(&source) else {
            return;
        };
        let before = counts.len();
        counts.retain(|_, count| {
            *count = count.saturating_sub(by);
            *count > 0
        });
        self.shares.take(source, before - counts.len());
        if counts.is_empty() {
            self.each.remove(&source);
        }
    }

    /// The most frequent, of all sources together.
    pub fn top(&self, words: impl Fn(&K) -> String) -> Vec<QueryTop> {
        let mut sums: BTreeMap<&K, u64> = BTreeMap::new();
        for (key, count) in self.each.values().flatten() {
            *sums.entry(key).or_default() += count;
        }
        let mut all: Vec<(&K, u64)> = sums.into_iter().collect();
        all.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        let top = all.into_iter().take(TOP);
        top.map(|(key, count)| QueryTop {
            what: words(key),
            count,
        })
        .collect()
    }

    #[cfg(test)]
    pub fn places(&self) -> usize {
        let each = self.each.values().map(BTreeMap::len);
        let places: usize = each.sum();
        assert_eq!(places, self.shares.total());
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        [10, 77, 0, last].into()
    }

    fn counted(tally: &Tally<u32>, key: u32) -> u64 {
        let top = tally.top(u32::to_string);
        let found = top.iter().find(|top| top.what == key.to_string());
        found.map_or(0, |top| top.count)
    }

    #[test]
    fn who_brings_ever_new_things_lowers_no_count_of_another() {
        let mut tally = Tally::new(100);
        for round in 0..10 {
            for key in 0..20 {
                tally.count(source(1), key);
            }
            // One that is often by both is one line.
            tally.count(source(2), 0);
            for n in 0..1000 {
                tally.count(source(2), 1000 * (round + 1) + n);
            }
        }
        assert!(tally.places() <= 100);
        for key in 1..20 {
            assert_eq!(counted(&tally, key), 10, "{key}");
        }
        assert!(counted(&tally, 0) >= 10 && counted(&tally, 0) <= 20);
        assert!(tally.missed() > 0);
    }

    #[test]
    fn whoever_had_all_places_leaves_others_their_share() {
        let mut tally = Tally::new(100);
        for n in 0..100_000 {
            tally.count(source(1), n % 5000);
        }
        for n in 0..40 {
            tally.count(source(2), 10_000 + n);
        }
        let first = tally.shares.of(source(1));
        assert!(first <= 60 && tally.shares.of(source(2)) == 40, "{first}");
    }

    #[test]
    fn of_more_sources_than_places_the_frequent_ones_stay() {
        let mut tally = Tally::new(10);
        let mut often = 0;
        for n in 0..2000_u16 {
            let [high, low] = n.to_be_bytes();
            tally.count([10, 78, high, low].into(), u32::from(n));
            tally.count(source(1), 9999);
            often += 1;
        }
        assert!(tally.places() <= 10);
        assert!(counted(&tally, 9999) + tally.missed() >= often);
        assert!(counted(&tally, 9999) > often / 2);
    }
}
