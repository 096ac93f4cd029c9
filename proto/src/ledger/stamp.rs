//! Ledger time: what a leader stamps a batch with.

/// How far a leader's clock may be ahead of its peers' before it is their time
/// that counts, in milliseconds.
pub const SKEW_MS: u64 = 2 * 60 * 1000;
/// How long the ledger may have stood still before a clock that is so much
/// further counts as wrong, in milliseconds: longer than all CA nodes may be off.
const QUIET_MS: u64 = 60 * 24 * 3600 * 1000;
/// One part in so many by which a monotonic clock may be too fast.
const DRIFT: u64 = 1000;

/// The stamp for the next batch: the leader's own clock, but never below the
/// `last` stamp, and never more than [`SKEW_MS`] beyond what the middle one of
/// its live peers' clocks says (S19). With no peer to compare with, its own
/// clock is all there is.
///
/// `elapsed_ms` is how much time has passed since the last stamp was seen, by
/// the leader's monotonic clock. So much, but for a tenth of a per cent, ledger time may go
/// on whatever the peers say: the only peer can't make it stand still.
pub fn propose(last: u64, own_ms: u64, peers_ms: &[u64], elapsed_ms: u64) -> u64 {
    let mut clocks = peers_ms.to_vec();
    clocks.sort_unstable();
    let went_on = last.saturating_add(elapsed_ms - elapsed_ms / DRIFT);
    let ceiling = match clocks.get(clocks.len() / 2) {
        Some(middle) => middle.saturating_add(SKEW_MS).max(went_on),
        None => u64::MAX,
    };
    own_ms.min(ceiling).max(last)
}

/// What a node may hold for the ledger's time now: the middle one of its own
/// clock and its peers', but never before the `last` stamp, or so much behind it
/// as has passed since that was seen (`elapsed_ms`, by its monotonic clock). A
/// machine that believes it is 1970 thus still makes requests that aren't
/// expired.
///
/// Of two clocks neither is in the middle. There its own counts as long as it
/// can be right, or the only peer could have all that it asks refused, as
/// expired or as far ahead of time: by an order to evict that very peer, say.
pub fn estimate(last: u64, own_ms: u64, peers_ms: &[u64], elapsed_ms: u64) -> u64 {
    let least = last.saturating_add(elapsed_ms - elapsed_ms / DRIFT);
    let can_be = |clock: u64| {
        let earliest = least.saturating_sub(SKEW_MS);
        (earliest..=least.saturating_add(QUIET_MS)).contains(&clock)
    };
    let now = match peers_ms {
        [_] if can_be(own_ms) => own_ms,
        [peer] if can_be(*peer) => *peer,
        [peer] => own_ms.min(*peer),
        _ => {
            let mut clocks = peers_ms.to_vec();
            clocks.push(own_ms);
            clocks.sort_unstable();
            clocks[clocks.len() / 2]
        }
    };
    now.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn a_clock_in_2106_moves_ledger_time_by_two_minutes_at_most() {
        let year_2106 = 4_300_000_000_000;
        assert_eq!(
            propose(NOW, year_2106, &[NOW, NOW + 5, NOW], 0),
            NOW + SKEW_MS
        );
    }

    #[test]
    fn a_machine_that_believes_it_is_1970_asks_in_its_peers_time() {
        assert_eq!(estimate(5, 0, &[NOW, NOW + 1], 0), NOW);
        assert_eq!(estimate(NOW, 0, &[], 0), NOW);
        assert_eq!(estimate(NOW, 0, &[NOW + 7], 0), NOW + 7);
        // Without a clock that is right, time goes on by what has passed.
        assert_eq!(estimate(NOW, 0, &[], 1000), NOW + 999);
    }

    #[test]
    fn the_only_peers_clock_moves_nobody_elses_time() {
        const HOUR_MS: u64 = 3_600_000;
        let year_2106 = 4_300_000_000_000;
        let own = NOW + HOUR_MS;
        for peer in [
            0,
            NOW - HOUR_MS,
            NOW,
            own + 1,
            own + 5 * HOUR_MS,
            year_2106,
            u64::MAX,
        ] {
            assert_eq!(estimate(NOW, own, &[peer], HOUR_MS), own, "{peer}");
        }
        // One's own that can't be right counts no more than before.
        assert_eq!(estimate(NOW, year_2106, &[own], HOUR_MS), own);
        // Nor do two such: the lower one is the smaller mistake.
        assert_eq!(estimate(NOW, year_2106, &[u64::MAX], 0), year_2106);
    }

    #[test]
    fn ledger_time_never_goes_back() {
        assert_eq!(propose(NOW, 0, &[], 0), NOW);
        assert_eq!(propose(NOW, NOW + 9, &[0, 0, 0], 0), NOW);
    }

    #[test]
    fn one_peer_with_a_wrong_clock_among_three_changes_nothing() {
        assert_eq!(propose(NOW, NOW + 7, &[0, NOW, NOW], 0), NOW + 7);
        assert_eq!(propose(NOW, NOW + 7, &[u64::MAX, NOW, NOW], 0), NOW + 7);
    }

    #[test]
    fn the_only_peers_clock_does_not_make_ledger_time_stand_still() {
        const HOUR_MS: u64 = 3_600_000;
        // It says 1970, or always the newest stamp.
        for peer in [0, NOW - SKEW_MS, NOW] {
            let own = NOW + HOUR_MS;
            let stamp = propose(NOW, own, &[peer], HOUR_MS);
            assert!(stamp > NOW + HOUR_MS * 99 / 100, "{peer}: {stamp}");
            assert!(stamp <= own, "{peer}: {stamp}");
        }
        // Nor does the leader's own clock go further than time does.
        let year_2106 = 4_300_000_000_000;
        let stamp = propose(NOW, year_2106, &[0], HOUR_MS);
        assert!(stamp <= NOW + HOUR_MS, "{stamp}");
    }
}
