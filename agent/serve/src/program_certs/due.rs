//! When a certificate is due: pure, from wall times in milliseconds since
//! 1970, and from a number that each renewal draws once, so that a mesh
//! doesn't renew all at once.

#![allow(missing_docs, reason = "the names say it")]

use std::time::Duration;

/// After a renewal that failed, the first pause and the longest; each is twice
/// the one before.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// Within which certificates are renewed whose issuer was revoked, or is about
/// to be, in milliseconds: nobody trusts them any more.
const REVOKED_SPREAD_MS: u64 = 5 * 60 * 1000;
/// Within which those are whose issuer has a successor. They are good until
/// their own end.
const REPLACED_SPREAD_MS: u64 = 3 * 24 * 3600 * 1000;

/// The life of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub begin_ms: u64,
    pub end_ms: u64,
}

/// What has become of the issuer of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerState {
    InForce,
    /// The same node signs with a successor since then.
    Replaced {
        /// When the successor began.
        since_ms: u64,
    },
    /// It was revoked, or is about to be.
    Revoked {
        /// When that was noticed.
        since_ms: u64,
    },
}

/// When the next certificate is due: at two thirds of the life, or
/// `before_ms` before its end, and up to a thirtieth of the life later by
/// `jitter`; earlier when its issuer goes.
pub fn due_ms(life: Life, before_ms: Option<u64>, issuer: IssuerState, jitter: u16) -> u64 {
    let long = life.end_ms.saturating_sub(life.begin_ms);
    let (from, spread_ms) = match before_ms {
        Some(before_ms) => (life.end_ms.saturating_sub(before_ms), before_ms / 10),
        None => (life.begin_ms.saturating_add(long / 3 * 2), long / 30),
    };
    let by_time = from.saturating_add(part(spread_ms.min(long / 30), jitter));
    let by_issuer = match issuer {
        IssuerState::InForce => return by_time,
        IssuerState::Replaced { since_ms } => {
            since_ms.saturating_add(part(REPLACED_SPREAD_MS, jitter))
        }
        IssuerState::Revoked { since_ms } => {
            since_ms.saturating_add(part(REVOKED_SPREAD_MS, jitter))
        }
    };
    by_time.min(by_issuer)
}

/// How long to wait after so many failures in a row.
pub fn pause(failures: u32, jitter: u16) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
    pause + pause / 4 * u32::from(jitter) / u32::from(u16::MAX)
}

/// A part of `span`, as `jitter` has it.
fn part(span: u64, jitter: u16) -> u64 {
    span / u64::from(u16::MAX) * u64::from(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const LIFE: Life = Life {
        begin_ms: 100 * DAY,
        end_ms: 190 * DAY,
    };

    #[test]
    fn it_is_due_at_two_thirds_or_as_somebody_wishes_and_never_all_at_once() {
        let due = |before, jitter| due_ms(LIFE, before, IssuerState::InForce, jitter);
        assert_eq!(due(None, 0), 160 * DAY);
        let last = due(None, u16::MAX);
        assert!((162 * DAY..=163 * DAY).contains(&last), "{last}");
        assert!((160 * DAY..last).contains(&due(None, 30_000)));
        assert_eq!(due(Some(10 * DAY), 0), 180 * DAY);
        let last = due(Some(10 * DAY), u16::MAX);
        assert!((180 * DAY..=181 * DAY).contains(&last), "{last}");
    }

    #[test]
    fn it_is_due_earlier_when_its_issuer_goes_and_never_later() {
        let due = |issuer, jitter| due_ms(LIFE, None, issuer, jitter);
        let revoked = IssuerState::Revoked {
            since_ms: 120 * DAY,
        };
        assert_eq!(due(revoked, 0), 120 * DAY);
        let spread = due(revoked, u16::MAX) - 120 * DAY;
        assert!((HOUR / 15..=HOUR / 12).contains(&spread), "{spread}");
        let replaced = IssuerState::Replaced {
            since_ms: 120 * DAY,
        };
        assert!((122 * DAY..=123 * DAY).contains(&due(replaced, u16::MAX)));
        let late = IssuerState::Replaced {
            since_ms: 189 * DAY,
        };
        assert_eq!(due(late, 0), 160 * DAY);
    }

    #[test]
    fn pauses_grow_and_do_not_grow_for_ever() {
        let pauses: Vec<u64> = (1..14).map(|n| pause(n, 0).as_secs()).collect();
        assert_eq!(pauses[..4], [10, 20, 40, 80]);
        assert_eq!(pauses.last(), Some(&3600));
        assert_eq!(pause(u32::MAX, u16::MAX), Duration::from_secs(4500));
    }

    #[test]
    fn no_dates_make_it_panic() {
        let odd = Life {
            begin_ms: u64::MAX,
            end_ms: 0,
        };
        for before in [None, Some(u64::MAX)] {
            let _ = due_ms(
                odd,
                before,
                IssuerState::Revoked { since_ms: u64::MAX },
                u16::MAX,
            );
        }
    }
}
