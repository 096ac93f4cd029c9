//! Time in the world: tokio's, which stands still until everything waits and
//! then jumps to what is waited for first. Each host adds what its own wall
//! clock believes, and the times at which the whole host stands still.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By how much the wall clock has jumped, in milliseconds.
    jumped_ms: i64,
    /// By how much it gains in a million.
    drift_ppm: i64,
    /// Until when the host stands still.
    still_until: Option<Instant>,
    /// Since when its monotonic clock stands still too, as in a suspend.
    asleep_since: Option<Instant>,
    /// How long it slept, all times before that together.
    slept: Duration,
}

impl SimClock {
    /// A clock that starts now, and believes it is `wall_start_ms`
    /// milliseconds since 1970.
    pub fn new(wall_start_ms: u64) -> Self {
        Self {
            start: now(),
            wall_start_ms,
            state: Mutex::default(),
        }
    }

    /// Makes the wall clock jump by so many milliseconds, either way.
    pub fn jump(&self, by_ms: i64) {
        let mut state = self.lock();
        state.jumped_ms = state.jumped_ms.saturating_add(by_ms);
    }

    /// Makes the wall clock right again, but for so many milliseconds by which
    /// all clocks were moved on.
    pub fn set_right(&self, moved_ms: i64) {
        let mut state = self.lock();
        (state.jumped_ms, state.drift_ppm) = (moved_ms, 0);
    }

    /// Makes the wall clock gain so many parts of a million from the start on,
    /// or lose them.
    pub fn drift(&self, ppm: i64) {
        self.lock().drift_ppm = ppm;
    }

    /// Has the host stand still until then; its monotonic clock too when it is
    /// `asleep`.
    pub fn still(&self, until: Instant, asleep: bool) {
        let mut state = self.lock();
        state.wake(now());
        state.still_until = Some(until);
        state.asleep_since = asleep.then(now);
    }

    /// Whether the host stands still.
    pub fn is_still(&self) -> bool {
        self.lock().still_until.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.still_until.is_some_and(|until| until <= now()) {
            let until = state.still_until.take();
            state.wake(until.unwrap_or_else(now));
        }
        state
    }
}

impl State {
    fn wake(&mut self, at: Instant) {
        if let Some(since) = self.asleep_since.take() {
            self.slept += at.saturating_duration_since(since);
        }
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Mono {
        let state = self.lock();
        let here = state.asleep_since.unwrap_or_else(now);
        (here - self.start).saturating_sub(state.slept)
    }

    fn wall_ms(&self) -> u64 {
        let since = u64::try_from((now() - self.start).as_millis()).unwrap_or(u64::MAX);
        let state = self.lock();
        let gained = i64::try_from(since).unwrap_or(i64::MAX) / 1000 * state.drift_ppm / 1000;
        self.wall_start_ms
            .saturating_add(since)
            .saturating_add_signed(gained)
            .saturating_add_signed(state.jumped_ms)
    }

    async fn sleep(&self, duration: Duration) {
        let deadline = self.now() + duration;
        loop {
            let still = self.lock().still_until;
            let left = deadline.saturating_sub(self.now());
            match still {
                Some(until) => tokio::time::sleep_until(until).await,
                None if left.is_zero() => return,
                None => tokio::time::sleep(left).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_pause_delays_what_waits_and_a_suspend_stops_its_time_as_well() {
        for (asleep, waited, own) in [(false, 10, 10), (true, 13, 5)] {
            let clock = SimClock::new(0);
            let begin = now();
            let (sleeping, _) = tokio::join!(clock.sleep(5 * SECOND), async {
                tokio::time::sleep(2 * SECOND).await;
                clock.still(now() + 8 * SECOND, asleep);
                tokio::time::sleep(SECOND).await;
                assert_eq!(clock.now(), if asleep { 2 } else { 3 } * SECOND);
            });
            let () = sleeping;
            assert_eq!(now() - begin, waited * SECOND);
            assert_eq!(clock.now(), own * SECOND);
            assert_eq!(clock.wall_ms(), u64::from(waited) * 1000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_jumps_and_drifts() {
        let clock = SimClock::new(1_000_000);
        clock.jump(-400_000);
        clock.drift(-500);
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(clock.wall_ms(), 1_000_000 - 400_000 + 100_000 - 50);
    }
}
