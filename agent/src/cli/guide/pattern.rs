//! Command lines as they may be mistyped. In a pattern, words in lower case and
//! options stand for themselves; a word in capitals takes one word of its kind,
//! with dots behind it all that follow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use innermesh_proto::{admission::Code, zone::RecordType};
use ipnet::IpNet;

use crate::host::duration::Span;

/// What the words in capitals took.
pub type Taken<'a> = Vec<(&'a str, Vec<String>)>;

/// What `words` have where the pattern has words in capitals; `None` where they
/// aren't such a line.
pub fn matched<'a>(pattern: &'a str, words: &[String]) -> Option<Taken<'a>> {
    let mut taken = Taken::new();
    let mut rest = words;
    for part in pattern.split(' ') {
        let (first, after) = rest.split_first()?;
        match (kind(part), part.strip_suffix("...")) {
            (None, _) if part == first.as_str() => rest = after,
            (None, _) => return None,
            (Some(_), Some(name)) => {
                taken.push((name, rest.to_vec()));
                return Some(taken);
            }
            (Some(kind), None) => {
                let fits = kind.takes(first);
                taken.push((part, vec![first.clone()]));
                rest = fits.then_some(after)?;
            }
        }
    }
    rest.is_empty().then_some(taken)
}

/// A line with what was taken in place of the words in capitals.
pub fn filled(template: &str, taken: &Taken<'_>) -> String {
    let words = template.split(' ').map(|part| {
        let name = part.strip_suffix("...").unwrap_or(part);
        match taken.iter().find(|(taken, _)| *taken == name) {
            Some((_, words)) => words
                .iter()
                .map(|word| quoted(word))
                .collect::<Vec<_>>()
                .join(" "),
            None => part.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What a word in capitals takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any word that is no option.
    Word,
    RecordType,
    Role,
    Ipv4,
    Ipv6,
    /// An address, with a port or without.
    Address,
    Number,
    /// A length of time with its unit.
    Time,
    Token,
    Code,
    /// The beginning of a serial number.
    Hex,
    /// A name with a dot in it.
    Domain,
    Shell,
    /// A network with its length.
    Net,
}

/// The kind of a pattern's word; `None` for one that stands for itself.
pub fn kind(part: &str) -> Option<Kind> {
    let name = part.strip_suffix("...").unwrap_or(part);
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    {
        return None;
    }
    Some(match name {
        "TYPE" => Kind::RecordType,
        "ROLE" => Kind::Role,
        "IPV4" => Kind::Ipv4,
        "IPV6" => Kind::Ipv6,
        "ADDRESS" => Kind::Address,
        "PORT" | "NUMBER" => Kind::Number,
        "TIME" => Kind::Time,
        "TOKEN" => Kind::Token,
        "CODE" => Kind::Code,
        "HEX" => Kind::Hex,
        "DOMAIN" => Kind::Domain,
        "SHELL" => Kind::Shell,
        "NET" => Kind::Net,
        _ => Kind::Word,
    })
}

impl Kind {
    fn takes(self, word: &str) -> bool {
        match self {
            Self::Word => !word.starts_with('-'),
            Self::RecordType => word.parse::<RecordType>().is_ok(),
            Self::Shell => ["bash", "elvish", "fish", "powershell", "zsh"].contains(&word),
            Self::Role => ["admin", "ca", "gateway", "exit", "relay", "sinkhole"].contains(&word),
            Self::Ipv4 => word.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => word.parse::<Ipv6Addr>().is_ok(),
            Self::Address => word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok(),
            Self::Number => word.parse::<u16>().is_ok(),
            Self::Net => word.parse::<IpNet>().is_ok(),
            Self::Time => word.parse::<Span>().is_ok() && word.parse::<u64>().is_err(),
            Self::Token => word.starts_with("imt1"),
            Self::Code => word.parse::<Code>().is_ok(),
            Self::Hex => {
                (8..=32).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            Self::Domain => {
                word.contains('.') && !word.starts_with('-') && !Self::Address.takes(word)
            }
        }
    }

    /// One that it takes.
    #[cfg(test)]
    pub fn sample(self) -> &'static str {
        match self {
            Self::Word => "beta",
            Self::RecordType => "TXT",
            Self::Role => "admin",
            Self::Ipv4 => "192.0.2.9",
            Self::Ipv6 => "2001:db8::9",
            Self::Address => "192.0.2.1:51819",
            Self::Number => "5",
            Self::Time => "30s",
            Self::Token => "imt1abcd",
            Self::Code => "abcd-efgh-ijkm",
            Self::Hex => "0a1b2c3d",
            Self::Domain => "photos.in.example.org",
            Self::Shell => "zsh",
            Self::Net => "192.168.1.0/24",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    #[test]
    fn words_in_capitals_take_what_is_of_their_kind() {
        let right = |pattern, template, line: &str| {
            matched(pattern, &words(line)).map(|taken| filled(template, &taken))
        };
        let swapped = |line| {
            right(
                "record add TYPE NAME VALUE...",
                "record add NAME TYPE VALUE...",
                line,
            )
        };
        assert_eq!(
            swapped("record add TXT tv two words;").as_deref(),
            Some("record add tv TXT two 'words;'")
        );
        assert_eq!(swapped("record add tv TXT word"), None);
        assert_eq!(swapped("record add TXT tv"), None);
        assert_eq!(swapped("record"), None);
        assert_eq!(right("up", "status", "up"), Some("status".into()));
        assert_eq!(right("up", "status", "up now"), None);
        assert_eq!(right("evict NODE", "x", "evict --all"), None);
    }

    #[test]
    fn a_kind_takes_its_sample() {
        for name in [
            "NODE", "TYPE", "ROLE", "IPV4", "IPV6", "ADDRESS", "PORT", "TIME", "TOKEN", "CODE",
            "HEX", "DOMAIN",
        ] {
            let kind = kind(name).unwrap();
            assert!(kind.takes(kind.sample()), "{name}");
        }
        for word in ["rm", "-d", "--force", "root-key"] {
            assert_eq!(kind(word), None, "{word}");
        }
    }

    #[test]
    fn what_a_shell_would_change_is_quoted() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("web-*"), "'web-*'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("tv.in.example.org"), "tv.in.example.org");
    }
}
