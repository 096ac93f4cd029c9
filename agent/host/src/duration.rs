//! Lengths of time as people type them: `30s`, `1h`, `90d`, `1h30m`.

use std::{fmt, str::FromStr, time::Duration};

/// A length of time in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub u64);

/// Unit letters and their seconds, longest first.
const UNITS: [(char, u64); 5] = [
    ('w', 7 * 24 * 3600),
    ('d', 24 * 3600),
    ('h', 3600),
    ('m', 60),
    ('s', 1),
];

/// Not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a length of time such as 30s, 15m, 1h, 7d or 1h30m")]
pub struct SpanError(String);

impl Span {
    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    /// Units come from the longest to the shortest, each at most once; a
    /// number alone is seconds. Nothing is no length of time.
    fn from_str(s: &str) -> Result<Self, SpanError> {
        let error = || SpanError(s.chars().take(40).collect());
        if let Ok(seconds) = digits(s) {
            return Ok(Self(seconds));
        }
        let mut total = 0u64;
        let mut allowed = UNITS.as_slice();
        let mut rest = s;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let (number, after) = rest.split_at(end);
            let letter = after.chars().next().ok_or_else(error)?;
            let at = allowed
                .iter()
                .position(|(unit, _)| *unit == letter)
                .ok_or_else(error)?;
            let (_, seconds) = allowed.get(at).copied().ok_or_else(error)?;
            total = digits(number)
                .ok()
                .and_then(|n| n.checked_mul(seconds))
                .and_then(|n| total.checked_add(n))
                .ok_or_else(error)?;
            allowed = allowed.get(at + 1..).unwrap_or_default();
            rest = after.get(1..).unwrap_or_default();
        }
        match s {
            "" => Err(error()),
            _ => Ok(Self(total)),
        }
    }
}

fn digits(s: &str) -> Result<u64, ()> {
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
        return Err(());
    }
    s.parse().map_err(|_| ())
}

impl fmt::Display for Span {
    /// The two largest units, such as `3d4h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut written = 0;
        for (unit, seconds) in &UNITS[1..] {
            let count = rest / seconds;
            rest %= seconds;
            if count > 0 && written < 2 {
                write!(f, "{count}{unit}")?;
            }
            written += usize::from(count > 0 || written > 0);
        }
        if written == 0 {
            f.write_str("0s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_type_them() {
        for (text, seconds) in [
            ("30s", 30),
            ("15m", 900),
            ("1h", 3600),
            ("90d", 90 * 86_400),
            ("2w", 14 * 86_400),
            ("1h30m", 5400),
            ("1d1s", 86_401),
            ("0s", 0),
            ("45", 45),
        ] {
            assert_eq!(text.parse(), Ok(Span(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in [
            "",
            "s",
            "h1",
            "1x",
            "1h1h",
            "1m1h",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1ü",
            "99999999999999999999",
            "999999999999999999w",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_units_are_enough_for_a_person() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3661, "1h1m"),
            (86_400 + 61, "1d"),
            (90 * 86_400, "90d"),
        ] {
            assert_eq!(Span(seconds).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9wdhms\u{e9}.+-]{0,24}") {
            let _ = text.parse::<Span>();
        }
    }
}
