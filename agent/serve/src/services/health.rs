//! Whether a service counts as healthy, from the results of its checks: pure.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt::Display;

/// Failures in a row after which a service counts as unhealthy: one lost probe
/// on a busy machine shouldn't move clients away.
const FAILURES: u32 = 2;
/// Longest error that is kept, in characters.
const ERROR_CHARS: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    healthy: bool,
    decided: bool,
    failures: u32,
    last_error: Option<String>,
    since_ms: u64,
}

impl Health {
    /// Before the first result: healthy without a check, and otherwise not,
    /// so that no client is sent to what may not have started yet.
    pub fn new(has_check: bool, now_ms: u64) -> Self {
        Self {
            healthy: !has_check,
            decided: false,
            failures: 0,
            last_error: None,
            since_ms: now_ms,
        }
    }

    /// Takes the result of one check. The first decides at once; later
    /// [`FAILURES`] in a row make it unhealthy, and one success healthy.
    /// `now_ms` is in milliseconds since 1970.
    pub fn take(&mut self, result: Result<(), impl Display>, now_ms: u64) {
        let healthy = match result {
            Ok(()) => {
                self.failures = 0;
                self.last_error = None;
                true
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.last_error = Some(error.to_string().chars().take(ERROR_CHARS).collect());
                self.decided && self.healthy && self.failures < FAILURES
            }
        };
        if healthy != self.healthy || !self.decided {
            self.since_ms = now_ms;
        }
        self.healthy = healthy;
        self.decided = true;
    }

    /// Takes what somebody else decided who has seen several results already.
    pub fn set(&mut self, result: Result<(), impl Display>, now_ms: u64) {
        self.failures = FAILURES;
        self.take(result, now_ms);
    }

    /// Whether it counts as healthy.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Why the last check failed, if it did.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Since when it is so, in milliseconds since 1970.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(results: &[bool]) -> Health {
        let mut health = Health::new(true, 0);
        for (at, good) in results.iter().enumerate() {
            let result = if *good {
                Ok(())
            } else {
                Err(format!("failure {at}"))
            };
            health.take(result, at as u64 + 1);
        }
        health
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert!(!after(&[]).is_healthy());
        assert!(after(&[true]).is_healthy());
        assert!(!after(&[false]).is_healthy());
        assert!(Health::new(false, 0).is_healthy());
    }

    #[test]
    fn two_failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        assert!(after(&[true, false]).is_healthy());
        assert!(!after(&[true, false, false]).is_healthy());
        assert!(after(&[true, false, true, false]).is_healthy());
        assert!(after(&[false, false, false, true]).is_healthy());
        assert!(after(&[false, true, false]).is_healthy());
    }

    #[test]
    fn the_last_error_is_told_also_while_it_still_counts_as_healthy() {
        assert_eq!(after(&[true, false]).last_error(), Some("failure 1"));
        assert_eq!(after(&[true, false, true]).last_error(), None);
        let mut health = Health::new(true, 0);
        health.take(Err("é".repeat(1000)), 1);
        assert_eq!(health.last_error().unwrap().chars().count(), ERROR_CHARS);
    }

    #[test]
    fn what_was_decided_elsewhere_counts_at_once() {
        let mut health = after(&[true]);
        health.set(Err("Docker says so"), 9);
        assert!(!health.is_healthy());
        assert_eq!(
            (health.last_error(), health.since_ms()),
            (Some("Docker says so"), 9)
        );
        health.set(Ok::<(), &str>(()), 10);
        assert!(health.is_healthy());
        assert_eq!((health.last_error(), health.since_ms()), (None, 10));
    }

    #[test]
    fn since_tells_when_its_health_last_changed() {
        assert_eq!(after(&[true, true, true]).since_ms(), 1);
        assert_eq!(after(&[true, false, false, false]).since_ms(), 3);
        assert_eq!(after(&[false, true]).since_ms(), 2);
    }
}
