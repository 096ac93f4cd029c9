//! Moments as scripts and people read them: RFC 3339, in UTC, to the second.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime};

/// Milliseconds since 1970. Written as `2026-11-22T18:00:00Z`, without the
/// fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnixTime(u64);

/// The end of the year 9999, beyond which RFC 3339 has no way to write a date.
const LATEST_MS: u64 = 253_402_300_799_000;
const DAY_S: u64 = 24 * 3600;

impl UnixTime {
    /// From milliseconds since 1970; years after 9999 become the last moment of 9999.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.min(LATEST_MS))
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0
    }

    /// Whole days from `now` until then; negative when it is past.
    pub fn days_from(self, now: Self) -> i64 {
        let ms = self.0 as i64 - now.0 as i64;
        ms.div_euclid(DAY_S as i64 * 1000)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = PrimitiveDateTime::MAX.assume_utc();
        let at = OffsetDateTime::from_unix_timestamp((self.0 / 1000) as i64).unwrap_or(last);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.to_hms();
        let month = u8::from(month);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Not a moment as this module writes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-11-22T18:00:00Z")]
pub struct TimeError;

impl FromStr for UnixTime {
    type Err = TimeError;

    fn from_str(s: &str) -> Result<Self, TimeError> {
        let b = s.as_bytes();
        let fits = b.len() == 20
            && [
                (4, b'-'),
                (7, b'-'),
                (10, b'T'),
                (13, b':'),
                (16, b':'),
                (19, b'Z'),
            ]
            .iter()
            .all(|(at, c)| b.get(*at) == Some(c));
        if !fits {
            return Err(TimeError);
        }
        let number = |from: usize, to: usize| -> Result<u16, TimeError> {
            let digits = s.get(from..to).ok_or(TimeError)?;
            if !digits.bytes().all(|c| c.is_ascii_digit()) {
                return Err(TimeError);
            }
            digits.parse().map_err(|_| TimeError)
        };
        let pair = |from| number(from, from + 2).map(|number| number as u8);
        let month = Month::try_from(pair(5)?).map_err(|_| TimeError)?;
        let date = Date::from_calendar_date(number(0, 4)?.into(), month, pair(8)?);
        let at = date
            .map_err(|_| TimeError)?
            .with_hms(pair(11)?, pair(14)?, pair(17)?)
            .map_err(|_| TimeError)?;
        let seconds = at.assume_utc().unix_timestamp();
        let seconds = u64::try_from(seconds).map_err(|_| TimeError)?;
        Ok(Self(seconds * 1000))
    }
}

impl TryFrom<String> for UnixTime {
    type Error = TimeError;
    fn try_from(s: String) -> Result<Self, TimeError> {
        s.parse()
    }
}

impl From<UnixTime> for String {
    fn from(time: UnixTime) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written_as_rfc_3339_has_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_999, "2000-02-29T00:00:00Z"),
            (1_763_834_400_000, "2025-11-22T18:00:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(UnixTime::from_ms(ms).to_string(), text);
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in [
            "",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:00+",
            "1969-12-31T23:59:59Z",
            "2025-+1-01T00:00:00Z",
            "ü025-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<UnixTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_counted_from_now_and_go_below_zero() {
        let at = |days: u64| UnixTime::from_ms(days * DAY_S * 1000);
        assert_eq!(at(12).days_from(at(10)), 2);
        assert_eq!(
            at(10).days_from(UnixTime::from_ms(10 * DAY_S * 1000 + 1)),
            -1
        );
    }

    proptest! {
        #[test]
        fn every_second_survives_being_written(seconds in 0..LATEST_MS / 1000) {
            let time = UnixTime::from_ms(seconds * 1000);
            prop_assert_eq!(time.to_string().parse::<UnixTime>(), Ok(time));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,24}") {
            let _ = text.parse::<UnixTime>();
        }
    }
}
