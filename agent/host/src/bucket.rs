//! How much of something may be taken in a time: so much at once, and what comes
//! back in an hour.
//!
//! A bucket is a moment: until when what was taken out of it is paid off (the
//! generic cell rate algorithm, ITU-T I.371). It holds nothing else, so one that
//! is full again needs no place.

use std::time::Duration;

use crate::Mono;

/// One bucket: when all that was taken out is paid off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Since when it is full, or from when on.
    pub paid_at: Mono,
}

impl Bucket {
    /// How long until so much can be taken, of `most` at once.
    pub fn wait(self, amount: u64, most: u64, per_hour: u64, now: Mono) -> Duration {
        let then = self.paid_at.max(now) + time(amount.min(most), per_hour);
        then.saturating_sub(now + time(most, per_hour))
    }

    /// Takes it, whatever is left.
    pub fn take(&mut self, amount: u64, per_hour: u64, now: Mono) {
        self.paid_at = self.paid_at.max(now) + time(amount, per_hour);
    }
}

/// In which so much is paid off.
pub fn time(amount: u64, per_hour: u64) -> Duration {
    const HOUR_MICROS: u64 = 3600 * 1_000_000;
    Duration::from_micros(amount.saturating_mul(HOUR_MICROS) / per_hour.max(1))
}
