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
