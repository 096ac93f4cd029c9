//! The serial of the zones' SOA. It never goes back (RFC 1982), also over a
//! restart and whatever the clock says: numbers are taken from a reserve that is
//! written down before any of it is used.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::host::Host;

/// The first number that was never reserved, as text.
const FILE: &str = "zone.serial";
/// How many numbers are reserved at a time. Mostly one is used in a second or more,
/// as they follow the clock.
const RESERVE: u64 = 3600;
/// A number must be less than this above another to count as later.
const HALF: u64 = 1 << 31;

/// Gives serials. Clones are the same.
#[derive(Clone)]
pub(crate) struct ZoneSerial(Arc<Inner>);

struct Inner {
    host: Host,
    state: Mutex<State>,
}

struct State {
    /// The last that was given, or the one before the first.
    last: u64,
    /// The first that is not reserved.
    end: u64,
    is_writing: bool,
}

impl ZoneSerial {
    /// Goes on after what this node gave before.
    pub async fn load(host: &Host) -> Self {
        let kept: Option<u64> = match host.disk.read(Path::new(FILE)).await {
            Ok(bytes) => bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()),
            Err(error) => {
                tracing::warn!(%error, "the last serial of the zone can't be read");
                None
            }
        };
        let first = match kept {
            Some(kept) => following(kept.saturating_sub(1), seconds(host)),
            None => seconds(host),
        };
        let serial = Self(Arc::new(Inner {
            host: host.clone(),
            state: Mutex::new(State {
                last: first.saturating_sub(1),
                end: first,
                is_writing: true,
            }),
        }));
        serial.reserve(first.saturating_add(RESERVE)).await;
        serial
    }

    /// A later one. Where none is reserved, as nothing can be written, it is the
    /// last once more.
    pub fn next(&self) -> u32 {
        let mut state = self.lock();
        let next = following(state.last, seconds(&self.0.host));
        state.last = next.min(state.end.saturating_sub(1)).max(state.last);
        if state.end.saturating_sub(next) < RESERVE / 2 && !state.is_writing {
            state.is_writing = true;
            let serial = self.clone();
            let end = next.saturating_add(RESERVE);
            self.0.host.tasks.spawn(async move {
                serial.reserve(end).await;
            });
        }
        (state.last & u64::from(u32::MAX)) as u32
    }

    /// The last that was given.
    pub fn last(&self) -> u32 {
        (self.lock().last & u64::from(u32::MAX)) as u32
    }

    /// Goes on after another serial that this node gave.
    pub fn raise(&self, given: u32) {
        let mut state = self.lock();
        let ahead = u64::from(given.wrapping_sub((state.last & u64::from(u32::MAX)) as u32));
        if ahead < HALF {
            state.last = state.last.saturating_add(ahead);
        }
    }

    async fn reserve(&self, end: u64) {
        let disk = &self.0.host.disk;
        let written = disk
            .replace(Path::new(FILE), end.to_string().as_bytes())
            .await;
        let mut state = self.lock();
        state.is_writing = false;
        match written {
            Ok(()) => state.end = end,
            Err(error) => tracing::warn!(%error, "the next serials of the zone can't be written"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time where that is later than the last number, else the number after it.
fn following(last: u64, now_s: u64) -> u64 {
    match now_s.checked_sub(last) {
        Some(1..HALF) => now_s,
        _ => last.saturating_add(1),
    }
}

fn seconds(host: &Host) -> u64 {
    host.clock.wall_ms() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_follows_the_clock_and_goes_on_where_that_goes_back() {
        assert_eq!(following(1_790_000_000, 1_790_000_005), 1_790_000_005);
        assert_eq!(following(1_790_000_000, 1_790_000_000), 1_790_000_001);
        assert_eq!(following(1_790_000_000, 0), 1_790_000_001);
        // As far ahead it would count as earlier.
        assert_eq!(
            following(1_790_000_000, 1_790_000_000 + HALF),
            1_790_000_001
        );
        assert_eq!(following(7, 1_790_000_000), 1_790_000_000);
    }
}
