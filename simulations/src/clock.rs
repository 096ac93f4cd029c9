//! Time in the world: tokio's, which stands still until everything waits and
//! then jumps to what is waited for first. Each host adds what its own wall
//! clock believes.

use std::time::Duration;

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
}

impl SimClock {
    /// A clock that starts now, and believes it is `wall_start_ms`
    /// milliseconds since 1970.
    pub fn new(wall_start_ms: u64) -> Self {
        Self {
            start: now(),
            wall_start_ms,
        }
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Mono {
        now() - self.start
    }

    fn wall_ms(&self) -> u64 {
        let since = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        self.wall_start_ms.saturating_add(since)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
