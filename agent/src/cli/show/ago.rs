//! Times as seen from now: one unit, rounded down.

use std::time::SystemTime;

use crate::host::UnixTime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A length of time in its largest unit; hours up to two days, so that "1d" is
/// never almost two.
fn length(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR.. if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ => format!("{}d", seconds / DAY),
    }
}

/// By this machine's clock.
pub fn now() -> UnixTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::from_ms(now.map_or(0, |now| now.as_millis() as u64))
}

/// How long ago something was, in seconds.
pub fn ago(seconds: u64) -> String {
    format!("{} ago", length(seconds))
}

/// When something is, or was.
pub fn until(now: UnixTime, at: UnixTime) -> String {
    let seconds = at.ms().abs_diff(now.ms()) / 1000;
    if at >= now {
        format!("in {}", length(seconds))
    } else {
        ago(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_largest_unit_before_and_after_now() {
        for (seconds, told) in [
            (0, "0s ago"),
            (59, "59s ago"),
            (60, "1m ago"),
            (3599, "59m ago"),
            (3600, "1h ago"),
            (2 * 86_400 - 1, "47h ago"),
            (2 * 86_400, "2d ago"),
            (90 * 86_400, "90d ago"),
        ] {
            assert_eq!(ago(seconds), told);
        }
        let at = |s: u64| UnixTime::from_ms(s * 1000);
        assert_eq!(until(at(10), at(10 + 7 * 86_400)), "in 7d");
        assert_eq!(until(at(130), at(10)), "2m ago");
        assert_eq!(until(at(0), at(u64::MAX / 2000)), "in 2932896d");
    }
}
