//! Time.

use std::{future::Future, time::Duration};

use async_trait::async_trait;

/// Monotonic time: since some moment before the agent's start.
pub type Mono = Duration;

/// Time. Monotonic time drives every timeout; wall time is for people, for
/// stamps that a roster proposes, and to trigger renewals.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Mono;
    /// Milliseconds since 1970, as this host believes; it may be wrong and may jump.
    fn wall_ms(&self) -> u64;
    /// Waits; cancelling the future cancels the wait.
    async fn sleep(&self, duration: Duration);
}

/// How long it is until the next of the moments that lie `period` apart. What is looked
/// at again and again, whenever it is, is looked at then: a host that wakes for one does
/// the others too.
pub fn until_next(period: Duration, now: Mono) -> Duration {
    let into = now.as_nanos() % period.as_nanos().max(1);
    period.saturating_sub(Duration::from_nanos(
        u64::try_from(into).unwrap_or_default(),
    ))
}

/// What `work` gives, or `None` when it takes longer than `limit` by the
/// host's clock; it is then dropped.
pub async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(limit) => None,
    }
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
