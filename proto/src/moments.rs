//! Moments at which what is looked at again and again is looked at together.

use std::time::Duration;

/// How long it is until the next of the moments that lie `period` apart. What is looked
/// at now and then, whenever it is, is looked at then: a host that wakes for one does
/// the others too.
pub fn until_next(period: Duration, now: Duration) -> Duration {
    let into = now.as_nanos() % period.as_nanos().max(1);
    period.saturating_sub(Duration::from_nanos(
        u64::try_from(into).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_every_quarter_and_every_half_of_a_second_is_done_together() {
        let ms = Duration::from_millis;
        for now in [0, 1, 249, 250, 251, 499, 500, 86_400_137].map(ms) {
            for period in [ms(250), ms(500), ms(1000)] {
                let wait = until_next(period, now);
                assert!(wait > Duration::ZERO && wait <= period, "{wait:?}");
                let then = (now + wait).as_millis();
                assert_eq!(then % period.as_millis(), 0, "{then} after {now:?}");
            }
        }
        assert_eq!(until_next(Duration::ZERO, ms(7)), Duration::ZERO);
    }
}
