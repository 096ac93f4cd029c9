//! Time in the world: tokio's, which stands still until everything waits and
//! then jumps to what is waited for first. Each host adds what its own wall
//! clock believes.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::host::{Clock, Mono};
use tokio::time::Instant;

/// This moment of the world.
#[allow(
    clippy::disallowed_methods,
    reason = "the one reading of the clock that every simulated host shares"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// One host's clock.
pub struct SimClock {
    start: Instant,
    wall_start_ms: u64,
    /// By how much the wall clock has jumped, in milliseconds.
    jumped_ms: AtomicI64,
}

impl SimClock {
    /// A clock that starts now, and believes it is `wall_start_ms`
    /// milliseconds since 1970.
    pub fn new(wall_start_ms: u64) -> Self {
        Self {
            start: now(),
            wall_start_ms,
            jumped_ms: AtomicI64::new(0),
        }
    }

    /// Makes the wall clock jump by so many milliseconds, either way.
    pub fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Mono {
        now() - self.start
    }

    fn wall_ms(&self) -> u64 {
        let since = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        let jumped = self.jumped_ms.load(Ordering::Relaxed);
        self.wall_start_ms
            .saturating_add(since)
            .saturating_add_signed(jumped)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
