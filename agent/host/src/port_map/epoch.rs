//! Whether a router began anew: its mappings are gone then.

use std::time::Duration;

use crate::Mono;

/// What a router's clock may be off, beside an eighth of the time that passed.
const SLACK: Duration = Duration::from_secs(2);

/// The time of a router's mappings, which begins with them (RFC 6886 §3.6, RFC 6887 §8.5),
/// as it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    seconds: u32,
    heard: Mono,
}

impl Epoch {
    /// As it was heard now.
    pub fn new(seconds: u32, now: Mono) -> Self {
        Self {
            seconds,
            heard: now,
        }
    }

    /// Whether it went on as this host's time did. A router that began anew is behind; one
    /// that is ahead has a host before it that slept, and whose mappings may have ended.
    pub fn goes_on(&self, seconds: u32, now: Mono) -> bool {
        let here = now.saturating_sub(self.heard);
        let Some(there) = seconds.checked_sub(self.seconds) else {
            // Answers may overtake each other.
            return self.seconds - seconds <= 1;
        };
        let there = Duration::from_secs(there.into());
        there + SLACK >= here - here / 8 && here + SLACK >= there - there / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_began_anew_is_told_from_one_with_a_clock_of_its_own() {
        let s = Duration::from_secs;
        let epoch = Epoch::new(1000, s(50));
        for (seconds, now, goes_on) in [
            (1000, 50, true),
            (1600, 650, true),
            (1540, 650, true),
            (1670, 650, true),
            (999, 50, true),
            (0, 51, false),
            (3, 650, false),
            (998, 50, false),
            (1500, 650, false),
            // This host slept.
            (8200, 60, false),
        ] {
            assert_eq!(epoch.goes_on(seconds, s(now)), goes_on, "{seconds} {now}");
        }
        assert!(!Epoch::new(u32::MAX, s(1)).goes_on(0, s(2)));
        assert!(!Epoch::new(0, s(1)).goes_on(u32::MAX, s(2)));
    }
}
