//! Serial numbers of zones (RFC 1982).

/// How far ahead of the own clock a serial may be that another node announced, in
/// seconds: 30 days. No member can push the next one any further, however often
/// it announces.
const BELIEVED_AHEAD_S: u32 = 30 * 24 * 3600;
const HALF: u32 = 1 << 31;

/// Whether `serial` is later than `other`.
pub fn is_later(serial: u32, other: u32) -> bool {
    (1..HALF).contains(&serial.wrapping_sub(other))
}

/// The serial after `last`: the time where that is later, else the number after the
/// latest of `last` and those of `announced` that are believed. `now_s` is in
/// seconds since 1970.
pub fn next_serial(last: Option<u32>, announced: impl IntoIterator<Item = u32>, now_s: u64) -> u32 {
    let now = (now_s & u64::from(u32::MAX)) as u32;
    let believed = announced
        .into_iter()
        .filter(|serial| serial.wrapping_sub(now) <= BELIEVED_AHEAD_S);
    let latest = last.into_iter().chain(believed).reduce(|latest, serial| {
        if is_later(serial, latest) {
            serial
        } else {
            latest
        }
    });
    match latest {
        Some(latest) if !is_later(now, latest) => latest.wrapping_add(1),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_790_000_000;

    #[test]
    fn serials_are_compared_around_the_end_of_their_space() {
        for (later, earlier) in [
            (1, 0),
            (44, 0),
            (100, 44),
            (200, 100),
            (0, u32::MAX),
            (5, u32::MAX - 7),
            (HALF, 1),
        ] {
            assert!(is_later(later, earlier), "{later} {earlier}");
            assert!(!is_later(earlier, later), "{later} {earlier}");
        }
        assert!(!is_later(7, 7));
        // Half a space apart neither is later (RFC 1982 §3.2).
        assert!(!is_later(HALF, 0) && !is_later(0, HALF));
    }

    #[test]
    fn a_serial_follows_the_clock_and_never_goes_back() {
        let next = |last, now| next_serial(last, [], u64::from(now));
        assert_eq!(next(None, NOW), NOW);
        assert_eq!(next(Some(NOW - 5), NOW), NOW);
        assert_eq!(next(Some(NOW), NOW), NOW + 1);
        assert_eq!(next(Some(NOW + 9), NOW), NOW + 10);
        // A clock that went back, and one at the end of the space.
        assert_eq!(next(Some(NOW), 0), NOW + 1);
        assert_eq!(next(Some(u32::MAX), u32::MAX), 0);
        assert_eq!(next_serial(Some(u32::MAX), [], (1 << 32) + 4), 4);
    }

    #[test]
    fn what_another_node_announced_counts_as_far_as_the_clock_allows() {
        let next =
            |last, announced: &[u32]| next_serial(last, announced.iter().copied(), u64::from(NOW));
        let ahead = NOW + BELIEVED_AHEAD_S;
        assert_eq!(next(None, &[NOW + 7, NOW + 3]), NOW + 8);
        assert_eq!(next(Some(NOW + 7), &[NOW + 3]), NOW + 8);
        assert_eq!(next(Some(NOW), &[ahead]), ahead + 1);
        // A member can't push the serial on, and on again.
        assert_eq!(next(Some(NOW), &[ahead + 1]), NOW + 1);
        assert_eq!(next(Some(NOW), &[NOW + HALF - 1, NOW - 9]), NOW + 1);
        assert_eq!(next(Some(ahead + 1), &[ahead + 2]), ahead + 2);
        assert_eq!(next(None, &[ahead + 2]), NOW);
    }
}
