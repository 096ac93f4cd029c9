//! Text of a master file: words, quotes and escapes (RFC 1035 §5.1).

use std::fmt;

/// What stands between spaces, or within quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says, escapes resolved.
    pub octets: Vec<u8>,
    /// Whether it began with a quote.
    pub is_quoted: bool,
}

impl Word {
    /// As text; none where it is no UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.octets).ok()
    }
}

/// The words of a text; none where a quote has no end or an escape is none. A
/// quote within a word has spaces belong to it, as in `key="two words"`.
pub fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.first() else {
            return Some(words);
        };
        let is_quoted = *first == b'"';
        let mut octets = Vec::new();
        let mut is_within = false;
        while let Some((byte, after)) = rest.split_first() {
            match byte {
                b'"' => {
                    is_within = !is_within;
                    rest = after;
                    if is_quoted && !is_within {
                        break;
                    }
                }
                b'\\' => {
                    let (octet, after) = escape(after)?;
                    octets.push(octet);
                    rest = after;
                }
                space if space.is_ascii_whitespace() && !is_within => break,
                _ => {
                    octets.push(*byte);
                    rest = after;
                }
            }
        }
        if is_within {
            return None;
        }
        words.push(Word { octets, is_quoted });
    }
}

/// What follows a backslash: the octet that it stands for, and the rest.
pub(super) fn escape(after: &[u8]) -> Option<(u8, &[u8])> {
    let (first, rest) = after.split_first()?;
    if !first.is_ascii_digit() {
        return Some((*first, rest));
    }
    let (digits, rest) = after.split_first_chunk::<3>()?;
    let number = std::str::from_utf8(digits).ok()?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    Some((number.parse().ok().filter(|_| is_number)?, rest))
}

/// A character string within quotes.
pub(super) struct Quoted<'s>(pub &'s [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\{byte:03}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Vec<Vec<u8>>> {
        let words = words(text)?.into_iter();
        Some(words.map(|word| word.octets).collect())
    }

    #[test]
    fn words_are_those_of_a_zone_file() {
        let is = |text: &str, expected: &[&[u8]]| {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        };
        is("", &[]);
        is(" one  two ", &[b"one", b"two"]);
        is("\"one two\" three", &[b"one two", b"three"]);
        is("\"one\"\"two\"", &[b"one", b"two"]);
        is("\"\"", &[b""]);
        is(r#""a \"b\" \\c" d\ e"#, &[b"a \"b\" \\c", b"d e"]);
        is(r"\195\188 \065", &["ü".as_bytes(), b"A"]);
        is("ü", &["ü".as_bytes()]);
        is("k=\"a b\" c", &[b"k=a b", b"c"]);
        for bad in ["\"open", "a\\", r"\256", r"\1", r"\12x", "k=\"a"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let quoted: Vec<bool> = words("\"a\" b")
            .unwrap()
            .iter()
            .map(|w| w.is_quoted)
            .collect();
        assert_eq!(quoted, [true, false]);
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_is_read_back(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = format!("\"{}\"", Quoted(&octets));
            prop_assert_eq!(read(&text), Some(vec![octets]));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = words(&text);
        }
    }
}
