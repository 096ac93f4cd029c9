//! When something is looked at although nothing changed.

use std::time::Duration;

use crate::host::Mono;

/// Once in each interval, whatever else happens in between: what changes all the time
/// doesn't put it off.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    next: Mono,
}

impl Pace {
    /// The first interval begins now.
    pub fn new(every: Duration, now: Mono) -> Self {
        let next = now + every;
        Self { every, next }
    }

    /// How long until the next time.
    pub fn left(&self, now: Mono) -> Duration {
        self.next.saturating_sub(now)
    }

    /// The next interval begins now.
    pub fn begin(&mut self, now: Mono) {
        self.next = now + self.every;
    }

    /// The next time is at `at`, unless it is sooner anyway.
    pub fn no_later(&mut self, at: Mono) {
        self.next = self.next.min(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_interval_ends_at_its_time_however_often_somebody_asks() {
        let mut pace = Pace::new(s(10), s(3));
        for now in 3..13 {
            assert_eq!(pace.left(s(now)), s(13 - now));
        }
        assert_eq!(pace.left(s(15)), s(0));
        pace.begin(s(15));
        assert_eq!(pace.left(s(15)), s(10));
    }

    #[test]
    fn what_is_tried_again_sooner_puts_nothing_off() {
        let mut pace = Pace::new(s(10), s(0));
        pace.no_later(s(2));
        assert_eq!(pace.left(s(1)), s(1));
        pace.begin(s(2));
        pace.no_later(s(30));
        assert_eq!(pace.left(s(2)), s(10));
    }
}
