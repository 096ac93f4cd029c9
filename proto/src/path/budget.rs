//! What looking for ways may cost this node and whoever is at the addresses that others
//! announce.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use crate::limits;

const SECOND: Duration = Duration::from_secs(1);

/// Packets that look for a way, of all pairs. A member may announce somebody else's
/// address, and many may announce the same one (S31).
#[derive(Clone, Debug)]
pub struct Budget {
    /// Packets that may go at once, in thousandths.
    room: u64,
    at: Duration,
    /// When the last few went to each address.
    sent: BTreeMap<SocketAddr, VecDeque<Duration>>,
    /// The second in which those were last looked through.
    second: u64,
    /// Where somebody answered of late.
    answering: BTreeSet<SocketAddr>,
}

impl Budget {
    /// One that nothing was taken from.
    pub fn new(now: Duration) -> Self {
        Self {
            room: u64::from(limits::PROBES_AT_ONCE) * 1000,
            at: now,
            sent: BTreeMap::new(),
            second: now.as_secs(),
            answering: BTreeSet::new(),
        }
    }

    /// Whether another may be sent to this address now; it counts as sent then.
    pub fn take(&mut self, to: SocketAddr, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(limits::PROBES_PER_S));
        let most = u64::from(limits::PROBES_AT_ONCE) * 1000;
        self.room = self.room.saturating_add(gained).min(most);
        self.at = self.at.max(now);
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            let is_over = |at: &Duration| now >= *at + SECOND;
            self.sent.retain(|_, sent| !sent.back().is_none_or(is_over));
        }
        let Some(left) = self.room.checked_sub(1000) else {
            return false;
        };
        let sent = self.sent.entry(to).or_default();
        if sent.len() >= limits::PROBES_UNANSWERED {
            let is_early = sent.front().is_some_and(|at| now < *at + SECOND);
            if is_early && !self.answering.contains(&to) {
                return false;
            }
            sent.pop_front();
        }
        sent.push_back(now);
        self.room = left;
        true
    }

    /// Something authentic came from there.
    pub fn answered(&mut self, from: SocketAddr) {
        if self.answering.len() >= limits::MEMBERS {
            self.answering.clear();
        }
        self.answering.insert(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> SocketAddr {
        ([192, 0, 2, 1], n).into()
    }

    #[test]
    fn no_second_has_more_than_five_whenever_it_begins() {
        let mut budget = Budget::new(Duration::ZERO);
        let mut sent: Vec<u64> = Vec::new();
        for ms in (700..5000).step_by(10) {
            if budget.take(address(1), Duration::from_millis(ms)) {
                sent.push(ms);
            }
        }
        assert!(
            sent.windows(6).all(|six| six[5] - six[0] >= 1000),
            "{sent:?}"
        );
    }

    #[test]
    fn who_never_answered_gets_five_packets_in_a_second_whoever_names_the_address() {
        let mut budget = Budget::new(Duration::ZERO);
        let sent = |budget: &mut Budget, ms| {
            let now = Duration::from_millis(ms);
            (0..50).filter(|_| budget.take(address(1), now)).count()
        };
        assert_eq!(sent(&mut budget, 0), 5);
        assert_eq!(sent(&mut budget, 900), 0);
        assert_eq!(sent(&mut budget, 1000), 5);
        budget.answered(address(1));
        assert_eq!(sent(&mut budget, 1500), 50);
    }

    #[test]
    fn all_addresses_together_get_what_a_node_may_send() {
        let mut budget = Budget::new(Duration::ZERO);
        let mut sent = |ms| {
            let now = Duration::from_millis(ms);
            let all = 1000..3000;
            all.filter(|port| budget.take(address(*port), now)).count()
        };
        assert_eq!(sent(0), limits::PROBES_AT_ONCE as usize);
        assert_eq!(sent(1), 0);
        assert_eq!(sent(1001), limits::PROBES_PER_S as usize);
    }
}
