//! Times in sentences.

use std::fmt;

use time::{OffsetDateTime, PrimitiveDateTime};

/// A time as people in one place write it for people elsewhere.
pub(super) struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        let last = PrimitiveDateTime::MAX.assume_utc();
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(last);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.to_hms();
        let month = u8::from(month);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399_000, "2000-02-28 23:59:59Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_800_000_000_000, "2027-01-15 08:00:00Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(Utc(ms).to_string(), text);
        }
        assert!(!Utc(u64::MAX).to_string().is_empty());
    }
}
