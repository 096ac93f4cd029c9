//! What one author may make this node fetch and keep: a bucket that fills up
//! again with time. A function of the time alone.

use std::time::Duration;

use innermesh_proto::limits;

use crate::host::Mono;

/// What one author may use up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// What is left; below zero after a body that was larger than that.
    left: i64,
    at: Mono,
    most: i64,
    /// What it gains in a second.
    rate: u64,
}

impl Budget {
    /// The bytes that may be fetched of an author's bodies.
    pub fn of_bodies(now: Mono) -> Self {
        Self {
            left: BURST,
            at: now,
            most: BURST,
            rate: RATE,
        }
    }

    /// The runs that an author may begin, each of which chitchat keeps for a
    /// while: in milliseconds of what has to pass between two.
    pub fn of_runs(now: Mono) -> Self {
        let most = limits::RUNS_BURST * RUN_MS;
        Self {
            left: most,
            at: now,
            most,
            rate: 1000,
        }
    }

    /// The packets of links that are read of a peer, in thousandths.
    pub fn of_link_packets(now: Mono) -> Self {
        let most = i64::from(limits::LINK_PACKETS) * PACKET;
        Self {
            left: most,
            at: now,
            most,
            rate: limits::LINK_PACKETS_PER_S * PACKET.unsigned_abs(),
        }
    }

    /// Whether one more run may begin; it has, then.
    pub fn begin_run(&mut self, now: Mono) -> bool {
        self.take(RUN_MS, now)
    }

    /// Whether one more packet is read; it is, then.
    pub fn take_packet(&mut self, now: Mono) -> bool {
        self.take(PACKET, now)
    }

    fn take(&mut self, cost: i64, now: Mono) -> bool {
        self.fill(now);
        let may = self.left >= cost;
        if may {
            self.left -= cost;
        }
        may
    }

    /// How long to wait before the next fetch.
    pub fn wait(&mut self, now: Mono) -> Duration {
        self.fill(now);
        let lacks = u64::try_from(1 - self.left).unwrap_or(0);
        Duration::from_millis(lacks.saturating_mul(1000).div_ceil(self.rate))
    }

    /// So many bytes were fetched.
    pub fn spend(&mut self, bytes: usize, now: Mono) {
        self.fill(now);
        self.left = self
            .left
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Whether nothing is known of it that a new one doesn't have.
    pub fn is_full(&mut self, now: Mono) -> bool {
        self.fill(now);
        self.left == self.most
    }

    fn fill(&mut self, now: Mono) {
        let ms = now.saturating_sub(self.at).as_millis();
        let gained = u64::try_from(ms)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.rate)
            / 1000;
        // Parts of a byte aren't lost by looking often.
        if gained > 0 {
            self.left = self.most.min(self.left.saturating_add_unsigned(gained));
            self.at = now;
        }
    }
}

const BURST: i64 = limits::BODY_FETCH_BURST as i64;
const RATE: u64 = limits::BODY_FETCH_BYTES_PER_S;
const RUN_MS: i64 = limits::RUN_MS as i64;
/// What reading one costs.
const PACKET: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_at_full_speed_gets_its_burst_and_then_its_rate() {
        let mut now = Duration::from_secs(1);
        let mut budget = Budget::of_bodies(now);
        let (begin, mut fetched) = (now, 0);
        while now < begin + Duration::from_secs(600) {
            now += budget.wait(now).max(Duration::from_millis(3));
            if budget.wait(now).is_zero() {
                budget.spend(60_000, now);
                fetched += 60_000;
            }
        }
        let most = limits::BODY_FETCH_BURST as u64 + 600 * RATE + 2 * 60_000;
        assert!(fetched <= most, "{fetched}");
        assert!(fetched >= 600 * RATE, "{fetched}");
    }

    #[test]
    fn an_author_that_begins_runs_at_full_speed_makes_few() {
        let begin = Duration::from_secs(1);
        let mut budget = Budget::of_runs(begin);
        // Ten minutes, for which chitchat keeps each: 20 a second.
        let runs = (0..12_000).filter(|n| budget.begin_run(begin + Duration::from_millis(50) * *n));
        assert_eq!(runs.count(), limits::RUNS_BURST as usize + 29);
    }

    #[test]
    fn an_author_that_changes_now_and_then_never_waits() {
        let mut now = Duration::from_secs(1);
        let mut budget = Budget::of_bodies(now);
        for _ in 0..1000 {
            assert!(budget.wait(now).is_zero());
            budget.spend(10_000, now);
            now += Duration::from_secs(1);
        }
        assert!(budget.is_full(now + Duration::from_secs(600)));
    }
}
